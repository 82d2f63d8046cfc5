//! Whether `/dev/kvm` is there and may be opened.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

/// Where the device stands below a root.
const DEVICE: &str = "dev/kvm";

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// The device is not there.
    #[error(
        "/dev/kvm is absent: the kernel has no KVM, its vendor module (kvm_intel, kvm_amd) is not \
         loaded, or virtualization is off in the firmware; load the module, or use --accel tcg"
    )]
    Absent,
    /// The device may not be opened.
    #[error("/dev/kvm cannot be opened: {0}; join the group that owns it, or use --accel tcg")]
    Unopenable(io::Error),
}

/// Opens the device below `root` (`/` on a live system) for reading and
/// writing, as QEMU will.
pub fn access(root: &Path) -> Result<(), KvmError> {
    match OpenOptions::new()
        .read(true)
        .write(true)
        .open(root.join(DEVICE))
    {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KvmError::Absent),
        Err(error) => Err(KvmError::Unopenable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_device_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = access(root.path()).unwrap_err();
        assert!(matches!(error, KvmError::Absent));
        assert!(error.to_string().contains("--accel tcg"));
    }

    #[test]
    fn device_that_does_not_open_says_why() {
        let root = tempfile::tempdir().unwrap();
        // A folder in its place cannot be opened for writing, by root neither.
        std::fs::create_dir_all(root.path().join(DEVICE)).unwrap();
        let error = access(root.path()).unwrap_err();
        assert!(matches!(error, KvmError::Unopenable(_)));
    }
}
