//! ssh-audit (https://github.com/jtesta/ssh-audit), pinned, on a guest's SSH
//! server: it offers nothing weak.

use std::collections::BTreeSet;
use std::time::Duration;

use imgbuild_tests::reachable::{self, Guest};
use imgbuild_tests::{TestEnv, python, run};
use serde_json::Value;

/// What it finds, and why it stays: docs/limits.md.
const KNOWN: [(&str, &str, &str); 2] = [
    ("curve25519-sha256", "warn", NOT_POST_QUANTUM),
    ("curve25519-sha256@libssh.org", "warn", NOT_POST_QUANTUM),
];
const NOT_POST_QUANTUM: &str = "does not provide protection against post-quantum attacks";

#[test]
fn ssh_audit_finds_nothing_but_what_is_documented() {
    let env = TestEnv::new();
    let audit = python::installed(&env, "ssh-audit").join("ssh-audit");
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
