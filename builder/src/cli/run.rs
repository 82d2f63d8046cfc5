//! `imgbuild run`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use clap::Args;

use self::out::find_out;
use self::session::{News, Session, Userland};
use super::launch::{Guests, UNWATCHED, users};
use super::{Context, Exit, Failure};
use crate::artifact::Manifest;
use crate::control::types::{Event, Guest};
use crate::fleet::remove::sweep_private;
use crate::fleet::supervise::{Attachment, Ending};
use crate::guest::{BurnAt, Phase, Restart};
use crate::launch::{Begin, LaunchEvent, LaunchOptions, Launched, OnUnready, launch};
use crate::outlet;
use crate::placement::PlacementSpec;
use crate::store::folder::private_name;
use crate::store::spec::HostSettings;
use crate::trial::readiness::Canaries;
use crate::units::GuestRange;
use crate::vmm::{Lifetime, Outbound, StartMethod};

mod out;
mod session;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Runs COMMAND by SSH, or without a network on the console, and exits with \
    its code. Without COMMAND it is a session as of `imgbuild ssh`, which the guest's \
    `poweroff` ends with 0. What the guest's kernel and programs write on the console goes to \
    stderr. Whatever ends the run, the guest and all its files are gone.\n\n\
    Examples:\n  \
    imgbuild run tty-idle -- status\n  \
    imgbuild run out/debian-shell"
)]
pub(super) struct Run {
    /// An output folder, a recipe file, or the name of a built-in recipe, which is
    /// built into out/<recipe> if there is none yet, and stays there
    #[arg(value_name = "RECIPE|OUT")]
    what: PathBuf,

    #[command(flatten)]
    guest: Guests,

    /// Run it even if the host is not ready
    #[arg(long, help_heading = "Host")]
    force: bool,

    /// Command to run there; ssh joins the words with spaces
    #[arg(last = true)]
    command: Vec<OsString>,
}

impl Run {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let out = find_out(&self.what, context)?;
        let userland = userland(&out);
        let name = private_name()?;
        let options = self.options(out, &name, context)?;
        sweep_private(&context.directories);
        let end = context.interrupt.child()?;
        let (news, session) = mpsc::channel();
        let session = Session {
            fleet: name.clone(),
            directories: context.directories.clone(),
            interrupt: context.interrupt.clone(),
            end: end.clone(),
            command: self.command,
            userland,
            news: session,
        };
        let session = thread::spawn(move || session.run());
        let mut last: Option<Guest> = None;
        let mut emit = |event| {
            let LaunchEvent::Fleet(Event::Guest(guest)) = event else {
                return;
            };
            // A session that is over hears nothing.
            if last.is_none() {
                let _ = news.send(News::Begun(guest.id));
            }
            if guest.state == Phase::Ready {
                let _ = news.send(News::Ready(Box::new(guest.clone())));
            }
            last = Some(guest);
        };
        let patience = Some(UNWATCHED);
        let launched = launch(
            &options,
            Attachment::Foreground { patience },
            &context.directories,
            &end,
            &mut emit,
        );
        // The guest is gone, and whoever waits for it learns that.
        drop(news);
        end.raise();
        let code = session.join().expect("a session does not panic");
        let launched = launched?;
        outlet::finish(&context.interrupt)?;
        let code = match (launched, code) {
            (Launched::Over(summary), _)
                if summary.ending == Ending::Interrupted && context.interrupt.requested() =>
            {
                return Ok(Exit::Interrupted);
            }
            (Launched::Over(summary), Err(failure)) if summary.ending == Ending::Empty => {
                // The guest says why it ended, and the session failed because of that.
                tracing::debug!("{name}: {failure:?}");
                None
            }
            (_, code) => code?,
        };
        Ok(exit(last.as_ref(), code))
    }

    fn options(
        &self,
        out: PathBuf,
        name: &str,
        context: &Context,
    ) -> Result<LaunchOptions, Failure> {
        Ok(LaunchOptions {
            out,
            guests: GuestRange::first(1)?,
            begin: Begin::Whole,
            name: Some(name.to_owned()),
            keep: None,
            qemu: (self.guest.qemu).program(&context.directories.cache, &context.interrupt)?,
            machine: self.guest.machine(),
            start: Some(StartMethod::Boot),
            ssh_key: None,
            outbound: Outbound::Closed,
            tap_subnet: self.guest.tap_subnet()?,
            restart: Restart::Never,
            burn_at: BurnAt::Start,
            health: None,
            keep_free: None,
            rate: None,
            parallel: None,
            placement: PlacementSpec::default(),
            users: users(),
            metrics: None,
            canaries: Canaries::Kept,
            settings: HostSettings::Kept,
            unready: if self.force {
                OnUnready::GoOn
            } else {
                OnUnready::Refuse
            },
            lifetime: Lifetime::WithParent,
        })
    }
}

/// Who obeys commands in guests of an output.
fn userland(out: &Path) -> Userland {
    match Manifest::load_with_text(out) {
        Ok((manifest, _)) if manifest.recipe.may_hold_shell() => Userland::Image,
        // What is wrong with one that is not read is said when guests are launched.
        _ => Userland::None,
    }
}

/// How a run ends whose guest was last like this, and whose session had this code.
fn exit(guest: Option<&Guest>, code: Option<u8>) -> Exit {
    let state = guest.map(|guest| guest.state);
    match (state, code) {
        (Some(Phase::Failed), _) => {
            let why = guest.and_then(|guest| guest.reason.as_deref());
            tracing::error!("the guest failed: {}", why.unwrap_or("nothing says why"));
            Exit::Failed
        }
        // It powered off, which ends a session and a command well.
        (Some(Phase::Exited), None) | (_, Some(0)) => Exit::Done,
        (_, Some(code)) => Exit::Command(code),
        (_, None) => {
            tracing::error!("the guest did not start");
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::picture::tests::guest;

    #[test]
    fn a_run_ends_as_its_command_unless_the_guest_ended_it() {
        for (state, code, ended) in [
            (Phase::Ready, Some(0), Exit::Done),
            (Phase::Ready, Some(255), Exit::Command(255)),
            (Phase::Exited, None, Exit::Done),
            (Phase::Exited, Some(3), Exit::Command(3)),
            (Phase::Failed, Some(0), Exit::Failed),
            (Phase::Booting, None, Exit::Failed),
        ] {
            assert_eq!(
                exit(Some(&guest(0, state)), code),
                ended,
                "{state:?} {code:?}"
            );
        }
        assert_eq!(exit(None, None), Exit::Failed);
    }
}
