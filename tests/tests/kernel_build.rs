//! `imgbuild kernel build`: kept whole, shared, resumed; a small source, and
//! the real make and gcc.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use imgbuild_tests::http::{Answer, Server};
use imgbuild_tests::small_kernel::SmallKernel;
use imgbuild_tests::stand_in::find;
use imgbuild_tests::{Finished, TestEnv, finish, run, start, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A compiler that holds every compilation up until it is let go, and counts
/// those that it began.
struct Gate {
    shut: PathBuf,
    begun: PathBuf,
}

impl Gate {
    fn shut(env: &TestEnv) -> Self {
        let gate = Self {
            shut: env.path().join("shut"),
            begun: env.path().join("begun"),
        };
        File::create(&gate.shut).unwrap();
        env.stand_in(
            "gcc",
            &format!(
                "[ \"$1\" = --version ] || echo >> {begun}\n\
                 while [ \"$1\" != --version -a -e {shut} ]; do sleep 0.02; done\n\
                 exec {gcc} \"$@\"",
                begun = gate.begun.display(),
                shut = gate.shut.display(),
                gcc = find("gcc").display(),
            ),
        );
        gate
    }

    fn open(&self) {
        fs::remove_file(&self.shut).unwrap();
    }

    fn begun(&self) -> usize {
        fs::read_to_string(&self.begun).map_or(0, |lines| lines.lines().count())
    }

    /// A build that has come to the compiler.
    fn build_held_up(&self, command: &mut Command) -> std::process::Child {
        let build = start(command);
        wait_until("a compiler runs", || self.begun() > 0);
        build
    }
}

/// What `kernel build --json` says.
fn built(finished: Finished) -> Value {
    finished.succeeds().json_lines().remove(0)
}

#[test]
fn a_kernel_is_built_once() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    let first = built(run(kernel.verb("build").arg("--json")));
    assert_eq!(first["version"], "6.12.1-small");
    assert_eq!(first["source"]["kind"], "tree");
    assert_eq!(first["cached"], false);
    let second = built(run(kernel.verb("build").arg("--json")));
    assert_eq!(second["cached"], true);
    assert_eq!(second["sha256"], first["sha256"]);

    let copy = env.path().join("copy");
    run(kernel.verb("build").arg("--out").arg(&copy)).succeeds();
    assert_eq!(
        fs::read(copy.join("vmlinux")).unwrap(),
        fs::read(first["file"].as_str().unwrap()).unwrap()
    );
    let config = fs::read_to_string(copy.join("kernel.config")).unwrap();
    assert!(config.contains("CONFIG_SMALL=y"), "{config}");
}

#[test]
fn what_changes_the_kernel_builds_another() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    built(run(kernel.verb("build").arg("--json")));
    fs::write(kernel.config("small.config"), "CONFIG_SMALL=n\n").unwrap();
    built(run(kernel.verb("build").arg("--json")));
    assert_eq!(kernel.kept().len(), 2);
    fs::write(kernel.source("main.c"), "int other = 1;\n").unwrap();
    built(run(kernel.verb("build").arg("--json")));
    assert_eq!(kernel.kept().len(), 3);
}

#[test]
fn a_damaged_kernel_is_built_again() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    let whole = built(run(kernel.verb("build").arg("--json")));
    let file = PathBuf::from(whole["file"].as_str().unwrap());
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();

    let finished = run(kernel.verb("build").arg("--json")).says(&["is damaged"]);
    let again = built(finished);
    assert_eq!(again["cached"], false);
    assert_eq!(again["sha256"], whole["sha256"]);
}

#[test]
fn a_compiler_error_is_shown_with_the_path_of_the_log() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    fs::write(kernel.source("main.c"), "int main(void) { return x; }\n").unwrap();
    let finished = run(&mut kernel.verb("build")).exits(1).says(&[
        "main.c:1:",
        "undeclared",
        "the whole log is",
    ]);
    assert!(finished.stdout.is_empty(), "{}", finished.stdout);
    let (_, rest) = finished.stderr.split_once("the whole log is ").unwrap();
    let (path, _) = rest.split_once(": ").unwrap();
    let log = fs::read_to_string(path).unwrap();
    assert!(
        log.contains("  CC      main.o") && log.contains("undeclared"),
        "{log}"
    );
    assert!(kernel.kept().is_empty() && kernel.unfinished().is_empty());
}

#[test]
fn an_interrupt_ends_the_compilers_and_keeps_nothing() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    let gate = Gate::shut(&env);
    let build = gate.build_held_up(&mut kernel.verb("build"));
    kill_process(Pid::from_child(&build), Signal::INT).unwrap();
    finish(build).exits(130);
    env.assert_no_process_left();
    assert!(kernel.kept().is_empty() && kernel.unfinished().is_empty());

    gate.open();
    assert_eq!(
        built(run(kernel.verb("build").arg("--json")))["cached"],
        false
    );
}

#[test]
fn a_killed_build_starts_no_other_compiler_and_is_cleared_by_the_next() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    let gate = Gate::shut(&env);
    let build = gate.build_held_up(kernel.verb("build").args(["--jobs", "1"]));
    kill_process(Pid::from_child(&build), Signal::KILL).unwrap();
    assert_eq!(finish(build).status.code(), None);
    wait_until("make is gone", || {
        !env.processes().into_iter().any(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "make\n")
        })
    });
    gate.open();
    env.assert_no_process_left();
    assert_eq!(gate.begun(), 1);
    assert!(kernel.kept().is_empty());
    assert_eq!(kernel.unfinished().len(), 1);

    assert_eq!(
        built(run(kernel.verb("build").arg("--json")))["cached"],
        false
    );
    assert!(kernel.unfinished().is_empty());
    assert_eq!(kernel.kept().len(), 1);
}

#[test]
fn two_builds_at_once_share_one_kernel() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    let gate = Gate::shut(&env);
    let first = gate.build_held_up(kernel.verb("build").arg("--json"));
    let talk = env.path().join("talk");
    let mut second = kernel
        .verb("build")
        .arg("--json")
        .stdout(File::create(env.path().join("answer")).unwrap())
        .stderr(File::create(&talk).unwrap())
        .spawn()
        .unwrap();
    wait_until("the second waits for the first", || {
        fs::read_to_string(&talk).unwrap().contains("waiting")
    });
    gate.open();
    let first = built(finish(first));
    assert!(second.wait().unwrap().success());
    let second = fs::read_to_string(env.path().join("answer")).unwrap();
    let second: Value = serde_json::from_str(&second).unwrap();
    assert_eq!([&first["cached"], &second["cached"]], [false, true]);
    assert_eq!(first["sha256"], second["sha256"]);
    assert_eq!(gate.begun(), 2, "two files, each compiled once");
}

#[test]
fn missing_build_tools_are_named_by_their_packages() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    let all = [
        "make", "gcc", "ld", "objcopy", "strip", "flex", "bison", "bc",
    ];
    run(kernel.verb("build").env("PATH", env.path_of_only(&[])))
        .exits(1)
        .says(&["apt install bc binutils bison flex gcc make`"]);
    for (tool, package) in [("flex", "flex"), ("bc", "bc"), ("strip", "binutils")] {
        let others: Vec<_> = all.into_iter().filter(|other| *other != tool).collect();
        run(kernel.verb("build").env("PATH", env.path_of_only(&others)))
            .exits(1)
            .says(&[&format!("apt install {package}`")]);
    }
    assert!(kernel.kept().is_empty());
}

#[test]
fn a_tarball_is_downloaded_by_digest_unpacked_and_built() {
    let env = TestEnv::new();
    let kernel = SmallKernel::new(&env);
    let tarball = env.path().join("linux.tar.gz");
    run(env
        .command("tar")
        .arg("-C")
        .arg(kernel.source(".."))
        .arg("-czf")
        .arg(&tarball)
        .arg("source"))
    .succeeds();
    let bytes = fs::read(&tarball).unwrap();
    let sha256 = imgbuild::digest::Sha256::of_bytes(&bytes).to_string();
    let server = Server::start(move |request| Answer::serve(&bytes, request));
    let url = server.url("/linux.tar.gz");
    let verb = |verb: &str| {
        let mut command = kernel.verb_without_source(verb);
        command
            .args([
                "--kernel-source",
                &url,
                "--kernel-sha256",
                &sha256,
                "--json",
            ])
            .env("NO_PROXY", "127.0.0.1");
        command
    };

    let fetched = built(run(&mut verb("fetch")));
    assert_eq!(
        [&fetched["sha256"], &fetched["origin"]["url"]],
        [&*sha256, &*url]
    );
    assert_eq!(
        fs::read(fetched["path"].as_str().unwrap()).unwrap(),
        fs::read(&tarball).unwrap()
    );
    drop(server);
    let kernel = built(run(verb("build").arg("--offline")));
    assert_eq!(kernel["source"]["kind"], "url");
    assert_eq!(kernel["source"]["version"], "6.12.1-small");
}
