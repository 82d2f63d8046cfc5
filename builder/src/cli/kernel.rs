//! `imgbuild kernel`, and the flags about kernels that builds share with it.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args, Command, Subcommand};
use serde_json::json;

use super::output::{print, print_json, print_text};
use super::{Context, Exit, Failure};
use crate::digest::Sha256;
use crate::download::{AddressError, Network};
use crate::kernel::{self, Env, Fragment, Request, Sources};
use crate::{artifact, assets, durable};

/// Flags that say where the kernel comes from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kernel")]
pub(super) struct KernelArgs {
    /// Use this kernel: an ELF vmlinux with a PVH note, or a bzImage [default:
    /// build one]
    #[arg(
        long,
        value_name = "PATH|URL",
        env = "IMGBUILD_KERNEL",
        // Help would show the password of an address in it.
        hide_env_values = true,
        value_parser = Parser(kernel::Location::parse),
        conflicts_with = "kernel_source"
    )]
    kernel: Option<kernel::Location>,

    /// SHA-256 digest that the kernel or source must have; needed with a URL
    #[arg(long, value_name = "HEX", env = "IMGBUILD_KERNEL_SHA256")]
    kernel_sha256: Option<Sha256>,

    #[command(flatten)]
    source: SourceArgs,
}

/// Flags of everything that builds a kernel.
#[derive(Debug, Args)]
struct SourceArgs {
    /// Build this source: a tarball, a folder, or `pinned` for kernel.org's
    /// [default: pinned if it is in the cache, else the distribution's in
    /// /usr/src, else pinned]
    #[arg(long, value_name = "PATH|URL|pinned", env = "IMGBUILD_KERNEL_SOURCE",
        hide_env_values = true, value_parser = Parser(kernel::SourceChoice::parse))]
    kernel_source: Option<kernel::SourceChoice>,

    /// Read the configuration's fragments and sources.toml from this folder
    /// [default: those built into imgbuild]
    #[arg(long, value_name = "DIR", env = "IMGBUILD_KERNEL_CONFIG")]
    kernel_config: Option<PathBuf>,

    /// Never touch the network
    #[arg(long, env = "IMGBUILD_OFFLINE")]
    offline: bool,

    /// Compilers to run at the same time [default: one a CPU]
    #[arg(short, long, value_name = "N", env = "IMGBUILD_JOBS")]
    jobs: Option<NonZero<usize>>,
}

/// Reads a path or address. An error does not quote it, as clap's own parsers
/// do: an address may hold a password.
#[derive(Clone)]
struct Parser<T>(fn(&OsStr) -> Result<T, AddressError>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Parser<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        (self.0)(value).map_err(|error| {
            let flag = argument.map(ToString::to_string).unwrap_or_default();
            let message = format!("invalid value for '{flag}': {error}");
            command.clone().error(ErrorKind::ValueValidation, message)
        })
    }
}

impl KernelArgs {
    /// The kernel that a recipe with these fragments asks for.
    pub(super) fn request(&self, fragments: &[String]) -> Result<Request, Failure> {
        Ok(Request {
            prebuilt: self.kernel.clone(),
            sha256: self.kernel_sha256,
            source: self.source.kernel_source.clone(),
            fragments: self.source.fragments(fragments)?,
            header: assets::header(self.source.kernel_config.as_deref())?,
            jobs: self.source.jobs(),
        })
    }

    /// What the kernel is built in.
    pub(super) fn environment(&self, context: &Context, epoch: u32) -> Result<Env, Failure> {
        self.source.environment(context, epoch)
    }
}

impl SourceArgs {
    /// The named fragments' texts, in order.
    fn fragments(&self, names: &[String]) -> Result<Vec<Fragment>, Failure> {
        let known = assets::fragments(self.kernel_config.as_deref())?;
        names
            .iter()
            .map(|name| {
                let found = known.iter().find(|(known, _)| known == name);
                found
                    .map(|(name, text)| Fragment {
                        name: name.clone(),
                        text: text.clone(),
                    })
                    .ok_or_else(|| {
                        let known: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
                        Failure::usage(format!(
                            "no kernel fragment named {name}; there are {}",
                            known.join(", ")
                        ))
                    })
            })
            .collect()
    }

    fn environment(&self, context: &Context, epoch: u32) -> Result<Env, Failure> {
        Ok(Env {
            cache: context.directories.open_cache()?.path().to_path_buf(),
            network: if self.offline {
                Network::Offline
            } else {
                Network::Online
            },
            interrupt: context.interrupt.clone(),
            sources: Sources::parse(&assets::sources(self.kernel_config.as_deref())?)?,
            epoch: epoch.into(),
        })
    }

    fn jobs(&self) -> NonZero<usize> {
        self.jobs
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZero::<usize>::MIN)
    }
}

/// Arguments of `kernel`.
#[derive(Debug, Args)]
pub(super) struct Kernel {
    #[command(subcommand)]
    verb: KernelVerb,
}

#[derive(Debug, Subcommand)]
enum KernelVerb {
    /// Build the kernel of a recipe, or find it in the cache
    Build(Build),
    /// Print the whole configuration that a recipe's fragments give
    Config(Common),
    /// Find the source that a build would use, downloading it if need be
    Fetch(Fetch),
}

/// What every verb about kernels takes.
#[derive(Debug, Args)]
struct Common {
    /// The built-in recipe, or recipe file, whose kernel it is
    #[arg(long, value_name = "RECIPE", default_value = "tty-burn")]
    recipe: PathBuf,

    /// SHA-256 digest that the source must have; needed with a URL
    #[arg(long, value_name = "HEX", env = "IMGBUILD_KERNEL_SHA256")]
    kernel_sha256: Option<Sha256>,

    #[command(flatten)]
    source: SourceArgs,
}

#[derive(Debug, Args)]
struct Build {
    #[command(flatten)]
    common: Common,

    /// Copy the kernel and its configuration into this folder [default: leave them
    /// in the cache]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Print what was built as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(mut_arg("jobs", |jobs| {
    jobs.help("Ignored: fetching a source runs no compilers")
}))]
struct Fetch {
    #[command(flatten)]
    common: Common,

    /// Print what was found as one JSON object
    #[arg(long)]
    json: bool,
}

impl Kernel {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        match self.verb {
            KernelVerb::Build(command) => command.run(context)?,
            KernelVerb::Config(command) => {
                let config =
                    kernel::configure(&command.request()?, &command.environment(context)?)?;
                print_text(config.trim_end())?;
            }
            KernelVerb::Fetch(command) => command.run(context)?,
        }
        Ok(Exit::Done)
    }
}

impl Common {
    fn request(&self) -> Result<Request, Failure> {
        let (recipe, _) = super::inputs::find_recipe(&self.recipe)?;
        Ok(Request {
            prebuilt: None,
            sha256: self.kernel_sha256,
            source: self.source.kernel_source.clone(),
            fragments: self.source.fragments(&recipe.kernel.fragments)?,
            header: assets::header(self.source.kernel_config.as_deref())?,
            jobs: self.source.jobs(),
        })
    }

    fn environment(&self, context: &Context) -> Result<Env, Failure> {
        self.source
            .environment(context, super::inputs::source_date_epoch()?)
    }
}

impl Build {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let kernel = kernel::obtain(&self.common.request()?, &self.common.environment(context)?)?;
        let file = match &self.out {
            None => kernel.image.clone(),
            Some(folder) => copy(&kernel, folder)?,
        };
        if self.json {
            print_json(&json!({
                "file": file.to_string_lossy(),
                "sha256": kernel.sha256,
                "version": kernel.version,
                "source": kernel.source,
                "config_digest": kernel.config_digest,
                "toolchain": kernel.toolchain,
                "cached": kernel.cached,
            }))
        } else {
            print(&format!("{}  {}", kernel.sha256, file.display()))
        }
    }
}

/// Copies a kernel and its configuration into `folder`.
fn copy(kernel: &kernel::Kernel, folder: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(folder)?;
    let file = folder.join(kernel.format.file_name());
    put(&file, &fs::read(&kernel.image)?)?;
    if let Some(config) = &kernel.config {
        put(&folder.join(artifact::KERNEL_CONFIG), config.as_bytes())?;
    }
    Ok(file)
}

/// Puts a file in the place of another, whole or not at all.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    builder.permissions(Permissions::from_mode(0o666));
    durable::persist(durable::beside(&builder, path, bytes)?, path).map(drop)
}

impl Fetch {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let source = kernel::fetch(&self.common.request()?, &self.common.environment(context)?)?;
        if self.json {
            print_json(&json!({
                "path": source.path.to_string_lossy(),
                "sha256": source.digest,
                "origin": source.origin,
            }))
        } else {
            print(&format!("{}  {}", source.digest, source.path.display()))
        }
    }
}
