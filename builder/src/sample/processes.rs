//! The folders of processes below `/proc` (proc_pid(5)).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::meminfo;

/// Most bytes of a command line that are looked at. A guest's takes less: a few
/// paths of 4 KiB each.
const COMMAND_LINE_MAX: u64 = 32 << 10;
/// Most bytes of another file of a process, which may have 65,536 groups and as many
/// mappings, of some 100 bytes each and a path.
const FILE_MAX: u64 = 16 << 20;

/// The folder of each process below `root`.
pub(crate) fn folders(root: &Path) -> io::Result<impl Iterator<Item = io::Result<PathBuf>>> {
    Ok(
        fs::read_dir(root.join("proc"))?.filter_map(|entry| match entry {
            Ok(entry) => is_process(entry.file_name().as_encoded_bytes()).then(|| Ok(entry.path())),
            Err(error) => Some(Err(error)),
        }),
    )
}

/// The first PID namespace (PROC_PID_INIT_INO of Linux's include/linux/proc_ns.h).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Whether every process of the host is seen here, by the number that the kernel has for
/// it: not in a PID namespace of a container's own (pid_namespaces(7)).
pub(crate) fn are_all_seen(root: &Path) -> bool {
    let namespace = fs::read_link(root.join("proc/self/ns/pid"));
    namespace.is_ok_and(|namespace| namespace.as_os_str() == FIRST_NAMESPACE)
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
    read(&process.join("cmdline"), COMMAND_LINE_MAX)
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What `parse` makes of the file `name` of the process with this folder.
fn parsed<T>(process: &Path, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> io::Result<T> {
    let text = text(process, name)?;
    parse(&text).ok_or_else(|| {
        malformed(
            process,
            name,
            &format!("is not as proc_pid_{name}(5) has it"),
        )
    })
}

/// The text of the file `name` of the process with this folder; what is not UTF-8
/// becomes U+FFFD.
pub(crate) fn text(process: &Path, name: &str) -> io::Result<String> {
    let bytes = read(&process.join(name), FILE_MAX)?;
    if bytes.len() as u64 == FILE_MAX {
        return Err(malformed(process, name, "is longer than any"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn malformed(process: &Path, name: &str, what: &str) -> io::Error {
    let reason = format!("{} {what}", process.join(name).display());
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// What a process, or a thread, does, and since when it is there
/// (`proc_pid_stat(5)`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub state: char,
    /// `PF_…` of Linux's include/linux/sched.h.
    pub flags: u32,
    pub nice: i64,
    /// In clock ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// Whether it still runs something: zombies and the dead do not.
    pub(crate) fn runs(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// The name of a process may hold spaces and parentheses; what follows its last
    /// parenthesis are numbers, from field 3 on. procfs-core's reader takes a line
    /// to be whole, and panics otherwise.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.strip_suffix('\n')?.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        Some(Self {
            state: fields.next()?.chars().next()?,
            flags: fields.nth(9 - 4)?.parse().ok()?,
            nice: fields.nth(19 - 10)?.parse().ok()?,
            start_time: fields.nth(22 - 20)?.parse().ok()?,
        })
    }
}

/// The state of the process, or thread, with this folder.
pub(crate) fn stat(process: &Path) -> io::Result<Stat> {
    parsed(process, "stat", Stat::parse)
}

/// A field of the file `name` of the process with this folder, which has the form of
/// `status`; nothing, if it has none of that name.
pub(crate) fn field(process: &Path, name: &str, field: &str) -> io::Result<String> {
    parsed(process, name, |text| {
        Some((*meminfo::fields(text).get(field)?).to_owned())
    })
}

/// The sum of these fields of such a file, in bytes; those that are not there count
/// nothing.
pub(crate) fn bytes(process: &Path, name: &str, fields: &[&str]) -> io::Result<u64> {
    parsed(process, name, |text| {
        let found = meminfo::fields(text);
        let mut sizes = fields.iter().filter_map(|name| found.get(name));
        sizes.try_fold(0_u64, |sum, size| sum.checked_add(meminfo::bytes(size)?))
    })
}

/// Each of these fields of such a file, in bytes, read at one time; those that are not
/// there are 0.
pub(crate) fn sizes<const N: usize>(
    process: &Path,
    name: &str,
    fields: [&str; N],
) -> io::Result<[u64; N]> {
    parsed(process, name, |text| {
        let found = meminfo::fields(text);
        let mut sizes = [0; N];
        for (size, field) in sizes.iter_mut().zip(fields) {
            if let Some(text) = found.get(field) {
                *size = meminfo::bytes(text)?;
            }
        }
        Some(sizes)
    })
}

/// A mapping of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub addresses: Range<u64>,
    /// What it writes there is its own.
    pub is_private: bool,
}

/// The mappings of the process with this folder (`proc_pid_maps(5)`); lines that make
/// no sense are left out.
pub(crate) fn mappings(process: &Path) -> io::Result<Vec<Mapping>> {
    let address = |text: &str| u64::from_str_radix(text, 16).ok();
    parsed(process, "maps", |text| {
        let mappings = text.lines().filter_map(|line| {
            let (addresses, rest) = line.split_once(' ')?;
            let (start, end) = addresses.split_once('-')?;
            let (start, end) = (address(start)?, address(end)?);
            (start <= end).then_some(Mapping {
                addresses: start..end,
                is_private: rest.as_bytes().get(3) == Some(&b'p'),
            })
        });
        Some(mappings.collect())
    })
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
    parsed(process, "status", Ids::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process's file of this name and content.
    fn file(name: &str, content: impl AsRef<[u8]>) -> tempfile::TempDir {
        let process = tempfile::tempdir().unwrap();
        fs::write(process.path().join(name), content).unwrap();
        process
    }

    #[test]
    fn a_line_that_was_cut_is_no_process() {
        let line = "1 (a) b (c) S 1 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 25 -5 1 0 12345 1 2 3\n";
        let whole = Stat {
            state: 'S',
            flags: 2_129_984,
            nice: -5,
            start_time: 12345,
        };
        assert_eq!(Stat::parse(line), Some(whole));
        for end in 0..line.len() {
            assert_eq!(Stat::parse(&line[..end]), None, "{end}");
        }
        for garbage in [")\n", "1 (a)\n", "1 (a) S 1 2\n", "\u{fffd}) S\n"] {
            assert_eq!(Stat::parse(garbage), None, "{garbage}");
        }
        assert_eq!(Stat::parse(&line.replace("12345", "-1")), None);
        let endless = file("stat", line.trim_end().repeat(1 << 17));
        assert!(stat(endless.path()).is_err());
        assert!(stat(Path::new("/proc/self")).unwrap().runs());
    }

    #[test]
    fn fields_are_found_in_what_is_cut_or_hostile() {
        let text = b"Name:\t\xff: Vm:\nVmPTE:\t  12 kB\nVmRSS:\t 1 kB\nThreads:\t3\nVmSw";
        let process = file("status", text);
        let bytes = |fields: &[&str]| bytes(process.path(), "status", fields);
        assert_eq!(bytes(&["VmPTE", "VmRSS"]).unwrap(), 13 << 10);
        assert_eq!(bytes(&["VmSw", "VmSwap"]).unwrap(), 0);
        assert!(bytes(&["VmPTE", "Threads"]).is_err());
        assert_eq!(field(process.path(), "status", "Threads").unwrap(), "3");
        assert!(field(process.path(), "status", "VmSwap").is_err());
        let endless = file("status", "VmPTE: 1 kB\n".repeat(1 << 21));
        assert!(super::bytes(endless.path(), "status", &["VmPTE"]).is_err());
        let huge = file("status", "VmPTE: 18446744073709551615 kB\n");
        assert!(super::bytes(huge.path(), "status", &["VmPTE"]).is_err());
    }

    #[test]
    fn mappings_are_found_among_lines_that_make_no_sense() {
        let maps = "7f00-\n-\n2000-1000 r\nx-y r\n3000-5000 rw-p 00 00:00 0 [heap]\n\
                    7000-9000 rw-s 00 00:00 0 /SYSV\nffffffffffff0000-fffff";
        let process = file("maps", maps);
        let found: Vec<_> = mappings(process.path())
            .unwrap()
            .into_iter()
            .map(|mapping| (mapping.addresses, mapping.is_private))
            .collect();
        assert_eq!(found, [(0x3000..0x5000, true), (0x7000..0x9000, false)]);
    }

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
