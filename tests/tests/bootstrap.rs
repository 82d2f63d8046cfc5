//! `./bootstrap`, on machines that stand-ins make up: no package is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use imgbuild_tests::{TestEnv, run, workspace};

/// What the script may call besides what the tests stand in for.
const COREUTILS: [&str; 7] = ["sh", "dirname", "env", "grep", "sed", "tr", "cat"];

/// A checkout of nothing but the script, on a machine of stand-ins.
struct Machine {
    env: TestEnv,
}

impl Machine {
    /// A Debian where root has cargo and just, and these packages are there.
    fn with_packages(installed: &[&str]) -> Self {
        let env = TestEnv::new();
        fs::copy(workspace().join("bootstrap"), env.path().join("bootstrap")).unwrap();
        let machine = Self { env };
        fs::write(machine.installed(), installed.join("\n") + "\n").unwrap();
        // One that was removed keeps its record.
        machine.env.stand_in(
            "dpkg-query",
            &format!(
                "for package; do if grep -qx \"$package\" '{}'; then echo \"$package ii \"\n\
                 else [ $package != bc ] || echo 'bc rc '; fi; done; exit 1",
                machine.installed().display()
            ),
        );
        machine.env.stand_in("id", "echo 0");
        machine.installs("");
        machine.env.stand_in("apt-cache", "exit 0");
        machine.env.stand_in("cargo", "exit 1");
        for program in test_programs() {
            machine.env.stand_in(&program, "exit 1");
        }
        machine.records("just", "");
        machine
    }

    /// Has a program note its arguments, one a line, and run `script`.
    fn records(&self, program: &str, script: &str) {
        self.env.stand_in(
            program,
            &format!(
                "for word; do echo \"$word\"; done >>'{}'\n{script}",
                self.notes(program).display()
            ),
        );
    }

    /// Has apt-get install what it is told to, and run `script` then.
    fn installs(&self, script: &str) {
        let installed = self.installed();
        let installed = installed.display();
        self.records(
            "apt-get",
            &format!("for word; do echo \"$word\"; done >>'{installed}'\n{script}"),
        );
    }

    /// The list of what is installed.
    fn installed(&self) -> PathBuf {
        self.env.path().join("installed")
    }

    fn notes(&self, program: &str) -> PathBuf {
        self.env.path().join(format!("{program}.arguments"))
    }

    /// What a program was called with.
    fn arguments(&self, program: &str) -> Vec<String> {
        fs::read_to_string(self.notes(program))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn remove(&self, program: &str) {
        fs::remove_file(self.env.stand_ins().join(program)).unwrap();
    }

    fn bootstrap(&self, arguments: &[&str]) -> Command {
        let mut command = self.env.command(self.env.path().join("bootstrap"));
        command
            .args(arguments)
            .env("PATH", self.env.path_of_only(&COREUTILS));
        command
    }
}

/// The programs that the script says tests call.
fn test_programs() -> Vec<String> {
    let script = fs::read_to_string(workspace().join("bootstrap")).unwrap();
    let (_, list) = script.split_once("\ntest_programs='").unwrap();
    let (list, _) = list.split_once('\'').unwrap();
    let programs = list.split_whitespace();
    let programs = programs.map(|pair| pair.split_once(':').unwrap().0.to_owned());
    programs.collect()
}

/// Every package that the script wants for a command, by its own word.
fn wanted_for(command: &str) -> Vec<String> {
    let machine = Machine::with_packages(&[]);
    run(&mut machine.bootstrap(&["--print", command]))
        .succeeds()
        .stdout
        .lines()
        .map(str::to_owned)
        .collect()
}

fn all_but(left_out: &[&str]) -> Machine {
    let wanted = wanted_for("soak");
    let installed: Vec<_> = wanted
        .iter()
        .map(String::as_str)
        .filter(|package| !left_out.contains(package))
        .collect();
    Machine::with_packages(&installed)
}

/// What would serve this machine, if it were installed, is there.
fn has_unpacked_servers(machine: &Machine) {
    for folder in [".tools/openssh-server", ".tools/prometheus"] {
        fs::create_dir_all(machine.env.path().join(folder)).unwrap();
    }
}

#[test]
fn is_well_formed_for_sh() {
    let env = TestEnv::new();
    run(env
        .command("sh")
        .arg("-n")
        .arg(workspace().join("bootstrap")))
    .succeeds();
}

#[test]
fn print_lists_what_is_missing_and_installs_nothing() {
    let guests = wanted_for("tty-burn");
    let tests = wanted_for("test");
    for package in [
        "clang",
        "gcc",
        "qemu-system-x86",
        "e2fsprogs",
        "linux-source-6.12",
    ] {
        for wanted in [&guests, &tests] {
            assert!(wanted.iter().any(|known| known == package), "{wanted:?}");
        }
    }
    // What only tests call is installed for them alone.
    for package in [
        "g++",
        "busybox-static",
        "chromium",
        "nftables",
        "qemu-utils",
        "zstd",
    ] {
        assert!(tests.iter().any(|known| known == package), "{tests:?}");
        assert!(!guests.iter().any(|known| known == package), "{guests:?}");
    }
    let machine = all_but(&["bc", "g++"]);
    machine.remove("just");
    let says = |arguments: &[&str]| run(&mut machine.bootstrap(arguments)).succeeds().stdout;
    assert_eq!(says(&["--print"]), "bc\n");
    assert_eq!(says(&["--print", "test"]), "bc\ng++\n");
    assert_eq!(says(&["--print", "soak"]), "bc\ng++\njust\n");
    assert!(machine.arguments("apt-get").is_empty());
    // What it does not install it does not list.
    let machine = all_but(&["linux-source-6.12"]);
    machine.env.stand_in("apt-cache", "exit 100");
    assert_eq!(
        run(&mut machine.bootstrap(&["--print"])).succeeds().stdout,
        ""
    );
}

#[test]
fn without_apt_the_needs_are_printed() {
    let machine = Machine::with_packages(&[]);
    machine.remove("apt-get");
    let finished = run(&mut machine.bootstrap(&["lint"]))
        .exits(1)
        .says(&["no apt-get"]);
    for package in ["gcc", "qemu-system-x86", "just"] {
        assert!(finished.stdout.lines().any(|line| line == package));
    }
    assert!(machine.arguments("just").is_empty());
    // `just` runs what there is.
    run(&mut machine.bootstrap(&["--no-install", "lint"])).succeeds();
    assert_eq!(machine.arguments("just"), ["lint"]);
}

#[test]
fn the_first_commands_need_no_just_and_build_what_they_run() {
    let machine = all_but(&[]);
    machine.remove("just");
    machine.env.stand_in("id", "echo 1000");
    machine.records(
        "cargo",
        &format!(
            "[ \"$1\" != test ] || echo \"$IMGBUILD_BIN\" >>'{1}'; \
             /bin/mkdir -p target/release; printf '#!/bin/sh\\nfor word; do echo \"$word\"; done \
             >>%s\\n' '{0}' >target/release/imgbuild; /bin/chmod +x target/release/imgbuild",
            machine.notes("imgbuild").display(),
            machine.notes("bin").display()
        ),
    );
    run(&mut machine.bootstrap(&["tty-burn", "--out", "a b"])).succeeds();
    let build = ["build", "--release", "--locked", "--package", "imgbuild"];
    assert_eq!(machine.arguments("cargo"), build);
    assert_eq!(machine.arguments("imgbuild"), ["tty-burn", "--out", "a b"]);
    assert!(machine.arguments("bin").is_empty());
    has_unpacked_servers(&machine);
    run(&mut machine.bootstrap(&["test", "--test", "a b"])).succeeds();
    let [binary] = &machine.arguments("bin")[..] else {
        panic!("cargo test is to be told which imgbuild it tests");
    };
    assert!(binary.ends_with("/target/release/imgbuild"), "{binary}");
    assert_eq!(machine.arguments("imgbuild")[3..], ["kernel", "build"]);
    let tests = [
        "test",
        "--release",
        "--locked",
        "--workspace",
        "--test",
        "a b",
    ];
    assert_eq!(
        machine.arguments("cargo")[5..],
        [&build[..], &tests].concat()
    );
    assert!(machine.arguments("apt-get").is_empty());
}

#[test]
fn installs_what_is_missing_then_runs_just() {
    let machine = all_but(&["bc", "linux-source-6.12"]);
    run(&mut machine.bootstrap(&["lint", "a b"])).succeeds();
    assert_eq!(
        machine.arguments("apt-get"),
        [
            "update",
            "install",
            "--yes",
            "--no-install-recommends",
            "--no-remove",
            "bc",
            "linux-source-6.12"
        ]
    );
    assert_eq!(machine.arguments("just"), ["lint", "a b"]);
}

#[test]
fn what_clashes_with_a_package_is_named_and_stays() {
    let machine = all_but(&["qemu-system-x86"]);
    machine.records(
        "apt-get",
        "case $* in *--simulate*) echo 'Remv qemu-utils [1:10.0] (1:7.2 Debian:12)';; \
         update) ;; *) exit 100;; esac",
    );
    run(&mut machine.bootstrap(&["tty-burn"]))
        .exits(1)
        .says(&["clash with qemu-utils", "apt-get install -t RELEASE"]);
    assert!(
        machine
            .arguments("apt-get")
            .contains(&"--no-remove".to_owned())
    );
    // The one that removes does so in a simulation.
    let words = machine.arguments("apt-get");
    let simulated = words.iter().position(|word| word == "--simulate").unwrap();
    assert!(words[simulated..].contains(&"qemu-system-x86".to_owned()));
}

#[test]
fn a_source_package_that_apt_does_not_know_is_said_before_anything_is_built() {
    let machine = all_but(&["linux-source-6.12"]);
    machine.env.stand_in("apt-cache", "exit 100");
    let said = [
        "linux-source-6.12",
        "bookworm-security",
        "kernel.org",
        "--kernel-source",
    ];
    run(&mut machine.bootstrap(&["lint"]))
        .succeeds()
        .says(&said);
    // A repository may be new since the last update.
    assert_eq!(machine.arguments("apt-get"), ["update"]);
    assert_eq!(machine.arguments("just"), ["lint"]);
    // A user who may not install needs nothing else, and goes on.
    machine.env.stand_in("id", "echo 1000");
    run(&mut machine.bootstrap(&["lint"]))
        .succeeds()
        .says(&said);
    assert_eq!(machine.arguments("apt-get"), ["update"]);
    machine.env.stand_in("id", "echo 0");
    let fragments = ["lint", "--kernel-config", "k"];
    run(&mut machine.bootstrap(&fragments))
        .succeeds()
        .says(&said);
    let given = run(&mut machine.bootstrap(&["lint", "--kernel", "k"])).succeeds();
    assert!(!given.stderr.contains("kernel.org"), "{}", given.stderr);
}

#[test]
fn a_user_installs_by_sudo_or_is_told_what_root_is_to_run() {
    let machine = all_but(&["bc", "make"]);
    machine.env.stand_in("id", "echo 1000");
    run(&mut machine.bootstrap(&["lint"])).exits(1).says(&[
        "run this as root",
        "apt-get update; apt-get install --yes --no-install-recommends --no-remove bc make",
    ]);
    assert!(machine.arguments("apt-get").is_empty());
    // One line, whatever the lists know before they are updated.
    let new = all_but(&["bc", "linux-source-6.12"]);
    new.env.stand_in("id", "echo 1000");
    new.env.stand_in("apt-cache", "exit 100");
    run(&mut new.bootstrap(&["lint"])).exits(1).says(&[
        "--no-remove bc; apt-get install --yes --no-install-recommends --no-remove \
         linux-source-6.12",
    ]);

    machine.records("sudo", "\"$@\"");
    run(&mut machine.bootstrap(&["lint"])).succeeds();
    assert_eq!(machine.arguments("sudo")[..2], ["apt-get", "update"]);
    assert_eq!(machine.arguments("apt-get").last().unwrap(), "make");
    assert_eq!(machine.arguments("just"), ["lint"]);
}

#[test]
fn a_program_that_tests_call_is_missed_before_anything_is_compiled() {
    let machine = all_but(&[]);
    machine.remove("qemu-img");
    machine.records("cargo", "exit 1");
    for arguments in [
        &["test"][..],
        &["bench"],
        &["--no-install", "soak"],
        &["--no-install", "test"],
    ] {
        run(&mut machine.bootstrap(arguments))
            .exits(1)
            .says(&["lacks: qemu-img (package qemu-utils)"]);
    }
    assert!(machine.arguments("just").is_empty() && machine.arguments("cargo").is_empty());
    // Guests run without it.
    run(&mut machine.bootstrap(&["--no-install", "tty-burn"])).exits(1);
    assert_eq!(machine.arguments("cargo")[0], "build");
    let packages = wanted_for("test");
    let script = fs::read_to_string(workspace().join("bootstrap")).unwrap();
    for program in test_programs() {
        let (_, rest) = script.split_once(&format!("{program}:")).unwrap();
        let package = rest.split(['\n', ' ', '\'']).next().unwrap();
        assert!(packages.iter().any(|known| known == package), "{package}");
    }
}

#[test]
fn just_does_not_run_when_an_installation_fails() {
    let machine = all_but(&["bc"]);
    machine.env.stand_in("apt-get", "exit 100");
    run(&mut machine.bootstrap(&["lint"])).exits(100);
    assert!(machine.arguments("just").is_empty());
}

#[test]
fn an_emulated_machine_has_a_kernel_unpacked_once_and_none_installed() {
    let machine = all_but(&[]);
    for tool in ["mkdir", "mv", "rm"] {
        machine
            .env
            .stand_in(tool, &format!("exec /bin/{tool} \"$@\""));
    }
    machine.env.stand_in(
        "apt-cache",
        "printf '%s\\n' linux-image-cloud-amd64 '  Depends: linux-image-7-amd64'",
    );
    machine.records("apt-get", ": >linux-image-7-amd64_7.1_amd64.deb");
    machine.records("dpkg-deb", "/bin/mkdir \"$3/boot\"");
    has_unpacked_servers(&machine);
    // One that was killed left a part.
    let kernels = machine.env.path().join(".tools/linux-image");
    let part = kernels.with_extension("part");
    fs::create_dir_all(part.join("half")).unwrap();
    for verb in ["soak", "kvm", "kvm-shell"] {
        run(&mut machine.bootstrap(&[verb])).succeeds();
    }
    let apt = machine.arguments("apt-get");
    assert_eq!(apt, ["download", "linux-image-7-amd64"]);
    let part = part.display().to_string();
    let package = format!("{part}/linux-image-7-amd64_7.1_amd64.deb");
    assert_eq!(machine.arguments("dpkg-deb"), ["-x", &package, &part]);
    assert_eq!(fs::read_dir(&kernels).unwrap().count(), 1);
    assert!(kernels.join("boot").is_dir() && !Path::new(&part).exists());
    assert_eq!(machine.arguments("just"), ["soak", "kvm", "kvm-shell"]);

    let machine = all_but(&[]);
    has_unpacked_servers(&machine);
    run(&mut machine.bootstrap(&["soak"]))
        .exits(1)
        .says(&["apt has no package linux-image-cloud-amd64"]);
    // A repository may be new since the last update.
    assert_eq!(machine.arguments("apt-get"), ["update"]);
    assert!(machine.arguments("just").is_empty());
}

#[test]
fn servers_of_tests_are_unpacked_and_not_installed() {
    let machine = all_but(&[]);
    for tool in ["mkdir", "mv", "rm"] {
        machine
            .env
            .stand_in(tool, &format!("exec /bin/{tool} \"$@\""));
    }
    machine.records("apt-get", ": >a_package_9_amd64.deb");
    machine.records("dpkg-deb", "/bin/mkdir \"$3/usr\"");
    let packages = [
        "download",
        "openssh-server",
        "openssh-sftp-server",
        "libwrap0",
        "download",
        "prometheus",
    ];
    for _ in 0..2 {
        // Which is to build then, and has no cargo that does.
        run(&mut machine.bootstrap(&["test"])).exits(1);
        assert_eq!(machine.arguments("apt-get"), packages);
    }
    for folder in [".tools/openssh-server/usr", ".tools/prometheus/usr"] {
        assert!(machine.env.path().join(folder).is_dir(), "{folder}");
    }
}

#[test]
fn a_missing_cargo_is_named_before_anything_is_installed() {
    let machine = all_but(&["bc"]);
    machine.remove("cargo");
    run(&mut machine.bootstrap(&["test"]))
        .exits(1)
        .says(&["no cargo", "https://rustup.rs"]);
    assert!(machine.arguments("apt-get").is_empty());
}

#[test]
fn a_missing_just_is_built_once() {
    let machine = all_but(&[]);
    let just = fs::read_to_string(machine.env.stand_ins().join("just")).unwrap();
    fs::write(machine.env.path().join("just.script"), just).unwrap();
    machine.remove("just");
    machine.records(
        "cargo",
        "/bin/mkdir -p .tools/bin && /bin/cp just.script .tools/bin/just &&
         /bin/chmod +x .tools/bin/just",
    );
    for _ in 0..2 {
        run(&mut machine.bootstrap(&["lint"])).succeeds();
    }
    assert_eq!(
        machine.arguments("cargo"),
        ["install", "just", "--debug", "--locked", "--root", ".tools"]
    );
    assert_eq!(machine.arguments("just"), ["lint", "lint"]);
}

#[test]
fn without_a_command_it_says_how_it_is_used_and_does_nothing() {
    let machine = Machine::with_packages(&[]);
    for (arguments, code) in [(&[][..], 2), (&["--help"], 0), (&["-h"], 0)] {
        run(&mut machine.bootstrap(arguments)).exits(code).shows(&[
            "./bootstrap tty-burn",
            "It installs packages and removes none",
        ]);
    }
    assert!(machine.arguments("apt-get").is_empty());
    assert!(machine.arguments("just").is_empty());
}
