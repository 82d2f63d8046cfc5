//! What init's copy of the crate zssh 0.5.0 offers to clients, which are constants
//! in it: its list of MACs is empty, which RFC 4253 does not allow and several
//! clients refuse, and it knows only one of the two names of its key exchange.
//!
//! Both are part of what the server signs, so nothing in front of the crate could
//! change them. Cargo finds, downloads and checks the crate as `Cargo.lock` says, and
//! then calls this build script in rustc's place (`RUSTC_WRAPPER`), which compiles
//! an edited copy. So the lock file, the package's identity and with it init's bytes
//! do not depend on where the copy lies.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The folder for the copy; set where this program stands in for rustc.
pub(crate) const FOLDER: &str = "IMGBUILD_ZSSH_COPY";

const NAME: &str = "zssh";
const VERSION: &str = "0.5.0";
const ROOT: &str = "src/lib.rs";
const EDITED: &str = "src/transport.rs";

/// What is replaced by what; each stands in the file once.
const EDITS: [(&str, &str); 3] = [
    // Never used: the only cipher brings its own. This one is known to the clients
    // that want a name there, and ssh-audit has nothing against it.
    (
        r#"const KEXINIT_MAC: &str = "";"#,
        r#"const KEXINIT_MAC: &str = "hmac-sha2-256-etm@openssh.com";"#,
    ),
    // RFC 8731, section 1: the same method under the name that it had before.
    (
        r#"const KEXINIT_KEX: &str = "curve25519-sha256,kex"#,
        r#"const KEXINIT_KEX: &str = "curve25519-sha256,curve25519-sha256@libssh.org,kex"#,
    ),
    (
        "if kex_index.is_none() || host_key_index.is_none() {",
        r#"let former = kex_algorithms.find("curve25519-sha256@libssh.org");
           if kex_index.or(former).is_none() || host_key_index.is_none() {"#,
    ),
];

/// A flag that changes with the edits, for cargo does not look into the crates that
/// it downloaded.
pub(crate) fn flag() -> String {
    let mut hasher = DefaultHasher::new();
    EDITS.hash(&mut hasher);
    format!("--cfg=zssh_edits=\"{:x}\"", hasher.finish())
}

/// Runs rustc as cargo asks for, with the copy for the crate's source.
pub(crate) fn compile(folder: OsString) -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let mut rustc = Command::new(arguments.next().expect("cargo names rustc"));
    if env::var("CARGO_PKG_NAME").is_ok_and(|name| name == NAME) {
        let copy = PathBuf::from(folder);
        let source = edit(&copy);
        let root = source.join(ROOT);
        // Cargo's path is relative if the crate is vendored in the checkout.
        let here = env::current_dir().expect("cargo sets it");
        let (roots, others): (Vec<_>, Vec<_>) =
            arguments.partition(|argument| here.join(argument) == root);
        assert!(roots.len() == 1, "{}: not once: {others:?}", root.display());
        rustc.arg(copy.join(ROOT)).args(others);
        let mut remap = OsString::from("--remap-path-prefix=");
        remap.push(copy);
        remap.push("=/zssh");
        rustc.arg(remap);
    } else {
        rustc.args(arguments);
    }
    let status = rustc.status().expect("rustc runs");
    if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Makes the edited copy; gives the folder of the original.
fn edit(copy: &Path) -> PathBuf {
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    assert!(
        version == VERSION,
        "Cargo.lock has zssh {version}, and builder/build/zssh.rs edits {VERSION}: look whether \
         the edits are still needed"
    );
    let source = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    // A former copy may have files that cannot be written to.
    if copy.exists() {
        fs::remove_dir_all(copy).expect("OUT_DIR is writable");
    }
    fs::create_dir_all(copy.join("src")).expect("OUT_DIR is writable");
    for file in fs::read_dir(source.join("src")).expect("the crate can be read") {
        let file = file.expect("the crate can be read");
        // Without its mode: the source may be read-only.
        let text = fs::read(file.path()).expect("it has files only");
        fs::write(copy.join("src").join(file.file_name()), text).expect("OUT_DIR is writable");
    }
    let mut text = fs::read_to_string(source.join(EDITED)).expect("it is text");
    for (old, new) in EDITS {
        assert!(
            text.matches(old).count() == 1,
            "{}: not once: {old}",
            source.join(EDITED).display()
        );
        text = text.replace(old, new);
    }
    fs::write(copy.join(EDITED), text).expect("OUT_DIR is writable");
    source
}
