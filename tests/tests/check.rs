//! `imgbuild check`, as a user sees it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use imgbuild::host::snapshot::Host;
use imgbuild_tests::fleet::Fleet;
use imgbuild_tests::{Finished, TestEnv, rights, run, workspace};
use rustix::process::geteuid;
use serde_json::Value;

fn report(finished: &Finished) -> Value {
    finished.json_lines().remove(0)
}

fn finding<'a>(report: &'a Value, id: &str) -> Option<&'a Value> {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["id"] == id)
}

fn severity<'a>(report: &'a Value, id: &str) -> &'a str {
    finding(report, id).map_or("", |finding| finding["severity"].as_str().unwrap())
}

/// A host whose `/dev/kvm` opens is told apart by what KVM does with ring-0
/// code, which no flag and no file shows.
#[test]
fn kvm_that_emulates_is_named_where_virt_host_validate_passes_it() {
    let env = TestEnv::new();
    let kept = workspace().join("target/readiness");
    fs::create_dir_all(&kept).unwrap();
    let keep = |name: &str, finished: &Finished| {
        let text = format!(
            "exit {}\n{}{}",
            finished.code(),
            finished.stdout,
            finished.stderr
        );
        fs::write(kept.join(name), text).unwrap();
    };
    let ours = run(&mut env.imgbuild(["check"]));
    keep("imgbuild-check.txt", &ours);
    // Flags are all that it goes by: with the flag shown, as most clouds show
    // it to their guests, it passes this very host.
    let theirs = run(env
        .command("unshare")
        .args(rights::own_mounts())
        .args(["sh", "-ec"])
        .arg(
            "sed 's/^flags.*:/& vmx/' /proc/cpuinfo > cpuinfo; mount --bind cpuinfo /proc/cpuinfo; \
             exec virt-host-validate qemu",
        ));
    keep("virt-host-validate-with-vmx.txt", &theirs);
    keep(
        "virt-host-validate.txt",
        &run(env.command("virt-host-validate").arg("qemu")),
    );

    let report = report(&run(&mut env.imgbuild(["check", "--json"])));
    let probe = finding(&report, "kvm-ring0");
    let theirs_passes = |what: &str| {
        let line = theirs.stdout.lines().find(|line| line.contains(what));
        line.is_some_and(|line| line.ends_with("PASS"))
    };
    match probe {
        // No device: nothing to tell apart.
        None => assert_ne!(severity(&report, "kvm-device"), "ok"),
        Some(probe) => {
            assert!(
                theirs_passes("hardware virtualization"),
                "{}",
                theirs.stdout
            );
            assert!(theirs_passes("/dev/kvm is accessible"), "{}", theirs.stdout);
            if probe["severity"] == "blocker" {
                ours.exits(3).shows(&[
                    "KVM emulates ring 0; guests will not boot",
                    "an instruction",
                    "--accel tcg",
                ]);
            }
        }
    }
}

#[test]
fn text_fits_80_columns_and_has_colours_only_when_asked() {
    let env = TestEnv::new();
    let mut command = env.imgbuild(["check", "--accel", "tcg"]);
    let plain = run(&mut command).succeeds().stdout;
    for line in plain.lines() {
        let width = line.chars().count();
        assert!(width <= 80 || line.trim().starts_with("https://"), "{line}");
    }
    assert!(plain.starts_with("this host takes "), "{plain}");
    assert!(!plain.contains('\u{1b}'));
    let coloured = run(command.env("CLICOLOR_FORCE", "1")).succeeds().stdout;
    assert!(coloured.contains('\u{1b}'));
    let without = run(command.env("NO_COLOR", "1")).succeeds().stdout;
    assert!(!without.contains('\u{1b}'));
}

#[test]
fn under_tcg_kvm_is_advice_and_no_artifacts_are_needed() {
    let env = TestEnv::new();
    let report = report(&run(&mut env.imgbuild(["check", "--accel", "tcg", "--json"])).succeeds());
    assert_eq!(report["schema"], 1);
    let fields: Vec<_> = report.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "schema", "ready", "verdict", "recipe", "qemu", "want", "ceiling", "canary", "findings"
        ]
    );
    assert_eq!(report["ready"], true);
    assert_eq!(report["recipe"], Value::Null);
    assert_eq!(report["ceiling"]["basis"], "assumed");
    for finding in report["findings"].as_array().unwrap() {
        let id = finding["id"].as_str().unwrap();
        if id.starts_with("kvm") || id == "vt" {
            assert!(
                ["advice", "ok"].contains(&severity(&report, id)),
                "{finding}"
            );
        }
        for part in ["value", "need", "meaning", "document"] {
            assert!(!finding[part].as_str().unwrap().is_empty(), "{finding}");
        }
    }
    // Without anything to start there is no canary.
    run(&mut env.imgbuild(["check", "--accel", "tcg", "--canary"]))
        .exits(2)
        .says(&["--canary needs guests", "imgbuild tty-burn"]);
}

#[test]
fn canaries_measure_and_their_result_is_kept_for_launch() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let imgbuild = |arguments: &[&str]| {
        let mut command = env.imgbuild(arguments);
        env.own_cache(&mut command).arg(&out);
        run(&mut command)
    };
    let launch = ["launch", "--accel", "tcg", "--count", "1", "--for", "1s"];
    imgbuild(&launch)
        .succeeds()
        .says(&["starting two guests of tty-idle under tcg"]);
    let warm = imgbuild(&launch).succeeds();
    assert!(!warm.stderr.contains("trying"), "{}", warm.stderr);

    // A check takes what launch has measured, and says so.
    let kept = report(&imgbuild(&["check", "--accel", "tcg", "--json"]).succeeds());
    assert_eq!(severity(&kept, "canary"), "ok");
    assert_eq!(kept["recipe"], "tty-idle");
    assert_eq!(kept["ceiling"]["basis"], "measured");
    let cost = &kept["canary"]["cost"];
    let memory = cost["memory"].as_u64().unwrap();
    assert!((8 << 20..64 << 20).contains(&memory), "{cost}");
    let merged = cost["memory_merged"].as_u64().unwrap();
    assert!(merged + (4 << 20) < memory, "{cost}");
    assert!(
        (4..=5).contains(&cost["threads"].as_u64().unwrap()),
        "{cost}"
    );

    // Fresh ones on request; nothing is left of any.
    imgbuild(&["check", "--accel", "tcg", "--canary"])
        .succeeds()
        .says(&["starting two guests"]);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

#[test]
fn canaries_that_do_not_come_up_stop_a_launch_that_is_not_forced() {
    let env = TestEnv::new();
    // Its kernel finds no init.
    let absent = "[kernel]\ncommand_line = \"rdinit=/absent\"";
    let out = env.changed_artifacts(&[("[kernel]", absent)]);
    let launch = |more: &[&str]| {
        let mut command = env.imgbuild(["launch", "--accel", "tcg", "--count", "2"]);
        run(command.args(["--for", "1s"]).arg(&out).args(more))
    };
    launch(&[]).exits(3).says(&[
        "canary: kernel panic",
        "does not boot here under tcg",
        "fix the recipe",
        "--force",
    ]);
    launch(&["--no-canary"]).exits(1);
    launch(&["--force", "--json"])
        .exits(1)
        .shows(&["\"forced\":[\"canary\"]"]);

    // Whoever supervises it.
    let mut detached = env.imgbuild(["launch", "--accel", "tcg", "--name", "f"]);
    run(detached
        .args(["--count", "1", "--force", "--detach"])
        .arg(&out))
    .succeeds();
    let fleet = Fleet::of(&env, "f");
    assert_eq!(fleet.ps().forced, ["canary"]);
    fleet.kill_supervisor();
    assert_eq!(fleet.ps().forced, ["canary"]);
    let mut resume = fleet.imgbuild(["launch", "--resume", "f", "--json"]);
    run(&mut resume).shows(&["\"forced\":[\"canary\"]"]);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

/// Canaries need neither a cache that can be written nor a short TMPDIR.
#[test]
fn a_launch_gets_by_without_a_cache_and_with_a_long_temporary_folder() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let long = env.path().join("tmp").join("long-".repeat(20));
    fs::create_dir_all(&long).unwrap();
    let mut launch = env.imgbuild(["launch", "--accel", "tcg", "--count", "1", "--for", "0s"]);
    launch
        .arg(&out)
        .env("XDG_CACHE_HOME", "/proc/nowhere")
        .env("TMPDIR", &long);
    run(&mut launch)
        .succeeds()
        .says(&["starting two guests", "cannot keep the canaries' result"]);
    fs::remove_dir(&long).unwrap();
    env.assert_no_fleet_left();
}

#[test]
fn a_user_launches_without_a_word_on_settings_that_are_roots() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let mut launch = env.imgbuild(["launch", "--accel", "tcg", "--count", "1"]);
    launch.args(["--for", "0s"]).arg(&out);
    if geteuid().is_root() {
        run(env.command("chown").args(["-R", "65534", "."])).succeeds();
        let mut other = env.command("setpriv");
        other
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(launch.get_program())
            .args(launch.get_args());
        launch = other;
    }
    let finished = run(env.own_cache(&mut launch)).succeeds();
    for word in ["/run/imgbuild", "put back", "warning"] {
        assert!(!finished.stderr.contains(word), "{}", finished.stderr);
    }
}

#[test]
fn what_the_environment_asks_of_checks_does_not_keep_from_restoring() {
    if !rights::is_root("restore settings") {
        return;
    }
    let env = TestEnv::new();
    run(env
        .imgbuild(["check", "--restore"])
        .env("IMGBUILD_GUESTS", "9"))
    .succeeds();
}

/// QEMU as a script in a folder that comes first in PATH.
fn with_qemu(env: &TestEnv, script: Option<&str>) -> Finished {
    let bin = env.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let qemu = bin.join("qemu-system-x86_64");
    let path = match script {
        Some(script) => {
            fs::write(&qemu, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
            format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
        }
        None => bin.display().to_string(),
    };
    run(env
        .imgbuild(["check", "--accel", "tcg", "--json"])
        .env("PATH", path))
}

#[test]
fn a_qemu_that_is_missing_hangs_or_fails_is_a_finding() {
    for (script, part) in [
        (None, "missing"),
        (Some("exec sleep 600"), "did not end within"),
        (Some("echo broken >&2; exit 1"), "broken"),
        (Some("head -c 3000000 /dev/zero"), ""),
        (Some("echo QEMU emulator version 5.2.0"), "5.2"),
    ] {
        let env = TestEnv::new();
        let report = report(&with_qemu(&env, script).exits(3));
        let qemu = finding(&report, "qemu").unwrap();
        assert_eq!(qemu["severity"], "blocker", "{qemu}");
        assert!(qemu["value"].as_str().unwrap().contains(part), "{qemu}");
        env.assert_no_process_left();
    }
}

#[test]
fn without_root_it_says_what_it_could_not_see_and_goes_on() {
    if !rights::is_root("hide other users' processes") {
        return;
    }
    let env = TestEnv::new();
    run(env.command("chmod").args(["-R", "a+rwX", "."])).succeeds();
    let imgbuild = env.imgbuild(["check", "--accel", "tcg", "--json"]);
    // As hardened hosts mount it: other users' processes cannot be seen.
    let finished = run(env
        .command("unshare")
        .args(["--mount", "sh", "-ec"])
        .arg(
            "mount -t proc -o hidepid=invisible proc /proc
             exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"",
        )
        .arg("sh")
        .arg(imgbuild.get_program())
        .args(imgbuild.get_args()))
    .succeeds();
    let report = report(&finished);
    assert_eq!(severity(&report, "unseen"), "advice");
    assert!(["advice", "ok"].contains(&severity(&report, "kvm-device")));
    assert!(finding(&report, "pid-max").is_some());
}

#[test]
fn a_saved_host_is_judged_as_the_host_itself() {
    let env = TestEnv::new();
    let live = run(&mut env.imgbuild(["check", "--json", "--snapshot", "host.json"]));
    let from = run(&mut env.imgbuild(["check", "--json", "--from", "host.json"]));
    assert_eq!(live.code(), from.code());
    let [live, from] = [report(&live), report(&from)];
    assert_eq!(live["findings"], from["findings"]);
    assert_eq!(live["ceiling"], from["ceiling"]);
    // Of another host nothing can be started, set or saved.
    for more in ["--canary", "--fix", "--restore", "--snapshot=x"] {
        run(&mut env.imgbuild(["check", "--from", "host.json", more])).exits(2);
    }
}

#[test]
fn a_snapshot_that_is_none_is_named_with_what_to_do() {
    let env = TestEnv::new();
    run(&mut env.imgbuild(["check", "--snapshot", "host.json"]));
    let text = fs::read_to_string(env.path().join("host.json")).unwrap();
    let newer = text.replacen("\"schema\": 1", "\"schema\": 2", 1);
    assert_ne!(newer, text);
    let half = &text[..text.len() / 2];
    let oversized = " ".repeat(5 << 20);
    for (content, part) in [
        (newer.as_str(), "newer"),
        (half, "bad.json"),
        ("", "bad.json"),
        ("[]", "bad.json"),
        ("{\"schema\": 1}", "missing field"),
        ("\0\u{1}", "bad.json"),
        (&oversized, "longer than"),
    ] {
        fs::write(env.path().join("bad.json"), content).unwrap();
        run(&mut env.imgbuild(["check", "--from", "bad.json"]))
            .exits(1)
            .says(&[part]);
    }
    run(&mut env.imgbuild(["check", "--from", "absent.json"]))
        .exits(1)
        .says(&["absent.json"]);
}

/// What judges a host judges its snapshot, wherever it was made.
#[test]
fn hosts_of_others_are_judged_from_their_snapshots() {
    let env = TestEnv::new();
    for (name, code, says) in [
        ("bare-metal-intel", 0, "ready for 1,000 guests"),
        ("bare-metal-amd", 0, "ready for 1,000 guests"),
        ("kvm-pvm", 3, "KVM emulates ring 0; guests will not boot"),
        ("kvm-group-missing", 3, "usermod -aG kvm"),
        ("container-without-kvm", 3, "--device /dev/kvm"),
        ("tasks-max", 3, "TasksMax"),
        ("qemu-missing", 3, "There is nothing to run guests with."),
        ("ksmtuned", 0, "ksmtuned"),
    ] {
        host(name).save(&env.path().join("host.json")).unwrap();
        run(&mut env.imgbuild(["check", "--guests", "1000", "--from", "host.json"]))
            .exits(code)
            .shows(&[says]);
    }
    // The answer comes first, then what can be done something about; the rest with -v.
    host("kvm-group-missing")
        .save(&env.path().join("host.json"))
        .unwrap();
    let text = |arguments: &[&str]| {
        let check = ["check", "--guests", "1000", "--from", "host.json"];
        run(env.imgbuild(check).args(arguments)).exits(3).stdout
    };
    let rows = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("ok       "))
            .count()
    };
    let short = text(&[]);
    assert!(short.starts_with("not ready"), "{short}");
    assert!(short.contains("\n\nblocker  "), "{short}");
    let unlisted = rows(&text(&["-v"]));
    assert!(unlisted > 10, "{unlisted}");
    assert_eq!(rows(&short), 0, "{short}");
    assert!(
        short.contains(&format!("ok: {unlisted} findings; -v lists them")),
        "{short}"
    );
    // The number wanted decides what stops it.
    host("pid-max-32768")
        .save(&env.path().join("host.json"))
        .unwrap();
    let judge = |guests: &str| {
        let arguments = ["check", "--json", "--from", "host.json", "--guests", guests];
        report(&run(&mut env.imgbuild(arguments)))
    };
    let [few, many] = [judge("1000"), judge("20000")];
    assert_eq!(severity(&few, "pid-max"), "ok");
    assert_eq!(severity(&many, "pid-max"), "limit");
    let allowed = finding(&many, "pid-max").unwrap()["guests"]
        .as_u64()
        .unwrap();
    // Threads of the kernel's count, of which a guest under KVM has two.
    assert!((5_000..5_462).contains(&allowed), "{allowed}");
}

/// The host of a fixture: a base, or one with a patch (RFC 7396).
fn host(name: &str) -> Host {
    serde_json::from_value(fixture(name)).unwrap()
}

fn fixture(name: &str) -> Value {
    let path = workspace().join(format!("tests/fixtures/hosts/{name}.json"));
    let read: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    match read.get("base") {
        None => read,
        Some(base) => {
            let mut host = fixture(base.as_str().unwrap());
            merge(&mut host, &read["patch"]);
            host
        }
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}
