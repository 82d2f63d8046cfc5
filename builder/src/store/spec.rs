//! What a fleet is: all that a supervisor needs to start it, and to go on with
//! it after another one died. It stands as `spec.json` in the fleet's folder.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::any_path;
use crate::digest::Sha256;
use crate::guest::admission::AdmissionSpec;
use crate::guest::{BurnAt, Restart};
use crate::host_id::HostId;
use crate::net::tap::{self, Subnet};
use crate::placement::PlacementSpec;
use crate::units::{ByteSize, GuestIndex, Instance};
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
