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

/// Every package that the script wants, by its own word.
fn wanted() -> Vec<String> {
    let machine = Machine::with_packages(&[]);
    run(&mut machine.bootstrap(&["--print"]))
        .succeeds()
        .stdout
        .lines()
        .map(str::to_owned)
        .collect()
}

fn all_but(left_out: &[&str]) -> Machine {
    let wanted = wanted();
    let installed: Vec<_> = wanted
        .iter()
        .map(String::as_str)
        .filter(|package| !left_out.contains(package))
        .collect();
    Machine::with_packages(&installed)
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
    let wanted = wanted();
    for package in [
        "gcc",
        "g++",
        "qemu-system-x86",
        "e2fsprogs",
        "linux-source-6.12",
    ] {
        assert!(wanted.iter().any(|known| known == package), "{wanted:?}");
    }
    let machine = all_but(&["bc", "qemu-utils"]);
    machine.remove("just");
    let finished = run(&mut machine.bootstrap(&["--print"])).succeeds();
    assert_eq!(finished.stdout, "bc\nqemu-utils\njust\n");
    assert!(machine.arguments("apt-get").is_empty());
}

#[test]
fn without_apt_the_needs_are_printed() {
    let machine = Machine::with_packages(&[]);
    machine.remove("apt-get");
    let finished = run(&mut machine.bootstrap(&["test"]))
        .exits(1)
        .says(&["no apt-get"]);
    for package in ["gcc", "qemu-system-x86", "just"] {
        assert!(finished.stdout.lines().any(|line| line == package));
    }
    assert!(machine.arguments("just").is_empty());
}

#[test]
fn with_nothing_missing_it_only_runs_just() {
    let machine = all_but(&[]);
    machine.env.stand_in("id", "echo 1000");
    for _ in 0..2 {
        run(&mut machine.bootstrap(&["tty-burn", "--out", "a b"])).succeeds();
    }
    let once = ["tty-burn", "--out", "a b"];
    assert_eq!(machine.arguments("just"), [once, once].concat());
    assert!(machine.arguments("apt-get").is_empty());
}

#[test]
fn installs_what_is_missing_then_runs_just() {
    let machine = all_but(&["bc", "linux-source-6.12"]);
    run(&mut machine.bootstrap(&["test"])).succeeds();
    assert_eq!(
        machine.arguments("apt-get"),
        [
            "update",
            "install",
            "--yes",
            "--no-install-recommends",
            "bc",
            "linux-source-6.12"
        ]
    );
    assert_eq!(machine.arguments("just"), ["test"]);
}

#[test]
fn what_an_installation_removes_is_installed_in_turn() {
    let machine = all_but(&["qemu-system-x86"]);
    let once = machine.env.path().join("once");
    machine.installs(&format!(
        "[ \"$1\" = update ] || [ -e '{0}' ] || {{ : >'{0}'; sed -i /qemu-utils/d '{1}'; }}",
        once.display(),
        machine.installed().display()
    ));
    run(&mut machine.bootstrap(&["test"])).succeeds();
    let apt = machine.arguments("apt-get");
    assert_eq!(apt.iter().filter(|word| *word == "install").count(), 2);
    assert_eq!(apt.last().unwrap(), "qemu-utils");
    assert_eq!(machine.arguments("just"), ["test"]);
}

#[test]
fn a_source_package_that_apt_does_not_know_is_not_asked_for() {
    let machine = all_but(&["linux-source-6.12"]);
    machine.env.stand_in("apt-cache", "exit 100");
    run(&mut machine.bootstrap(&["test"])).succeeds();
    assert!(machine.arguments("apt-get").is_empty());
    assert_eq!(machine.arguments("just"), ["test"]);
}

#[test]
fn a_user_installs_by_sudo_or_is_told_why_not() {
    let machine = all_but(&["bc"]);
    machine.env.stand_in("id", "echo 1000");
    run(&mut machine.bootstrap(&["test"]))
        .exits(1)
        .says(&["need root to run: apt-get update"]);
    assert!(machine.arguments("apt-get").is_empty());

    machine.records("sudo", "\"$@\"");
    run(&mut machine.bootstrap(&["test"])).succeeds();
    assert_eq!(machine.arguments("sudo")[..2], ["apt-get", "update"]);
    assert_eq!(machine.arguments("apt-get").last().unwrap(), "bc");
    assert_eq!(machine.arguments("just"), ["test"]);
}

#[test]
fn just_does_not_run_when_an_installation_fails() {
    let machine = all_but(&["bc"]);
    machine.env.stand_in("apt-get", "exit 100");
    run(&mut machine.bootstrap(&["test"])).exits(100);
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
    run(&mut machine.bootstrap(&["soak"]))
        .exits(1)
        .says(&["apt knows no linux-image-cloud-amd64"]);
    assert!(machine.arguments("just").is_empty());
}

#[test]
fn a_missing_cargo_is_named() {
    let machine = all_but(&[]);
    machine.remove("cargo");
    run(&mut machine.bootstrap(&["test"]))
        .exits(1)
        .says(&["no cargo", "https://rustup.rs"]);
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
        run(&mut machine.bootstrap(&["test"])).succeeds();
    }
    assert_eq!(
        machine.arguments("cargo"),
        ["install", "just", "--locked", "--root", ".tools"]
    );
    assert_eq!(machine.arguments("just"), ["test", "test"]);
}
