//! Builds a whole output folder from a recipe.

use std::path::{Path, PathBuf};

use super::KERNEL_CONFIG;
use super::manifest::{KernelRecord, MANIFEST_VERSION, Manifest, ManifestError, Options, Part};
use crate::artifact::BuildError;
use crate::artifact::output::Output;
use crate::artifact::trees::{Trees, trees};
use crate::disk::ext4::Ext4;
use crate::kernel;
use crate::recipe::Recipe;
use crate::staging::{Staging, StagingError};
use crate::units::ByteSize;

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

/// Builds `recipe` for `options.out`, where [`Staged::commit`] puts it.
pub fn build(
    recipe: &Recipe,
    options: &BuildOptions,
    environment: &kernel::Env,
) -> Result<Staged, BuildError> {
    let interrupt = &environment.interrupt;
    // First, so that no kernel is built for an unwritable folder.
    let staging = Staging::new(&options.out, super::OUTPUT)?;
    let kernel = kernel::obtain(&options.kernel, environment)?;
    if let Some(needed) = kernel.memory.filter(|needed| *needed > recipe.memory) {
        return Err(BuildError::KernelMemory {
            recipe: recipe.name.clone(),
            needed,
            memory: recipe.memory,
        });
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
        ssh_server,
        inputs,
    } = trees(recipe, options, interrupt)?;
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
            memory: kernel.memory,
            lacks: Vec::new(),
        },
        command_line: recipe.command_line(),
        ssh_server,
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
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Records what a guest that was booted from it does without.
    pub fn record_lacks(&mut self, lacks: &[Part]) -> Result<(), ManifestError> {
        if self.manifest.kernel.lacks == lacks {
            return Ok(());
        }
        self.manifest.kernel.lacks = lacks.to_vec();
        self.manifest.store_again(self.staging.path())
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
