//! Bytes of an SSH client that has no keys yet.
#![no_main]

use imgbuild_fuzz::{connect, server};
use libfuzzer_sys::fuzz_target;
use tty_init::ssh::run;

fuzz_target!(|input: &[u8]| {
    let mut buffer = server::buffer();
    let mut transport = server::transport(&mut buffer, connect::Raw(input));
    assert!(run(transport.accept()).is_err(), "nobody logged in");
});
