//! Link flags of PID 1: a static binary with a `_start` of its own.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PID1").is_none() {
        return;
    }
    for flag in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,--gc-sections",
        // Segments that share pages: the file and the guest's memory stay small.
        "-Wl,-z,noseparate-code",
        "-Wl,-z,norelro",
        "-Wl,--no-eh-frame-hdr",
    ] {
        println!("cargo::rustc-link-arg-bins={flag}");
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo::rerun-if-changed=discard.ld");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{folder}/discard.ld");
}
