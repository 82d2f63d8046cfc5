//! `imgbuild tty-burn` and `imgbuild build`.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use serde_json::{Value, json};

use super::kernel::KernelArgs;
use super::output::{Form, print, print_json};
use super::qemu::QemuArgs;
use super::{Context, DEFAULT_OUT, Exit, Failure};
use crate::artifact::{self, BuildOptions, Built};
use crate::cli::inputs::{find_recipe, source_date_epoch};
use crate::recipe::{Place, Recipe, SshServer, built_in, disk_size, guest_memory};
use crate::trial::boot;
use crate::units::ByteSize;
use crate::vmm::Accel;

/// Arguments of `tty-burn`.
#[derive(Debug, Args)]
pub(super) struct TtyBurn {
    /// Folder to write the artifacts into
    #[arg(long, value_name = "DIR", default_value = DEFAULT_OUT, env = "IMGBUILD_OUT")]
    out: PathBuf,

    #[command(flatten)]
    common: Common,
}

/// Arguments of `build`.
#[derive(Debug, Args)]
pub(super) struct Build {
    /// A recipe file, or the name of a built-in recipe
    recipe: PathBuf,

    /// Folder to write the artifacts into [default: out/<recipe>]
    #[arg(long, value_name = "DIR", env = "IMGBUILD_OUT")]
    out: Option<PathBuf>,

    /// Tar of the guest's root file system, plain or compressed by gzip, xz or zstd;
    /// - for stdin [default: the recipe's]
    #[arg(long, value_name = "PATH", env = "IMGBUILD_ROOTFS")]
    rootfs: Option<PathBuf>,

    /// Where to put the root file system [default: the recipe's]
    #[arg(long, value_name = "PLACE", env = "IMGBUILD_ROOTFS_PLACE")]
    rootfs_place: Option<Place>,

    /// What serves SSH in the guest [default: the recipe's]
    #[arg(long, value_name = "SERVER", env = "IMGBUILD_SSH_SERVER")]
    ssh_server: Option<SshServer>,

    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Number of overlays to write, to boot guests without imgbuild; `launch`
    /// writes its own
    #[arg(long, value_name = "N", default_value_t = 1, env = "IMGBUILD_OVERLAYS",
        value_parser = clap::value_parser!(u32).range(0..=100_000))]
    overlays: u32,

    /// Virtual size of base and overlays, such as 1G [default: the recipe's]
    #[arg(long, value_name = "SIZE", env = "IMGBUILD_DISK_SIZE",
        value_parser = disk_size)]
    disk_size: Option<ByteSize>,

    /// RAM of a guest, such as 128M, which is kept with the artifacts [default: the
    /// recipe's]
    #[arg(long, value_name = "SIZE", env = "IMGBUILD_MEMORY",
        value_parser = guest_memory)]
    memory: Option<ByteSize>,

    /// Do not boot a guest from the artifacts
    #[arg(long)]
    no_boot: bool,

    /// Print what was built as one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    qemu: QemuArgs,

    #[command(flatten)]
    kernel: KernelArgs,
}

impl TtyBurn {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let recipe = built_in::recipe("tty-burn")?;
        let form = self.common.form();
        let (built, boot) = (self.common).make(recipe, Path::new("."), self.out, context)?;
        report(&built, boot.as_ref(), form)
    }
}

impl Build {
    /// As by `build --no-boot`, and for the rest as the environment says.
    pub(super) fn without_boot(named: &Path, out: &Path) -> Result<Self, Failure> {
        #[derive(Debug, Parser)]
        struct Alone {
            #[command(flatten)]
            build: Build,
        }
        let words = [
            OsStr::new("build"),
            "--no-boot".as_ref(),
            "--out".as_ref(),
            out.as_os_str(),
            "--".as_ref(),
            named.as_os_str(),
        ];
        let alone =
            Alone::try_parse_from(words).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(alone.build)
    }

    /// Whether nobody has said where the root file system of this recipe comes from.
    pub(super) fn lacks_archive(&self, recipe: &Recipe) -> bool {
        self.rootfs.is_none() && recipe.lacks_archive()
    }

    /// Builds, and prints nothing.
    pub(super) fn quietly(self, context: &Context) -> Result<(), Failure> {
        self.make(context).map(drop)
    }

    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let form = self.common.form();
        let (built, boot) = self.make(context)?;
        report(&built, boot.as_ref(), form)
    }

    fn make(self, context: &Context) -> Result<(Built, Option<boot::Report>), Failure> {
        let (mut recipe, folder) = find_recipe(&self.recipe)?;
        recipe.choose_rootfs(self.rootfs, self.rootfs_place)?;
        recipe.choose_ssh_server(self.ssh_server)?;
        let out = self.out.unwrap_or_else(|| ordinary_out(&recipe));
        self.common.make(recipe, &folder, out, context)
    }
}

/// The output folder of a recipe, unless the user names one.
pub(super) fn ordinary_out(recipe: &Recipe) -> PathBuf {
    Path::new("out").join(&recipe.name)
}

impl Common {
    fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Text }
    }

    fn make(
        self,
        mut recipe: Recipe,
        recipe_folder: &Path,
        out: PathBuf,
        context: &Context,
    ) -> Result<(Built, Option<boot::Report>), Failure> {
        recipe.memory = self.memory.unwrap_or(recipe.memory);
        let options = BuildOptions {
            out,
            recipe_folder: recipe_folder.to_path_buf(),
            overlays: self.overlays,
            disk_size: self.disk_size,
            kernel: self.kernel.request(&recipe.kernel.fragments)?,
            source_date_epoch: source_date_epoch()?,
        };
        let environment = self
            .kernel
            .environment(context, options.source_date_epoch)?;
        let (directories, interrupt) = (&context.directories, &context.interrupt);
        // First, so that no kernel is built for a QEMU that cannot run guests.
        let emulator = if self.no_boot {
            None
        } else {
            let program = self.qemu.program(&directories.cache, interrupt)?;
            Some(boot::emulator(program.as_ref(), directories, interrupt)?)
        };
        let mut staged = artifact::build(&recipe, &options, &environment)?;
        let boot = emulator
            .map(|emulator| boot::verify(staged.path(), &emulator, directories, interrupt))
            .transpose()?;
        if let Some(boot) = &boot {
            staged.record_lacks(&boot.lacks)?;
        }
        if let Some(shortfall) = staged.manifest().kernel.shortfall() {
            tracing::warn!("{shortfall}");
        }
        Ok((staged.commit()?, boot))
    }
}

/// Prints what was built.
fn report(built: &Built, boot: Option<&boot::Report>, form: Form) -> Result<Exit, Failure> {
    match form {
        Form::Json => print_json(&json(built, boot))?,
        Form::Text => {
            for line in sentences(built, boot) {
                print(&line)?;
            }
        }
    }
    Ok(Exit::Done)
}

fn json(built: &Built, boot: Option<&boot::Report>) -> Value {
    json!({
        "out": built.folder.to_string_lossy(),
        "kernel_cached": built.kernel_cached,
        "boot": boot,
        "manifest": built.manifest,
    })
}

/// The command that launches guests of an output, as this program was called.
fn next(folder: &Path, boot: Option<&boot::Report>) -> String {
    let program = env::args_os().next().map(PathBuf::from);
    let program = program.unwrap_or_else(|| PathBuf::from("imgbuild"));
    let accel = match boot.map(|boot| boot.accel) {
        Some(Accel::Tcg) => " --accel tcg",
        Some(Accel::Kvm) | None => "",
    };
    let [program, folder] = [&program, folder].map(|path| word(&path.to_string_lossy()));
    format!("{program} launch --count 3{accel} {folder}")
}

/// A word as a shell reads it.
pub(super) fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// What was built, for people.
fn sentences(built: &Built, boot: Option<&boot::Report>) -> Vec<String> {
    let kernel = &built.manifest.kernel;
    let mut lines = vec![format!(
        "kernel     Linux {}, {}{}",
        kernel
            .source
            .version
            .as_deref()
            .unwrap_or("of unknown version"),
        kernel.source.origin,
        if built.kernel_cached && kernel.toolchain.is_some() {
            ", built before"
        } else {
            ""
        }
    )];
    for (file, record) in &built.manifest.files {
        if !file.starts_with(artifact::OVERLAYS) {
            lines.push(format!("{:>9}  {file}", record.size));
        }
    }
    lines.push(format!(
        "{:>9}  overlays of {}",
        built.manifest.options.overlays, built.manifest.options.disk_size
    ));
    if let Some(boot) = boot {
        // The guest's own messages are for programs (--json).
        lines.extend(boot::for_people(&boot.words).map(|line| format!("guest      {line}")));
        lines.push(format!(
            "booted     under {} in {:.2} s on {}; burn counter {} → {} rounds",
            boot.accel.name(),
            boot.ready_after,
            boot.qemu.name(),
            boot.rounds[0],
            boot.rounds[1]
        ));
    }
    lines.push(format!("output     {}", built.folder.display()));
    lines.push(format!("next       {}", next(&built.folder, boot)));
    lines
}
