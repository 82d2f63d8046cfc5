//! The spec of a fleet: all that a supervisor needs to start the fleet, and to
//! resume it after another supervisor died. [`file`] writes it to the fleet's
//! folder.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::guest::admission::AdmissionSpec;
use crate::guest::{BurnAt, Restart};
use crate::host_id::HostId;
use crate::net::tap::{self, Subnet};
use crate::placement::PlacementSpec;
use crate::recipe::SshServer;
use crate::template::Fingerprint;
use crate::units::{Duty, GuestIndex, GuestRange, Instance};
use crate::vmm::qemu::Emulator;
use crate::vmm::{Machine, Net, Outbound, SSH_PORT};

pub(super) mod file;

pub use file::SPEC_VERSION;

/// What a launch does with host settings that guests would want otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostSettings {
    /// They stay as they are.
    #[default]
    Kept,
    /// They are changed for as long as the fleet lives.
    Fixed,
}

impl HostSettings {
    /// Whether it changes none.
    pub fn are_kept(&self) -> bool {
        *self == Self::Kept
    }
}

/// A fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetSpec {
    /// Its name.
    pub name: String,
    /// Tells its guests from those of any other fleet.
    pub instance: Instance,
    /// The host that it was launched on, and the boot of it.
    pub host: HostId,
    /// The folder of its sockets, absolute.
    pub runtime: PathBuf,
    /// The output folder that guests run from, absolute.
    pub out: PathBuf,
    /// Digest of its manifest, which names every file's.
    pub artifacts: Sha256,
    /// The QEMU that guests run on.
    pub qemu: Emulator,
    /// The guests that are wanted: a fleet may be a part of a larger one.
    pub guests: GuestRange,
    /// How many guests there may be, as far as is known: a guest's own deadline has to
    /// hold for all the time that it lives.
    pub at_most: u32,
    /// What a guest runs on.
    pub machine: Machine,
    /// What guests reach, with `Net::User`.
    pub outbound: Outbound,
    /// The taps' addresses, with `Net::Tap`; on trial, taps have none.
    pub tap_subnet: Option<Subnet>,
    /// Kernel command line.
    pub command_line: String,
    /// What guests are restored from; they boot without.
    pub template: Option<Fingerprint>,
    /// Share of the time that guests burn, in percent.
    pub burn: Duty,
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
    pub identity_file: Option<PathBuf>,
    /// What serves SSH in the guests.
    pub ssh_server: SshServer,
    /// A loopback port for each guest, in order, with `Net::User`.
    pub ports: Vec<u16>,
    /// How fast guests are started, and when no more are.
    pub admission: AdmissionSpec,
    /// On which CPUs guests run, and with what share of them.
    pub placement: PlacementSpec,
    /// Guest N runs under the user id of this plus N; under the supervisor's
    /// own without.
    pub run_as_base: Option<u32>,
    /// What its launch does with host settings.
    pub settings: HostSettings,
    /// Where Prometheus may ask.
    pub metrics: Option<SocketAddr>,
    /// How long the fleet is kept after its initial start; until its stop
    /// without.
    pub keep: Option<Duration>,
    /// When that is over, in seconds since 1970, once the start is done.
    pub until: Option<u64>,
    /// Its launch is not done, so that it never had a guest.
    pub unfinished: bool,
    /// What made the host not ready, where the launch was forced: ids of
    /// findings.
    pub forced: Vec<String>,
}

impl FleetSpec {
    /// A guest's port on the loopback, if it has one.
    pub fn port(&self, guest: GuestIndex) -> Option<u16> {
        self.ports.get(self.guests.place_of(guest)?).copied()
    }

    /// Where a guest's SSH server is reached, if it lets somebody in.
    pub fn ssh_address(&self, guest: GuestIndex) -> Option<SocketAddrV4> {
        self.authorized_key?;
        match self.machine.net {
            Net::User => Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port(guest)?)),
            Net::Tap => {
                let link = tap::addresses(self.tap_subnet?, guest).ok()?;
                Some(SocketAddrV4::new(link.guest, SSH_PORT))
            }
            Net::None => None,
        }
    }
}
