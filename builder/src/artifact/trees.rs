//! The files that a guest finds in its initramfs and on its disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::image;
use super::input::Input;
use super::manifest::FileRecord;
use crate::artifact::{BuildError, BuildOptions};
use crate::assets;
use crate::digest::Sha256;
use crate::interrupt::Interrupt;
use crate::recipe::{Recipe, SshServer, is_stdin};
use crate::text::printable;
use crate::tree::Tree;
use crate::units::ByteSize;

/// What a guest finds, and where it came from.
pub(super) struct Trees {
    pub(super) initramfs: Tree,
    /// `None` for an empty file system.
    pub(super) disk: Option<Tree>,
    /// The SSH server that the guest starts of them, if it does.
    pub(super) ssh_server: Option<String>,
    /// The recipe's own files: the root file system as `rootfs`, the others by
    /// path in the guest.
    pub(super) inputs: BTreeMap<String, FileRecord>,
}

/// Puts together what a guest finds in its initramfs and on its disk.
pub(super) fn trees(
    recipe: &Recipe,
    options: &BuildOptions,
    interrupt: &Interrupt,
) -> Result<Trees, BuildError> {
    let mut inputs = BTreeMap::new();
    let mut root = Tree::new();
    let rootfs = recipe.rootfs.as_ref();
    let mut image_server = None;
    let command = rootfs.map_or(&[][..], |rootfs| &rootfs.command);
    if let Some(source) = rootfs.and_then(|rootfs| rootfs.source.as_ref()) {
        let archive = options.recipe_folder.join(source);
        let archive = if is_stdin(source) { source } else { &archive };
        let bad = |source| bad_input(recipe, "rootfs.source", archive, source);
        let name = printable(&archive.to_string_lossy());
        let mut input = Input::open(archive, interrupt).map_err(bad)?;
        let read = root.add_rootfs_tar(&mut input, &name);
        if interrupt.requested() {
            return Err(BuildError::Interrupted);
        }
        read?;
        let unusable = |reason| BuildError::Image {
            archive: name.clone(),
            reason,
        };
        image::check(&root, command, &recipe.files).map_err(unusable)?;
        if recipe.ssh.server == SshServer::Image {
            let server = image::ssh_server(&root, &recipe.files).map_err(unusable)?;
            image_server = Some((server, name.clone()));
        }
        inputs.insert("rootfs".to_owned(), input.finish().map_err(bad)?);
    }
    let (mut initramfs, mut disk) = if recipe.root_on_disk() {
        (Tree::new(), Some(root))
    } else {
        if root.find("init").is_some() {
            tracing::warn!(
                "imgbuild's init replaces the image's own /init; [rootfs] command names what it \
                 runs"
            );
        }
        (root, None)
    };
    initramfs.add_base(assets::INIT.to_vec(), command)?;
    if let Some(disk) = &mut disk {
        disk.add_folders()?;
    }
    let root = disk.as_mut().unwrap_or(&mut initramfs);
    for file in &recipe.files {
        let path = options.recipe_folder.join(&file.source);
        let bad = |source| bad_input(recipe, "files.source", &path, source);
        inputs.insert(file.path.clone(), input_record(&path).map_err(bad)?);
        let content = fs::read(&path).map_err(bad)?;
        root.add_file(&file.path, file.mode, content)?;
    }
    // The recipe's own files may have changed the accounts.
    if let Some((server, archive)) = &image_server {
        let archive = archive.clone();
        image::check_root_account(root, server)
            .map_err(|reason| BuildError::Image { archive, reason })?;
    }
    Ok(Trees {
        initramfs,
        disk,
        ssh_server: image_server.map(|(server, _)| server.to_owned()),
        inputs,
    })
}

/// Refuses an initramfs that a guest cannot unpack: its root is a tmpfs, which
/// holds half the memory that is left beside the kernel and the packed archive
/// (`shmem_default_max_blocks()` in Linux's `mm/shmem.c`).
pub(super) fn check_memory(recipe: &Recipe, unpacked: u64, packed: u64) -> Result<(), BuildError> {
    /// What the kernel and its tables take, at the least.
    const KERNEL: u64 = 16 << 20;
    const MIB: u64 = 1 << 20;

    let needed = (2 * unpacked + packed + KERNEL).next_multiple_of(MIB);
    if recipe.memory.bytes() >= needed {
        return Ok(());
    }
    let size = |bytes: u64| ByteSize::new(bytes).expect("it is not zero");
    Err(BuildError::Memory {
        recipe: recipe.name.clone(),
        unpacked: size(unpacked.next_multiple_of(MIB)),
        memory: recipe.memory,
        needed: size(needed),
    })
}

pub(super) fn bad_input(
    recipe: &Recipe,
    key: &'static str,
    path: &Path,
    source: io::Error,
) -> BuildError {
    BuildError::Input {
        recipe: recipe.name.clone(),
        key,
        path: path.to_path_buf(),
        source,
    }
}

/// Size and digest of a file that a recipe names.
pub(super) fn input_record(path: &Path) -> io::Result<FileRecord> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a file"));
    }
    Ok(FileRecord {
        sha256: Sha256::of_file(path)?,
        size: metadata.len(),
    })
}
