//! A recipe → a whole output folder.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::manifest::{FileRecord, KernelRecord, MANIFEST_VERSION, Manifest, Options};
use super::staging::{Staging, StagingError};
use super::{BASE, INITRAMFS, KERNEL_CONFIG, ManifestError, OVERLAYS};
use crate::digest::Sha256;
use crate::disk::base::{BaseError, write_base};
use crate::disk::ext4::Ext4;
use crate::disk::overlay::{Overlay, OverlayError, write_overlays};
use crate::disk::qcow2::{Backing, BackingFormat, Qcow2Error};
use crate::initramfs::{PackError, RootfsError, pack};
use crate::interrupt::Interrupt;
use crate::kernel::{self, KernelError};
use crate::recipe::Recipe;
use crate::text::printable;
use crate::tree::Tree;
use crate::tree::error::TreeError;
use crate::units::{ByteSize, GuestRange};
use crate::{assets, progress};

/// What to build besides the recipe.
#[derive(Debug)]
pub struct BuildOptions {
    /// The output folder.
    pub out: PathBuf,
    /// Folder that the recipe's paths are relative to.
    pub recipe_folder: PathBuf,
    /// Number of overlays.
    pub overlays: u32,
    /// Virtual size of the disk; the recipe's by default.
    pub disk_size: Option<ByteSize>,
    /// Where the kernel comes from.
    pub kernel: kernel::Request,
    /// Timestamp of everything that carries one, in seconds since 1970.
    pub source_date_epoch: u32,
}

/// What a build made.
#[derive(Debug)]
pub struct Built {
    /// The output folder, absolute.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// Whether the kernel came from the cache.
    pub kernel_cached: bool,
}

/// A build that failed; the previous output is untouched.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The guest cannot hold what the recipe asks for.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The recipe's root file system.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The initramfs cannot be written.
    #[error("{}: {source}", path.display())]
    Pack {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PackError,
    },
    /// The guest's memory cannot hold its initramfs.
    #[error(
        "recipe {recipe}: the initramfs unpacks to {unpacked}, and a guest of {memory} cannot hold \
         it: raise guest.memory to {needed} or more, or put the root file system on the disk \
         (--rootfs-place disk)"
    )]
    Memory {
        /// The recipe.
        recipe: String,
        /// What the files take in memory.
        unpacked: ByteSize,
        /// The guest's RAM.
        memory: ByteSize,
        /// The least that would do.
        needed: ByteSize,
    },
    /// The base image.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The layout of overlays.
    #[error(transparent)]
    Layout(#[from] Qcow2Error),
    /// The overlays.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// Manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The output folder.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// A file named by the recipe cannot be read.
    #[error("recipe {recipe}: {key} = {}: {source}", path.display())]
    Input {
        /// The recipe.
        recipe: String,
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the output cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The user ended it.
    #[error("interrupted; the previous output is untouched")]
    Interrupted,
}

/// Builds `recipe` for `options.out`, where [`Staged::commit`] puts it.
pub fn build(
    recipe: &Recipe,
    options: &BuildOptions,
    environment: &kernel::Env,
) -> Result<Staged, BuildError> {
    let interrupt = &environment.interrupt;
    // First, so that no kernel is built for an unwritable folder.
    let staging = Staging::new(&options.out)?;
    let kernel = kernel::obtain(&options.kernel, environment)?;
    if let Some(needed) = kernel.memory.filter(|needed| *needed > recipe.memory) {
        tracing::warn!(
            "this kernel does not start in less than {needed} of memory, and recipe {} gives the \
             guest {}: raise its guest.memory, or give --memory at launch",
            recipe.name,
            recipe.memory
        );
    }
    let disk_size = options.disk_size.unwrap_or(recipe.disk.size);
    let mut output = Output::new(&staging);

    let kernel_file = kernel.format.file_name();
    output.copy(&kernel.image, kernel_file)?;
    if let Some(config) = &kernel.config {
        output.write(KERNEL_CONFIG, config.as_bytes())?;
    }
    let Trees {
        initramfs,
        disk,
        inputs,
    } = trees(recipe, options)?;
    output.initramfs(recipe, &initramfs, options.source_date_epoch)?;
    let ext4 = Ext4 {
        label: recipe.disk.label.clone(),
        size: disk_size,
        epoch: options.source_date_epoch,
    };
    output.base(&ext4, disk.as_ref(), interrupt)?;
    output.overlays(options.overlays, disk_size, interrupt)?;

    let manifest = Manifest {
        manifest_version: MANIFEST_VERSION,
        imgbuild: env!("CARGO_PKG_VERSION").to_owned(),
        recipe: recipe.without_paths(),
        options: Options {
            overlays: options.overlays,
            disk_size,
            source_date_epoch: options.source_date_epoch,
        },
        kernel: KernelRecord {
            file: kernel_file.to_owned(),
            format: kernel.format,
            source: kernel.source,
            config_digest: kernel.config_digest,
            toolchain: kernel.toolchain,
        },
        command_line: recipe.command_line(),
        inputs,
        files: output.files,
    };
    manifest.store(staging.path())?;
    if interrupt.requested() {
        return Err(BuildError::Interrupted);
    }
    Ok(Staged {
        staging,
        manifest,
        kernel_cached: kernel.cached,
    })
}

/// What a build made, not yet in its place: dropped, it leaves the previous output
/// as it was.
#[derive(Debug)]
pub struct Staged {
    staging: Staging,
    manifest: Manifest,
    kernel_cached: bool,
}

impl Staged {
    /// Where it is now; a guest may be booted from there.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// Puts it in place of the previous output.
    pub fn commit(self) -> Result<Built, StagingError> {
        Ok(Built {
            folder: self.staging.commit()?,
            manifest: self.manifest,
            kernel_cached: self.kernel_cached,
        })
    }
}

/// What a guest finds, and where it came from.
struct Trees {
    initramfs: Tree,
    /// `None` for an empty file system.
    disk: Option<Tree>,
    /// The recipe's own files: the root file system as `rootfs`, the others by
    /// path in the guest.
    inputs: BTreeMap<String, FileRecord>,
}

/// Puts together what a guest finds in its initramfs and on its disk.
fn trees(recipe: &Recipe, options: &BuildOptions) -> Result<Trees, BuildError> {
    let mut inputs = BTreeMap::new();
    let mut record = |name: &str, key, source: &Path| {
        let path = options.recipe_folder.join(source);
        let record = input_record(&path).map_err(|source| bad_input(recipe, key, &path, source))?;
        inputs.insert(name.to_owned(), record);
        Ok::<_, BuildError>(path)
    };
    let mut root = Tree::new();
    let rootfs = recipe.rootfs.as_ref();
    if let Some(source) = rootfs.and_then(|rootfs| rootfs.source.as_ref()) {
        let path = record("rootfs", "rootfs.source", source)?;
        let archive = File::open(&path)
            .map_err(|source| bad_input(recipe, "rootfs.source", &path, source))?;
        root.add_rootfs_tar(archive, &printable(&path.to_string_lossy()))?;
    }
    let command = rootfs.map_or(&[][..], |rootfs| &rootfs.command);
    let (mut initramfs, mut disk) = if recipe.root_on_disk() {
        (Tree::new(), Some(root))
    } else {
        (root, None)
    };
    initramfs.add_base(assets::INIT.to_vec(), command)?;
    if let Some(disk) = &mut disk {
        disk.add_folders()?;
    }
    let root = disk.as_mut().unwrap_or(&mut initramfs);
    for file in &recipe.files {
        let path = record(&file.path, "files.source", &file.source)?;
        let content =
            fs::read(&path).map_err(|source| bad_input(recipe, "files.source", &path, source))?;
        root.add_file(&file.path, file.mode, content)?;
    }
    Ok(Trees {
        initramfs,
        disk,
        inputs,
    })
}

/// Refuses an initramfs that a guest cannot unpack: its root is a tmpfs, which
/// holds half the memory that is left beside the kernel and the packed archive
/// (`shmem_default_max_blocks()` in Linux's `mm/shmem.c`).
fn check_memory(recipe: &Recipe, unpacked: u64, packed: u64) -> Result<(), BuildError> {
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

fn bad_input(recipe: &Recipe, key: &'static str, path: &Path, source: io::Error) -> BuildError {
    BuildError::Input {
        recipe: recipe.name.clone(),
        key,
        path: path.to_path_buf(),
        source,
    }
}

/// Size and digest of a file that a recipe names.
fn input_record(path: &Path) -> io::Result<FileRecord> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a file"));
    }
    Ok(FileRecord {
        sha256: Sha256::of_file(path)?,
        size: metadata.len(),
    })
}

/// The files of an output folder as they are written.
struct Output<'a> {
    staging: &'a Staging,
    files: BTreeMap<String, FileRecord>,
}

impl<'a> Output<'a> {
    fn new(staging: &'a Staging) -> Self {
        Self {
            staging,
            files: BTreeMap::new(),
        }
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), BuildError> {
        let path = self.staging.path().join(name);
        write_read_only(&path, bytes).map_err(|source| BuildError::Output { path, source })?;
        self.files.insert(
            name.to_owned(),
            FileRecord {
                sha256: Sha256::of_bytes(bytes),
                size: bytes.len() as u64,
            },
        );
        Ok(())
    }

    fn copy(&mut self, from: &Path, name: &str) -> Result<(), BuildError> {
        let bytes = fs::read(from).map_err(|source| BuildError::Output {
            path: from.to_path_buf(),
            source,
        })?;
        self.write(name, &bytes)
    }

    fn initramfs(&mut self, recipe: &Recipe, tree: &Tree, epoch: u32) -> Result<(), BuildError> {
        let path = self.staging.path().join(INITRAMFS);
        let file = match create_read_only(&path) {
            Ok(file) => file,
            Err(source) => return Err(BuildError::Output { path, source }),
        };
        let stats = pack(tree, epoch, file).map_err(|source| BuildError::Pack { path, source })?;
        check_memory(recipe, tree.memory(), stats.packed)?;
        let record = self.record(INITRAMFS)?;
        self.files.insert(INITRAMFS.to_owned(), record);
        Ok(())
    }

    fn base(
        &mut self,
        ext4: &Ext4,
        tree: Option<&Tree>,
        interrupt: &Interrupt,
    ) -> Result<(), BuildError> {
        let path = self.staging.path().join(BASE);
        write_base(&path, ext4, tree, interrupt)?;
        let record = self.record(BASE)?;
        self.files.insert(BASE.to_owned(), record);
        Ok(())
    }

    /// Writes overlays, all of the same bytes, and records the first for all.
    fn overlays(
        &mut self,
        count: u32,
        size: ByteSize,
        interrupt: &Interrupt,
    ) -> Result<(), BuildError> {
        let path = self.staging.path().join(OVERLAYS);
        fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
            .map_err(|source| BuildError::Output {
                path: path.clone(),
                source,
            })?;
        // Relative, so that the folder can be moved.
        let backing = Backing::new(Path::new("..").join(BASE), BackingFormat::Qcow2)?;
        let overlay = Overlay::new(&backing, size)?;
        let guests = GuestRange::first(count).expect("the command line bounds the count");
        let bar = progress::bar(count.into(), "overlays");
        write_overlays(&path, guests, &overlay, interrupt, || bar.inc(1))?;
        bar.finish_and_clear();
        let mut first = None;
        for guest in guests.iter() {
            let name = format!("{OVERLAYS}/{}", guest.overlay_name());
            let record = match &first {
                Some(record) => FileRecord::clone(record),
                None => first.insert(self.record(&name)?).clone(),
            };
            self.files.insert(name, record);
        }
        Ok(())
    }

    /// Hashes a file of the folder.
    fn record(&self, name: &str) -> Result<FileRecord, BuildError> {
        let path = self.staging.path().join(name);
        let hash = || {
            Ok(FileRecord {
                sha256: Sha256::of_file(&path)?,
                size: fs::metadata(&path)?.len(),
            })
        };
        hash().map_err(|source| BuildError::Output {
            path: path.clone(),
            source,
        })
    }
}

/// Writes a file that is not written again.
pub(crate) fn write_read_only(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_read_only(path)?.write_all(bytes)
}

/// Creates a file that only the handle can write, whatever the umask.
fn create_read_only(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o444))?;
    Ok(file)
}
