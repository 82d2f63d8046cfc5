//! Recognizes what QEMU writes to stderr by its words, and those of libslirp and
//! GLib: they report errors in no other way.

/// What a line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// It tells what QEMU does, and of no trouble.
    Progress,
    /// KVM cannot run the guest's code. QEMU does not end by that.
    KvmInternalError,
    /// Somebody has what is for this guest alone, so that QEMU ends: the port that
    /// leads to it, or its disk.
    Taken,
    /// The host is short of something, so that QEMU ends.
    Short,
    /// Its guest's machine is not that of the template, so that QEMU ends.
    NotRestored,
    /// QEMU ends, with a status of 0, because a signal asked it to.
    Terminated,
    /// It may tell why its guest fails.
    Other,
}

/// How a line begins, behind QEMU's name and the option that it is about, which
/// tells of no trouble (`info_report()` of its util/error-report.c), such as that
/// it waits for a console to be connected.
const PROGRESS: &str = ": info: ";

/// Words, and what they mean wherever they stand in a line.
const WORDS: [(&str, Complaint); 6] = [
    ("load of migration failed", Complaint::NotRestored),
    ("KVM internal error", Complaint::KvmInternalError),
    ("Could not set up host forwarding rule", Complaint::Taken),
    ("Failed to get \"", Complaint::Taken),
    // GLib's, for want of memory; the rest of a short host is strerror(3)'s.
    ("failed to allocate ", Complaint::Short),
    (": terminating on signal ", Complaint::Terminated),
];

impl Complaint {
    /// What a line says.
    pub(crate) fn of(line: &str) -> Self {
        if line.contains(PROGRESS) {
            return Self::Progress;
        }
        let known = WORDS.iter().find(|(words, _)| line.contains(words));
        known.map_or(Self::Other, |(_, complaint)| *complaint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_it_waits_is_no_complaint() {
        let waits = "qemu-system-x86_64: -chardev socket,id=console,fd=3,server=on,wait=on: info: \
                     QEMU waiting for connection on: disconnected:unix:,server=on";
        assert_eq!(Complaint::of(waits), Complaint::Progress);
    }

    #[test]
    fn complaints_are_known_by_their_words() {
        for (line, complaint) in [
            (
                "qemu-system-x86_64: -accel kvm: failed to initialize kvm: Permission denied",
                Complaint::Other,
            ),
            (
                "qemu-system-x86_64: warning: host doesn't support requested feature: \
                 CPUID.80000001H",
                Complaint::Other,
            ),
            (
                "qemu-system-x86_64: terminating on signal 15 from pid 1",
                Complaint::Terminated,
            ),
            ("extra data[0]: info", Complaint::Other),
            (
                "KVM internal error. Suberror: 1",
                Complaint::KvmInternalError,
            ),
            (
                "qemu-system-x86_64: Could not set up host forwarding rule 'tcp::2999-:22'",
                Complaint::Taken,
            ),
            (
                "qemu-system-x86_64: -device virtio-blk-device,drive=disk: Failed to get \
                 \"write\" lock",
                Complaint::Taken,
            ),
            (
                "GLib: ../../../glib/gmem.c:136: failed to allocate 67108864 bytes",
                Complaint::Short,
            ),
        ] {
            assert_eq!(Complaint::of(line), complaint, "{line}");
        }
    }
}
