//! Builds the guest's PID 1 and embeds it, the recipes and the kernel
//! fragments, so that `imgbuild` is one file that needs no checkout.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[path = "build/bpf.rs"]
mod bpf;
#[path = "build/zssh.rs"]
mod zssh;

/// The guests are x86-64 whatever the host builds for itself.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// `none` keeps init's symbols, to make places of the addresses in a panic.
const KEEP_SYMBOLS: &str = "CARGO_PROFILE_INIT_STRIP";

fn main() -> ExitCode {
    if let Some(folder) = env::var_os(zssh::FOLDER) {
        return zssh::compile(folder);
    }
    let workspace = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .parent()
        .expect("builder/ lies in the workspace")
        .to_path_buf();
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));

    let init = build_init(&workspace, &out);
    println!("cargo:rustc-env=IMGBUILD_INIT={}", init.display());

    let mut assets = String::new();
    embed(&mut assets, "RECIPES", &workspace.join("images"), "toml");
    embed(
        &mut assets,
        "FRAGMENTS",
        &workspace.join("kernel-config"),
        "config",
    );
    embed(
        &mut assets,
        "SOURCES",
        &workspace.join("kernel-config"),
        "toml",
    );
    embed(
        &mut assets,
        "HEADERS",
        &workspace.join("kernel-config"),
        "h",
    );
    fs::write(out.join("assets.rs"), assets).expect("OUT_DIR is writable");
    bpf::compile(&workspace.join("builder/bpf"), &out);
    ExitCode::SUCCESS
}

/// Builds init by a cargo call of its own: other profile, other flags, other
/// target folder, and none of this build's flags.
fn build_init(workspace: &Path, out: &Path) -> PathBuf {
    for input in ["init", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }
    let target_dir = out.join("init");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--quiet", "--package", "tty-init"])
        .args(["--bin", "tty-init", "--features", "pid1"])
        .args(["--profile", "init", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir);
    for (name, _) in env::vars_os() {
        if leaks(&name.to_string_lossy()) {
            cargo.env_remove(name);
        }
    }
    if env::var_os("CARGO_NET_OFFLINE").is_some_and(|value| value == "true") {
        cargo.arg("--offline");
    }
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", init_flags(workspace))
        .env(
            "RUSTC_WRAPPER",
            env::current_exe().expect("/proc is mounted"),
        )
        .env(zssh::FOLDER, out.join("zssh"));
    let status = cargo.status().expect("cargo runs");
    assert!(
        status.success(),
        "building init failed ({status}); its messages stand above"
    );
    target_dir.join(TARGET).join("init").join("tty-init")
}

/// Whether a variable of the outer build would change the inner one.
fn leaks(name: &str) -> bool {
    matches!(
        name,
        "RUSTFLAGS" | "CARGO_ENCODED_RUSTFLAGS" | "RUSTC_WRAPPER" | "RUSTC_WORKSPACE_WRAPPER"
    ) || [
        "CARGO_BUILD_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "CARGO_INCREMENTAL",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CLIPPY_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix) && name != KEEP_SYMBOLS)
}

/// Flags for init: small portable crypto, and no path of this machine in it.
fn init_flags(workspace: &Path) -> String {
    let rustc = env::var("RUSTC").expect("cargo sets it");
    let sysroot = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .expect("rustc runs")
        .stdout;
    let sysroot = String::from_utf8(sysroot).expect("the sysroot's path is UTF-8");
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").expect("HOME or CARGO_HOME is set")).join(".cargo"),
        PathBuf::from,
    );
    [
        // An address in 32 bits takes five bytes of code where a relative one
        // takes seven, and functions of equal code are kept once.
        "-Crelocation-model=static".to_owned(),
        "-Clink-arg=-Wl,--icf=all".to_owned(),
        // Nor is a constant moved out of a loop, or a function copied into
        // another, for speed alone.
        "-Cllvm-args=-disable-machine-licm".to_owned(),
        "-Cllvm-args=-inline-threshold=25".to_owned(),
        format!("--remap-path-prefix={}=/imgbuild", workspace.display()),
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        format!("--remap-path-prefix={}=/rust", sysroot.trim()),
        zssh::flag(),
        "--cfg=chacha20_backend=\"soft\"".to_owned(),
        "--cfg=curve25519_dalek_backend=\"serial\"".to_owned(),
        "--cfg=poly1305_backend=\"soft\"".to_owned(),
        "--cfg=sha2_backend=\"soft\"".to_owned(),
        "--cfg=sha2_backend_soft=\"compact\"".to_owned(),
    ]
    .join("\x1f")
}

/// Writes `pub(crate) const NAME: &[(&str, &str)]`: file name and text of every file
/// of `folder` that ends in `.extension`, in order of name.
fn embed(code: &mut String, name: &str, folder: &Path, extension: &str) {
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    writeln!(code, "pub(crate) const {name}: &[(&str, &str)] = &[").expect("a String takes it");
    for path in files {
        let file = path.file_name().expect("it has a name").to_string_lossy();
        let path = path.to_string_lossy();
        writeln!(code, "    ({file:?}, include_str!({path:?})),").expect("a String takes it");
    }
    writeln!(code, "];").expect("a String takes it");
}
