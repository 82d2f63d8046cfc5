//! Exit codes, and which error leads to which.

use std::error::Error;
use std::process::ExitCode;

use crate::artifact::BuildError;
use crate::control::client::ClientError;
use crate::control::select::SelectError;
use crate::density::DensityError;
use crate::fleet::site::SiteError;
use crate::fleet::ssh::SshError;
use crate::interrupt::{self, Interrupt};
use crate::kernel::{KernelError, SourceError};
use crate::launch::LaunchError;
use crate::recipe::RecipeError;
use crate::store::find::FindError;
use crate::store::ssh_config::SshConfigError;
use crate::store::users::UsersError;
use crate::top::TopError;
use crate::trial::TrialError;
use crate::trial::boot::BootError;
use crate::vmm::qemu::ProgramError;

/// How a run of imgbuild ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// The command line was wrong.
    Usage,
    /// The host cannot run guests this way.
    HostNotReady,
    /// Only part of the fleet came up, or did what was asked.
    PartOfFleet,
    /// The user ended it.
    Interrupted,
    /// As a guest's command did.
    Command(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::HostNotReady => 3,
            Exit::PartOfFleet => 4,
            Exit::Interrupted => interrupt::EXIT_CODE,
            Exit::Command(code) => code,
        })
    }
}

/// An error on its way to the user.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// A command line that parses but makes no sense.
    pub fn usage(message: String) -> Self {
        Self {
            exit: Exit::Usage,
            error: anyhow::Error::msg(message),
        }
    }

    /// Says it on stderr, and tells how the run ends. Every error's own message
    /// holds its cause, so the chain of causes would only repeat it.
    ///
    /// What fails once the user has asked to stop failed because of that.
    pub fn report(&self, interrupt: &Interrupt) -> Exit {
        if self.exit == Exit::Failed && interrupt.requested() {
            tracing::warn!("{}", self.error);
            return Exit::Interrupted;
        }
        tracing::error!("{}", self.error);
        self.exit
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = match anyhow::Error::from(error).downcast() {
            // What is wrong is the launch's, whoever launches.
            Ok(DensityError::Launch(launch)) => anyhow::Error::from(launch),
            Ok(error) => error.into(),
            Err(error) => error,
        };
        let exit = match error.downcast_ref() {
            Some(LaunchError::NotReady(_) | LaunchError::Site(SiteError::Ports(_))) => {
                Exit::HostNotReady
            }
            _ if lacks_a_fit_qemu(&error) => Exit::HostNotReady,
            Some(LaunchError::Interrupted) => Exit::Interrupted,
            Some(
                LaunchError::Key(_)
                | LaunchError::Reserved { .. }
                | LaunchError::Site(
                    SiteError::SshConfig(SshConfigError::Path(_))
                    | SiteError::Users(UsersError::Taken { .. } | UsersError::Unmapped { .. }),
                ),
            ) => Exit::Usage,
            _ if asks_for_a_choice(&error) => Exit::Usage,
            _ if matches!(error.downcast_ref(), Some(ClientError::Interrupted)) => {
                Exit::Interrupted
            }
            _ if error.is::<RecipeError>() || asks_for_a_digest(&error) => Exit::Usage,
            _ if matches!(error.downcast_ref(), Some(ProgramError::Interrupted(_))) => {
                Exit::Interrupted
            }
            _ if error.is::<ProgramError>() => Exit::Usage,
            _ if matches!(error.downcast_ref(), Some(TopError::NoTerminal)) => Exit::Usage,
            _ => Exit::Failed,
        };
        Self { exit, error }
    }
}

/// Whether a fleet or a guest has to be chosen, or chosen again.
fn asks_for_a_choice(error: &anyhow::Error) -> bool {
    let find = match error.downcast_ref() {
        Some(SshError::Find(find)) => Some(find),
        Some(SshError::UnknownGuest { .. }) => return true,
        _ => error.downcast_ref(),
    };
    error.is::<SelectError>() || matches!(find, Some(FindError::Several { .. }))
}

/// Whether guests were to run on a QEMU that cannot run them.
fn lacks_a_fit_qemu(error: &anyhow::Error) -> bool {
    let launch = error.downcast_ref();
    let trial = match (error.downcast_ref(), launch) {
        (Some(BootError::Launch(trial)), _) | (_, Some(LaunchError::Trial(trial))) => Some(trial),
        _ => error.downcast_ref(),
    };
    matches!(
        trial,
        Some(
            TrialError::Unfit(_)
                | TrialError::Emulator(_)
                | TrialError::Site(SiteError::Emulator(_))
        )
    ) || matches!(
        launch,
        Some(LaunchError::Emulator(_) | LaunchError::Site(SiteError::Emulator(_)))
    )
}

/// Whether an address was given without the digest that goes with it.
fn asks_for_a_digest(error: &anyhow::Error) -> bool {
    let kernel = match error.downcast_ref() {
        Some(BuildError::Kernel(kernel)) => Some(kernel),
        _ => error.downcast_ref(),
    };
    matches!(kernel, Some(KernelError::Source(SourceError::NoDigest(_))))
}
