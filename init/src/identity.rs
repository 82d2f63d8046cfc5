//! The identity blob: what makes a guest this guest and no other.
//!
//! One record of constant length, so that a clone can be given its own in the
//! place of its template's. All numbers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `TTYIDENT` |
//! | 8 | 2 | version, 1 |
//! | 10 | 2 | length of the blob, 256 |
//! | 12 | 16 | guest id, ASCII, padded with NUL |
//! | 28 | 6 | MAC address |
//! | 34 | 4 | IPv4 address, network order; 0.0.0.0 is none |
//! | 38 | 1 | prefix length, 0 to 32 |
//! | 39 | 1 | zero |
//! | 40 | 4 | IPv4 gateway, network order; 0.0.0.0 is none |
//! | 44 | 4 | log-in deadline in milliseconds |
//! | 48 | 32 | authorized ed25519 public key; all zero is none |
//! | 80 | 32 | `host_key_seed` |
//! | 112 | 32 | `entropy` |
//! | 144 | 80 | zero |
//! | 224 | 32 | SHA-256 of all before |

use core::net::Ipv4Addr;

/// Length of the blob in bytes.
pub const LENGTH: usize = 256;

/// Name of the `fw_cfg` file that carries it (QEMU's docs/specs/fw_cfg:
/// `opt/` and a reverse domain or project name are the user's).
pub const FW_CFG_NAME: &str = "opt/imgbuild/identity";

/// A guest's identity.
///
/// The two secrets are kept apart: `host_key_seed` is stable across restarts
/// and never enters the random pool; `entropy` is fresh for every start.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The guest's id.
    pub id: Id,
    /// MAC address of `eth0`.
    pub mac: [u8; 6],
    /// Address of `eth0`, if it is to have one.
    pub address: Option<Address>,
    /// How long a client may take to log in over SSH, in milliseconds.
    pub login_deadline_ms: u32,
    /// The ed25519 public key that may log in.
    pub authorized_key: Option<[u8; 32]>,
    /// Seed of the SSH host key.
    pub host_key_seed: [u8; 32],
    /// Fresh randomness for the kernel's pool.
    pub entropy: [u8; 32],
}

/// An IPv4 interface address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix: u8,
    /// Default gateway, if any.
    pub gateway: Option<Ipv4Addr>,
}

/// A guest's id: 1 to 16 characters of `a-z`, `0-9` and `-`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    bytes: [u8; 16],
}
