use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use tempfile::TempDir;

use super::*;
use crate::rights;

fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Opening and making both refuse the folder `path`, and say why.
fn refuses(path: &Path, why: &str) {
    for result in [
        Private::open(path, Others::Look).map(drop),
        Private::make(path, Others::Look).map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, PrivateError::Refused { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_folder_is_made_for_its_owner_alone_with_those_that_it_is_in() {
    let temporary = temporary();
    let path = temporary.path().join("a/b/c");
    assert!(Private::open(&path, Others::Look).unwrap().is_none());
    Private::make(&path, Others::Nothing).unwrap();
    Private::make(&path, Others::Nothing).unwrap();
    let mut folder = path.as_path();
    while folder != temporary.path() {
        assert_eq!(fs::metadata(folder).unwrap().mode() & 0o7777, 0o700);
        folder = folder.parent().unwrap();
    }
    // Who may look does no harm, unless nobody is to.
    chmod(&path, 0o755);
    assert!(Private::open(&path, Others::Look).unwrap().is_some());
    let error = Private::open(&path, Others::Nothing).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has mode 0755, not 0700: check what is in it")
    );
}

#[test]
fn what_others_may_change_is_refused() {
    let temporary = temporary();
    let path = temporary.path().join("imgbuild");
    fs::create_dir(&path).unwrap();
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        chmod(&path, mode);
        refuses(&path, &format!("by others (mode {mode:04o})"));
    }
    chmod(&path, 0o700);
    // Everybody could put another in its place, but for the sticky bit.
    chmod(temporary.path(), 0o777);
    refuses(&path, "by everybody (mode 0777)");
    chmod(temporary.path(), 0o1777);
    assert!(Private::open(&path, Others::Look).unwrap().is_some());
}

#[test]
fn what_is_not_a_folder_is_refused() {
    let temporary = temporary();
    let folder = temporary.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let path = temporary.path().join("imgbuild");
    symlink(&folder, &path).unwrap();
    refuses(&path, "is a link or a file");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    refuses(&path, "is a link or a file");
    fs::remove_file(&path).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(CWD, &path, fifo, FILE, 0).unwrap();
    refuses(&path, "is a link or a file");
}

#[test]
fn what_belongs_to_others_is_refused() {
    if !rights::is_root("give files away") {
        return;
    }
    let temporary = temporary();
    let path = temporary.path().join("imgbuild");
    fs::create_dir(&path).unwrap();
    chown(&path, Some(1234), None).unwrap();
    refuses(&path, "belongs to user 1234, and imgbuild runs as user 0");
    // Whose the folder around it is could swap it.
    chown(&path, Some(0), None).unwrap();
    chown(temporary.path(), Some(1234), None).unwrap();
    refuses(&path, "belongs to user 1234, and imgbuild runs as user 0");
}

#[test]
fn removing_follows_no_link_and_no_new_name() {
    let temporary = temporary();
    let victim = temporary.path().join("victim");
    fs::create_dir_all(victim.join("fleet/deep")).unwrap();
    let path = temporary.path().join("imgbuild");
    let private = Private::make(&path, Others::Look).unwrap();
    for name in ["fleet", "link"] {
        fs::create_dir_all(path.join("fleet/deep")).unwrap();
        symlink(&victim, path.join("fleet/deep/link")).unwrap();
        let _ = symlink(&victim, path.join("link"));
        private.remove(name).unwrap();
        assert!(!path.join(name).exists());
    }
    private.remove("nothing").unwrap();
    // Its name is another's by now.
    fs::create_dir_all(path.join("fleet/deep")).unwrap();
    fs::rename(&path, temporary.path().join("moved")).unwrap();
    symlink(&victim, &path).unwrap();
    private.remove("fleet").unwrap();
    assert!(!temporary.path().join("moved/fleet").exists());
    assert!(victim.join("fleet/deep").exists());
}

#[test]
fn a_socket_that_another_user_listens_on_is_refused() {
    use std::os::unix::net::{UnixListener, UnixStream};
    let temporary = temporary();
    let path = temporary.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    is_served_by_us(UnixStream::connect(&path).unwrap(), None).unwrap();
    if !rights::is_root("be another user") {
        return;
    }
    // What counts is who called listen(2).
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    chmod(temporary.path(), 0o777);
    let stranger = std::process::Command::new("setpriv")
        .args([
            "--reuid",
            "1234",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
        ])
        .arg(
            "import os, socket, sys\n\
             s = socket.socket(fileno=0)\n\
             s.listen(8)\n",
        )
        .stdin(std::os::fd::OwnedFd::from(listener.try_clone().unwrap()))
        .status();
    assert!(stranger.unwrap().success());
    let error = is_served_by_us(UnixStream::connect(&path).unwrap(), Some(1235)).unwrap_err();
    assert!(error.to_string().contains("user 1234"), "{error}");
    // As QEMU does under a guest's own user id, once somebody has hung up.
    is_served_by_us(UnixStream::connect(&path).unwrap(), Some(1234)).unwrap();
}

#[test]
fn a_file_that_others_may_have_written_is_refused() {
    let temporary = temporary();
    let private = Private::make(&temporary.path().join("p"), Others::Look).unwrap();
    let path = private.path().join("record");
    let read = || private.read("record", 100);
    assert!(read().unwrap().is_none());
    private.replace("record", b"one", || {}).unwrap();
    private.replace("record", b"two", || {}).unwrap();
    assert_eq!(read().unwrap().unwrap(), b"two");
    assert_eq!(fs::read_dir(private.path()).unwrap().count(), 1);

    let refuses = |why: &str| {
        let error = read().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    chmod(&path, 0o644);
    refuses("has mode 0644, not 0600");
    chmod(&path, 0o600);
    fs::write(&path, [b' '; 101]).unwrap();
    refuses("longer than 100 bytes");
    fs::hard_link(&path, path.with_file_name("other")).unwrap();
    refuses("another name");
    fs::remove_file(&path).unwrap();
    symlink("other", &path).unwrap();
    refuses("is a symbolic link");
    fs::remove_file(&path).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(CWD, &path, fifo, FILE, 0).unwrap();
    refuses("is not a file");
}

#[test]
fn a_folder_of_sockets_goes_only_if_it_holds_nothing_else() {
    let temporary = temporary();
    let private = Private::make(&temporary.path().join("p"), Others::Look).unwrap();
    private.remove_sockets("f").unwrap();
    let sockets = private.make_folder("f").unwrap();
    let file = sockets.path().join("precious");
    fs::write(&file, "").unwrap();
    let socket = sockets.path().join("control");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(private.remove_sockets("f").is_err());
    assert!(file.exists() && !socket.exists());
    fs::remove_file(&file).unwrap();
    private.remove_sockets("f").unwrap();
    assert!(!sockets.path().exists());
}

#[test]
fn folders_are_made_for_this_user_alone_with_those_around_them() {
    let temporary = temporary();
    let folder = temporary.path().join("a/b");
    make_all(&folder).unwrap();
    for made in [&*folder, folder.parent().unwrap()] {
        assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700);
    }
    make_all(&folder).unwrap();
}
