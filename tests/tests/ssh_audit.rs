//! ssh-audit (https://github.com/jtesta/ssh-audit), pinned, on a guest's SSH
//! server: it offers nothing weak.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use imgbuild_tests::reachable::{self, Guest};
use imgbuild_tests::{TestEnv, run, workspace};
use serde_json::Value;

/// What it finds, and why it stays: docs/limits.md.
const KNOWN: [(&str, &str, &str); 2] = [
    (
        "curve25519-sha256",
        "warn",
        "does not provide protection against post-quantum attacks",
    ),
    // The empty list of MACs: the only cipher brings its own.
    ("", "fail", "using unknown algorithm"),
];

/// ssh-audit, installed once into the checkout's target folder.
fn ssh_audit(env: &TestEnv) -> PathBuf {
    let folder = workspace().join("target/ssh-audit");
    run(env.command("python3").args(["-m", "venv"]).arg(&folder)).succeeds();
    run(env
        .command(folder.join("bin/pip"))
        .args(["install", "--quiet", "--no-deps", "--require-hashes", "-r"])
        .arg(workspace().join("tests/ssh-audit.txt")))
    .succeeds();
    folder.join("bin/ssh-audit")
}

#[test]
fn ssh_audit_finds_nothing_but_what_is_documented() {
    let env = TestEnv::new();
    let audit = ssh_audit(&env);
    let out = reachable::artifacts(&env);
    let mut guest = Guest::start(&env, &out, Duration::from_secs(60));
    let found = run(env
        .command(audit)
        .args(["--json", "--skip-rate-test", "--timeout=60", "--port"])
        .arg(guest.port.to_string())
        .arg("127.0.0.1"));
    let report: Value = serde_json::from_str(&found.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", found.stdout, found.stderr));

    let mut findings = BTreeSet::new();
    for part in ["kex", "key", "enc", "mac"] {
        for algorithm in report[part].as_array().unwrap() {
            let name = algorithm["algorithm"].as_str().unwrap();
            for level in ["fail", "warn"] {
                for note in algorithm["notes"][level].as_array().into_iter().flatten() {
                    findings.insert((name, level, note.as_str().unwrap()));
                }
            }
        }
    }
    assert_eq!(findings, BTreeSet::from(KNOWN), "{report:#}");
    assert_eq!(report["cves"], Value::Array(Vec::new()));
    guest.assert_well();
}
