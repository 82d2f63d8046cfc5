//! What is mounted where (`/proc/self/mountinfo`, proc_pid_mountinfo(5)).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use procfs_core::process::MountInfo;

use crate::sample::source::{LONG, Source, unexpected};

const MOUNTINFO: &str = "proc/self/mountinfo";

pub(crate) struct Mount {
    /// Its type, such as `ext4`.
    pub kind: String,
    /// The folder in that file system which is mounted.
    pub root: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Options of the file system; of control groups, their controllers.
    pub options: BTreeSet<String>,
}

/// What is mounted, in the order in which it was.
pub(crate) fn read(source: &mut Source) -> Vec<Mount> {
    let mut mounts = Vec::new();
    let mut garbled = None;
    source.lines(MOUNTINFO, LONG, |line| {
        match MountInfo::from_line(line) {
            Ok(mount) => mounts.push(Mount {
                kind: mount.fs_type,
                root: String::from_utf8_lossy(&unescaped(&mount.root)).into_owned(),
                point: OsString::from_vec(unescaped(&mount.mount_point.to_string_lossy())).into(),
                options: mount.super_options.into_keys().collect(),
            }),
            Err(_) if line.is_empty() => {}
            Err(_) => garbled = garbled.take().or_else(|| Some(line.to_owned())),
        }
        ControlFlow::Continue(())
    });
    if let Some(line) = garbled {
        source.note(MOUNTINFO, unexpected(&line, "a mount"));
    }
    mounts
}

/// The type of the file system that holds `path`.
pub(crate) fn kind_of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a str> {
    // The last of several on one folder is the one on top.
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    let innermost = around.max_by_key(|mount| mount.point.components().count())?;
    Some(&innermost.kind)
}

/// The kernel writes white space and backslashes in names as `\040`.
fn unescaped(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, more @ ..] = rest {
        let octal = more.get(..3).filter(|_| *first == b'\\');
        let code = octal
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = code {
            bytes.push(byte);
            rest = &more[3..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_read_as_they_are() {
        for (escaped, name) in [
            ("/mnt/a\\040b", "/mnt/a b"),
            ("\\134\\011", "\\\t"),
            ("/a\\", "/a\\"),
            ("/a\\04", "/a\\04"),
            ("\\9990", "\\9990"),
        ] {
            assert_eq!(unescaped(escaped), name.as_bytes(), "{escaped}");
        }
    }
}
