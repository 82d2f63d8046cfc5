//! What to launch.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::fleet::site::SiteError;
use crate::guest::{BurnAt, Restart};
use crate::net::tap::{self, Subnet};
use crate::placement::PlacementSpec;
use crate::store::claims::Others;
use crate::store::spec::HostSettings;
use crate::store::users::Users;
use crate::trial::readiness::Canaries;
use crate::units::GuestRange;
use crate::vmm::qemu::Program;
use crate::vmm::{Choice, Lifetime, Net, Outbound, StartMethod};

/// What a launch does on a host that is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnUnready {
    Refuse,
    /// It goes on, and records what the host lacked.
    GoOn,
}

/// With how many of its guests a fleet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With all.
    Whole,
    /// With none: whoever launches it scales it, to so many at most.
    Empty { at_most: u32 },
}

#[derive(Debug, Clone)]
pub(crate) struct LaunchOptions {
    /// The output folder.
    pub out: PathBuf,
    /// The guests.
    pub guests: GuestRange,
    /// With how many of them the fleet begins.
    pub begin: Begin,
    /// Name of the fleet; the recipe's by default.
    pub name: Option<String>,
    /// How long to keep the fleet after its start; until the interrupt by
    /// default.
    pub keep: Option<Duration>,
    /// The QEMU that guests run on; `None` where there is none.
    pub qemu: Option<Program>,
    /// What a guest runs on.
    pub machine: Choice,
    /// How guests come up; by what pays by default.
    pub start: Option<StartMethod>,
    /// The user's key to log in with; one of the fleet's own by default.
    pub ssh_key: Option<PathBuf>,
    /// What guests reach, with `Net::User`.
    pub outbound: Outbound,
    /// The taps' addresses, with `Net::Tap`; by default those of a network that
    /// is free.
    pub tap_subnet: Option<Subnet>,
    /// Which guests are started again once they ended.
    pub restart: Restart,
    /// When guests begin to burn.
    pub burn_at: BurnAt,
    /// How often a quiet guest is asked for a sign of life; never without.
    pub health: Option<Duration>,
    /// Memory of the host that stays free, in bytes;
    /// [`host::memory::keep_free`] by default.
    pub keep_free: Option<u64>,
    /// Most starts a second.
    pub rate: Option<f64>,
    /// Most guests that boot at a time; by the number of CPUs by default.
    pub parallel: Option<usize>,
    /// On which CPUs guests run, and with what share of them.
    pub placement: PlacementSpec,
    /// Under which user ids guests run.
    pub users: Users,
    /// Where Prometheus may ask.
    pub metrics: Option<SocketAddr>,
    /// Whether guests are tried first.
    pub canaries: Canaries,
    pub settings: HostSettings,
    pub unready: OnUnready,
    /// Whether guests outlive a supervisor that is killed.
    pub lifetime: Lifetime,
}

impl LaunchOptions {
    /// The guests with which the fleet begins.
    pub(super) fn first_guests(&self) -> GuestRange {
        match self.begin {
            Begin::Whole => self.guests,
            Begin::Empty { .. } => self.guests.split_at(0).0,
        }
    }

    /// How many guests it may come to have, as far as is known.
    pub(super) fn at_most(&self) -> u32 {
        match self.begin {
            Begin::Whole => self.guests.count(),
            Begin::Empty { at_most } => at_most,
        }
    }

    /// The taps' addresses, of which nobody has any now; `None` without taps.
    pub(super) fn tap_subnet(&self, others: &Others) -> Result<Option<Subnet>, SiteError> {
        let guests = self.guests.end().into();
        Ok(match (self.machine.net, self.tap_subnet) {
            (Net::User | Net::None, _) => None,
            (Net::Tap, Some(subnet)) => {
                tap::check_among(others.taps(), subnet, guests)?;
                Some(subnet)
            }
            (Net::Tap, None) => Some(tap::choose(others.taps(), guests)?),
        })
    }
}
