//! Guests that do not come up: the reason is reported, nothing is left, and the
//! previous output stands as it was.

use std::fs;
use std::path::Path;
use std::process::Command;

use imgbuild_tests::stand_in::{QEMU, find};
use imgbuild_tests::tree::Tree;
use imgbuild_tests::{Finished, TestEnv, finish, run, start, wait_until, workspace};
use rustix::process::{Pid, Signal, kill_process};

/// A recipe of tty-burn's kernel, named `mine`.
fn recipe(memory: &str, boot_timeout: &str, command_line: &str, rest: &str) -> String {
    let burn = fs::read_to_string(workspace().join("images/tty-burn.toml")).unwrap();
    let (_, fragments) = burn.split_once("[kernel]").unwrap();
    format!(
        "name = \"mine\"\n\
         [guest]\nmemory = \"{memory}\"\nboot_timeout = \"{boot_timeout}\"\n\
         [disk]\nsize = \"16MiB\"\nlabel = \"mine\"\n\
         [kernel]\ncommand_line = \"{command_line}\"{fragments}\n{rest}"
    )
}

/// An environment with a recipe file, its script in the place of init, and an
/// earlier output that boots.
fn with_recipe(recipe_text: &str) -> TestEnv {
    let env = TestEnv::new();
    fs::write(env.path().join("script"), "#!/no/such/shell\n").unwrap();
    fs::write(env.path().join("mine.toml"), recipe("64MiB", "60s", "", "")).unwrap();
    run(&mut build(&env, &["--no-boot"])).succeeds();
    fs::write(env.path().join("mine.toml"), recipe_text).unwrap();
    env
}

fn build(env: &TestEnv, arguments: &[&str]) -> Command {
    let mut command = env.imgbuild(["build", "./mine.toml"]);
    command.args(arguments);
    env.without_kvm(&mut command);
    command
}

/// Builds, and asserts that it fails and leaves all as it was.
fn build_fails(env: &TestEnv, command: &mut Command) -> Finished {
    let before = Tree::of(&env.path().join("out"));
    let finished = run(command).exits(1);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
    assert_eq!(Tree::of(&env.path().join("out")), before);
    assert_eq!(finished.stdout, "");
    finished
}

/// Launches two guests, and asserts that each fails for the same reason.
fn launch_fails(env: &TestEnv, said: &str) {
    run(&mut build(env, &["--no-boot"])).succeeds();
    let mut command = env.imgbuild(["launch", "out/mine", "--count", "2", "--accel", "tcg"]);
    command
        .args(["--json", "--no-canary", "--restart", "never"])
        .env("PATH", env.path_with_stand_ins());
    let events = run(&mut command).exits(1).json_lines();
    for guest in ["g00000", "g00001"] {
        let failed = events
            .iter()
            .find(|event| event["id"] == guest && event["state"] == "failed");
        let reason = failed.unwrap()["reason"].as_str().unwrap();
        assert!(reason.contains(said), "{guest}: {reason}");
        // That QEMU waits for its console is not what the guest said last.
        assert!(
            !reason.contains("waiting for connection"),
            "{guest}: {reason}"
        );
    }
    let summary = events.last().unwrap();
    assert_eq!([&summary["failed"], &summary["ready"]], [2, 0]);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

#[test]
fn a_kernel_without_init_panics_by_its_own_words() {
    let env = with_recipe(&recipe("64MiB", "60s", "rdinit=/nonexistent", ""));
    build_fails(&env, &mut build(&env, &[])).says(&[
        "does not boot under tcg",
        "kernel panic: VFS: Unable to mount root fs",
        "--no-boot",
    ]);
    launch_fails(&env, "kernel panic: VFS: Unable to mount root fs");
}

#[test]
fn an_init_that_cannot_be_run_panics_by_its_own_words() {
    let init = "[[files]]\npath = \"/init\"\nsource = \"script\"\nmode = \"0755\"\n";
    let env = with_recipe(&recipe("64MiB", "60s", "", init));
    let said = "kernel panic: No working init found";
    build_fails(&env, &mut build(&env, &[])).says(&[said]);
    launch_fails(&env, said);
}

#[test]
fn a_guest_that_never_gets_ready_is_given_up() {
    let env = with_recipe(&recipe("64MiB", "3s", "tty.park", ""));
    build_fails(&env, &mut build(&env, &[])).says(&["not ready after "]);
    launch_fails(&env, "not ready after ");
}

#[test]
fn a_guest_that_says_nothing_is_given_up() {
    let env = with_recipe(&recipe("64MiB", "3s", "mem=1M", ""));
    let failed = build_fails(&env, &mut build(&env, &[]));
    let failed = failed.says(&["said nothing for ", "its console shows nothing", "--memory"]);
    assert!(
        !failed.stderr.contains("waiting for connection"),
        "{}",
        failed.stderr
    );
    launch_fails(&env, "said nothing for ");
}

#[test]
fn the_least_memory_is_enough() {
    let env = with_recipe(&recipe("32MiB", "60s", "", ""));
    run(&mut build(&env, &[]))
        .succeeds()
        .shows(&["booted     under tcg"]);
}

#[test]
fn a_disk_that_cannot_be_mounted_is_no_boot() {
    let env = with_recipe(&recipe("64MiB", "60s", "", ""));
    for tool in ["mke2fs", "tune2fs"] {
        env.stand_in_e2fsprogs(tool, "exit 0");
    }
    build_fails(&env, &mut build(&env, &[]))
        .says(&["cannot use its disk", "/dev/vda: mount on /disk"])
        .says_nothing_of("\"event\"");
}

#[test]
fn a_qemu_that_does_not_start_is_quoted() {
    let env = with_recipe(&recipe("64MiB", "60s", "", ""));
    let mut command = build(&env, &[]);
    env.stand_in(QEMU, "echo 'no such machine' >&2; exit 7");
    build_fails(&env, &mut command).says(&[QEMU, "exit status: 7", "no such machine"]);

    // One that is well until it is to run a guest.
    let version = format!(
        "case \"$*\" in --version|\"-machine help\") exec {} \"$@\";; esac",
        find(QEMU).display()
    );
    env.stand_in(
        QEMU,
        &format!("{version}\necho 'no such board' >&2; exit 7"),
    );
    build_fails(&env, &mut command).says(&["QEMU ended", "exit status: 7", "no such board"]);
    let mut launch = env.imgbuild(["launch", "out/mine", "--count", "2", "--accel", "tcg"]);
    launch.arg("--no-canary");
    let finished = run(launch.env("PATH", env.path_with_stand_ins())).exits(1);
    for guest in ["g00000", "g00001"] {
        // It is given up after five ends in a row.
        let lines = finished.stdout.lines();
        let lines: Vec<_> = lines.filter(|line| line.starts_with(guest)).collect();
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert!(lines[4].starts_with(&format!("{guest} failed: ")));
        for line in lines {
            assert!(
                line.contains("exit status: 7") && line.contains("no such board"),
                "{line}"
            );
        }
    }
    env.assert_no_fleet_left();
}

#[test]
fn a_qemu_that_prints_without_end_is_given_up() {
    let env = with_recipe(&recipe("64MiB", "3s", "", ""));
    let mut command = build(&env, &[]);
    for flood in [
        "exec yes flood >&2",
        "exec yes flood",
        // A line that never ends, of bytes that are no text.
        "exec tr '\\000' '\\377' </dev/zero >&2",
    ] {
        env.stand_in(
            QEMU,
            &format!(
                "case \"$*\" in
                     --version|'-machine help') exec {} \"$@\" ;;
                     *'-accel kvm'*) exit 1 ;;
                 esac
                 {flood}",
                find(QEMU).display()
            ),
        );
        build_fails(&env, &mut command).says(&["said nothing for "]);
    }
}

#[test]
fn a_guest_does_not_outlive_a_verification_that_is_killed() {
    let env = with_recipe(&recipe("64MiB", "60s", "tty.park", ""));
    let before = Tree::of(&env.path().join("out/mine"));
    let verification = start(&mut build(&env, &[]));
    wait_until("the guest runs", || {
        env.command_lines()
            .iter()
            .any(|line| line.contains("-accel tcg"))
    });
    kill_process(Pid::from_child(&verification), Signal::KILL).unwrap();
    assert_eq!(finish(verification).status.code(), None);
    env.assert_no_process_left();
    assert_eq!(Tree::of(&env.path().join("out/mine")), before);
    run(env.imgbuild(["verify"]).arg(Path::new("out/mine"))).succeeds();
}
