//! imgbuild.
fn main() {}
