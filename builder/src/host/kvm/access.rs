//! Whether `/dev/kvm` is there and may be opened.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Access, Device, Remedy};
use crate::sample::source::Source;

/// Where the device stands below a root.
const DEVICE: &str = "dev/kvm";

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KvmError {
    /// The device is not there, or nothing is behind it.
    #[error(
        "/dev/kvm is absent: the kernel has no KVM, its vendor module (kvm_intel, kvm_amd) is not \
         loaded, or virtualization is off in the firmware; load the module, or use --accel tcg"
    )]
    Absent,
    /// The device may not be opened.
    #[error("/dev/kvm cannot be opened: {source}; {help}or use --accel tcg")]
    Unopenable { source: io::Error, help: String },
}

/// What may help against `error`: EPERM is a container's list of devices.
fn help(root: &Path, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES) => {
            let group = owning_group(root);
            format!("{}; ", Remedy::of(given(root), group.as_deref()))
        }
        Some(libc::EPERM) => "start the container with --device /dev/kvm, ".to_owned(),
        _ => String::new(),
    }
}

/// Opens the device below `root` (`/` on a live system) for reading and
/// writing, as QEMU will.
pub(crate) fn access(root: &Path) -> Result<(), KvmError> {
    match OpenOptions::new()
        .read(true)
        .write(true)
        .open(root.join(DEVICE))
    {
        Ok(_) => Ok(()),
        // udev makes the node before, and without, the module behind it.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) =>
        {
            Err(KvmError::Absent)
        }
        Err(source) => Err(KvmError::Unopenable {
            help: help(root, &source),
            source,
        }),
    }
}

pub(crate) fn device(root: &Path) -> Device {
    match access(root) {
        Ok(()) => Device::Open,
        Err(KvmError::Absent) => Device::Absent,
        Err(KvmError::Unopenable { source, .. }) => Device::Refused {
            why: source.to_string(),
            group: owning_group(root),
        },
    }
}

/// Who may open the device below `root`; `None` where that is not to be had.
pub(crate) fn given(root: &Path) -> Option<Access> {
    let metadata = fs::metadata(root.join(DEVICE)).ok()?;
    Some(Access {
        mode: metadata.mode() & 0o7777,
        group: metadata.gid(),
    })
}

/// The group that owns the device, by its name below `root`, or by number.
fn owning_group(root: &Path) -> Option<String> {
    let id = fs::metadata(root.join(DEVICE)).ok()?.gid();
    Some(group_name(root, id).unwrap_or_else(|| id.to_string()))
}

/// The name of a group, by group(5).
fn group_name(root: &Path, id: u32) -> Option<String> {
    let text = Source::new(root, &mut Vec::new()).text("etc/group")?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

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
        fs::create_dir_all(root.path().join(DEVICE)).unwrap();
        let error = access(root.path()).unwrap_err();
        assert!(matches!(error, KvmError::Unopenable { .. }));
    }

    #[test]
    fn refusal_says_what_helps_against_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(DEVICE)).unwrap();
        fs::set_permissions(root.path().join(DEVICE), Permissions::from_mode(0o600)).unwrap();
        let said = |errno| help(root.path(), &io::Error::from_raw_os_error(errno));
        assert!(said(libc::EACCES).contains("mode 0600"));
        assert!(said(libc::EPERM).contains("--device /dev/kvm"));
        assert_eq!(said(libc::EBUSY), "");
    }

    #[test]
    fn node_without_a_driver_is_absent() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dev")).unwrap();
        // Nobody listens on a socket: ENXIO, as of a device without a driver.
        let _socket = UnixListener::bind(root.path().join(DEVICE)).unwrap();
        assert!(matches!(access(root.path()), Err(KvmError::Absent)));
        assert_eq!(device(root.path()), Device::Absent);
    }

    #[test]
    fn device_that_opens_is_open() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dev")).unwrap();
        fs::write(root.path().join(DEVICE), "").unwrap();
        assert_eq!(device(root.path()), Device::Open);
    }

    /// The owning group of a refused device, with this `/etc/group`.
    fn group_with(contents: Option<String>) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(DEVICE)).unwrap();
        if let Some(contents) = contents {
            fs::create_dir(root.path().join("etc")).unwrap();
            fs::write(root.path().join("etc/group"), contents).unwrap();
        }
        match device(root.path()) {
            Device::Refused { group, .. } => group,
            device => panic!("{device:?}"),
        }
    }

    #[test]
    fn refused_device_names_its_group() {
        let id = rustix::process::getegid().as_raw();
        let named = format!("other:x:{}:\n\n:::\ngarbled\nkvm:x:{id}:alice\n", id + 1);
        assert_eq!(group_with(Some(named)).as_deref(), Some("kvm"));
        let number = Some(id.to_string());
        assert_eq!(group_with(Some(format!("kvm:x:{}:\n", id + 1))), number);
        assert_eq!(group_with(None), number);
    }
}
