//! Programs that stand in for real ones, and a PATH that lacks some.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TestEnv;

/// The emulator that imgbuild starts.
pub const QEMU: &str = "qemu-system-x86_64";

impl TestEnv {
    /// Puts a shell script in the place of `program` for a command whose PATH
    /// is [`TestEnv::path_with_stand_ins`].
    pub fn stand_in(&self, program: &str, script: &str) {
        let folder = self.stand_ins();
        fs::create_dir_all(&folder).expect("the folder is ours");
        let path = folder.join(program);
        let mut file = fs::File::create(&path).expect("the folder is ours");
        writeln!(file, "#!/bin/sh\n{script}").expect("the folder is ours");
        file.set_permissions(fs::Permissions::from_mode(0o755))
            .expect("the file is ours");
    }

    /// Puts a script in the place of a program of e2fsprogs, whose version it
    /// tells.
    pub fn stand_in_e2fsprogs(&self, program: &str, script: &str) {
        let version =
            format!("case $1 in -V|-l) echo '{program} 1.47.0 (5-Feb-2023)'; exit ;; esac");
        self.stand_in(program, &format!("{version}\n{script}"));
    }

    /// Has `command` boot guests under TCG without waiting for a KVM that may
    /// be there and not run them.
    pub fn without_kvm(&self, command: &mut Command) {
        self.stand_in(QEMU, &without_kvm());
        command.env("PATH", self.path_with_stand_ins());
    }

    /// Folder of the stand-ins.
    #[must_use]
    pub fn stand_ins(&self) -> PathBuf {
        self.path().join("stand-ins")
    }

    /// A PATH that finds stand-ins first, and the real programs after them.
    #[must_use]
    pub fn path_with_stand_ins(&self) -> OsString {
        let path = std::env::var_os("PATH").expect("PATH is set");
        let folders = std::iter::once(self.stand_ins()).chain(std::env::split_paths(&path));
        std::env::join_paths(folders).expect("it was joined before")
    }

    /// A PATH on which nothing but stand-ins and these programs are found.
    #[must_use]
    pub fn path_of_only(&self, programs: &[&str]) -> OsString {
        let folder = tempfile::tempdir_in(self.path())
            .expect("the folder is ours")
            .keep();
        for program in programs {
            symlink(find(program), folder.join(program)).expect("the folder is ours");
        }
        std::env::join_paths([self.stand_ins(), folder]).expect("no path of ours has a colon")
    }
}

/// A script that runs guests on QEMU, but none under KVM.
#[must_use]
pub fn without_kvm() -> String {
    format!(
        "case \"$*\" in *'-accel kvm'*) echo 'no KVM here' >&2; exit 1 ;; esac\n\
         exec {} \"$@\"",
        find(QEMU).display()
    )
}

/// Where a program is; a test that needs it fails by its name.
#[must_use]
pub fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").expect("PATH is set");
    std::env::split_paths(&path)
        // A user's PATH may lack the folders of root's tools.
        .chain(["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).to_path_buf()))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{program} is not installed"))
}
