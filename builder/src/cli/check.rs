//! `imgbuild check`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::launch::Guests;
use super::output::{print, print_as_it_is, print_json, print_text};
use super::{Context, DEFAULT_OUT, Exit, Failure};
use crate::artifact::opened::Artifacts;
use crate::host::kvm::Prober;
use crate::host::settings::Holder;
use crate::host::snapshot::{Host, KvmProbe, Places};
use crate::host::want::GuestUsers;
use crate::net::tap::{self, Subnet};
use crate::report::Colour;
use crate::report::readiness::{Findings, render};
use crate::store::claims::Register;
use crate::trial::fix;
use crate::trial::readiness::{self, Canaries, Question, Report};
use crate::units::GuestRange;
use crate::vmm::Net;

/// Arguments of `check`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Check {
    /// The output folder to run guests from [default: out/tty-burn, if it is
    /// there]
    out: Option<PathBuf>,

    /// Number of guests wanted [default: how many fit]
    #[arg(long, value_name = "N", env = "IMGBUILD_GUESTS",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    guests: Option<u32>,

    /// Number of the first guest [default: 0]
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true,
        value_parser = clap::value_parser!(u32).range(..100_000))]
    first: u32,

    #[command(flatten)]
    how: Guests,

    /// Start two guests, to see whether they come up and what one costs
    #[arg(long, conflicts_with_all = ["from", "restore"])]
    canary: bool,

    /// Change host settings as findings advise: sysctls, KSM, modules
    #[arg(long, conflicts_with_all = ["from", "restore"])]
    fix: bool,

    /// Print what --fix would do, as a shell script
    #[arg(long, requires = "fix", conflicts_with = "json")]
    dry_run: bool,

    /// Restore settings that --fix changed, unless they are in use or changed
    /// since
    #[arg(long, conflicts_with_all = ["from", "snapshot"])]
    restore: bool,

    /// Save a snapshot of this host
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    snapshot: Option<PathBuf>,

    /// Check the host of a saved snapshot instead of this one
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        if self.restore {
            return self.restore();
        }
        if self.from.is_some() && self.how.tap_subnet()?.is_some() {
            return Err(Failure::usage(
                "--tap-subnet does not go with --from: it needs the routes of this host".into(),
            ));
        }
        GuestRange::new(self.first, self.first + self.guests.unwrap_or(1))
            .map_err(|error| Failure::usage(error.to_string()))?;
        let artifacts = self.artifacts()?;
        let mut host = self.host(context)?;
        if context.interrupt.requested() {
            return Ok(Exit::Interrupted);
        }
        if let Some(file) = &self.snapshot {
            host.save(file)?;
            tracing::info!("saved a snapshot of this host to {}", file.display());
        }
        let artifacts = artifacts.as_ref();
        let mut applied = Vec::new();
        if self.fix {
            // Canaries are for the host as it will be.
            let Some(before) = self.judge(&host, artifacts, Canaries::Kept, context)? else {
                return Ok(Exit::Interrupted);
            };
            if self.dry_run {
                print_text(fix::script(&before).trim_end())?;
                return Ok(exit(&before));
            }
            applied = fix::apply(&before, &Holder::User, &context.interrupt)?;
            host = self.host(context)?;
        }
        let canaries = match (&self.from, self.canary) {
            (Some(_), _) => Canaries::Never,
            (None, true) => Canaries::Fresh,
            (None, false) => Canaries::Kept,
        };
        let Some(report) = self.judge(&host, artifacts, canaries, context)? else {
            return Ok(Exit::Interrupted);
        };
        let report = Report { applied, ..report };
        if self.json {
            print_json(&report)?;
        } else {
            let listed = if tracing::enabled!(tracing::Level::DEBUG) {
                Findings::All
            } else {
                Findings::NotOk
            };
            print_as_it_is(&render(&report, listed, Colour::of_stdout()))?;
        }
        Ok(exit(&report))
    }

    fn restore(&self) -> Result<Exit, Failure> {
        let report = fix::restore()?;
        if self.json {
            print_json(&report)?;
        } else if report.restored.is_empty() && report.left.is_empty() && report.held.is_empty() {
            print("no setting to restore")?;
        }
        Ok(if report.left.is_empty() {
            Exit::Done
        } else {
            Exit::Failed
        })
    }

    /// The output folder given, or the default one if there is one.
    fn artifacts(&self) -> Result<Option<Artifacts>, Failure> {
        match &self.out {
            Some(out) => Ok(Some(Artifacts::open(out)?)),
            // What lies here by chance says nothing of another host's fleet.
            None if self.from.is_some() => Ok(None),
            None if Path::new(DEFAULT_OUT).exists() => {
                Ok(Some(Artifacts::open(Path::new(DEFAULT_OUT))?))
            }
            None if self.canary => Err(Failure::usage(format!(
                "--canary needs guests to start: `imgbuild tty-burn` builds {DEFAULT_OUT}, or \
                 name another output folder"
            ))),
            None => Ok(None),
        }
    }

    fn host(&self, context: &Context) -> Result<Host, Failure> {
        Ok(match &self.from {
            Some(file) => Host::load(file)?,
            None => readiness::look(
                &Places::of(
                    &context.directories,
                    KvmProbe::Run(Prober::this_program()),
                    (self.how.qemu).program(&context.directories.cache, &context.interrupt)?,
                ),
                self.tap_subnet(context)?,
                &context.interrupt,
            ),
        })
    }

    /// The addresses that a fleet launched now would have on taps.
    fn tap_subnet(&self, context: &Context) -> Result<Option<Subnet>, Failure> {
        let chosen = self.how.tap_subnet()?;
        Ok((self.how.net == Net::Tap).then(|| {
            chosen.unwrap_or_else(|| {
                // Where there are none, the report says what is in the way.
                let others = Register::of(&context.directories).look();
                tap::choose(others.taps(), 1).unwrap_or(Subnet::FOR_TAPS)
            })
        }))
    }

    fn judge(
        &self,
        host: &Host,
        artifacts: Option<&Artifacts>,
        canaries: Canaries,
        context: &Context,
    ) -> Result<Option<Report>, Failure> {
        let question = Question {
            artifacts,
            guests: self.guests,
            first: self.first,
            machine: self.how.machine(),
            users: GuestUsers::Apart,
            canaries,
        };
        Ok(readiness::check(
            host,
            &question,
            &context.directories,
            &context.interrupt,
        )?)
    }
}

/// The exit code that a report leads to.
fn exit(report: &Report) -> Exit {
    if report.ready {
        Exit::Done
    } else {
        Exit::HostNotReady
    }
}
