//! Programs in Python that tests run.

use std::path::PathBuf;

use crate::{TestEnv, run, workspace};

/// The `bin` of an environment with what `tests/NAME.txt` pins, installed once into
/// the checkout's target folder.
#[must_use]
pub fn installed(env: &TestEnv, name: &str) -> PathBuf {
    let folder = workspace().join("target").join(name);
    run(env.command("python3").args(["-m", "venv"]).arg(&folder)).succeeds();
    let bin = folder.join("bin");
    run(env
        .command(bin.join("pip"))
        .args(["install", "--quiet", "--no-deps", "--only-binary=:all:"])
        .args(["--require-hashes", "-r"])
        .arg(workspace().join(format!("tests/{name}.txt"))))
    .succeeds();
    bin
}
