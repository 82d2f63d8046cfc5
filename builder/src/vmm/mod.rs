//! Virtual machine monitors: a neutral [`GuestSpec`], and one module per VMM.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::kernel::Format;
use crate::units::ByteSize;

pub mod qemu;

/// A guest, in terms that every VMM knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSpec {
    /// Its id, such as `g00000`.
    pub id: String,
    /// RAM.
    pub memory: ByteSize,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Format of the kernel image.
    pub kernel_format: Format,
    /// Initramfs.
    pub initramfs: PathBuf,
    /// Kernel command line.
    pub command_line: String,
    /// The overlay, a qcow2 file that is this guest's own.
    pub disk: Option<PathBuf>,
    /// Network.
    pub net: Net,
    /// Port of the host's loopback that leads to the guest's SSH server, with
    /// a network of its own.
    pub ssh_port: Option<u16>,
    /// The identity blob's file, mode 0600.
    pub identity: Option<PathBuf>,
    /// What runs the guest's code.
    pub accel: Accel,
    /// What KSM may merge.
    pub sharing: Sharing,
}

/// What runs the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The host's CPU, through /dev/kvm
    Kvm,
    /// QEMU's software emulation
    Tcg,
}

impl Accel {
    /// Its name, as QEMU and the command line have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What kernel samepage merging (KSM) may merge between guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Nothing
    None,
    /// The guests' RAM
    Guest,
}

impl Sharing {
    /// Its name, as the command line has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Guest => "guest",
        }
    }
}

/// How a guest is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Net {
    /// QEMU's user-mode stack, closed to the outside
    User,
    /// No network interface
    None,
}

/// A locally administered MAC address made from a guest's index.
///
/// `52:54:00` is the prefix that QEMU and libvirt use for guests.
#[must_use]
pub fn mac(index: u32) -> [u8; 6] {
    let [_, high, middle, low] = index.to_be_bytes();
    [0x52, 0x54, 0x00, high, middle, low]
}
