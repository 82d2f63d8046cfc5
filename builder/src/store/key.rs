//! The key that a fleet's guests let in: the fleet's own, or the user's.
//!
//! Guests take ssh-ed25519 alone.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::{SigningKey, VerifyingKey};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{LineEnding, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::folder::{Folder, FolderError, Paths};
use crate::random::random;

/// Most bytes of a key file; an ed25519 key takes under one KiB.
const FILE_MAX: u64 = 64 * 1024;
/// The fleet's private key, in its folder.
const FILE: &str = "id_ed25519";
const PUBLIC_FILE: &str = "id_ed25519.pub";

/// A key that may log in, and where ssh(1) finds its other half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The public half, ed25519.
    pub public: [u8; 32],
    /// The private key; or the public key of one that the user's agent holds.
    pub file: PathBuf,
}

/// A key pair made for a fleet.
#[derive(Debug)]
pub struct Pair {
    /// What is to be known of it.
    pub key: Key,
    private: Zeroizing<String>,
    public: String,
}

/// A file that is not a key for guests.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the key {}: {source}; give a file that you may read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("{} is not a regular file; give a private or public ssh-ed25519 key", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It is larger than any key.
    #[error(
        "{} is larger than {FILE_MAX} bytes; give a private or public ssh-ed25519 key",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is a key that guests do not take.
    #[error(
        "{} holds a key of another type than ssh-ed25519, the only one that guests take; \
         `ssh-keygen -t ed25519` makes one",
        path.display()
    )]
    WrongType {
        /// The file.
        path: PathBuf,
    },
    /// It is not a key, or not all of one.
    #[error(
        "{} is not a key in OpenSSH's format: {reason}; give a private or public ssh-ed25519 key, \
         such as `ssh-keygen -t ed25519` makes",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Makes a key pair for a fleet, whose folder it is to be written into by
/// [`Pair::write`].
pub fn generate(fleet: &str, paths: &Paths) -> Result<Pair, io::Error> {
    let secret = Zeroizing::new(random()?);
    let public = SigningKey::from_bytes(&secret).verifying_key().to_bytes();
    let pair = Ed25519Keypair {
        public: Ed25519PublicKey(public),
        private: Ed25519PrivateKey::from_bytes(&secret),
    };
    let comment = format!("imgbuild fleet {fleet}");
    let key = PrivateKey::new(KeypairData::Ed25519(pair), comment)
        .expect("the key pair is not encrypted");
    let private = key
        .to_openssh(LineEnding::LF)
        .expect("a key pair of constant length can be encoded");
    let text = key
        .public_key()
        .to_openssh()
        .expect("a public key of constant length can be encoded");
    let file = paths.path().join(FILE);
    Ok(Pair {
        key: Key { public, file },
        private,
        public: format!("{text}\n"),
    })
}

impl Pair {
    /// Writes both halves.
    pub fn write(&self, folder: &Folder) -> Result<(), FolderError> {
        folder.write(FILE, self.private.as_bytes())?;
        folder.write(PUBLIC_FILE, self.public.as_bytes())?;
        Ok(())
    }
}

/// Reads the user's private key, encrypted or not, or public key, in OpenSSH's
/// format. Of a private key only the public half is kept, which is never
/// encrypted.
pub fn read(path: &Path) -> Result<Key, KeyError> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let bytes = read_bytes(&path)?;
    let malformed = |reason: String| KeyError::Malformed {
        path: path.clone(),
        reason,
    };
    let key = if bytes.starts_with(b"-----BEGIN ") {
        PrivateKey::from_openssh(&bytes).map(|key| key.public_key().clone())
    } else {
        let text = std::str::from_utf8(&bytes).map_err(|error| malformed(error.to_string()))?;
        PublicKey::from_openssh(text.trim())
    };
    let key = match key {
        Ok(key) => key,
        Err(ssh_key::Error::AlgorithmUnknown | ssh_key::Error::AlgorithmUnsupported { .. }) => {
            return Err(KeyError::WrongType { path });
        }
        Err(error) => return Err(malformed(error.to_string())),
    };
    let KeyData::Ed25519(Ed25519PublicKey(public)) = *key.key_data() else {
        return Err(KeyError::WrongType { path });
    };
    // A weak key would let in whoever forges a signature that fits it.
    if !VerifyingKey::from_bytes(&public).is_ok_and(|key| !key.is_weak()) {
        return Err(malformed(
            "its public key is not a valid point of the curve, or a weak one".to_owned(),
        ));
    }
    Ok(Key { public, file: path })
}

fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let unreadable = |source| KeyError::Unreadable {
        path: path.to_path_buf(),
        source,
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    // Opening a pipe would wait for a writer.
    if !metadata.is_file() {
        let path = path.to_path_buf();
        return Err(KeyError::NotAFile { path });
    }
    // With room for all of it, reading leaves no copy behind.
    let room = metadata.len().min(FILE_MAX) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        usize::try_from(room).unwrap_or_default(),
    ));
    File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        let path = path.to_path_buf();
        return Err(KeyError::TooLarge { path });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
