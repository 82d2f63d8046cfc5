//! Packets of an SSH client that exchanged keys, and that logged in if the
//! input's first bit says so.
#![no_main]

use imgbuild_fuzz::connect::{Client, Script};
use imgbuild_fuzz::server;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(script) = Script::read(input) else {
        return;
    };
    let logs_in = script.logs_in;
    let mut client = Client::new(script);
    let mut buffer = server::buffer();
    let mut transport = server::transport(&mut buffer, &mut client);
    let requests = server::serve(&mut transport);
    assert!(logs_in || requests == 0, "served without a log-in");
    drop(transport);
    assert!(client.got_through(), "the script failed");
});
