//! `imgbuild cp`: files into guests and out of them, with init's own commands and
//! with an image's shell.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

use imgbuild_tests::fleet::{Fleet, signal, with_shell};
use imgbuild_tests::{TestEnv, finish, run, start, wait_until};
use rustix::process::Signal;
use serde_json::json;

fn lists(env: &TestEnv, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(env.path().join(folder)).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Bytes of every value, and no two blocks alike.
fn noise(length: u32) -> Vec<u8> {
    let byte = |at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8;
    (0..length).map(byte).collect()
}

/// Gives a command its input, and waits for it.
fn fed(mut child: Child, input: &[u8]) -> imgbuild_tests::Finished {
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).unwrap();
    drop(stdin);
    finish(child)
}

#[test]
fn files_go_into_guests_and_come_out_of_them() {
    let env = TestEnv::new();
    let small = env.changed_artifacts(&[("1GiB", "16MiB")]);
    let small = small.to_str().unwrap();
    let launch = [
        "launch",
        "--accel",
        "tcg",
        "--no-canary",
        "--detach",
        "--restart",
        "never",
        "--count",
        "3",
        "--name",
        "f",
        small,
    ];
    run(&mut env.imgbuild(launch)).succeeds();
    let fleet = Fleet::of(&env, "f");
    fleet.wait();
    copies(&env, &fleet);
    refusals_change_nothing(&env, &fleet);
    guests_that_do_not_answer_are_counted(&env, &fleet);
    fleet.end();
}

/// Into a guest, into three, and back.
fn copies(env: &TestEnv, fleet: &Fleet) {
    let cp = |arguments: &[&str]| run(fleet.imgbuild(["cp"]).args(arguments));
    let at = |name: &str| env.path().join(name);

    let data = noise(1 << 20);
    fs::write(at("data"), &data).unwrap();
    fs::create_dir(at("folder")).unwrap();
    let quiet = cp(&["data", "g00001:/disk/"]).succeeds();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    cp(&["1:/disk/data", "folder"]).succeeds();
    assert!(fs::read(at("folder/data")).unwrap() == data);
    let mode = fs::metadata(at("folder/data"))
        .unwrap()
        .permissions()
        .mode();
    let plain = fs::metadata(at("data")).unwrap().permissions().mode();
    assert_eq!(mode, plain, "as the umask has it");

    cp(&["data", "1:~/data"]).succeeds();
    cp(&["1:/data", "home"]).succeeds();
    assert!(fs::read(at("home")).unwrap() == data);

    let mut from_stdin = fleet.imgbuild(["cp", "-", "0:/disk/it has blanks"]);
    let child = start(from_stdin.stdin(Stdio::piped()));
    fed(child, b"said\n").succeeds();
    let said = cp(&["0:/disk/it has blanks", "-"]).succeeds();
    assert_eq!(said.stdout, "said\n");
    cp(&["g00000:/proc/meminfo", "-"])
        .succeeds()
        .shows(&["MemTotal"]);

    cp(&["--all", "data", ":/disk/all"])
        .succeeds()
        .says(&["3 of 3 done"]);
    cp(&["1-2:/disk/all", "new/folder"])
        .succeeds()
        .says(&["2 of 2 done"]);
    assert_eq!(lists(env, "new/folder"), ["g00001", "g00002"]);
    assert!(fs::read(at("new/folder/g00002")).unwrap() == data);
    let told = cp(&["--json", "g0*:/disk/all", "out"])
        .succeeds()
        .json_lines();
    let first = json!({"event": "guest", "id": "g00000", "code": 0, "bytes": 1 << 20,
        "file": "out/g00000"});
    assert_eq!(told[0], first);
    assert_eq!(
        [&told[3]["event"], &told[3]["done"]],
        [&json!("summary"), &json!(3)]
    );
}

/// What fails leaves the file here as it was.
fn refusals_change_nothing(env: &TestEnv, fleet: &Fleet) {
    let cp = |arguments: &[&str]| run(fleet.imgbuild(["cp"]).args(arguments));
    let at = |name: &str| env.path().join(name);

    fs::write(at("kept"), "before").unwrap();
    for (arguments, said) in [
        (
            ["0:/nope", "kept"],
            "g00000: cannot read /nope: open: No such file",
        ),
        (
            ["0:/disk", "kept"],
            "Is a directory (errno 21); cp copies one file",
        ),
        (
            ["data", "0:/disk"],
            "end the path with / to put the file into that folder",
        ),
        (
            ["data", "0:/no/folder"],
            "cannot write /no/folder: open: No such file",
        ),
        (["nope", "0:/disk/f"], "cannot read nope: No such file"),
        (
            ["folder", "0:/disk/f"],
            "cannot read folder: it is a folder",
        ),
        (
            ["0:/disk/all", "/nowhere/f"],
            "cannot write /nowhere/f: No such file",
        ),
        (
            ["0:/disk/all", "/dev/full"],
            "cannot write /dev/full: No space left",
        ),
    ] {
        cp(&arguments).exits(1).says(&[said]);
    }
    let large = fs::File::create(at("large")).unwrap();
    large.set_len(32 << 20).unwrap();
    cp(&["large", "2:/disk/f"]).exits(1).says(&[
        "g00002: cannot write /disk/f: write: No space left on device",
        "; the guest may have a part of the file",
    ]);
    assert_eq!(fs::read_to_string(at("kept")).unwrap(), "before");
    for arguments in [
        &["a", "b"][..],
        &["0:/a", "1:/b"],
        &[":/a", "b"],
        &["--all", "0:/a", "b"],
        &["--all", ":/a", "-"],
        &["--all", "-", ":/a"],
        &["--all", "/dev/stdin", ":/a"],
        &["data", "0:~user/a"],
        &["--json", "0:/a", "-"],
        &["a:b", "0:/a"],
        &["3:/a", "b"],
        &["data", "0:it's"],
    ] {
        cp(arguments).exits(2);
    }
}

/// One that stalls ends with the client, and one that is gone is counted.
fn guests_that_do_not_answer_are_counted(env: &TestEnv, fleet: &Fleet) {
    let cp = |arguments: &[&str]| run(fleet.imgbuild(["cp"]).args(arguments));

    let stopped = fleet.guest(0).pid.unwrap();
    signal(stopped, Signal::STOP);
    cp(&["--all", "--within", "2s", ":/proc/uptime", "late"])
        .exits(4)
        .says(&[
            "g00000: no answer within 2s",
            "2 of 3 done, 1 without an answer",
        ]);
    assert_eq!(lists(env, "late"), ["g00001", "g00002"]);
    let copy = start(&mut fleet.imgbuild(["cp", "0:/disk/all", "late/g00000"]));
    let client_runs = || {
        env.command_lines()
            .iter()
            .any(|line| line.starts_with("ssh "))
    };
    wait_until("the client runs", client_runs);
    signal(copy.id(), Signal::INT);
    finish(copy).exits(130);
    assert_eq!(lists(env, "late"), ["g00001", "g00002"]);
    let copy = start(&mut fleet.imgbuild(["cp", "data", "0:/disk/in"]));
    wait_until("the client runs", client_runs);
    signal(copy.id(), Signal::INT);
    finish(copy)
        .exits(130)
        .says(&["may have a part of the file"]);
    fleet.kill_guests(&[0]);
    fleet.until("it is gone", |fleet| fleet.guests[0].pid.is_none());
    cp(&["0:/proc/uptime", "late/g00000"]).exits(1).says(&[
        "g00000 is unreachable: ",
        "`imgbuild ps` says whether it is ready",
    ]);
    assert_eq!(lists(env, "late"), ["g00001", "g00002"]);
}

#[test]
fn an_images_shell_copies_as_init_does() {
    let env = TestEnv::new();
    let out = with_shell(&env);
    let mut launch = env.imgbuild(["launch", "--accel", "tcg", "--no-canary", "--detach"]);
    run(launch.args(["--count", "1", "--name", "f"]).arg(&out)).succeeds();
    let fleet = Fleet::of(&env, "f");
    fleet.wait();
    let cp = |arguments: &[&str]| run(fleet.imgbuild(["cp"]).args(arguments));
    let data = noise(100_000);
    fs::write(env.path().join("data"), &data).unwrap();
    for path in ["0:/data", "0:/$(data) \"x\"", "0:-n", "0:~/f"] {
        cp(&["data", path]).succeeds();
        cp(&[path, "back"]).succeeds();
        assert!(fs::read(env.path().join("back")).unwrap() == data, "{path}");
    }
    cp(&["0:/nope", "nope"])
        .exits(1)
        .says(&["g00000: cannot read /nope: ", "No such file or directory"]);
    cp(&["data", "0:/bin"])
        .exits(1)
        .says(&["end the path with /"]);
    assert!(!env.path().join("nope").exists());
    fleet.end();
}
