use std::num::NonZero;

use super::*;
use crate::download::Network;
use crate::interrupt::Interrupt;
use crate::kernel::sources::{Distribution, Pinned, Sources};

/// A machine without network, whose pinned tarball is the text "pinned".
struct Case {
    folder: tempfile::TempDir,
    env: Env,
    request: Request,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let env = Env {
            cache: folder.path().join("cache"),
            network: Network::Offline,
            interrupt: Interrupt::never().unwrap(),
            sources: Sources {
                pinned: Pinned {
                    version: "6.12.64".to_owned(),
                    url: "https://example.org/linux.tar.xz".parse().unwrap(),
                    sha256: Sha256::of_bytes("pinned"),
                },
                distribution: vec![Distribution {
                    glob: folder.path().join("linux-*.tar.xz"),
                    package: "linux-source".to_owned(),
                }],
            },
            epoch: 0,
        };
        let request = Request {
            prebuilt: None,
            sha256: None,
            source: None,
            fragments: Vec::new(),
            header: String::new(),
            jobs: NonZero::<usize>::MIN,
        };
        Self {
            folder,
            env,
            request,
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn cache_pinned(&self) {
        let path = download::cached_path(&self.env.cache, &Sha256::of_bytes("pinned"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "pinned").unwrap();
    }

    fn resolve(&self) -> Result<Source, SourceError> {
        resolve(&self.request, &self.env)
    }
}

fn at(path: &Path) -> SourceChoice {
    SourceChoice::At(Location::Path(path.to_owned()))
}

#[test]
fn without_a_choice_the_cache_comes_before_the_distribution_before_the_network() {
    let case = Case::new();
    let error = case.resolve().unwrap_err().to_string();
    assert!(
        error.contains("offline") && error.contains("example.org"),
        "{error}"
    );

    case.write("linux-6.12.tar.xz", "distribution");
    let source = case.resolve().unwrap();
    assert_eq!(source.digest, Sha256::of_bytes("distribution"));
    assert!(matches!(source.origin, Origin::Distribution { package } if package == "linux-source"));

    case.cache_pinned();
    assert!(matches!(
        case.resolve().unwrap().origin,
        Origin::Pinned { .. }
    ));
}

#[test]
fn pinned_passes_over_the_distribution() {
    let mut case = Case::new();
    case.write("linux-6.12.tar.xz", "distribution");
    case.request.source = Some(SourceChoice::Pinned);
    assert!(case.resolve().is_err());
    case.cache_pinned();
    assert_eq!(case.resolve().unwrap().digest, Sha256::of_bytes("pinned"));
}

#[test]
fn a_file_is_checked_against_a_digest_that_is_given() {
    let mut case = Case::new();
    case.request.source = Some(at(&case.write("mine.tar.gz", "mine")));
    assert_eq!(case.resolve().unwrap().origin, Origin::Tarball);
    case.request.sha256 = Some(Sha256::of_bytes("mine"));
    case.resolve().unwrap();
    case.request.sha256 = Some(Sha256::of_bytes("yours"));
    let error = case.resolve().unwrap_err();
    assert!(matches!(error, SourceError::Digest { .. }), "{error}");
}

#[test]
fn an_address_needs_a_digest() {
    let mut case = Case::new();
    let url = "https://example.org/linux-7.tar.xz";
    case.request.source = Some(SourceChoice::parse(url.as_ref()).unwrap());
    let error = case.resolve().unwrap_err().to_string();
    assert!(
        error.contains(url) && error.contains("--kernel-sha256"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let mut case = Case::new();
    case.request.source = Some(at(Path::new("/no/such.tar.xz")));
    let error = case.resolve().unwrap_err().to_string();
    assert!(error.contains("/no/such.tar.xz"), "{error}");
}

#[test]
fn a_tree_is_told_from_its_changed_self() {
    let mut case = Case::new();
    case.write("tree/Makefile", "VERSION = 6\n");
    let file = case.write("tree/kernel/one.c", "one");
    case.request.source = Some(at(&case.folder.path().join("tree")));
    let first = case.resolve().unwrap();
    assert_eq!(first.origin, Origin::Tree);
    assert_eq!(case.resolve().unwrap(), first);
    assert_eq!(first.info("6".to_owned()).sha256, None);
    fs::write(file, "two two").unwrap();
    assert_ne!(case.resolve().unwrap().digest, first.digest);
}

#[test]
fn the_version_is_the_makefiles() {
    let text =
        "# SPDX\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 57\nEXTRAVERSION = -rc1\nNAME = X\n";
    assert_eq!(parse_version(text).as_deref(), Some("6.12.57-rc1"));
    assert_eq!(parse_version("all:\n\techo VERSION\n"), None);
}
