//! Files in memory that nobody can change any more, whoever is handed them
//! (memfd_create(2), fcntl(2) "File sealing").

use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

/// What keeps a file as it is.
const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// An empty file in memory, which can be written to until it is sealed.
pub(crate) fn draft() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A host may want to be told that it is not to be executed (kernel document
    // userspace-api/mfd_noexec); before Linux 6.3 none knows the flag.
    let made = memfd_create("imgbuild", flags | MemfdFlags::NOEXEC_SEAL);
    let made = made.or_else(|_| memfd_create("imgbuild", flags));
    Ok(File::from(made?))
}

/// Keeps a draft as it is from now on.
pub(crate) fn seal(draft: &File) -> io::Result<()> {
    Ok(fcntl_add_seals(draft, SEALS)?)
}

/// Whether nobody can change this file any more.
pub(crate) fn is_sealed(file: &File) -> bool {
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_sealed_stays_as_it_is() {
        let mut file = draft().unwrap();
        file.write_all(b"first").unwrap();
        assert!(!is_sealed(&file));
        seal(&file).unwrap();
        assert!(is_sealed(&file));
        assert!(file.write_all(b"more").is_err());
        assert!(file.set_len(1).is_err());
        assert!(!is_sealed(&tempfile::tempfile().unwrap()));
    }
}
