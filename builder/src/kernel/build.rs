//! Builds a stripped `vmlinux` from source and fragments.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;
use tracing::{debug, info};

use super::cache::{Entry, Record};
use super::config::{self, ConfigError};
use super::fragment::{self, FragmentError, Setting};
use super::make::{self, Make};
use super::prebuilt::{self, PrebuiltError};
use super::source::{self, Source, SourceError};
use super::toolchain::{self, Toolchain};
use super::unpack::{self, UnpackError};
use super::{Env, Kernel, Request};
use crate::digest::Sha256;
use crate::lock::{Lock, TEMPORARY};
use crate::process::{self, ProcessError};
use crate::progress::Pulse;
use crate::{plain, private, progress};

/// Raised whenever this module makes other bytes from the same inputs, so that
/// kernels built before are not taken for its own.
const RECIPE: u32 = 3;

/// The parts of the header that are for one C file each.
const PARTS: [&str; 6] = [
    "CFLAGS_apic.o=-DKNOWN_LAPIC",
    "CFLAGS_random.o=-DDEFERRABLE",
    "CFLAGS_fs-writeback.o=-DDEFERRABLE",
    "CFLAGS_sch_generic.o=-DDEFERRABLE",
    "CFLAGS_devinet.o=-DDEFERRABLE",
    "CFLAGS_virtio_mmio.o=-DSHORT_QUEUES",
];

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("a kernel build needs more tools: on Debian, `apt install {}`", .0.join(" "))]
    Tools(Vec<&'static str>),
    /// The fragments are wrong in themselves.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// The fragments do not fit the source.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// A tool could not be run, or was stopped.
    #[error(transparent)]
    Tool(ProcessError),
    /// make or a compiler failed.
    #[error("the kernel does not build; {hint}the whole log is {}: {source}", .log.display())]
    Compile {
        log: PathBuf,
        /// What to do about it, where that is known.
        hint: &'static str,
        source: ProcessError,
    },
    /// What was built is not a kernel for a guest.
    #[error(transparent)]
    Result(#[from] PrebuiltError),
    /// The cache cannot be used.
    #[error("cannot keep the build in {}: {source}", .path.display())]
    Cache { path: PathBuf, source: io::Error },
    /// The user asked to stop.
    #[error("interrupted while waiting for another kernel build")]
    Interrupted,
}

/// The kernel of `source` and the request's fragments: from the cache, or built.
pub(crate) fn build(request: &Request, env: &Env, source: &Source) -> Result<Kernel, BuildError> {
    let settings = fragment::settings(&request.fragments)?;
    require_tools()?;
    let toolchain = Toolchain::detect(&env.interrupt).map_err(BuildError::Tool)?;
    let key = key(source, &settings, &request.header, &toolchain, env.epoch);
    let entry = Entry::new(&env.cache, &key);
    if let Some(kernel) = entry.load() {
        debug!("kernel {key}: taken from the cache");
        return Ok(kernel);
    }
    let lock = Lock::acquire(&entry.lock_path(), "this kernel", &env.interrupt)
        .map_err(cache_error(&env.cache))?
        .ok_or(BuildError::Interrupted)?;
    entry.sweep(&lock);
    if let Some(kernel) = entry.load() {
        return Ok(kernel);
    }
    let site = Site::prepare(request, env, source, &key, &lock)?;
    let make = site.make(request, env);
    let config = site.configure(&make, &settings)?;
    let image = site.compile(&make, &request.header)?;
    let version = site.release()?;
    let record = Record {
        image_sha256: Sha256::of_file(&image).map_err(cache_error(&image))?,
        config_sha256: Sha256::of_bytes(&config),
        source: source.info(source::version(&site.tree)?),
        version,
        toolchain,
    };
    entry
        .store(&image, &config, &record)
        .map_err(cache_error(&env.cache))?;
    let kernel = entry.load().ok_or_else(|| {
        cache_error(&env.cache)(io::Error::other("the kernel just stored is damaged"))
    })?;
    Ok(Kernel {
        cached: false,
        ..kernel
    })
}

/// The `.config` that `build` would use.
pub(crate) fn configure(
    request: &Request,
    env: &Env,
    source: &Source,
) -> Result<String, BuildError> {
    let settings = fragment::settings(&request.fragments)?;
    require_tools()?;
    let toolchain = Toolchain::detect(&env.interrupt).map_err(BuildError::Tool)?;
    let key = key(source, &settings, &request.header, &toolchain, env.epoch);
    let lock = Entry::new(&env.cache, &key).lock_path();
    let lock = Lock::acquire(&lock, "this kernel", &env.interrupt)
        .map_err(cache_error(&env.cache))?
        .ok_or(BuildError::Interrupted)?;
    let site = Site::prepare(request, env, source, &key, &lock)?;
    site.configure(&site.make(request, env), &settings)
}

fn require_tools() -> Result<(), BuildError> {
    match toolchain::missing_packages() {
        missing if missing.is_empty() => Ok(()),
        missing => Err(BuildError::Tools(missing)),
    }
}

/// What names a kernel in the cache: everything that its bytes depend on.
fn key(
    source: &Source,
    settings: &[Setting],
    header: &str,
    toolchain: &Toolchain,
    epoch: u64,
) -> Sha256 {
    let Toolchain { compiler, linker } = toolchain;
    Sha256::of_bytes(format!(
        "recipe {RECIPE}\narch x86_64\nsource {}\ncompiler {compiler}\nlinker {linker}\n\
         epoch {epoch}\nheader {}\n{}",
        source.digest,
        Sha256::of_bytes(header),
        config::normalised(settings)
    ))
}

fn cache_error(path: &Path) -> impl Fn(io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Cache {
        path: path.clone(),
        source,
    }
}

/// Where one build happens: a source tree, an output folder that goes when the
/// build ends, and a log that stays.
struct Site {
    tree: PathBuf,
    output: TempDir,
    log: File,
    log_path: PathBuf,
}

impl Site {
    fn prepare(
        request: &Request,
        env: &Env,
        source: &Source,
        key: &Sha256,
        lock: &Lock,
    ) -> Result<Self, BuildError> {
        let tree = if source.path.is_dir() {
            source.path.clone()
        } else {
            unpack::unpack(
                &source.path,
                &source.digest,
                &env.cache,
                request.jobs,
                &env.interrupt,
            )?
        };
        let folder = env.cache.join("build");
        let log_path = folder.join(format!("{key}.log"));
        let open = || {
            private::make_all(&folder)?;
            lock.sweep(&folder);
            let output = tempfile::Builder::new()
                .prefix(&format!("{key}{TEMPORARY}"))
                .tempdir_in(&folder)?;
            let mut options = File::options();
            options.write(true).create(true).truncate(true);
            Ok((output, plain::open_with(&mut options, &log_path)?))
        };
        let (output, log) = open().map_err(cache_error(&folder))?;
        Ok(Self {
            tree,
            output,
            log,
            log_path,
        })
    }

    fn make<'a>(&'a self, request: &Request, env: &'a Env) -> Make<'a> {
        Make {
            source: &self.tree,
            output: self.output.path(),
            jobs: request.jobs,
            epoch: env.epoch,
            interrupt: &env.interrupt,
            log: &self.log,
        }
    }

    fn configure(&self, make: &Make<'_>, settings: &[Setting]) -> Result<String, BuildError> {
        info!("configuring the kernel: {} settings", settings.len());
        match config::configure(make, settings) {
            Err(ConfigError::Make(error)) => Err(self.tool_error(error)),
            other => Ok(other?),
        }
    }

    /// Builds, strips and checks the kernel.
    fn compile(&self, make: &Make<'_>, header: &str) -> Result<PathBuf, BuildError> {
        let failed = |error| self.tool_error(error);
        info!(
            "building the kernel; the log is {}",
            self.log_path.display()
        );
        // First what the others include, without which make cannot list them.
        let variables = self.include(header)?;
        let prepare = [OsString::from("prepare")];
        make.run(prepare.iter().chain(&variables), |_| {})
            .map_err(failed)?;
        let total = make.count_objects("vmlinux").map_err(failed)?;
        let bar = progress::bar(total, "building the kernel");
        let mut pulse = Pulse::new(Instant::now());
        let vmlinux = [OsString::from("vmlinux")];
        let result = make.run(vmlinux.iter().chain(&variables), |line| {
            if make::is_object(line) {
                bar.inc(1);
                if let Some(line) = pulse.line(&bar, Instant::now()) {
                    info!("{line}");
                }
            }
        });
        bar.finish_and_clear();
        result.map_err(failed)?;
        let stripped = self.output.path().join("vmlinux.stripped");
        let mut strip = make::clean("strip");
        strip
            .arg("--strip-all")
            .arg("-o")
            .arg(&stripped)
            .arg(self.output.path().join("vmlinux"));
        process::run(strip, make.interrupt, |_, _| {}).map_err(failed)?;
        prebuilt::inspect(&stripped)?;
        Ok(stripped)
    }

    /// The make variables that have `header` included ahead of the linker script
    /// and of every C file. The first replaces the Makefile's own value, which
    /// undefines a name that the script's output architecture uses.
    fn include(&self, header: &str) -> Result<Vec<OsString>, BuildError> {
        let path = self.output.path().join("guest.h");
        fs::write(&path, header).map_err(cache_error(&path))?;
        let variable = |before: &str| {
            let mut variable = OsString::from(before);
            variable.push("-include ");
            variable.push(&path);
            variable
        };
        let mut variables = vec![
            variable("CPPFLAGS_vmlinux.lds=-Ux86_64 "),
            variable("KCFLAGS="),
        ];
        variables.extend(PARTS.map(OsString::from));
        Ok(variables)
    }

    /// What `uname -r` will print.
    fn release(&self) -> Result<String, BuildError> {
        let path = self.output.path().join("include/config/kernel.release");
        let text = fs::read_to_string(&path).map_err(cache_error(&path))?;
        Ok(text.trim().to_owned())
    }

    fn tool_error(&self, error: ProcessError) -> BuildError {
        match &error {
            ProcessError::Failed { tail, .. } => BuildError::Compile {
                log: self.log_path.clone(),
                hint: hint(tail),
                source: error,
            },
            _ => BuildError::Tool(error),
        }
    }
}

/// What helps against failures whose last lines do not say.
fn hint(tail: &str) -> &'static str {
    if tail.contains("gelf.h") || tail.contains("libelf") {
        "objtool needs libelf: on Debian, `apt install libelf-dev`; "
    } else if tail.contains("source tree is not clean") {
        "the given tree was built in: run `make mrproper` there; "
    } else if tail.contains("No space left on device") {
        "free space, or set XDG_CACHE_HOME to another file system; "
    } else {
        ""
    }
}

#[cfg(test)]
mod tests;
