//! Compiles the program that imgbuild loads into the kernel, where clang is there. Without
//! it imgbuild does all but that, and says what it was built without.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Writes `bpf.rs` to `out`: the program, or why there is none.
pub(crate) fn compile(sources: &Path, out: &Path) {
    println!("cargo:rerun-if-changed={}", sources.display());
    let source = sources.join("runqlat.bpf.c");
    let object = out.join("runqlat.bpf.o");
    let (program, why) = match clang(&source, &object) {
        Ok(()) => {
            let path = object.display().to_string();
            let program = format!("Some(aya::include_bytes_aligned!({path:?}))");
            (program, String::new())
        }
        Err(why) => {
            println!(
                "cargo:warning=runqlat will have no BPF: {}",
                first_line(&why)
            );
            ("None".to_owned(), first_line(&why).to_owned())
        }
    };
    let text = format!(
        "/// The program, as clang made it.\nconst PROGRAM: Option<&[u8]> = {program};\n\
         /// Why there is none.\nconst NO_PROGRAM: &str = {why:?};\n"
    );
    fs::write(out.join("bpf.rs"), text).expect("OUT_DIR is writable");
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn clang(source: &Path, object: &Path) -> Result<(), String> {
    let folder = source.parent().expect("a file is in a folder");
    let mut clang = Command::new("clang");
    clang
        // A path of this machine would get into the types.
        .current_dir(folder)
        .args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-mcpu=v3"])
        .arg("-fdebug-compilation-dir=.")
        // Where Debian has the kernel's headers of an architecture.
        .arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH))
        .arg("-c")
        .arg(source.file_name().expect("a file has a name"))
        .arg("-o")
        .arg(object);
    let output = clang
        .output()
        .map_err(|error| format!("clang was not there when it was built ({error})"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let error = said.lines().find(|line| line.contains("error:"));
    Err(format!(
        "clang failed when it was built (with libbpf-dev and linux-libc-dev it does not): {}",
        error.unwrap_or_default()
    ))
}
