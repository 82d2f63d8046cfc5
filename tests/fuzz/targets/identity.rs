//! The identity blob, as given and with its frame put right, so that what the
//! fuzzer finds lies behind the checksum.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};
use tty_init::identity::{Identity, LENGTH};

fuzz_target!(|input: &[u8]| {
    decode(input);
    let mut blob = [0; LENGTH];
    let length = input.len().min(LENGTH);
    blob[..length].copy_from_slice(&input[..length]);
    // Magic, version and length.
    blob[..12].copy_from_slice(b"TTYIDENT\x01\x00\x00\x01");
    let checksum = Sha256::digest(&blob[..LENGTH - 32]);
    blob[LENGTH - 32..].copy_from_slice(&checksum);
    decode(&blob);
});

/// What is an identity is encoded the same way again.
fn decode(blob: &[u8]) {
    if let Ok(identity) = Identity::decode(blob) {
        assert_eq!(identity.encode().as_slice(), blob);
    }
}
