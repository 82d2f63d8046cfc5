//! The host's reader of a guest's console.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tty_init::host;
use tty_init::protocol::LINE_MAX;

fuzz_target!(|input: &[u8]| {
    for line in input.split_inclusive(|&byte| byte == b'\n') {
        let Ok(message) = host::parse(line) else {
            continue;
        };
        assert!(line.len() <= LINE_MAX);
        let id = &message.stamp().id;
        assert!(id.len() <= 16 && !id.contains(['/', '.', '\u{1b}']));
        let again = serde_json::to_vec(&message).expect("messages are JSON");
        if again.len() <= LINE_MAX {
            assert_eq!(host::parse(&again).expect("our own"), message);
        }
    }
});
