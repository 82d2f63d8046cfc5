//! `imgbuild kernel fetch` and `kernel config`: from a real source.

use std::fs;
use std::path::Path;
use std::process::Command;

use imgbuild::digest::Sha256;
use imgbuild::directories::Directories;
use imgbuild_tests::small_kernel::SmallKernel;
use imgbuild_tests::{TestEnv, run, workspace};

/// The repository's own fragments, in a folder that a test may change.
struct Fragments<'a> {
    env: &'a TestEnv,
}

impl<'a> Fragments<'a> {
    fn new(env: &'a TestEnv) -> Self {
        let fragments = Self { env };
        fs::create_dir(env.path().join("fragments")).unwrap();
        for entry in fs::read_dir(workspace().join("kernel-config")).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(
                &path,
                fragments.path(path.file_name().unwrap().to_str().unwrap()),
            )
            .unwrap();
        }
        fragments
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.env.path().join("fragments").join(name)
    }

    /// Adds a line to the end of a fragment and gives its number.
    fn append(&self, name: &str, line: &str) -> usize {
        let text = fs::read_to_string(self.path(name)).unwrap() + line + "\n";
        fs::write(self.path(name), &text).unwrap();
        text.lines().count()
    }

    /// `kernel config` with these fragments; the unpacked source is shared with
    /// the user's cache, and nothing else is.
    fn config(&self) -> Command {
        let shared = Directories::from_environment()
            .unwrap()
            .cache
            .join("source");
        let source = self.env.cache().join("source");
        if shared.is_dir() && !source.exists() {
            fs::create_dir_all(self.env.cache()).unwrap();
            std::os::unix::fs::symlink(shared, source).unwrap();
        }
        let mut command = self.env.imgbuild(["kernel", "config", "--kernel-config"]);
        command.arg(self.path(""));
        self.env.own_cache(&mut command);
        command
    }
}

/// The settings of the built-in fragments that tty-burn asks for.
fn asked_for() -> Vec<String> {
    let recipe = fs::read_to_string(workspace().join("images/tty-burn.toml")).unwrap();
    let (_, list) = recipe.split_once("fragments = [").unwrap();
    let (list, _) = list.split_once(']').unwrap();
    list.split(',')
        .map(|name| name.trim().trim_matches('"'))
        .filter(|name| !name.is_empty())
        .flat_map(|name| {
            let file = workspace().join(format!("kernel-config/{name}.config"));
            let text = fs::read_to_string(file).unwrap();
            text.lines()
                .filter(|line| line.starts_with("CONFIG_") || line.ends_with(" is not set"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_setting_asked_for_is_in_the_configuration() {
    let env = TestEnv::new();
    let config = run(&mut Fragments::new(&env).config()).succeeds().stdout;
    let holds = |line: &str| config.lines().any(|found| found == line);
    for line in asked_for() {
        // What depends on something that is off is not even mentioned.
        let symbol = line
            .strip_prefix("# ")
            .and_then(|line| line.strip_suffix(" is not set"));
        let absent = symbol.is_some_and(|symbol| !config.contains(&format!("\n{symbol}=")));
        assert!(holds(&line) || absent, "{line}");
    }
    // What the guest is made of, whichever fragment asks for it.
    for line in [
        "CONFIG_64BIT=y",
        "CONFIG_PVH=y",
        "CONFIG_VIRTIO_MMIO=y",
        "CONFIG_SERIAL_8250_CONSOLE=y",
        "CONFIG_EXT4_FS=y",
        "CONFIG_INET=y",
    ] {
        assert!(holds(line), "{line}");
    }
    // tinyconfig, not a distribution's choice.
    assert!(
        !config.contains("\nCONFIG_MODULES=y") && !config.contains("\nCONFIG_RANDOMIZE_BASE=y")
    );
}

#[test]
fn a_setting_that_the_kernel_overrules_is_named_with_what_it_became() {
    let env = TestEnv::new();
    let fragments = Fragments::new(&env);
    // USB is off, so storage on it cannot be on; and there is one CPU.
    let storage = fragments.append("disk.config", "CONFIG_USB_STORAGE=y");
    let cpus = fragments.append("base.config", "CONFIG_NR_CPUS=64");
    run(&mut fragments.config()).exits(1).says(&[
        &format!("disk:{storage}: CONFIG_USB_STORAGE: wanted y, got n"),
        &format!("base:{cpus}: CONFIG_NR_CPUS: wanted 64, got 1"),
    ]);
}

#[test]
fn a_symbol_that_the_source_does_not_define_is_named_with_its_place() {
    let env = TestEnv::new();
    let fragments = Fragments::new(&env);
    let first = fragments.append("virtio.config", "CONFIG_VIRTIO_MIMO=y");
    let second = fragments.append("net.config", "# CONFIG_FLUX_CAPACITOR is not set");
    run(&mut fragments.config()).exits(1).says(&[
        &format!("virtio:{first}: CONFIG_VIRTIO_MIMO (CONFIG_VIRTIO_MMIO?)"),
        &format!("net:{second}: CONFIG_FLUX_CAPACITOR"),
    ]);
}

#[test]
fn two_fragments_that_disagree_are_both_named() {
    let env = TestEnv::new();
    let fragments = Fragments::new(&env);
    let line = fragments.append("trim.config", "# CONFIG_PVH is not set");
    let text = fs::read_to_string(fragments.path("kvm.config")).unwrap();
    let first = 1 + text
        .lines()
        .position(|line| line == "CONFIG_PVH=y")
        .unwrap();
    run(&mut fragments.config()).exits(1).says(&[
        "CONFIG_PVH is set twice",
        &format!("kvm:{first} says y"),
        &format!("trim:{line} says n"),
    ]);
}

#[test]
fn a_line_that_is_no_setting_is_quoted() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    fs::write(kernel.config("small.config"), "# Why.\nCONFIG_SMALL: yes\n").unwrap();
    run(&mut kernel.verb("config"))
        .exits(1)
        .says(&["small:2: `CONFIG_SMALL: yes`", "CONFIG_NAME=value"]);
}

#[test]
fn a_fragment_that_is_not_there_is_named_beside_those_that_are() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    let recipe = fs::read_to_string(kernel.recipe()).unwrap();
    fs::write(
        kernel.recipe(),
        recipe.replace("[\"small\"]", "[\"small\", \"smaller\"]"),
    )
    .unwrap();
    run(&mut kernel.verb("config"))
        .exits(2)
        .says(&["no kernel fragment named smaller; there are small"]);
    fs::remove_dir_all(kernel.config("")).unwrap();
    run(&mut kernel.verb("config"))
        .exits(1)
        .says(&[kernel.config("").to_str().unwrap()]);
}

#[test]
fn fetch_tells_the_digest_and_path_of_the_source() {
    let env = TestEnv::new();
    let finished = run(&mut env.imgbuild(["kernel", "fetch"])).succeeds();
    let (sha256, path) = finished.stdout.trim_end().split_once("  ").unwrap();
    assert_eq!(
        Sha256::of_file(Path::new(path)).unwrap().to_string(),
        sha256
    );

    let json = run(&mut env.imgbuild(["kernel", "fetch", "--json"])).succeeds();
    let json = &json.json_lines()[0];
    assert_eq!([&json["sha256"], &json["path"]], [sha256, path]);
    let kind = json["origin"]["kind"].as_str().unwrap();
    assert!(["distribution", "pinned"].contains(&kind), "{json}");
}

#[test]
fn offline_without_the_pinned_source_says_where_to_put_it() {
    let env = TestEnv::new();
    let pinned = ["kernel", "fetch", "--kernel-source", "pinned", "--offline"];
    run(env.own_cache(&mut env.imgbuild(pinned)))
        .exits(1)
        .says(&[
            "offline",
            "https://cdn.kernel.org/",
            "--offline",
            env.cache().join("downloads").to_str().unwrap(),
        ]);
    let kernel = SmallKernel::new(&env);
    run(kernel.verb_without_source("build").arg("--offline"))
        .exits(1)
        .says(&["https://small.invalid/"]);
}

#[test]
fn what_is_no_kernel_source_is_refused() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    let archive = env.path().join("files.tar.gz");
    run(env
        .command("tar")
        .arg("-C")
        .arg(kernel.config(".."))
        .arg("-czf")
        .arg(&archive)
        .arg("config"))
    .succeeds();
    fs::write(env.path().join("text"), "no archive").unwrap();
    fs::create_dir(env.path().join("empty")).unwrap();
    run(env.command("mkfifo").arg("fifo")).succeeds();
    for (source, reason) in [
        ("nowhere", "check --kernel-source"),
        ("fifo", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("text", "not a .tar.xz or .tar.gz"),
        ("files.tar.gz", "holds no kernel source"),
        ("empty", "Kconfig"),
    ] {
        run(kernel
            .verb_without_source("build")
            .args(["--kernel-source", source]))
        .exits(1)
        .says(&[source, reason]);
    }
    let address = "https://example.org/linux.tar.xz";
    run(kernel
        .verb_without_source("build")
        .args(["--kernel-source", address]))
    .exits(2)
    .says(&[address, "--kernel-sha256"]);
    assert!(kernel.kept().is_empty() && kernel.unfinished().is_empty());
}
