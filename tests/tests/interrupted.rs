//! Builds that are stopped, killed, or not alone: the output is the previous
//! one or the new one, whole.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use imgbuild_tests::stand_in::{QEMU, find};
use imgbuild_tests::tree::Tree;
use imgbuild_tests::{TestEnv, finish, run, start, wait_until};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

/// How far a build gets before it is stopped.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// A tool runs.
    Base,
    /// Files are written, one after the other.
    Overlays,
    /// A guest runs.
    Boot,
}

const STAGES: [Stage; 3] = [Stage::Base, Stage::Overlays, Stage::Boot];

/// Staging folders beside an output.
fn staging(out: &Path) -> Vec<PathBuf> {
    fs::read_dir(out.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(".tty-burn.staging-")
        })
        .collect()
}

/// Starts a build and returns when it is at `stage`, where it stays, or
/// stays for seconds.
fn start_until(env: &TestEnv, out: &Path, stage: Stage) -> Child {
    let reached = env.path().join("reached");
    let _ = fs::remove_file(&reached);
    let _ = fs::remove_dir_all(env.stand_ins());
    let hang = format!("touch '{}'; exec sleep 1000", reached.display());
    let mut build = env.imgbuild(["tty-burn"]);
    build
        .arg("--out")
        .arg(out)
        .env("PATH", env.path_with_stand_ins());
    match stage {
        Stage::Base => env.stand_in("mke2fs", &hang),
        Stage::Overlays => drop(build.args(["--no-boot", "--overlays", "100000"])),
        Stage::Boot => env.stand_in(
            QEMU,
            &format!(
                "case \"$*\" in --version|'-machine help') exec {} \"$@\" ;; esac\n{hang}",
                find(QEMU).display()
            ),
        ),
    }
    let child = start(&mut build);
    wait_until("the build is there", || match stage {
        Stage::Base | Stage::Boot => reached.exists(),
        Stage::Overlays => staging(out)
            .iter()
            .any(|folder| folder.join("overlays/00000.qcow2").exists()),
    });
    child
}

#[test]
fn a_build_that_is_asked_to_stop_leaves_the_previous_output() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let before = Tree::of(out.parent().unwrap());
    for (stage, signal) in STAGES
        .into_iter()
        .flat_map(|stage| [(stage, Signal::INT), (stage, Signal::TERM)])
    {
        let build = start_until(&env, &out, stage);
        kill_process(Pid::from_child(&build), signal).unwrap();
        let finished = finish(build).exits(130).says(&["interrupted"]);
        assert_eq!(finished.stdout, "", "{stage:?}");
        env.assert_no_process_left();
        env.assert_no_fleet_left();
        assert_eq!(Tree::of(out.parent().unwrap()), before, "{stage:?}");
    }
}

#[test]
fn a_build_that_is_killed_leaves_the_previous_output() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    for stage in STAGES {
        let before = Tree::of(&out);
        let build = start_until(&env, &out, stage);
        kill_process(Pid::from_child(&build), Signal::KILL).unwrap();
        assert_eq!(finish(build).status.code(), None);
        env.assert_no_process_left();
        assert_eq!(Tree::of(&out), before, "{stage:?}");
        run(env.imgbuild(["verify"]).arg(&out)).succeeds();

        // The next build clears what was left, and tells.
        let [left] = &staging(&out)[..] else {
            panic!("{stage:?}: {:?}", staging(&out));
        };
        run(env.imgbuild(["tty-burn", "--no-boot", "--out"]).arg(&out))
            .succeeds()
            .says(&["removed", left.to_str().unwrap()]);
        assert_eq!(staging(&out), Vec::<PathBuf>::new(), "{stage:?}");
        run(env.imgbuild(["verify"]).arg(&out)).succeeds();
    }
}

#[test]
fn a_build_under_way_is_not_taken_for_a_killed_one() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let build = start_until(&env, &out, Stage::Base);
    let [held] = &staging(&out)[..] else {
        panic!("{:?}", staging(&out));
    };
    run(env.imgbuild(["tty-burn", "--no-boot", "--out"]).arg(&out)).succeeds();
    assert!(held.is_dir());
    kill_process(Pid::from_child(&build), Signal::INT).unwrap();
    finish(build).exits(130);
    run(env.imgbuild(["verify"]).arg(&out)).succeeds();
}

#[test]
fn builds_into_one_folder_at_once_all_end_well() {
    let env = TestEnv::new();
    let out = env.path().join("out/tty-burn");
    let build = |disk_size: &str| -> Command {
        let mut command =
            env.imgbuild(["tty-burn", "--no-boot", "--quiet", "--disk-size", disk_size]);
        command.arg("--out").arg(&out);
        command
    };
    // Often enough that they meet at every step.
    thread::scope(|scope| {
        for size in ["16M", "32M", "64M", "128M", "256M", "512M", "1G", "2G"] {
            let build = &build;
            scope.spawn(move || {
                for _ in 0..15 {
                    run(&mut build(size)).succeeds();
                }
            });
        }
    });
    run(env.imgbuild(["verify"]).arg(&out)).succeeds();
    assert_eq!(staging(&out), Vec::<PathBuf>::new());
}

/// Makes a pipe that nobody writes to or reads from.
fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

#[test]
fn a_pipe_where_a_file_or_folder_is_looked_for_holds_nobody_up() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let staged = out.with_file_name(".tty-burn.staging-1");
    fifo(&staged);
    run(env.imgbuild(["tty-burn", "--no-boot", "--out"]).arg(&out)).succeeds();
    assert!(fs::symlink_metadata(&staged).unwrap().file_type().is_fifo());

    for file in ["vmlinux", "manifest.json"] {
        fs::remove_file(out.join(file)).unwrap();
        fifo(&out.join(file));
        let launch = ["launch", "--accel", "tcg", "--count", "1"];
        run(env.imgbuild(launch).arg(&out))
            .exits(1)
            .says(&[file, "not a regular file"]);
        run(env.imgbuild(["verify"]).arg(&out)).exits(1);
    }
    run(env.imgbuild(["tty-burn", "--no-boot", "--out"]).arg(&out))
        .exits(1)
        .says(&["holds no manifest.json of imgbuild"]);
    env.assert_no_fleet_left();
}
