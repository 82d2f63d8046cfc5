//! The options that shape a fleet: its guests, its host, where they run. `launch` and
//! `density` take the same.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::fleet_name;
use crate::cli::placement::Placement;
use crate::cli::qemu::QemuArgs;
use crate::cli::{Context, Failure};
use crate::guest::{BurnAt, Restart};
use crate::launch::{Begin, LaunchOptions, OnUnready};
use crate::net::tap::Subnet;
use crate::recipe;
use crate::store::spec::HostSettings;
use crate::store::users::Users;
use crate::trial::readiness::Canaries;
use crate::units::{ByteSize, GuestRange};
use crate::vmm::{Accel, Choice, Lifetime, Net, Sharing, StartMethod};

/// What shapes a fleet.
#[derive(Debug, Args)]
pub(in crate::cli) struct Shape {
    /// Number of the first guest [default: 0]
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true,
        value_parser = clap::value_parser!(u32).range(..100_000))]
    first: u32,

    /// Name of the fleet [default: the recipe's]
    #[arg(long, value_name = "FLEET", env = "IMGBUILD_NAME", value_parser = fleet_name)]
    name: Option<String>,

    #[command(flatten)]
    how: Guests,

    #[command(flatten)]
    supervision: Supervision,

    #[command(flatten)]
    network: Network,

    #[command(flatten)]
    placement: Placement,

    /// Your own ssh-ed25519 key to log in with: private, or public if your agent
    /// holds the private key [default: one made for the fleet]
    #[arg(
        long,
        value_name = "PATH",
        env = "IMGBUILD_SSH_KEY",
        help_heading = "Network"
    )]
    ssh_key: Option<PathBuf>,

    /// Change host settings for as long as the fleet lives: sysctls, KSM, limits
    #[arg(long, help_heading = "Host")]
    fix: bool,

    /// Do not start two guests first, to see whether they come up and what one
    /// costs
    #[arg(long, help_heading = "Host")]
    no_canary: bool,

    /// Launch even if the host is not ready
    #[arg(long, help_heading = "Host")]
    force: bool,
}

/// When guests are started, and started again.
#[derive(Debug, Args)]
#[command(next_help_heading = "Supervision")]
struct Supervision {
    /// Which guests to start again when they end
    #[arg(long, default_value = "always", env = "IMGBUILD_RESTART")]
    restart: Restart,

    /// How guests come up [default: clone where it pays: from 4 guests on]
    #[arg(long, env = "IMGBUILD_START")]
    start: Option<StartMethod>,

    /// When guests begin to run the burn load of their recipe
    #[arg(long, default_value = "start", env = "IMGBUILD_BURN_AT")]
    burn_at: BurnAt,

    /// Check a quiet guest for a sign of life this often; 0s: never
    #[arg(long, value_name = "DURATION", default_value = "60s", env = "IMGBUILD_HEALTH",
        value_parser = humantime::parse_duration)]
    health: Duration,

    /// Memory of the host that stays free [default: a tenth, 1G at most]
    #[arg(long, value_name = "SIZE", env = "IMGBUILD_KEEP_FREE")]
    keep_free: Option<ByteSize>,

    /// Maximum starts a second [default: no limit]
    #[arg(long, value_name = "N", env = "IMGBUILD_RATE", value_parser = rate)]
    rate: Option<f64>,

    /// Maximum guests that boot at a time [default: CPUs + 1]
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,

    /// Run guest N as user id UID + N; 0: run all as yourself [default: 0; for
    /// root: ids that are free, if possible from 2000000 up]
    #[arg(long, value_name = "UID", env = "IMGBUILD_RUN_AS_BASE",
        value_parser = clap::value_parser!(u32).range(..=LAST_BASE))]
    run_as_base: Option<u32>,

    /// Serve Prometheus metrics at this address, such as 127.0.0.1:9200 [default:
    /// do not]
    #[arg(long, value_name = "ADDRESS", env = "IMGBUILD_METRICS")]
    metrics: Option<SocketAddr>,
}

/// How guests reach others.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
struct Network {
    /// Let guests connect to the outside, with --net user
    #[arg(long)]
    net_outbound: bool,
}

/// Ids are 32 bits, and the last one is none (setresuid(2)).
const LAST_BASE: i64 = 0xffff_fffe - 100_000;

/// How guests are run.
#[derive(Debug, Args)]
pub(crate) struct Guests {
    #[command(flatten)]
    pub qemu: QemuArgs,

    /// Accelerator that runs the guests' code
    #[arg(long, default_value = "kvm", env = "IMGBUILD_ACCEL")]
    pub accel: Accel,

    /// Memory that kernel samepage merging (KSM) may merge
    #[arg(long, default_value = "guest", env = "IMGBUILD_SHARING")]
    pub sharing: Sharing,

    /// How guests are connected
    #[arg(long, default_value = "user", env = "IMGBUILD_NET")]
    pub net: Net,

    /// RAM of a guest, such as 128M [default: the recipe's]
    #[arg(long, value_name = "SIZE", env = "IMGBUILD_MEMORY",
        value_parser = recipe::guest_memory)]
    pub memory: Option<ByteSize>,

    /// Addresses of the guests' links, with --net tap [default: 10.213.0.0/16, or
    /// the next /16 up that is free]
    #[arg(
        long,
        value_name = "NETWORK/PREFIX",
        env = "IMGBUILD_TAP_SUBNET",
        help_heading = "Network"
    )]
    tap_subnet: Option<Subnet>,
}

impl Guests {
    pub(in crate::cli) fn machine(&self) -> Choice {
        Choice {
            accel: self.accel,
            sharing: self.sharing,
            net: self.net,
            memory: self.memory,
        }
    }

    /// The taps' addresses that the user chose.
    pub(in crate::cli) fn tap_subnet(&self) -> Result<Option<Subnet>, Failure> {
        if self.tap_subnet.is_some() && self.net != Net::Tap {
            return Err(Failure::usage("--tap-subnet goes with --net tap".into()));
        }
        Ok(self.tap_subnet)
    }
}

impl Shape {
    /// What they say for a fleet of so many guests from this output folder.
    pub(in crate::cli) fn options(
        self,
        out: PathBuf,
        count: u32,
        context: &Context,
    ) -> Result<LaunchOptions, Failure> {
        let (supervision, network) = (self.supervision, self.network);
        if network.net_outbound && self.how.net != Net::User {
            return Err(Failure::usage("--net-outbound goes with --net user".into()));
        }
        let end = self.first.saturating_add(count);
        let guests =
            GuestRange::new(self.first, end).map_err(|error| Failure::usage(error.to_string()))?;
        let tap_subnet = self.how.tap_subnet()?;
        Ok(LaunchOptions {
            out,
            guests,
            begin: Begin::Whole,
            name: self.name,
            keep: None,
            qemu: (self.how.qemu).program(&context.directories.cache, &context.interrupt)?,
            machine: self.how.machine(),
            start: supervision.start,
            ssh_key: self.ssh_key,
            outbound: network.net_outbound.into(),
            tap_subnet,
            restart: supervision.restart,
            burn_at: supervision.burn_at,
            health: Some(supervision.health).filter(|period| !period.is_zero()),
            keep_free: supervision.keep_free.map(ByteSize::bytes),
            rate: supervision.rate,
            parallel: supervision.parallel.map(usize::from),
            placement: self.placement.into(),
            users: match supervision.run_as_base {
                Some(0) => Users::Own,
                Some(base) => Users::From(base),
                None => users(),
            },
            metrics: supervision.metrics,
            canaries: if self.no_canary {
                Canaries::Kept
            } else {
                Canaries::KeptOrFresh
            },
            settings: if self.fix {
                HostSettings::Fixed
            } else {
                HostSettings::Kept
            },
            unready: if self.force {
                OnUnready::GoOn
            } else {
                OnUnready::Refuse
            },
            lifetime: Lifetime::Own,
        })
    }
}

/// Under which user ids guests run, unless the user says.
pub(in crate::cli) fn users() -> Users {
    if rustix::process::geteuid().is_root() {
        Users::Apart
    } else {
        Users::Own
    }
}

/// A number of starts a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err("use a number above 0, such as 20 or 0.5".to_owned()),
    }
}
