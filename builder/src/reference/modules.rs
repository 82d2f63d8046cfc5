//! The modules by which a distribution's kernel reaches its devices.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use lzma_rust2::XzReader;

use crate::plain;

/// What a guest reaches its disk and its network by.
const WANTED: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_net", "ext4"];
/// Most bytes of a module.
const MODULE_MAX: u64 = 64 << 20;
/// Where a module says which others it needs (Linux's scripts/mod/modpost.c).
const NEEDS: &[u8] = b"depends=";

/// A module, unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Module {
    pub name: String,
    pub content: Vec<u8>,
}

/// The modules of a kernel whose folder is `folder` that a guest loads, those first
/// that others need; what the kernel has built in is not among them.
pub(super) fn to_load(folder: &Path) -> io::Result<Vec<Module>> {
    let builtin = plain::read_to_string(&folder.join("modules.builtin"))?;
    let builtin: BTreeSet<_> = builtin
        .lines()
        .filter_map(|line| name(line.as_ref()))
        .collect();
    let mut files = BTreeMap::new();
    index(&folder.join("kernel"), &mut files)?;
    let mut order = Order {
        builtin,
        files,
        seen: BTreeSet::new(),
        modules: Vec::new(),
    };
    for wanted in WANTED {
        order.add(wanted)?;
    }
    Ok(order.modules)
}

struct Order {
    builtin: BTreeSet<String>,
    files: BTreeMap<String, PathBuf>,
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Order {
    fn add(&mut self, name: &str) -> io::Result<()> {
        if self.builtin.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else {
            let text = format!("the kernel has no module {name}");
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        };
        let content = read(file)?;
        for needed in needs(&content) {
            self.add(&needed)?;
        }
        let name = name.to_owned();
        self.modules.push(Module { name, content });
        Ok(())
    }
}

/// Finds the files of modules in a folder and those in it.
fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            index(&path, files)?;
        } else if kind.is_file()
            && let Some(name) = name(&path)
        {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// The name of the module in a file, as the kernel has it.
fn name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, _) = file.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = plain::open(path)?;
    let mut content = Vec::new();
    let is_packed = path.extension().is_some_and(|extension| extension == "xz");
    if is_packed {
        let unpacked = XzReader::new(io::BufReader::new(file), true);
        unpacked.take(MODULE_MAX).read_to_end(&mut content)?;
    } else {
        file.take(MODULE_MAX).read_to_end(&mut content)?;
    }
    Ok(content)
}

/// The modules that a module names as those that it needs.
fn needs(module: &[u8]) -> Vec<String> {
    let mut parts = module.split(|byte| *byte == 0);
    let list = parts.find_map(|part| part.strip_prefix(NEEDS));
    let list = String::from_utf8_lossy(list.unwrap_or_default()).into_owned();
    let names = list.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(builtin: &str, modules: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("modules.builtin"), builtin).unwrap();
        fs::create_dir_all(folder.path().join("kernel/drivers/some")).unwrap();
        for (file, needs) in modules {
            let content = format!("\u{7f}ELF\0license=GPL\0depends={needs}\0name=x\0");
            fs::write(folder.path().join("kernel/drivers").join(file), content).unwrap();
        }
        folder
    }

    fn names(folder: &tempfile::TempDir) -> io::Result<Vec<String>> {
        let modules = to_load(folder.path())?;
        Ok(modules.into_iter().map(|module| module.name).collect())
    }

    #[test]
    fn what_others_need_is_loaded_first_and_once() {
        let folder = kernel(
            "kernel/fs/ext4/ext4.ko\n",
            &[
                ("virtio_pci.ko", "virtio_ring,virtio"),
                ("virtio-ring.ko", "virtio"),
                ("some/virtio.ko", ""),
                ("virtio_blk.ko", "virtio,virtio-ring"),
                // A circle, which no kernel has.
                ("virtio_net.ko", "virtio_net,virtio"),
                ("unwanted.ko", "virtio"),
            ],
        );
        let expected = [
            "virtio",
            "virtio_ring",
            "virtio_pci",
            "virtio_blk",
            "virtio_net",
        ];
        assert_eq!(names(&folder).unwrap(), expected);
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        let folder = kernel("kernel/virtio_pci.ko\n", &[("virtio_blk.ko", "virtio")]);
        let error = names(&folder).unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no module virtio");
    }

    #[test]
    fn what_is_no_module_needs_nothing() {
        for bytes in [
            &b""[..],
            b"\0\0",
            b"depends=",
            b"\xff\0depends=,,\0",
            b"xdepends=a\0",
        ] {
            assert!(needs(bytes).is_empty());
        }
    }
}
