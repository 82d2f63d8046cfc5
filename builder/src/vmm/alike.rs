//! What makes the memory of VMMs alike, so that KSM merges more than guests' RAM.
//!
//! Two QEMUs with the same arguments do the same and still differ: in where things
//! are, which address-space randomisation decides, and in the order of their heaps,
//! which glibc's allocator leaves to the order in which threads run, and marks with a
//! key of its own for each process. docs/density.md measures each ingredient.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Sharing;

/// An allocator whose layout is the same in every process that does the same.
const ALLOCATOR: &str = "libjemalloc.so.2";
/// With one arena, no caches of threads, and nothing kept that is free: a QEMU that
/// sleeps would keep it for ever (jemalloc(3), TUNING).
const ALLOCATOR_OPTIONS: &str = "narenas:1,tcache:false,dirty_decay_ms:0,muzzy_decay_ms:0";
/// Where distributions have it.
const LIBRARIES: [&str; 4] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/lib",
];

/// Has a VMM that is about to be started be alike with others, if that is asked for.
pub(crate) fn apply(command: &mut Command, sharing: Sharing) {
    if sharing != Sharing::All {
        return;
    }
    if let Some(allocator) = allocator(Path::new("/")) {
        command.env("LD_PRELOAD", allocator);
        command.env("MALLOC_CONF", ALLOCATOR_OPTIONS);
    }
    // SAFETY: the closure runs between fork and exec and makes two system calls; it
    // takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            set_memory_merge()?;
            fix_addresses()
        });
    }
}

/// The allocator, if the host has it.
pub(crate) fn allocator(root: &Path) -> Option<PathBuf> {
    let places = LIBRARIES.map(|folder| root.join(folder).join(ALLOCATOR));
    places.into_iter().find(|place| place.is_file())
}

/// Has KSM merge all memory of this process and of what it becomes (prctl(2),
/// Linux 6.4, and kept at execve(2) from 6.7 on).
pub(crate) fn set_memory_merge() -> io::Result<()> {
    const ON: libc::c_ulong = 1;
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: the option takes numbers only, and the kernel wants those unused
    // to be zero.
    let result = unsafe { libc::prctl(libc::PR_SET_MEMORY_MERGE, ON, UNUSED, UNUSED, UNUSED) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has the program that this process becomes be loaded at the same addresses every
/// time (personality(2)).
fn fix_addresses() -> io::Result<()> {
    const ASK: libc::c_ulong = 0xffff_ffff;
    const NO_RANDOMIZE: libc::c_ulong = 0x0004_0000;
    // SAFETY: the call takes a number only.
    let set = |persona| unsafe { libc::personality(persona) };
    match set(libc::c_ulong::from(set(ASK).cast_unsigned()) | NO_RANDOMIZE) {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_loaded_at_the_same_addresses_and_others_are_not() {
        let stack = |sharing| {
            let mut command = Command::new("grep");
            command.args(["-F", "[stack]", "/proc/self/maps"]);
            apply(&mut command, sharing);
            let output = command.output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        match stack(Sharing::All) {
            Ok(first) => assert_eq!(stack(Sharing::All).unwrap(), first),
            // A kernel before Linux 6.4, where `check` refuses it.
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINVAL)),
        }
        let random: Vec<_> = (0..4).map(|_| stack(Sharing::Guest).unwrap()).collect();
        assert!(random.iter().any(|stack| *stack != random[0]), "{random:?}");
    }

    #[test]
    fn the_allocator_is_found_where_distributions_have_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(allocator(root.path()), None);
        let folder = root.path().join("usr/lib64");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(ALLOCATOR), "").unwrap();
        assert_eq!(allocator(root.path()), Some(folder.join(ALLOCATOR)));
    }
}
