//! Judges the hosts of `tests/fixtures/hosts`.
//!
//! A base is a whole snapshot that is ready for 1,000 guests. Every other file
//! is a [`Variant`] of a base, which says what fires then, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::judge;
use crate::host::ceiling::ceiling;
use crate::host::finding::{Finding, Severity};
use crate::host::snapshot::{Host, SCHEMA};
use crate::host::want::Want;
use crate::units::MAX_GUESTS;
use crate::words;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/hosts");
/// Findings that are said since users ask and other launchers need it: whatever
/// is found, it changes no fleet of imgbuild's.
const INFORMATION: [&str; 9] = [
    "aio",
    "config",
    "config-irqbypass",
    "config-vhost",
    "config-virtio",
    "kvm-pit",
    "neighbours",
    "shm",
    "thp",
];
const BASES: [&str; 2] = ["bare-metal-intel", "bare-metal-amd"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    base: String,
    /// How it differs from its base: a merge patch (RFC 7396).
    patch: Value,
    /// How the wanted fleet differs from [`fleet`]'s: a merge patch.
    #[serde(default)]
    want: Value,
    /// Findings that are not ok, in order.
    fires: Vec<String>,
    /// How much those matter that are not advice.
    #[serde(default)]
    severity: BTreeMap<String, String>,
    #[serde(default)]
    guests: BTreeMap<String, u64>,
    /// What can be read in findings.
    #[serde(default)]
    says: BTreeMap<String, String>,
}

fn fleet() -> Value {
    json!({
        "guests": 1000,
        "accel": "kvm",
        "sharing": "guest",
        "net": "user",
        "memory": "64M",
        "users": "apart",
        "cost": {
            "basis": "measured",
            "memory": 24 << 20,
            "memory_merged": 4 << 20,
            "memory_once": 64 << 20,
            "threads": 3,
            "files": 24,
            "disk": 64 << 10,
        },
    })
}

/// RFC 7396: null removes, an object reaches into, all else replaces.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn read(name: &str) -> Value {
    let path = Path::new(FIXTURES).join(format!("{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn variants() -> Vec<(String, Variant)> {
    let mut names: Vec<_> = fs::read_dir(FIXTURES)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !BASES.contains(&name.as_str()))
        .collect();
    names.sort_unstable();
    names
        .into_iter()
        .map(|name| {
            let variant = serde_json::from_value(read(&name));
            let variant = variant.unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, variant)
        })
        .collect()
}

/// The findings on a base host with a merge patch, for a fleet with another.
fn found(base: &str, patch: &Value, want: &Value) -> Vec<Finding> {
    let (mut host, mut fleet) = (read(base), fleet());
    merge(&mut host, patch);
    if !want.is_null() {
        merge(&mut fleet, want);
    }
    let host: Host =
        serde_json::from_value(host).unwrap_or_else(|error| panic!("{base} with {patch}: {error}"));
    let want: Want =
        serde_json::from_value(fleet).unwrap_or_else(|error| panic!("{want}: {error}"));
    judge(&host, &want)
}

fn found_on(variant: &Variant) -> Vec<Finding> {
    found(&variant.base, &variant.patch, &variant.want)
}

fn all_found() -> Vec<(String, Vec<Finding>)> {
    let bases = BASES.map(|base| (base.to_owned(), found(base, &json!({}), &Value::Null)));
    let variants = variants()
        .into_iter()
        .map(|(name, variant)| (name, found_on(&variant)));
    bases.into_iter().chain(variants).collect()
}

#[test]
fn bases_are_ready() {
    for base in BASES {
        let host: Host = serde_json::from_value(read(base)).unwrap();
        assert_eq!(host.schema, SCHEMA, "{base}");
        for accel in ["kvm", "tcg"] {
            for sharing in ["guest", "none"] {
                let want = json!({ "accel": accel, "sharing": sharing });
                for finding in found(base, &json!({}), &want) {
                    assert_eq!(finding.severity, Severity::Ok, "{base}: {finding:?}");
                    assert_ne!(finding.value, "not seen", "{base}: {finding:?}");
                }
            }
        }
    }
}

#[test]
fn each_host_fires_what_is_wrong_with_it_and_nothing_else() {
    let wrong: Vec<_> = variants()
        .iter()
        .flat_map(|(name, variant)| {
            let wrong = differences(variant, &found_on(variant));
            wrong.into_iter().map(move |what| format!("{name}: {what}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where `findings` are not what a variant says.
fn differences(variant: &Variant, findings: &[Finding]) -> Vec<String> {
    let mut wrong = Vec::new();
    let fired: Vec<_> = findings
        .iter()
        .filter(|finding| finding.severity != Severity::Ok)
        .map(|finding| (finding.id, finding.severity.name()))
        .collect();
    let expected: Vec<_> = variant
        .fires
        .iter()
        .map(|id| {
            let severity = variant.severity.get(id);
            (id.as_str(), severity.map_or("advice", String::as_str))
        })
        .collect();
    if fired != expected {
        wrong.push(format!("fires {fired:?}, not {expected:?}"));
    }
    let finding = |id: &str| findings.iter().find(|finding| finding.id == id);
    for (id, guests) in &variant.guests {
        let allowed = finding(id).and_then(|finding| finding.guests);
        if allowed != Some(*guests) {
            wrong.push(format!("{id} allows {allowed:?}, not {guests}"));
        }
    }
    for (id, text) in &variant.says {
        let said = finding(id).map(all_text).unwrap_or_default();
        if !said.contains(text) {
            wrong.push(format!("{id} does not say {text:?}: {said}"));
        }
    }
    for id in variant.severity.keys() {
        if !variant.fires.contains(id) {
            wrong.push(format!("{id} has a severity and does not fire"));
        }
    }
    wrong
}

fn all_text(finding: &Finding) -> String {
    let fix = finding.fix.as_ref().map(ToString::to_string);
    [
        finding.value.as_str(),
        &finding.need,
        &finding.meaning,
        &fix.unwrap_or_default(),
    ]
    .join(" | ")
}

#[test]
fn every_finding_fires_on_some_host_and_is_ok_on_the_bases() {
    let all = all_found();
    let ids = |wanted: fn(&Finding) -> bool, findings: &[Finding]| -> BTreeSet<&'static str> {
        let findings = findings.iter().filter(|finding| wanted(finding));
        findings.map(|finding| finding.id).collect()
    };
    let every: BTreeSet<_> = all.iter().flat_map(|(_, f)| ids(|_| true, f)).collect();
    let fired: BTreeSet<_> = all
        .iter()
        .flat_map(|(_, f)| ids(|f| f.severity != Severity::Ok, f))
        .collect();
    assert_eq!(
        &every - &BTreeSet::from(INFORMATION),
        fired,
        "findings that no host fires"
    );
    for (name, findings) in all
        .iter()
        .filter(|(name, _)| BASES.contains(&name.as_str()))
    {
        assert_eq!(every, ids(|_| true, findings), "{name}");
    }
}

#[test]
fn every_finding_is_in_the_document_and_nothing_else() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/readiness.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, table) = text.split_once("| concern | findings |\n").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let rows = table.lines().filter_map(|row| row.rsplit('|').nth(1));
    let listed: BTreeSet<_> = rows
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .collect();
    let found = all_found();
    let mut there: BTreeSet<_> = found.iter().flat_map(|(_, f)| f).map(|f| f.id).collect();
    there.extend(["canary", "canary-merge"]);
    assert_eq!(listed, there);
}

#[test]
fn every_finding_says_what_it_means_and_what_to_do() {
    for (name, findings) in all_found() {
        let mut ids = BTreeSet::new();
        for finding in findings {
            assert!(ids.insert(finding.id), "{name}: {} twice", finding.id);
            let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(finding.id.chars().all(kebab), "{name}: {finding:?}");
            for text in [&finding.value, &finding.need, &finding.meaning] {
                assert!(!text.trim().is_empty(), "{name}: {finding:?}");
                assert!(
                    !text.contains("  ") && !text.contains('\n'),
                    "{name}: {text:?}"
                );
            }
            if let Some(fault) = words::fault(&all_text(&finding)) {
                panic!("{name}: {} {fault}: {finding:?}", finding.id);
            }
            let link = finding.document.starts_with("https://");
            assert!(
                link || finding.document.contains('('),
                "{name}: {finding:?}"
            );
            match (&finding.fix, finding.severity) {
                (None, Severity::Ok) => {}
                (Some(fix), Severity::Blocker | Severity::Limit | Severity::Advice) => {
                    assert!(!fix.to_string().ends_with("sets "), "{name}: {finding:?}");
                }
                _ => panic!("{name}: a fix where there is nothing to fix, or none: {finding:?}"),
            }
            if finding.severity == Severity::Limit {
                assert!(finding.guests.is_some(), "{name}: {finding:?}");
            }
        }
    }
}

#[test]
fn a_finding_in_full_is_one_sentence() {
    for (name, findings) in all_found() {
        for finding in findings {
            let text = finding.in_full();
            assert!(
                !text.contains(".;") && !text.contains(";."),
                "{name}: {text}"
            );
        }
    }
}

#[test]
fn tcg_is_advised_to_those_alone_who_want_kvm() {
    let mut advised = 0;
    for (name, variant) in variants() {
        for accel in ["kvm", "tcg"] {
            let mut want = variant.want.clone();
            merge(&mut want, &json!({"accel": accel}));
            for finding in found(&variant.base, &variant.patch, &want) {
                let fix = finding.fix.as_ref().map(ToString::to_string);
                let says = fix.is_some_and(|fix| fix.contains("--accel tcg"));
                assert!(!says || accel == "kvm", "{name}: {}", all_text(&finding));
                advised += usize::from(says);
            }
        }
    }
    assert!(advised > 5, "{advised}");
}

#[test]
fn amd_s_processors_are_not_judged_by_what_only_vt_x_has() {
    let of_amd: Vec<_> = variants()
        .into_iter()
        .filter(|(_, variant)| variant.base == "bare-metal-amd")
        .collect();
    assert!(of_amd.len() > 3);
    for (name, variant) in of_amd {
        for finding in found_on(&variant) {
            let said = all_text(&finding);
            for term in ["VMCS", "EPT", "VPID", "APICv", "kvm_intel."] {
                assert!(!said.contains(term), "{name}: {term}: {said}");
            }
        }
    }
}

#[test]
fn the_worst_comes_first() {
    for (name, findings) in all_found() {
        assert!(
            findings.is_sorted_by_key(|finding| finding.severity),
            "{name}"
        );
    }
}

/// A snapshot may come from anywhere: figures that no host has are judged, and
/// never overflow.
#[test]
fn figures_that_no_host_has_are_judged_all_the_same() {
    fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    leaves(value, &format!("{path}/{name}"), found);
                }
            }
            Value::Array(items) => {
                for (place, value) in items.iter().enumerate() {
                    leaves(value, &format!("{path}/{place}"), found);
                }
            }
            Value::Number(_) => found.push(path.to_owned()),
            _ => {}
        }
    }
    let mut tried = 0;
    for base in ["bare-metal-intel", "bare-metal-amd"] {
        let host = read(base);
        let mut numbers = Vec::new();
        leaves(&host, "", &mut numbers);
        for number in numbers {
            for value in [json!(u64::MAX), json!(u64::MAX / 2), json!(0), json!(1)] {
                let mut host = host.clone();
                *host.pointer_mut(&number).unwrap() = value.clone();
                // What the type does not take is refused when it is loaded.
                let Ok(host) = serde_json::from_value::<Host>(host) else {
                    continue;
                };
                for cost in [json!({}), json!({ "memory": 0, "threads": 0 })] {
                    let mut fleet = fleet();
                    merge(&mut fleet["cost"], &cost);
                    let want = serde_json::from_value(fleet).unwrap();
                    assert!(!judge(&host, &want).is_empty(), "{number} = {value}");
                    let ceiling = ceiling(&host, &want);
                    assert!(ceiling.guest.guests <= u64::from(MAX_GUESTS), "{number}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "{tried}");
}
