use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::*;

fn refused(text: impl AsRef<[u8]>) -> SnapshotError {
    let folder = tree(&[("host.json", text)]);
    Host::load(&folder.path().join("host.json")).unwrap_err()
}

fn document() -> Value {
    serde_json::to_value(seen(&tree(&full()))).unwrap()
}

/// `document` with the value at `pointer` changed by `change`.
fn changed(pointer: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut document = document();
    change(document.pointer_mut(pointer).unwrap());
    document.to_string()
}

#[test]
fn a_snapshot_reads_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.json");
    fs::write(&path, "an older one").unwrap();
    let host = seen(&tree(&full()));
    host.save(&path).unwrap();
    assert_eq!(Host::load(&path).unwrap(), host);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o644
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .contains("\n  \"schema\": 1,\n")
    );
}

#[test]
fn a_snapshot_is_not_saved_over_what_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let host = seen(&tree(&full()));
    let link = folder.path().join("stdout");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    for path in [
        folder.path(),
        &link,
        &folder.path().join("no/such/folder/host.json"),
    ] {
        let error = host.save(path).unwrap_err();
        assert!(matches!(error, SnapshotError::Write { .. }), "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
    assert!(link.is_symlink());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_newer_snapshot_is_refused_with_both_versions() {
    let text = json!({"schema": 7, "imgbuild": "9.1.0", "host": {}}).to_string();
    let error = refused(text);
    assert!(
        matches!(error, SnapshotError::Newer { found: 7, .. }),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("schema 7, written by imgbuild 9.1.0"),
        "{text}"
    );
    assert!(text.contains("reads schema 1"), "{text}");
}

#[test]
fn what_is_no_snapshot_is_refused() {
    for text in [
        "",
        "hello",
        "[]",
        "7",
        "{}",
        "{\"schema\": \"1\"}",
        "{\"schema\": -1}",
        "\u{0}",
    ] {
        let error = refused(text);
        assert!(
            matches!(error, SnapshotError::Other { .. }),
            "{text}: {error}"
        );
        assert!(error.to_string().contains("check --snapshot"), "{error}");
    }
    let error = refused("[".repeat(100_000));
    assert!(matches!(error, SnapshotError::Other { .. }), "{error}");
    let error = refused(b"{\"schema\": 1, \"imgbuild\": \"\xff\"}");
    assert!(matches!(error, SnapshotError::Other { .. }), "{error}");
}

#[test]
fn a_snapshot_that_is_cut_off_is_refused_wherever_it_is() {
    let text = serde_json::to_string_pretty(&document()).unwrap();
    for length in (1..text.len()).step_by(41) {
        let error = refused(&text[..length]);
        assert!(
            matches!(error, SnapshotError::Truncated { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn a_snapshot_that_is_too_long_is_refused() {
    let mut text = document().to_string();
    text.extend(std::iter::repeat_n(' ', (4 << 20) - text.len()));
    let folder = tree(&[("host.json", &text)]);
    Host::load(&folder.path().join("host.json")).unwrap();
    let error = refused(text + " ");
    assert!(matches!(error, SnapshotError::TooLong { .. }), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Host::load(Path::new("/no/such/host.json")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the snapshot /no/such/host.json: No such file or directory"
    );
}

#[test]
fn a_wrong_type_is_reported_with_its_line() {
    let text = changed("/memory/total", |total| *total = json!("much"));
    let error = refused(text).to_string();
    assert!(error.contains("invalid type: string \"much\""), "{error}");
    assert!(error.contains("line 1 column "), "{error}");
    let text = changed("/qemu", |qemu| *qemu = json!("burning"));
    let error = refused(text).to_string();
    assert!(error.contains("unknown variant `burning`"), "{error}");
}

/// Fields, each behind where it is, that snapshots of the same schema lack which
/// were saved before there were such.
const SINCE: [(&str, &str); 5] = [
    ("/cgroup", "favours_moves"),
    ("/cpu", "itlb_multihit"),
    ("/ksm", "ksmd_nice"),
    ("/kvm", "access"),
    ("/kvm", "pit_threads"),
];

#[test]
fn a_snapshot_of_before_a_field_was_noted_is_taken() {
    for (pointer, name) in SINCE {
        let text = changed(pointer, |object| {
            object.as_object_mut().unwrap().shift_remove(name).unwrap();
        });
        let folder = tree(&[("host.json", text)]);
        let loaded = Host::load(&folder.path().join("host.json"));
        loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Every object's every field, at any depth.
#[test]
fn a_missing_field_is_named_whichever_it_is() {
    fn fields(pointer: &str, value: &Value, found: &mut Vec<(String, String)>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    found.push((pointer.to_owned(), name.clone()));
                    fields(&format!("{pointer}/{name}"), value, found);
                }
            }
            Value::Array(items) => {
                for (place, value) in items.iter().enumerate() {
                    fields(&format!("{pointer}/{place}"), value, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    fields("", &document(), &mut found);
    assert!(found.len() > 100);
    let mut refusals = 0;
    for (pointer, name) in found {
        // Maps, which may have any entry, and the number that tells a snapshot.
        let is_map = ["/kernel/config", "/kvm/parameters", "/storage"].contains(&pointer.as_str());
        if is_map || name == "schema" || SINCE.contains(&(&pointer, &name)) {
            continue;
        }
        let text = changed(&pointer, |object| {
            object.as_object_mut().unwrap().shift_remove(&name);
        });
        let error = refused(text);
        assert!(matches!(error, SnapshotError::Shape { .. }), "{error}");
        assert!(
            error.to_string().contains(&name),
            "{pointer}/{name}: {error}"
        );
        refusals += 1;
    }
    assert!(refusals > 100);
    let text = changed("/memory", |memory| {
        memory.as_object_mut().unwrap().shift_remove("swap_free");
    });
    let error = refused(text).to_string();
    assert!(
        error.contains("the field `memory.swap_free` is missing"),
        "{error}"
    );
}
