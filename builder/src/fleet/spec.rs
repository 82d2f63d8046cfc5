//! What a fleet is: all that a supervisor needs to start it, and to go on with
//! it after another one died. It stands as `spec.json` in the fleet's folder.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tap;
use crate::any_path;
use crate::digest::Sha256;
use crate::host::id::HostId;
use crate::units::{ByteSize, GuestIndex};
use crate::vmm::qemu::Emulator;
use crate::vmm::{Accel, Net, SSH_PORT, Sharing};

/// The version of this document.
pub const SPEC_VERSION: u32 = 2;

/// A fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetSpec {
    /// See [`SPEC_VERSION`].
    pub spec_version: u32,
    /// Its name.
    pub name: String,
    /// Tells its guests from those of any other fleet.
    pub instance: Instance,
    /// The host that it was launched on, and the boot of it.
    pub host: HostId,
    /// The folder of its sockets, absolute.
    #[serde(with = "any_path")]
    pub runtime: PathBuf,
    /// The output folder that guests run from, absolute.
    #[serde(with = "any_path")]
    pub out: PathBuf,
    /// Digest of its manifest, which names every file's.
    pub artifacts: Sha256,
    /// The QEMU that guests run on.
    pub qemu: Emulator,
    /// Guests wanted: those numbered below it.
    pub count: u32,
    /// What runs the guests' code.
    pub accel: Accel,
    /// What KSM may merge.
    pub sharing: Sharing,
    /// How guests are connected.
    pub net: Net,
    /// Whether guests reach what is outside, with `Net::User`.
    pub outbound: bool,
    /// The taps' addresses, with `Net::Tap`; on trial, taps have none.
    pub tap_subnet: Option<Subnet>,
    /// RAM of a guest.
    pub memory: ByteSize,
    /// Kernel command line.
    pub command_line: String,
    /// Share of the time that guests burn, in percent.
    pub burn: u8,
    /// When they begin to.
    pub burn_at: BurnAt,
    /// Which guests are started again once they ended.
    pub restart: Restart,
    /// How often a quiet guest is asked for a sign of life; never without.
    pub health: Option<Duration>,
    /// How long a guest may take to report ready, on an idle host.
    pub boot_timeout: Duration,
    /// The key let in by the guests' SSH servers, ed25519.
    pub authorized_key: Option<[u8; 32]>,
    /// The private half of that key, or the public one where an agent holds it.
    #[serde(with = "any_path::option")]
    pub identity_file: Option<PathBuf>,
    /// A loopback port for each guest, in order, with `Net::User`.
    pub ports: Vec<u16>,
    /// How fast guests are started, and when no more are.
    pub admission: AdmissionSpec,
    /// On which CPUs guests run, and with what share of them.
    pub placement: PlacementSpec,
    /// Guest N runs under the user id of this plus N; under the supervisor's
    /// own without.
    pub run_as_base: Option<u32>,
    /// Where Prometheus may ask.
    pub metrics: Option<SocketAddr>,
    /// How long the fleet is kept after its initial start; until its stop
    /// without.
    pub keep: Option<Duration>,
    /// When that is over, in seconds since 1970, once the start is done.
    pub until: Option<u64>,
    /// Its launch is not done, so that it never had a guest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
    /// What made the host not ready, where the launch was forced: ids of
    /// findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<String>,
}

impl FleetSpec {
    /// Where a guest's SSH server is reached.
    #[must_use]
    pub fn ssh_address(&self, guest: GuestIndex) -> Option<SocketAddrV4> {
        match self.net {
            Net::User => {
                let port = self.ports.get(guest.get() as usize)?;
                Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, *port))
            }
            Net::Tap => {
                let link = tap::addresses(self.tap_subnet?, guest).ok()?;
                Some(SocketAddrV4::new(link.guest, SSH_PORT))
            }
            Net::None => None,
        }
    }
}

/// Tells a fleet's guests from those of any other: the first 12 bytes of their
/// UUIDs, of which a guest's number is the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Instance(pub [u8; 12]);

impl From<Instance> for String {
    fn from(instance: Instance) -> Self {
        hex::encode(instance.0)
    }
}

impl TryFrom<String> for Instance {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 12];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl Instance {
    /// The UUID of a guest, as QEMU's `-uuid` takes it.
    #[must_use]
    pub fn uuid(self, guest: u32) -> String {
        let mut digits = hex::encode(self.0);
        digits.push_str(&hex::encode(guest.to_be_bytes()));
        for at in [20, 16, 12, 8] {
            digits.insert(at, '-');
        }
        digits
    }
}

/// A network of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Its first address.
    pub network: Ipv4Addr,
    /// Bits of the network's part.
    pub prefix: u8,
}

/// When guests begin to burn.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum BurnAt {
    /// When the initial start is done, so that the first do not hold up the last
    Start,
    /// Each when it is ready
    Ready,
}

/// Which guests are started again once they ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// All but those that were stopped
    Always,
    /// Those that did not power off by themselves either
    OnFailure,
    /// None
    Never,
}

/// How fast guests are started, and when no more are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionSpec {
    /// Memory of the host that stays free, in bytes of MemAvailable.
    pub keep_free: u64,
    /// Most starts a second.
    pub rate: Option<f64>,
    /// Most guests that boot at a time; by the number of CPUs without.
    pub parallel: Option<usize>,
    /// Host memory that a guest takes before KSM merges it, in bytes.
    pub guest_memory: u64,
}

/// On which CPUs guests run, and with what share of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacementSpec {
    /// How vCPUs are spread over CPUs; anywhere without.
    pub pin: Option<Pin>,
    /// The NUMA node whose CPUs and memory are used.
    pub numa_node: Option<u32>,
    /// Nice value of the guests, -20 to 19.
    pub nice: Option<i32>,
    /// The fleet's share of the CPU against other cgroups', 1 to 10,000
    /// (kernel document admin-guide/cgroup-v2, `cpu.weight`).
    pub cpu_weight: Option<u64>,
    /// Most CPU time of the fleet, in CPUs (`cpu.max`).
    pub cpu_max: Option<f64>,
    /// Most memory of the fleet (`memory.max`).
    pub memory_max: Option<ByteSize>,
}

/// How vCPUs are spread over CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// One on each core in turn, NUMA nodes in turn, SMT siblings last.
    Spread,
    /// Filling a core's SMT siblings and a NUMA node before the next.
    Compact,
    /// In turn on these CPUs.
    List(Vec<u32>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_ends_in_the_guest() {
        let instance = Instance([0xab; 12]);
        assert_eq!(
            instance.uuid(0x1234),
            "abababab-abab-abab-abab-abab00001234"
        );
        let text = String::from(instance);
        assert_eq!(Instance::try_from(text).unwrap(), instance);
        assert!(Instance::try_from("ab".to_owned()).is_err());
    }
}
