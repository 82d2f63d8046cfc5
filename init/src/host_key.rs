//! A guest's SSH host key, made from its identity.
//!
//! Guest and host both make it from `host_key_seed`, so the host can write a
//! client's `known_hosts` before the guest starts.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Separates this use of the seed from any other; another text is another key.
const INFO: &[u8] = b"imgbuild ssh host key v1";

/// The ed25519 secret key (RFC 8032, section 5.1.5) of the guest with this
/// seed: HKDF-SHA256 without salt (RFC 5869).
pub fn secret(host_key_seed: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let expanded = Hkdf::<Sha256>::new(None, host_key_seed).expand(INFO, key.as_mut_slice());
    assert!(expanded.is_ok(), "HKDF-SHA256 gives up to 8,160 bytes");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's `hmac`. A change would lock clients out of every
    /// guest that runs.
    #[test]
    fn the_key_of_a_seed_never_changes() {
        let seed = core::array::from_fn(|index| u8::try_from(index).unwrap());
        assert_eq!(
            *secret(&seed),
            [
                0x9a, 0x69, 0x1c, 0x41, 0xb3, 0xa0, 0x5b, 0xc7, 0x42, 0xe6, 0xb0, 0xf7, 0x7c, 0x64,
                0xca, 0x1d, 0x48, 0xe3, 0x29, 0x3c, 0x6c, 0x44, 0x30, 0x75, 0x2b, 0xfd, 0x73, 0x1c,
                0xc8, 0xc4, 0xd5, 0x06,
            ]
        );
    }
}
