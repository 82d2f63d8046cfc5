//! Virtual machine monitors: a neutral [`GuestSpec`], the [`Files`] that a guest
//! is handed, the [`Confinement`] of its process, and one module per VMM.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::Format;
use crate::units::ByteSize;

pub(crate) mod alike;
mod confinement;
mod files;
pub(crate) mod monitor;
mod outcome;
pub mod qemu;
pub(crate) mod running;

pub use confinement::{Confinement, KvmClosed, Lifetime, kvm_for_users, kvm_group};
pub(crate) use files::may_read_again;
pub use files::{Disk, Files, Listening, Part, Ram, hand_over, out_of_the_way};
pub use outcome::{Chance, End};

/// Where a guest's SSH server listens.
pub const SSH_PORT: u16 = 22;

/// A guest, in terms that every VMM knows; its files are [`Files`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSpec {
    /// Its id, such as `g00000`.
    pub id: String,
    /// Tells it from every other guest of this host, where it is to be found
    /// again (`units::Instance`).
    pub uuid: Option<String>,
    /// What it runs on.
    pub machine: Machine,
    /// Format of the kernel image.
    pub kernel_format: Format,
    /// Kernel command line.
    pub command_line: String,
    /// Port of the host's loopback that leads to the guest's SSH server, with
    /// a network of its own.
    pub ssh_port: Option<u16>,
    /// What it reaches, with a network of its own.
    pub outbound: Outbound,
}

/// The machine that each guest of a fleet is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What runs the guest's code.
    pub accel: Accel,
    /// What KSM may merge.
    pub sharing: Sharing,
    /// How the guest is connected.
    pub net: Net,
    /// RAM.
    pub memory: ByteSize,
}

/// A [`Machine`] as a user chooses it, before the recipe is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub accel: Accel,
    pub sharing: Sharing,
    pub net: Net,
    /// The recipe's by default.
    pub memory: Option<ByteSize>,
}

impl Choice {
    /// The machine, where the recipe gives a guest so much RAM.
    pub(crate) fn machine(self, recipe: ByteSize) -> Machine {
        Machine {
            accel: self.accel,
            sharing: self.sharing,
            net: self.net,
            memory: self.memory.unwrap_or(recipe),
        }
    }
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
    /// All memory of QEMU's, loaded at the same addresses: guests can find out by
    /// timing what others' memory holds; for guests that trust each other
    All,
}

impl Sharing {
    /// Its name, as the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Guest => "guest",
            Self::All => "all",
        }
    }
}

/// How a guest comes up.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum StartMethod {
    /// It boots its kernel
    #[default]
    Boot,
    /// It is restored from a template: a guest that booted once for all of them
    Clone,
}

impl StartMethod {
    /// Its name, as the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Clone => "clone",
        }
    }
}

/// How a guest is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Net {
    /// QEMU's user-mode stack, closed to the outside
    User,
    /// A tap of its own, routed by the host
    Tap,
    /// No network interface
    None,
}

/// What a guest with a network of its own reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// Nothing: it answers those who come through its port.
    Closed,
    /// What the host reaches, the host's loopback included.
    Open,
}

impl From<bool> for Outbound {
    fn from(is_open: bool) -> Self {
        if is_open { Self::Open } else { Self::Closed }
    }
}

/// How a guest's machine is, as its VMM tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineState {
    /// It runs.
    Running,
    /// It was paused when its disk could not be written or read, and was told to
    /// try again.
    DiskFailed,
    /// Somebody paused it, or it waits for something else.
    Paused,
    /// It waits for the template that it is to be restored from.
    Restoring,
    /// It cannot go on.
    Dead,
}

/// A locally administered MAC address made from a guest's index.
///
/// `52:54:00` is the prefix that QEMU and libvirt use for guests.
pub fn mac(index: u32) -> [u8; 6] {
    let [_, high, middle, low] = index.to_be_bytes();
    [0x52, 0x54, 0x00, high, middle, low]
}
