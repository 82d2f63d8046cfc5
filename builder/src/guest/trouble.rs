//! Troubles of the host that keep a guest from starting. They do not count as
//! failures of the guest.

use std::fmt;

use crate::vmm::qemu::Complaint;

/// What of the host's keeps a guest from being started, in the words of who met
/// with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// What is for this guest alone is another's: its port, its tap, its disk.
    Taken(String),
    /// The host is short of what every start takes: disk space, memory,
    /// processes, open files.
    Short(String),
}

/// What strerror(3) says of a host that is short of something. By these words it
/// is known whoever says them: QEMU, which has no other way to tell, and crates
/// that keep no number of an error.
const SHORT: [&str; 11] = [
    // ENOSPC, EDQUOT
    "No space left on device",
    "Disk quota exceeded",
    // ENOMEM
    "Cannot allocate memory",
    // EROFS and ESTALE of the fleet's folder, ETXTBSY of a QEMU that is replaced
    "Read-only file system",
    "Stale file handle",
    "Text file busy",
    // EAGAIN, of fork(2) and clone(2)
    "Resource temporarily unavailable",
    // EMFILE, and ENFILE with two words more
    "Too many open files",
    // ENOBUFS, EADDRINUSE, EBUSY
    "No buffer space available",
    "Address already in use",
    "Device or resource busy",
];

impl Trouble {
    /// What a message says of the host's trouble, if it does.
    pub fn in_message(message: &str) -> Option<Self> {
        match Complaint::of(message) {
            Complaint::Taken => Some(Self::Taken(message.to_owned())),
            Complaint::Short => Some(Self::Short(message.to_owned())),
            Complaint::Progress
            | Complaint::KvmInternalError
            | Complaint::NotRestored
            | Complaint::Terminated
            | Complaint::Other => {
                let is_short = SHORT.iter().any(|words| message.contains(words));
                is_short.then(|| Self::Short(message.to_owned()))
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Taken(said) | Self::Short(said)) = self;
        write!(f, "the host keeps it from starting: {said}")
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_host_that_is_short_of_something_is_known_by_its_words() {
        for errno in [
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::NOMEM,
            Errno::AGAIN,
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::ADDRINUSE,
            Errno::BUSY,
        ] {
            let said = io::Error::from(errno).to_string();
            assert_eq!(Trouble::in_message(&said), Some(Trouble::Short(said)));
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::INVAL, Errno::IO] {
            assert_eq!(
                Trouble::in_message(&io::Error::from(errno).to_string()),
                None
            );
        }
    }

    #[test]
    fn qemu_tells_what_it_lacks() {
        for said in [
            "qemu: qemu_thread_create: Resource temporarily unavailable",
            "failed to allocate memory for stack: Cannot allocate memory",
            "qemu-system-x86_64: cannot set up guest memory 'microvm.ram': Cannot allocate memory",
            "qemu-system-x86_64: Failed to initialize event notifier: Too many open files",
            "GLib: ../../../glib/gmem.c:136: failed to allocate 67108864 bytes",
            "ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy",
        ] {
            let short = Some(Trouble::Short(said.to_owned()));
            assert_eq!(Trouble::in_message(said), short);
        }
        // Versions differ in what follows the rule.
        for rest in ["", ": Address already in use"] {
            let said = format!(
                "qemu-system-x86_64: -netdev user,id=net,hostfwd=tcp:127.0.0.1:2999-:22: Could not \
                 set up host forwarding rule 'tcp:127.0.0.1:2999-:22'{rest}"
            );
            assert_eq!(
                Trouble::in_message(&said),
                Some(Trouble::Taken(said.clone()))
            );
        }
        let said = "qemu-system-x86_64: -device virtio-blk-device,drive=disk: Failed to get \"write\" \
                    lock";
        let taken = Some(Trouble::Taken(said.to_owned()));
        assert_eq!(Trouble::in_message(said), taken);
        for said in [
            "no such luck",
            "qemu-system-x86_64: Image is not in qcow2 format",
            "error: kvm run failed Bad address",
        ] {
            assert_eq!(Trouble::in_message(said), None);
        }
    }
}
