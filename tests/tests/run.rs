//! `imgbuild run`: one guest that is gone when its command, its session or its
//! process ends.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use imgbuild_tests::fleet::{Fleet, kill, signal, with_shell};
use imgbuild_tests::{Finished, TestEnv, finish, run, start, wait_until, workspace};
use rustix::process::Signal;

/// `imgbuild run` of a recipe or an output under TCG, and the command in the guest.
fn running(env: &TestEnv, what: &Path, options: &[&str], command: &[&str]) -> Command {
    let mut run = env.imgbuild(["run", "--accel", "tcg"]);
    run.args(options).arg(what);
    if !command.is_empty() {
        run.arg("--").args(command);
    }
    run
}

/// Runs it to its end, and asserts that nothing is left.
fn over(env: &TestEnv, command: &mut Command) -> Finished {
    let finished = run(command);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
    finished
}

/// The same, with an input.
fn fed(env: &TestEnv, command: &mut Command, input: &str) -> Finished {
    let mut child = start(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let finished = finish(child);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
    finished
}

#[test]
fn a_command_gives_its_output_and_code_and_nothing_is_left() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    for (net, said) in [("user", "ssh=up"), ("none", "ssh=absent")] {
        let net = ["--net", net];
        let status = over(&env, &mut running(&env, &out, &net, &["status"])).succeeds();
        assert!(status.stdout.contains(said), "{}", status.stdout);
        assert_eq!(status.stdout.matches('\n').count(), 1, "{}", status.stdout);
        assert!(!status.stderr.contains("event"), "{}", status.stderr);
        let failed = over(&env, &mut running(&env, &out, &net, &["cat", "/nope"])).exits(1);
        let said = failed.stdout + &failed.stderr;
        assert!(said.contains("/nope: open: No such file"), "{said}");
        assert!(!said.contains("\n\n"), "{said}");
    }
    let session = fed(
        &env,
        &mut running(&env, &out, &[], &[]),
        "nonsense\npoweroff\n",
    );
    assert!(session.succeeds().stdout.contains("g00000# "));
    fed(
        &env,
        &mut running(&env, &out, &["--net", "none"], &[]),
        "poweroff\n",
    )
    .succeeds();
}

#[test]
fn a_guest_with_a_shell_ends_a_session_and_obeys_by_ssh_and_console_alike() {
    let env = TestEnv::new();
    let out = with_shell(&env);
    // Its shell is ended with all that runs, and not by a command of its own.
    let poweroff = "kill -USR2 1\nbusybox sleep 100\n";
    fed(&env, &mut running(&env, &out, &[], &[]), poweroff).succeeds();
    for net in ["user", "none"] {
        let mut home = running(&env, &out, &["--net", net], &["echo", "$HOME"]);
        assert_eq!(over(&env, &mut home).succeeds().stdout, "/root\n", "{net}");
    }
}

#[test]
fn it_runs_beside_a_fleet_which_stays_the_only_one() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 1, &[]);
    let out = env.artifacts("tty-idle");
    let mut command = running(&env, &out, &[], &["cat"]);
    let mut guest = start(command.stdin(Stdio::piped()));
    wait_until("both guests run", || env.guests().len() == 2);
    let chosen = run(&mut env.imgbuild(["ps", "--json"]))
        .succeeds()
        .json_lines();
    assert_eq!(chosen[0]["fleet"], "f");
    wait_until("its command runs", || {
        env.command_lines()
            .iter()
            .any(|line| line.starts_with("ssh "))
    });
    // Ctrl-C, as a terminal sends it to this process alone.
    signal(guest.id(), Signal::INT);
    let input = guest.stdin.take();
    finish(guest).exits(130);
    drop(input);
    wait_until("its guest is gone", || env.guests().len() == 1);

    // One that is killed takes its guest along, and leaves its files to the next.
    let killed = start(command.stdin(Stdio::piped()));
    wait_until("both guests run", || env.guests().len() == 2);
    kill(killed.id());
    assert_eq!(finish(killed).status.code(), None);
    wait_until("its guest is gone", || env.guests().len() == 1);
    run(&mut running(&env, &out, &[], &["uptime"])).succeeds();
    let left = fs::read_dir(env.fleets()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["f"]);
    fleet.end();
}

#[test]
fn a_recipe_is_built_first_and_what_was_built_is_used_again() {
    let env = TestEnv::new();
    let text = fs::read_to_string(workspace().join("images/tty-idle.toml")).unwrap();
    let text = text.replace("name = \"tty-idle\"", "name = \"mine\"");
    let recipe = env.path().join("mine.toml");
    fs::write(&recipe, &text).unwrap();
    let mut first = running(&env, &recipe, &[], &["echo", "hi"]);
    // Which is for what the user builds.
    first.env("IMGBUILD_OUT", env.path().join("elsewhere"));
    let built = over(&env, &mut first).succeeds();
    assert_eq!(built.stdout, "hi\n");
    let out = env.path().join("out/mine");
    run(env.imgbuild(["verify"]).arg(&out)).succeeds();
    fs::write(
        &recipe,
        text.replace("[kernel]", "[kernel]\ncommand_line = \"rdinit=/nope\""),
    )
    .unwrap();
    let sums = fs::read(out.join("SHA256SUMS")).unwrap();
    over(&env, &mut running(&env, &recipe, &[], &["echo", "hi"]))
        .succeeds()
        .says(&["another version of the recipe", "build"]);
    assert_eq!(fs::read(out.join("SHA256SUMS")).unwrap(), sums);

    // A guest that does not come up says why.
    run(env.imgbuild(["build", "--no-boot"]).arg(&recipe)).succeeds();
    let failed = over(&env, &mut running(&env, &recipe, &[], &["echo", "hi"])).exits(1);
    assert_eq!(failed.stdout, "");
    failed.says(&["the guest failed: kernel panic"]);

    // Without KVM it is refused, and nothing runs.
    let mut kvm = env.imgbuild(["run", "tty-idle", "--", "status"]);
    env.without_kvm(&mut kvm);
    over(&env, &mut kvm).exits(3).says(&["--accel tcg"]);
    over(&env, &mut env.imgbuild(["run", "nothing"]))
        .exits(2)
        .says(&["no recipe named nothing"]);
    for what in ["out/debian-shell", "debian-shell"] {
        let advice = "`imgbuild build debian-shell --rootfs PATH` builds";
        over(&env, &mut env.imgbuild(["run", what]))
            .exits(2)
            .says(&[advice, "out/debian-shell"]);
    }
}
