//! A root file system put together from this machine's programs, as an
//! initramfs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder that becomes an initramfs.
#[derive(Debug)]
pub struct Root(PathBuf);

impl Root {
    /// A new one in `folder`, empty but for the folders to mount at.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        let root = Self(folder);
        for directory in ["dev", "proc", "sys", "tmp", "run", "root", "etc"] {
            root.directory(directory);
        }
        root
    }

    /// Makes a folder, with those around it.
    pub fn directory(&self, path: &str) {
        fs::create_dir_all(self.0.join(path)).expect("the folder is ours");
    }

    /// Where a path of the root is while it is put together.
    #[must_use]
    pub fn place(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// Copies a file or folder to `path`.
    pub fn copy(&self, from: &Path, path: &str) {
        let place = self.place(path);
        fs::create_dir_all(place.parent().expect("a file")).expect("the folder is ours");
        let copied = Command::new("cp").arg("-rL").arg(from).arg(&place).status();
        assert!(
            copied.is_ok_and(|status| status.success()),
            "{}: cannot be copied; apt install busybox-static dropbear-bin qemu-system-x86",
            from.display()
        );
    }

    /// Adds a program of this machine, with its shared libraries, at the same
    /// place.
    pub fn program(&self, path: &str) {
        self.copy(Path::new(path), &path[1..]);
        self.libraries(&path[1..]);
    }

    /// Adds the shared libraries that a program in it loads, by their names;
    /// none for a static one.
    pub fn libraries(&self, program: &str) {
        let output = Command::new("ldd").arg(self.place(program)).output();
        let output = output.expect("ldd runs");
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            if word.starts_with('/') && !self.place(&word[1..]).exists() {
                self.copy(Path::new(word), &word[1..]);
            }
        }
    }

    /// Writes a file.
    pub fn file(&self, path: &str, text: &str) {
        fs::write(self.place(path), text).expect("the folder is ours");
    }

    /// Writes a script.
    pub fn script(&self, path: &str, text: &str) {
        self.file(path, text);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.place(path), mode).expect("the file is ours");
    }

    /// Packs it as a user would, beside its folder.
    #[must_use]
    pub fn pack(&self) -> PathBuf {
        self.packed("cpio.gz", "gzip -9")
    }

    /// Packs it without compression, which a CPU that is emulated would pay for.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        self.packed("cpio", "cat")
    }

    fn packed(&self, extension: &str, compress: &str) -> PathBuf {
        let packed = self.0.with_extension(extension);
        let status = Command::new("sh")
            .args([
                "-c",
                &format!("find . | cpio --quiet -o -R 0:0 -H newc | {compress} >\"$0\""),
            ])
            .arg(&packed)
            .current_dir(&self.0)
            .status()
            .expect("sh runs");
        assert!(status.success(), "packing: {status}");
        packed
    }
}
