use std::num::NonZero;

use super::*;
use crate::download::Network;
use crate::interrupt::Interrupt;
use crate::kernel::sources::{Pinned, Sources};
use crate::kernel::{Fragment, Location, SourceChoice};

/// A Makefile that goes through the motions of kbuild: `vmlinux` is `$(IMAGE)`.
const MAKEFILE: &str = r"VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 57
tinyconfig olddefconfig:
	@test -f $(O)/.config || echo 'CONFIG_TINY=y' > $(O)/.config
prepare:
	@mkdir -p $(O)/include/config; echo 6.12.57-test > $(O)/include/config/kernel.release
vmlinux:
	@set -e;  echo '  CC      one.o'; echo ran >> $(dir $(firstword $(MAKEFILE_LIST)))runs; $(RECIPE)
";

struct Case {
    folder: TempDir,
    env: Env,
    request: Request,
}

impl Case {
    fn new(recipe: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("Kconfig"), "config A\nconfig TINY\n").unwrap();
        fs::write(
            tree.join("Makefile"),
            format!("RECIPE = {recipe}\n{MAKEFILE}"),
        )
        .unwrap();
        let env = Env {
            cache: folder.path().join("cache"),
            network: Network::Offline,
            interrupt: Interrupt::never().unwrap(),
            sources: Sources {
                pinned: Pinned {
                    version: "6".to_owned(),
                    url: "https://example.org/".parse().unwrap(),
                    sha256: Sha256::of_bytes(""),
                },
                distribution: Vec::new(),
            },
            epoch: 0,
        };
        let request = Request {
            prebuilt: None,
            sha256: None,
            source: Some(SourceChoice::At(Location::Path(tree))),
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

    fn ask(&mut self, text: &str) {
        self.request.fragments = vec![Fragment {
            name: "one.config".to_owned(),
            text: text.to_owned(),
        }];
    }

    /// The source as it is before a build writes its count of runs into it.
    fn source(&self) -> Source {
        Source {
            digest: Sha256::of_bytes("tree"),
            ..source::resolve(&self.request, &self.env).unwrap()
        }
    }

    fn build(&self) -> Result<Kernel, BuildError> {
        build(&self.request, &self.env, &self.source())
    }

    fn runs(&self) -> usize {
        let path = self.folder.path().join("tree/runs");
        fs::read_to_string(path).map_or(0, |text| text.lines().count())
    }

    /// Output folders that a build left.
    fn leftovers(&self) -> usize {
        fs::read_dir(self.env.cache.join("build"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count()
    }
}

/// Links a program with a PVH note into the place of the kernel.
const LINK: &str = r#"printf '.section .note,"a",@note\n.long 4,8,18\n.asciz "Xen"\n.quad 1\n.text\n.globl _start\n_start: ret\n.section .rodata\n.asciz "Linux version 6.12.57-test ("\n' | gcc -c -x assembler - -o $(O)/one.o; ld -o $(O)/vmlinux $(O)/one.o"#;

#[test]
fn a_kernel_is_built_once_and_stripped() {
    let mut case = Case::new(LINK);
    case.ask("CONFIG_A=y\n");
    let kernel = case.build().unwrap();
    assert!(!kernel.cached);
    assert_eq!(kernel.version.as_deref(), Some("6.12.57-test"));
    assert_eq!(kernel.source.version.as_deref(), Some("6.12.57"));
    assert_eq!(
        kernel.config.as_deref(),
        Some("CONFIG_TINY=y\nCONFIG_A=y\n")
    );
    let bytes = fs::read(&kernel.image).unwrap();
    assert!(!bytes.windows(6).any(|text| text == b"_start"));
    let again = case.build().unwrap();
    assert!(again.cached && again.sha256 == kernel.sha256);
    assert_eq!((case.runs(), case.leftovers()), (1, 0));

    fs::write(&kernel.image, "damaged").unwrap();
    assert!(!case.build().unwrap().cached);
    assert_eq!(case.runs(), 2);
}

#[test]
fn two_builds_at_once_share_one_result() {
    let case = Case::new(&format!("sleep 0.3; {LINK}"));
    let source = case.source();
    let build = || build(&case.request, &case.env, &source).unwrap();
    std::thread::scope(|scope| {
        let both = [scope.spawn(build), scope.spawn(build)];
        let cached = both.map(|one| one.join().unwrap().cached);
        assert_eq!(cached.iter().filter(|cached| **cached).count(), 1);
    });
    assert_eq!(case.runs(), 1);
}

#[test]
fn a_compiler_error_is_shown_with_the_log() {
    let case = Case::new("echo 'one.c:1: error: no such thing' >&2; exit 1");
    let error = case.build().unwrap_err();
    let BuildError::Compile { log, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        error.to_string().contains("one.c:1: error: no such thing"),
        "{error}"
    );
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("one.c:1: error"), "{log}");
    assert_eq!(case.leftovers(), 0);
}

#[test]
fn a_kernel_without_a_pvh_entry_is_refused() {
    let case = Case::new("cp /bin/sh $(O)/vmlinux");
    let error = case.build().unwrap_err().to_string();
    assert!(error.contains("CONFIG_PVH=y"), "{error}");
}

#[test]
fn an_interrupt_ends_make_and_leaves_no_output() {
    let case = Case::new("sleep 100");
    let interrupt = case.env.interrupt.clone();
    let error = std::thread::scope(|scope| {
        let building = scope.spawn(|| case.build());
        while case.runs() == 0 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        interrupt.raise();
        building.join().unwrap().unwrap_err()
    });
    assert!(
        matches!(error, BuildError::Tool(ProcessError::Interrupted { .. })),
        "{error}"
    );
    assert_eq!(case.leftovers(), 0);
}

#[test]
fn what_decides_the_bytes_decides_the_key() {
    let mut case = Case::new("true");
    let toolchain = Toolchain {
        compiler: "gcc 12".to_owned(),
        linker: "ld 2.40".to_owned(),
    };
    let mut key_of = |text: &str| {
        case.ask(text);
        let settings = fragment::settings(&case.request.fragments).unwrap();
        key(&case.source(), &settings, "", &toolchain, 0)
    };
    let first = key_of("# Why.\nCONFIG_A=y\n");
    assert_eq!(key_of("CONFIG_A=y\n\n"), first);
    assert_ne!(key_of("CONFIG_A=m\n"), first);
    assert_ne!(
        key(&case.source(), &[], "", &toolchain, 0),
        key(&case.source(), &[], "", &toolchain, 1)
    );
    let newer = Toolchain {
        compiler: "gcc 13".to_owned(),
        ..toolchain.clone()
    };
    assert_ne!(
        key(&case.source(), &[], "", &toolchain, 0),
        key(&case.source(), &[], "", &newer, 0)
    );
}
