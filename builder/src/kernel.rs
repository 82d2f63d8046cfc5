//! Guest kernels: built from source and configuration fragments, or ready-made.

use std::ffi::OsStr;
use std::num::NonZero;
use std::path::PathBuf;

use crate::digest::Sha256;
use crate::digest::memo::Memo;
use crate::download::{Address, AddressError, DownloadError, Network};
use crate::interrupt::Interrupt;
use crate::units::ByteSize;

mod build;
mod cache;
mod config;
mod fragment;
mod kconfig;
mod make;
mod prebuilt;
mod rules;
mod source;
mod sources;
mod toolchain;
mod unpack;
mod whole;

pub(crate) use build::BuildError;
pub(crate) use fragment::Fragment;
pub(crate) use prebuilt::{Format, Prebuilt, PrebuiltError, inspect};
pub(crate) use source::{Origin, Source, SourceError, SourceInfo};
pub(crate) use sources::Sources;
#[cfg(test)]
pub(crate) use toolchain::TOOLS;
pub(crate) use toolchain::Toolchain;

/// A file here or elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Path(PathBuf),
    Url(Address),
}

impl Location {
    /// What looks like an address is one, all else is a path.
    pub fn parse(text: &OsStr) -> Result<Self, AddressError> {
        match text.to_str().filter(|text| looks_like_address(text)) {
            Some(address) => address.parse().map(Self::Url),
            None => Ok(Self::Path(text.into())),
        }
    }
}

fn looks_like_address(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let is_web = ["http", "https"]
        .iter()
        .any(|web| scheme.eq_ignore_ascii_case(web));
    is_web || is_scheme && rest.starts_with("//")
}

/// The kernel source that the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceChoice {
    /// The pinned release, whatever else is there.
    Pinned,
    /// A tarball, or an unpacked tree.
    At(Location),
}

impl SourceChoice {
    /// The word `pinned`, or a [`Location`].
    pub fn parse(text: &OsStr) -> Result<Self, AddressError> {
        match text.to_str() {
            Some("pinned") => Ok(Self::Pinned),
            _ => Location::parse(text).map(Self::At),
        }
    }
}

/// Which kernel.
#[derive(Debug, Clone)]
pub struct Request {
    /// A ready kernel, which leaves nothing to build.
    pub prebuilt: Option<Location>,
    /// The digest of the ready kernel, or of the source that is named.
    pub sha256: Option<Sha256>,
    /// A source; without one, the best that is at hand.
    pub source: Option<SourceChoice>,
    /// What to configure, on top of `tinyconfig`.
    pub fragments: Vec<Fragment>,
    /// A C header to be included ahead of the kernel's linker script and C
    /// files; may be empty.
    pub header: String,
    /// Compilers to run at once.
    pub jobs: NonZero<usize>,
}

/// What a build has around it.
#[derive(Debug, Clone)]
pub struct Env {
    /// The cache folder.
    pub cache: PathBuf,
    /// Whether to download.
    pub network: Network,
    /// Stops whatever is under way.
    pub interrupt: Interrupt,
    /// Where sources come from.
    pub sources: Sources,
    /// The time that the kernel says it was built, in seconds since 1970:
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: u64,
}

/// A kernel on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// Its file.
    pub image: PathBuf,
    /// The form of the file.
    pub format: Format,
    /// The digest of the file.
    pub sha256: Sha256,
    /// What `uname -r` prints in it, where that is known.
    pub version: Option<String>,
    /// Least memory of a guest that it starts in, where its file says.
    pub memory: Option<ByteSize>,
    /// Where it came from.
    pub source: SourceInfo,
    /// Its whole configuration, where it was built here.
    pub config: Option<String>,
    /// The configuration's digest.
    pub config_digest: Option<Sha256>,
    /// What built it, where it was built here.
    pub toolchain: Option<Toolchain>,
    /// Whether nothing had to be built.
    pub cached: bool,
}

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source does not become a kernel.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The ready kernel is none.
    #[error(transparent)]
    Prebuilt(#[from] PrebuiltError),
    /// The ready kernel cannot be downloaded.
    #[error(transparent)]
    Download(#[from] DownloadError),
}

/// The kernel that `request` describes: given, cached, or built.
pub(crate) fn obtain(request: &Request, env: &Env) -> Result<Kernel, KernelError> {
    if let Some(location) = &request.prebuilt {
        return obtain_prebuilt(location, request.sha256, env);
    }
    let source = source::resolve(request, env)?;
    Ok(build::build(request, env, &source)?)
}

/// The whole configuration that the request's fragments give.
pub(crate) fn configure(request: &Request, env: &Env) -> Result<String, KernelError> {
    let source = source::resolve(request, env)?;
    Ok(build::configure(request, env, &source)?)
}

/// The source that a build would use, downloaded if need be.
pub(crate) fn fetch(request: &Request, env: &Env) -> Result<Source, KernelError> {
    Ok(source::resolve(request, env)?)
}

fn obtain_prebuilt(
    location: &Location,
    sha256: Option<Sha256>,
    env: &Env,
) -> Result<Kernel, KernelError> {
    let (image, origin) = match location {
        Location::Path(path) => (path.clone(), Origin::PrebuiltFile),
        Location::Url(url) => {
            let sha256 = sha256.ok_or_else(|| SourceError::NoDigest(url.clone()))?;
            let origin = Origin::PrebuiltUrl { url: url.clone() };
            (source::download(url, sha256, env)?, origin)
        }
    };
    let Prebuilt {
        format,
        version,
        memory,
    } = inspect(&image)?;
    let sha256 = source::file_digest(&Memo::in_cache(&env.cache), &image, sha256)?;
    Ok(Kernel {
        source: SourceInfo {
            origin,
            version: version.clone(),
            sha256: Some(sha256),
        },
        image,
        format,
        sha256,
        version,
        memory,
        config: None,
        config_digest: None,
        toolchain: None,
        cached: true,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn an_address_is_told_from_a_path() {
        let at = |text: &str| Location::parse(OsStr::new(text));
        for address in ["https://example.org/x", "HTTP://example.org", "https:host"] {
            assert!(matches!(at(address), Ok(Location::Url(_))), "{address}");
        }
        for path in ["linux.tar.xz", "/usr/src/a:b", "file:x", "/a://b", "a"] {
            assert_eq!(at(path), Ok(Location::Path(path.into())));
        }
        // Taken for a path, it would be printed with what it holds.
        for neither in [
            "ftp://me:secret@example.org/x",
            "https://me:secret@h:99999/",
        ] {
            assert!(at(neither).is_err(), "{neither}");
        }
        let path = OsStr::from_bytes(b"/linux-\xff.tar.xz");
        assert_eq!(Location::parse(path), Ok(Location::Path(path.into())));
        assert_eq!(
            SourceChoice::parse(OsStr::new("pinned")),
            Ok(SourceChoice::Pinned)
        );
    }
}
