//! What keeps a user from running a program that exists: the mode of a folder on the
//! way to it, or its own mode.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use crate::vmm::files::rights;

/// The right to run a file and to pass a folder (inode(7)).
const EXECUTE: u32 = 0o1;

/// A file or folder that a user may not run or pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    path: PathBuf,
    is_folder: bool,
    mode: u32,
    owner: u32,
}

impl Barrier {
    /// The first on the way from `/` to `program` that its mode closes to user and
    /// group `uid`; `None` where modes let it run, or cannot be seen.
    pub fn before(program: &Path, uid: u32) -> Option<Self> {
        way(program).into_iter().find_map(|path| {
            let metadata = fs::metadata(&path).ok()?;
            let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
            let is_closed = rights(mode, owner, metadata.gid(), uid) & EXECUTE == 0;
            is_closed.then(|| Self {
                path,
                is_folder: metadata.is_dir(),
                mode,
                owner,
            })
        })
    }
}

impl fmt::Display for Barrier {
    /// What it is and what opens it, as the end of a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, owner, .. } = self;
        let path = self.path.display();
        let (kind, right) = if self.is_folder {
            ("the folder", "lets it pass")
        } else {
            ("the file", "lets it run")
        };
        write!(
            f,
            "{kind} {path} has mode {mode:04o} and belongs to user {owner}; `chmod o+x {path}` \
             {right}"
        )
    }
}

/// All that is passed on the way to a file, and the file, each once: where a name
/// is a link, what it leads through as well.
fn way(file: &Path) -> Vec<PathBuf> {
    let mut way: Vec<PathBuf> = Vec::new();
    for name in downwards(file) {
        let Ok(real) = name.canonicalize() else {
            break;
        };
        for step in downwards(&real) {
            if !way.iter().any(|passed| passed == step) {
                way.push(step.to_path_buf());
            }
        }
    }
    way
}

fn downwards(path: &Path) -> Vec<&Path> {
    let mut names: Vec<_> = path.ancestors().collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::process::geteuid;

    use super::*;

    /// Nobody's, and in no group.
    const UID: u32 = 2_000_000;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_that_is_closed_is_named_with_what_opens_it() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("real/bin")).unwrap();
        fs::create_dir(at("names")).unwrap();
        fs::write(at("real/bin/qemu"), "").unwrap();
        symlink(at("real/bin"), at("names/bin")).unwrap();
        let program = at("names/bin/qemu");
        let open = [
            root.path().to_path_buf(),
            at("real"),
            at("real/bin"),
            at("names"),
        ];
        let open_all = || {
            for folder in &open {
                set(folder, 0o711);
            }
            set(&at("real/bin/qemu"), 0o755);
        };
        open_all();
        assert_eq!(Barrier::before(&program, UID), None);
        for folder in &open {
            open_all();
            set(folder, 0o750);
            let said = Barrier::before(&program, UID).unwrap().to_string();
            let folder = folder.display();
            assert!(
                said.starts_with(&format!("the folder {folder} has mode 0750"))
                    && said.contains(&format!("`chmod o+x {folder}`")),
                "{said}"
            );
            // Its owner passes.
            let owner = geteuid().as_raw();
            assert_eq!(Barrier::before(&program, owner), None);
        }
        open_all();
        set(&at("real/bin/qemu"), 0o644);
        let said = Barrier::before(&program, UID).unwrap().to_string();
        assert!(
            said.starts_with("the file ") && said.contains("real/bin/qemu"),
            "{said}"
        );
        assert_eq!(Barrier::before(Path::new("/no/such/file"), UID), None);
    }
}
