//! The folders of processes below `/proc` (proc_pid(5)).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Most bytes of a command line, or of another file of a process, that are looked
/// at. A guest's command line takes less: a few paths of 4 KiB each.
const LONGEST: u64 = 32 * 1024;

/// The folder of each process below `root`.
pub(crate) fn folders(root: &Path) -> io::Result<impl Iterator<Item = io::Result<PathBuf>>> {
    Ok(
        fs::read_dir(root.join("proc"))?.filter_map(|entry| match entry {
            Ok(entry) => is_process(entry.file_name().as_encoded_bytes()).then(|| Ok(entry.path())),
            Err(error) => Some(Err(error)),
        }),
    )
}

/// Whether what has this name in `/proc` is a process.
pub(crate) fn is_process(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_digit)
}

/// Whether a file of a process could not be read because that has ended.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The command line of the process with this folder, whose arguments end with a
/// zero byte each; that of a zombie is empty (`proc_pid_cmdline(5)`).
pub(crate) fn command_line(process: &Path) -> io::Result<Vec<u8>> {
    read(&process.join("cmdline"))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What follows each `option` of a command line.
pub(crate) fn values<'a>(line: &'a [u8], option: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let arguments = || line.split(|&byte| byte == 0);
    arguments()
        .zip(arguments().skip(1))
        .filter(move |(argument, _)| *argument == option)
        .map(|(_, value)| value)
}

/// Under which ids a process runs (`proc_pid_status(5)`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    /// Its user: real, effective, saved, and that of the file system.
    pub users: [u32; 4],
    /// Its group, in the same order.
    pub groups: [u32; 4],
    /// Its other groups.
    pub others: Vec<u32>,
}

impl Ids {
    /// Whether it is this user's in every respect. A program that changes its
    /// user when it is started, such as su(1), is not: whoever started it chose
    /// its arguments.
    pub(crate) fn are_of(&self, user: u32) -> bool {
        self.users.iter().all(|id| *id == user)
    }

    /// Those that a status tells.
    pub(crate) fn parse(status: &str) -> Option<Self> {
        let numbers = |name: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let words = line.split_ascii_whitespace();
            words.map(|word| word.parse().ok()).collect()
        };
        let four = |name| numbers(name)?.try_into().ok();
        Some(Self {
            users: four("Uid:")?,
            groups: four("Gid:")?,
            others: numbers("Groups:")?,
        })
    }
}

/// The ids of the process with this folder.
pub(crate) fn ids(process: &Path) -> io::Result<Ids> {
    let path = process.join("status");
    Ids::parse(&String::from_utf8_lossy(&read(&path)?)).ok_or_else(|| {
        let reason = format!("{} is not as proc_pid_status(5) has it", path.display());
        io::Error::new(io::ErrorKind::InvalidData, reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_whose_it_is_in_every_respect() {
        let status = |users: &str| {
            format!("Name:\tqemu\nUid:\t{users}\nGid:\t7\t7\t7\t7\nFDSize:\t64\nGroups:\t5 6 \n")
        };
        let ids = Ids::parse(&status("7\t7\t7\t7")).unwrap();
        assert_eq!((ids.groups, ids.others.as_slice()), ([7; 4], &[5, 6][..]));
        assert!(ids.are_of(7) && !ids.are_of(0));
        // One of root's, started by user 7, and the other way round.
        for users in ["7\t0\t0\t0", "0\t7\t0\t7", "7\t7\t7\t0"] {
            let ids = Ids::parse(&status(users)).unwrap();
            assert!(!ids.are_of(7) && !ids.are_of(0), "{users}");
        }
        for cut in ["", "7\t7\t7", "7\t7\t7\tx", "-1\t7\t7\t7"] {
            assert_eq!(Ids::parse(&status(cut)), None, "{cut}");
        }
        let own = super::ids(Path::new("/proc/self")).unwrap();
        assert!(own.are_of(rustix::process::geteuid().as_raw()));
    }
}
