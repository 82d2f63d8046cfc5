//! Disks: a base image with a file system, empty or filled, and copy-on-write
//! overlays for guests.

pub(crate) mod base;
pub(crate) mod convert;
pub(crate) mod e2fsprogs;
pub(crate) mod ext4;
pub(crate) mod fill;
pub mod overlay;
pub mod qcow2;
mod record;
mod volume;

#[cfg(test)]
pub(crate) mod tool {
    use std::{ffi::OsStr, process::Command};

    use super::ext4::Ext4;

    /// A file system of this size, made at the epoch.
    pub(crate) fn ext4(size: &str) -> Ext4 {
        Ext4 {
            label: "disk".parse().unwrap(),
            size: size.parse().unwrap(),
            epoch: 0,
        }
    }

    /// What `program` printed on both streams; a test fails loudly without it.
    #[track_caller]
    pub(crate) fn run<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> String {
        let output = Command::new(program).args(args).env("LC_ALL", "C").output();
        let output =
            output.unwrap_or_else(|error| panic!("`{program}` must be installed: {error}"));
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "{program}: {text}");
        text
    }
}
