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
//! | 28 | 6 | MAC address; all zero leaves the device its own |
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

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::protocol::IdentityState;

/// Length of the blob in bytes.
pub const LENGTH: usize = 256;

/// Name of the `fw_cfg` file that carries it (QEMU's `docs/specs/fw_cfg`:
/// `opt/` and a reverse domain or project name are the user's).
pub const FW_CFG_NAME: &str = "opt/imgbuild/identity";

const MAGIC: &[u8; 8] = b"TTYIDENT";
const VERSION: u16 = 1;

// Where each field starts; see the table above.
const AT_VERSION: usize = 8;
const AT_LENGTH: usize = 10;
const AT_ID: usize = 12;
const AT_MAC: usize = 28;
const AT_IP: usize = 34;
const AT_PREFIX: usize = 38;
const AT_GATEWAY: usize = 40;
const AT_DEADLINE: usize = 44;
const AT_KEY: usize = 48;
const AT_SEED: usize = 80;
const AT_ENTROPY: usize = 112;
const AT_RESERVED: usize = 144;
const AT_CHECKSUM: usize = 224;

/// A guest's identity.
///
/// The two secrets are kept apart: `host_key_seed` is stable across restarts
/// and never enters the random pool; `entropy` is fresh for every start. Both
/// are overwritten when the identity is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The guest's id.
    pub id: Id,
    /// MAC address of `eth0`, never a group address; all zero leaves the
    /// device its own.
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
    /// The address, not 0.0.0.0.
    pub ip: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix: u8,
    /// Default gateway, if any.
    pub gateway: Option<Ipv4Addr>,
}

/// Why bytes are no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer or more bytes than [`LENGTH`].
    BadLength(usize),
    /// Does not start with the magic.
    BadMagic,
    /// Of a version that this code does not know, whatever its length.
    UnsupportedVersion(u16),
    /// The checksum does not match.
    BadChecksum,
    /// The checksum matches, but the named field has no such value.
    BadField(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadLength(length) => write!(f, "{length} bytes, not {LENGTH}"),
            Self::BadMagic => f.write_str("no TTYIDENT magic"),
            Self::UnsupportedVersion(version) => {
                write!(f, "version {version}, known is {VERSION}")
            }
            Self::BadChecksum => f.write_str("checksum mismatch"),
            Self::BadField(field) => write!(f, "bad {field}"),
        }
    }
}

impl core::error::Error for DecodeError {}

impl From<DecodeError> for IdentityState {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::UnsupportedVersion(_) => Self::Unsupported,
            _ => Self::Malformed,
        }
    }
}

impl Identity {
    /// The blob that carries this identity.
    pub fn encode(&self) -> Zeroizing<[u8; LENGTH]> {
        let mut blob = Zeroizing::new([0; LENGTH]);
        let mut put = |at: usize, bytes: &[u8]| {
            blob[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, MAGIC);
        put(AT_VERSION, &VERSION.to_le_bytes());
        put(AT_LENGTH, &[0, 1]);
        put(AT_ID, &self.id.bytes);
        put(AT_MAC, &self.mac);
        if let Some(address) = self.address {
            put(AT_IP, &address.ip.octets());
            put(AT_PREFIX, &[address.prefix]);
            if let Some(gateway) = address.gateway {
                put(AT_GATEWAY, &gateway.octets());
            }
        }
        put(AT_DEADLINE, &self.login_deadline_ms.to_le_bytes());
        if let Some(key) = self.authorized_key {
            put(AT_KEY, &key);
        }
        put(AT_SEED, &self.host_key_seed);
        put(AT_ENTROPY, &self.entropy);
        let checksum = Sha256::digest(&blob[..AT_CHECKSUM]);
        blob[AT_CHECKSUM..].copy_from_slice(&checksum);
        blob
    }

    /// Reads a blob.
    pub fn decode(blob: &[u8]) -> Result<Self, DecodeError> {
        if !blob.starts_with(MAGIC) {
            return Err(if MAGIC.starts_with(blob) {
                DecodeError::BadLength(blob.len())
            } else {
                DecodeError::BadMagic
            });
        }
        let version = blob[AT_VERSION..]
            .first_chunk()
            .map(|bytes| u16::from_le_bytes(*bytes))
            .ok_or(DecodeError::BadLength(blob.len()))?;
        if version != VERSION {
            return Err(DecodeError::UnsupportedVersion(version));
        }
        let blob: &[u8; LENGTH] = blob
            .try_into()
            .or(Err(DecodeError::BadLength(blob.len())))?;
        if Sha256::digest(&blob[..AT_CHECKSUM])[..] != blob[AT_CHECKSUM..] {
            return Err(DecodeError::BadChecksum);
        }
        if field(blob, AT_LENGTH) != [0, 1] {
            return Err(DecodeError::BadField("length"));
        }
        if blob[AT_PREFIX + 1] != 0 || blob[AT_RESERVED..AT_CHECKSUM] != [0; 80] {
            return Err(DecodeError::BadField("reserved bytes"));
        }
        let mac: [u8; 6] = field(blob, AT_MAC);
        if mac[0] & 1 != 0 {
            return Err(DecodeError::BadField("MAC address"));
        }
        Ok(Self {
            id: Id::from_padded(field(blob, AT_ID)).or(Err(DecodeError::BadField("id")))?,
            mac,
            address: decode_address(blob)?,
            login_deadline_ms: u32::from_le_bytes(field(blob, AT_DEADLINE)),
            authorized_key: non_zero(field(blob, AT_KEY)),
            host_key_seed: field(blob, AT_SEED),
            entropy: field(blob, AT_ENTROPY),
        })
    }
}

/// The bytes of the field at this offset.
fn field<const N: usize>(blob: &[u8; LENGTH], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&blob[at..at + N]);
    bytes
}

fn non_zero<const N: usize>(bytes: [u8; N]) -> Option<[u8; N]> {
    (bytes != [0; N]).then_some(bytes)
}

fn decode_address(blob: &[u8; LENGTH]) -> Result<Option<Address>, DecodeError> {
    let prefix = blob[AT_PREFIX];
    let gateway = non_zero::<4>(field(blob, AT_GATEWAY)).map(Ipv4Addr::from);
    if prefix > 32 {
        return Err(DecodeError::BadField("prefix length"));
    }
    match non_zero::<4>(field(blob, AT_IP)) {
        Some(ip) => Ok(Some(Address {
            ip: ip.into(),
            prefix,
            gateway,
        })),
        None if prefix == 0 && gateway.is_none() => Ok(None),
        None => Err(DecodeError::BadField("address")),
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id)
            .field("mac", &self.mac)
            .field("address", &self.address)
            .field("login_deadline_ms", &self.login_deadline_ms)
            .field("authorized_key", &self.authorized_key)
            .finish_non_exhaustive()
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.host_key_seed.zeroize();
        self.entropy.zeroize();
    }
}

/// A guest's id: 1 to 16 characters of `a-z`, `0-9` and `-`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    bytes: [u8; 16],
}

/// Not 1 to 16 characters of `a-z`, `0-9` and `-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnId;

impl fmt::Display for NotAnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 1 to 16 characters of a-z, 0-9 and -")
    }
}

impl core::error::Error for NotAnId {}

impl Id {
    /// Reads an id padded with NUL.
    pub fn from_padded(bytes: [u8; 16]) -> Result<Self, NotAnId> {
        let id = Self { bytes };
        let (name, padding) = bytes.split_at(id.len());
        let valid = |&byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if !name.is_empty() && name.iter().all(valid) && padding.iter().all(|&byte| byte == 0) {
            Ok(id)
        } else {
            Err(NotAnId)
        }
    }

    /// The id padded with NUL.
    pub const fn padded(self) -> [u8; 16] {
        self.bytes
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len()]).unwrap_or_default()
    }

    fn len(&self) -> usize {
        let end = self.bytes.iter().position(|&byte| byte == 0);
        end.unwrap_or(self.bytes.len())
    }
}

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let mut bytes = [0; 16];
        bytes
            .get_mut(..text.len())
            .ok_or(NotAnId)?
            .copy_from_slice(text.as_bytes());
        let id = Self::from_padded(bytes)?;
        // A NUL at the text's end would pass for padding.
        if id.len() == text.len() {
            Ok(id)
        } else {
            Err(NotAnId)
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests;
