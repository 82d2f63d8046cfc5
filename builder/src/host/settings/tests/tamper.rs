//! A record that others may have written makes imgbuild write nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use super::super::record::LIMIT;
use super::super::{Holder, Knob, SettingsError};
use super::fake::{Fake, setting};
use crate::rights;

/// A host with a record of two changes that `check --restore` would put back.
fn changed() -> Fake {
    let fake = Fake::new();
    let web = fake.fleet("web", 10);
    let settings = [
        setting(Knob::PidMax, 50000),
        setting(Knob::ThreadsMax, 1 << 21),
    ];
    fake.apply(&settings, &web);
    fake.process_ends(10);
    fake
}

/// Has `tamper` change a good record: restoring and applying must refuse, and
/// change nothing. The same host without it must restore.
fn refuses(what: &str, tamper: impl Fn(&Fake, &Path)) {
    let fake = changed();
    fake.restore();
    assert!(fake.is_as_it_was());

    let fake = changed();
    tamper(&fake, &fake.record());
    let more = [setting(Knob::KsmPagesToScan, 20000)];
    let errors = [
        fake.owner().restore().map(drop).unwrap_err(),
        fake.owner()
            .apply(&more, &Holder::User)
            .map(drop)
            .unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(error, SettingsError::Untrusted { .. }),
            "{what}: {error}"
        );
        let text = error.to_string();
        let folder = fake.path("run/imgbuild");
        assert!(text.contains(folder.to_str().unwrap()), "{what}: {text}");
        assert!(text.contains("remove it"), "{what}: {text}");
    }
    assert_eq!(fake.get(Knob::PidMax), 50000, "{what}");
    assert_eq!(fake.get(Knob::ThreadsMax), 1 << 21, "{what}");
    assert_eq!(fake.get(Knob::KsmPagesToScan), 100, "{what}");
}

/// The same with `from` replaced by `to` in the record.
fn refuses_text(from: &str, to: &str) {
    refuses(&format!("{from} -> {to}"), |_, path| {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(path, text.replace(from, to)).unwrap();
    });
}

#[test]
fn other_settings_and_values_out_of_range() {
    refuses_text("\"pid-max\"", "\"kernel.core_pattern\"");
    refuses_text("\"pid-max\"", "\"../../etc/passwd\"");
    refuses_text("\"old\":32768", "\"old\":300");
    refuses_text("\"old\":32768", "\"old\":4194305");
    refuses_text("\"old\":32768", "\"old\":-1");
    refuses_text("\"old\":32768", "\"old\":32768.5");
    refuses_text("\"old\":32768", "\"old\":\"32768\"");
    refuses_text("\"old\":32768", "\"old\":99999999999999999999999");
    refuses_text("\"written\":50000", "\"written\":0");
    refuses_text("\"written\":50000", "\"written\":50000,\"writing\":1");
}

#[test]
fn other_shapes() {
    refuses_text("\"threads-max\"", "\"pid-max\"");
    refuses_text("\"old\":32768", "\"old\":32768,\"old\":32769");
    refuses_text("\"old\":32768", "\"old\":32768,\"path\":\"/etc/passwd\"");
    refuses_text("\"schema\":1", "\"schema\":2");
    refuses_text("\"schema\":1,", "");
    refuses_text("\"pid\":10", "\"pid\":10,\"uid\":0");
    refuses_text("\"web\"", "\"../web\"");
    refuses_text("\"web\"", "\"\\u001b[2J\"");
    refuses_text("\"boot_id\":\"0", "\"boot_id\":\"");
}

#[test]
fn garbage() {
    refuses("empty", |_, path| fs::write(path, "").unwrap());
    refuses("garbage", |_, path| fs::write(path, [0xff; 100]).unwrap());
    refuses("another document", |_, path| fs::write(path, "[]").unwrap());
    refuses("truncated", |_, path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    });
    refuses("two", |_, path| {
        let mut bytes = fs::read(path).unwrap();
        bytes.extend_from_within(..);
        fs::write(path, bytes).unwrap();
    });
    refuses("oversized", |_, path| {
        let mut bytes = fs::read(path).unwrap();
        bytes.resize(usize::try_from(LIMIT).unwrap() + 1, b' ');
        fs::write(path, bytes).unwrap();
    });
}

#[test]
fn as_much_as_fits_is_read() {
    let fake = changed();
    let mut bytes = fs::read(fake.record()).unwrap();
    bytes.resize(usize::try_from(LIMIT).unwrap(), b' ');
    fs::write(fake.record(), bytes).unwrap();
    fake.restore();
    assert!(fake.is_as_it_was());
}

#[test]
fn other_rights() {
    for mode in [0o640, 0o602, 0o4600, 0o644, 0o400] {
        refuses(&format!("mode {mode:o}"), |_, path| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        });
    }
    for mode in [0o755, 0o770, 0o1777] {
        refuses(&format!("folder of mode {mode:o}"), |_, path| {
            let folder = path.parent().unwrap();
            fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
        });
    }
}

#[test]
fn other_owners() {
    if !rights::is_root("give files away") {
        return;
    }
    let nobody = Some(65534);
    refuses("another's record", |_, path| {
        chown(path, nobody, None).unwrap();
    });
    refuses("another's folder", |_, path| {
        chown(path.parent().unwrap(), nobody, None).unwrap();
    });
}

#[test]
fn links() {
    refuses("a symbolic link", |fake, path| {
        let elsewhere = fake.path("elsewhere.json");
        fs::rename(path, &elsewhere).unwrap();
        symlink(elsewhere, path).unwrap();
    });
    refuses("a hard link", |fake, path| {
        fs::hard_link(path, fake.path("elsewhere.json")).unwrap();
    });
    refuses("a linked folder", |fake, path| {
        let folder = path.parent().unwrap();
        let elsewhere = fake.path("elsewhere");
        fs::rename(folder, &elsewhere).unwrap();
        symlink(elsewhere, folder).unwrap();
    });
    refuses("a linked lock", |fake, path| {
        let lock = path.with_file_name("settings.lock");
        let elsewhere = fake.path("elsewhere.lock");
        fs::rename(&lock, &elsewhere).unwrap();
        symlink(elsewhere, lock).unwrap();
    });
}

#[test]
fn no_files() {
    refuses("a folder", |_, path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
    refuses("a pipe", |_, path| {
        fs::remove_file(path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    });
    refuses("a file for a folder", |_, path| {
        let folder = path.parent().unwrap();
        fs::remove_dir_all(folder).unwrap();
        fs::write(folder, "").unwrap();
    });
}

#[test]
fn another_s_lock_is_waited_for() {
    let fake = changed();
    let lock = fs::File::open(fake.path("run/imgbuild/settings.lock")).unwrap();
    // Two who hold it shared would not wait for each other.
    lock.lock_shared().unwrap();
    std::thread::scope(|scope| {
        let owner = fake.owner();
        let restoring = scope.spawn(move || owner.restore());
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!restoring.is_finished());
        assert_eq!(fake.get(Knob::PidMax), 50000);
        lock.unlock().unwrap();
        restoring.join().unwrap().unwrap();
    });
    assert!(fake.is_as_it_was());
}
