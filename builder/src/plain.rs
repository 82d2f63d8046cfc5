//! Opens regular files only: whoever may write to a folder can put a pipe in the
//! place of a file, and a process that opens a pipe waits for ever.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Opens a file for reading.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_with(OpenOptions::new().read(true), path)
}

/// Opens a file as `options` say.
pub(crate) fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // A file does not heed it; a pipe or a device is not waited for.
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = match options.open(path) {
        // What nobody reads, or a socket (open(2)).
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => return Err(no_file()),
        other => other?,
    };
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(no_file())
    }
}

/// An open file opened once more, with a position and locks of its own, whatever
/// became of its path.
pub(crate) fn again(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// What is in a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_start(path, u64::MAX)
}

/// The first bytes of a file, `most` of them if it has so many.
pub(crate) fn read_start(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is in a file of text.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// What came of a call; nothing, if what it was for is not there.
pub(crate) fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// Makes a pipe that nobody has open.
    pub(crate) fn fifo(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    }

    #[test]
    fn only_files_are_opened_and_nothing_else_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "text").unwrap();
        symlink("file", at("link")).unwrap();
        for path in [at("file"), at("link")] {
            assert_eq!(read(&path).unwrap(), b"text");
            assert_eq!(read_to_string(&path).unwrap(), "text");
        }
        fifo(&at("fifo"));
        symlink("fifo", at("to-fifo")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for path in [
            at("fifo"),
            at("to-fifo"),
            at("socket"),
            folder.path().to_owned(),
            "/dev/null".into(),
        ] {
            let error = read(&path).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
        for path in [at("fifo"), at("socket")] {
            let mut options = OpenOptions::new();
            let error = open_with(options.append(true).create(true), &path).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
        let error = read(&at("nothing")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
