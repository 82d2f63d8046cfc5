//! Checks the host, and changes its settings if the user asked for that.

use super::error::LaunchError;
use super::options::LaunchOptions;
use crate::artifact::opened::Artifacts;
use crate::directories::Directories;
use crate::host::kvm::Prober;
use crate::host::snapshot::{KvmProbe, Places};
use crate::host::want::GuestUsers;
use crate::interrupt::Interrupt;
use crate::net::tap::Subnet;
use crate::store::spec::HostSettings;
use crate::store::users::Users;
use crate::trial::fix::Lease;
use crate::trial::readiness::{self, Canaries, Question, Report};
use crate::vmm::Accel;

/// Checks the host, and changes its settings first where that was asked for.
pub(super) fn prepare(
    options: &LaunchOptions,
    fleet: &str,
    taps: Option<Subnet>,
    artifacts: &Artifacts,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<(Report, Option<Lease>), LaunchError> {
    let probe = match options.machine.accel {
        Accel::Kvm => KvmProbe::Run(Prober::this_program()),
        // What KVM does with a guest's kernel is of no matter, and takes time.
        Accel::Tcg => KvmProbe::Skip,
    };
    let places = Places::of(directories, probe, options.qemu.clone());
    let guests = options.guests.count();
    let question = Question {
        artifacts: Some(artifacts),
        guests: Some(guests),
        first: options.guests.begin().get(),
        machine: options.machine,
        users: match options.users {
            Users::Own => GuestUsers::Own,
            Users::From(_) | Users::Apart => GuestUsers::Apart,
        },
        canaries: options.canaries,
    };
    let ask = |guests, canaries| {
        let question = Question {
            guests: Some(guests),
            canaries,
            ..question
        };
        let host = readiness::look(&places, taps, interrupt);
        readiness::check(&host, &question, directories, interrupt)?.ok_or(LaunchError::Interrupted)
    };
    if options.settings == HostSettings::Kept {
        let lease = Lease::of_others(fleet, options.settings);
        return Ok((ask(guests, options.canaries)?, lease));
    }
    // What is changed has to do for all guests that the fleet may come to have.
    let report = ask(options.at_most().max(guests), Canaries::Kept)?;
    let lease = Lease::new(&report, fleet, interrupt)?;
    Ok((ask(guests, options.canaries)?, Some(lease)))
}
