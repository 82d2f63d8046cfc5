//! Whether `PR_SET_MEMORY_MERGE` (prctl(2)) survives execve(2): a child sets it and
//! then becomes a program that prints the kernel's flag.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;

use super::MemoryMerge;
use crate::interrupt::Interrupt;
use crate::process::{self, ProcessError};
use crate::vmm::alike::set_memory_merge;

const LIMIT: Duration = Duration::from_secs(2);

/// Tries it; `None` if the kernel does not say.
pub(crate) fn probe(interrupt: &Interrupt) -> Option<MemoryMerge> {
    let mut command = Command::new("cat");
    command.args(["/proc/self/ksm_stat", "/proc/self/smaps"]);
    // SAFETY: the closure runs between fork and exec and makes one system call;
    // it takes no lock and allocates nothing.
    unsafe { command.pre_exec(set_memory_merge) };
    match process::capture_within(command, LIMIT, interrupt) {
        Ok(captured) => verdict(&String::from_utf8_lossy(&captured.stdout)),
        Err(ProcessError::Start { source, .. }) => {
            // The errors of prctl(2): unknown to the kernel, or not allowed.
            let refused = [Some(Errno::INVAL), Some(Errno::PERM)];
            let refused = refused.contains(&Errno::from_io_error(&source));
            refused.then_some(MemoryMerge::Unsupported)
        }
        Err(_) => None,
    }
}

/// What `ksm_stat` says of the program (proc_pid_ksm_stat, since Linux 6.14),
/// and else its mappings, which are mergeable (`mg`, proc_pid_smaps(5)) where
/// the setting holds, as nothing else makes them so in cat(1).
fn verdict(text: &str) -> Option<MemoryMerge> {
    let answer = text
        .lines()
        .find_map(|line| line.strip_prefix("ksm_merge_any:"));
    if let Some(answer) = answer {
        return match answer.trim() {
            "yes" => Some(MemoryMerge::Kept),
            "no" => Some(MemoryMerge::Lost),
            _ => None,
        };
    }
    let mut flags = text
        .lines()
        .filter_map(|line| line.strip_prefix("VmFlags:"))
        .peekable();
    flags.peek()?;
    if flags.any(|flags| flags.split_ascii_whitespace().any(|flag| flag == "mg")) {
        Some(MemoryMerge::Kept)
    } else {
        Some(MemoryMerge::Lost)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_kernel_is_believed_and_else_the_mappings_are() {
        let lost = Some(MemoryMerge::Lost);
        let kept = Some(MemoryMerge::Kept);
        for (text, expected) in [
            (
                "ksm_rmap_items 0\nksm_merge_any: yes\nksm_mergeable: no\n",
                kept,
            ),
            ("ksm_merge_any: no\nVmFlags: rd mr mg sd \n", lost),
            ("ksm_merge_any: perhaps\nVmFlags: rd mg \n", None),
            (
                "Size: 4 kB\nVmFlags: rd ex \nSize: 8 kB\nVmFlags: rd wr mg \n",
                kept,
            ),
            ("Size: 4 kB\nVmFlags: rd ex \nVmFlags: rd wr mga \n", lost),
            ("ksm_rmap_items 0\n", None),
            ("", None),
        ] {
            assert_eq!(verdict(text), expected, "{text}");
        }
    }

    /// Sets it, and fails with `EIO` unless the kernel then says that it is set.
    fn set_and_get() -> io::Result<()> {
        const UNUSED: libc::c_ulong = 0;
        set_memory_merge()?;
        // SAFETY: the option takes numbers only, which must be zero.
        let set = unsafe { libc::prctl(libc::PR_GET_MEMORY_MERGE, UNUSED, UNUSED, UNUSED, UNUSED) };
        if set == 1 {
            Ok(())
        } else {
            Err(Errno::IO.into())
        }
    }

    /// Both ways of telling agree on this kernel, if it has both.
    #[test]
    fn mappings_tell_what_ksm_stat_tells() {
        let interrupt = Interrupt::never().unwrap();
        let answer = probe(&interrupt);
        let mut command = Command::new("cat");
        command.arg("/proc/self/smaps");
        // SAFETY: the closure runs between fork and exec and makes two system
        // calls; it takes no lock and allocates nothing.
        unsafe { command.pre_exec(set_and_get) };
        match process::output(command, &interrupt) {
            Ok(mappings) => assert_eq!(verdict(&mappings), answer),
            Err(ProcessError::Start { source, .. }) => {
                assert_ne!(Errno::from_io_error(&source), Some(Errno::IO));
                assert_eq!(answer, Some(MemoryMerge::Unsupported));
            }
            Err(error) => panic!("{error}"),
        }
        // Without the setting nothing is mergeable, so that the above tells.
        let mut command = Command::new("cat");
        command.arg("/proc/self/smaps");
        let mappings = process::output(command, &interrupt).unwrap();
        assert_eq!(verdict(&mappings), Some(MemoryMerge::Lost));
    }
}
