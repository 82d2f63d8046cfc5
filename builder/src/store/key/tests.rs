use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::*;
use crate::store::folder::tests::directories;

/// Runs ssh-keygen, quietly, and returns what it prints.
fn keygen(arguments: &[&str], file: &Path) -> String {
    let output = Command::new("ssh-keygen")
        .args(arguments)
        .arg("-f")
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A new key of the user's and its public half.
fn user_key(folder: &Path, kind: &str, passphrase: &str) -> [PathBuf; 2] {
    let file = folder.join(format!("{kind}{passphrase}"));
    keygen(&["-q", "-t", kind, "-N", passphrase], &file);
    let public = file.with_extension("pub");
    [file, public]
}

#[test]
fn ssh_keygen_reads_the_pair_of_a_fleet() {
    let (_temporary, directories) = directories();
    let folder = Folder::create("f", &directories).unwrap();
    let pair = generate("f", &folder).unwrap();
    assert!(!pair.key.file.exists());
    pair.write(&folder).unwrap();
    let key = pair.key;
    let mode = fs::metadata(&key.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let public = fs::read_to_string(folder.path().join(PUBLIC_FILE)).unwrap();
    assert!(public.ends_with(" imgbuild fleet f\n"));
    assert_eq!(keygen(&["-y"], &key.file), public);
    assert_eq!(read(&key.file).unwrap(), key);
    assert_ne!(generate("f", &folder).unwrap().key.public, key.public);
}

#[test]
fn a_users_key_serves_private_encrypted_or_public() {
    let folder = tempfile::tempdir().unwrap();
    let [private, public] = user_key(folder.path(), "ed25519", "");
    let [encrypted, encrypted_public] = user_key(folder.path(), "ed25519", "secret");
    let key = read(&private).unwrap();
    assert_eq!(key.file, private);
    assert_eq!(read(&public).unwrap().public, key.public);
    let other = read(&encrypted).unwrap();
    assert_ne!(other.public, key.public);
    assert_eq!(read(&encrypted_public).unwrap().public, other.public);
}

#[test]
fn other_types_are_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["rsa", "ecdsa"] {
        for file in user_key(folder.path(), kind, "") {
            let error = read(&file).unwrap_err();
            assert!(matches!(error, KeyError::WrongType { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(&file.display().to_string()), "{text}");
            assert!(text.contains("ssh-keygen -t ed25519"), "{text}");
        }
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [private, public] = user_key(folder.path(), "ed25519", "");
    let private = fs::read(private).unwrap();
    let public = fs::read(public).unwrap();
    let file = folder.path().join("given");
    let mut flipped = private.clone();
    flipped[60] ^= 1;
    for bytes in [
        b"".to_vec(),
        b"hello world\n".to_vec(),
        vec![0xff; 100],
        private[..private.len() / 2].to_vec(),
        private[..private.len() - 40].to_vec(),
        flipped,
        public[..40].to_vec(),
        b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n".to_vec(),
        // The point of order four, which all zeroes encode.
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
            .to_vec(),
    ] {
        fs::write(&file, &bytes).unwrap();
        let error = read(&file).unwrap_err();
        assert!(
            matches!(error, KeyError::Malformed { .. }),
            "{error}: {}",
            String::from_utf8_lossy(&bytes)
        );
        assert!(error.to_string().contains("given"), "{error}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_without_a_wait() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    assert!(matches!(read(&path), Err(KeyError::Unreadable { .. })));
    assert!(matches!(
        read(folder.path()),
        Err(KeyError::NotAFile { .. })
    ));
    fs::write(&path, vec![b'x'; 65 * 1024]).unwrap();
    assert!(matches!(read(&path), Err(KeyError::TooLarge { .. })));
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(matches!(read(&fifo), Err(KeyError::NotAFile { .. })));
}
