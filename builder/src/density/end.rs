//! Ends the fleet of a run.

use std::thread;
use std::time::Duration;

use super::error::DensityError;
use super::subject::Subject;
use crate::control::client::{Client, ClientError};
use crate::control::ending;
use crate::fleet::remove::{Survivors, remove};
use crate::interrupt::Interrupt;

/// How long guests have to power off at the end.
const GRACE: Duration = Duration::from_secs(10);

/// How often it is tried again to end a fleet, and after how long.
const END_TRIES: u32 = 5;
const END_PAUSE: Duration = Duration::from_secs(2);

/// Ends the fleet, whether the user asked to stop or not.
pub(super) fn end(subject: &Subject<'_>) -> Result<(), DensityError> {
    let interrupt = Interrupt::never().map_err(DensityError::Watch)?;
    let client = Client::new(&subject.name, &subject.paths, &interrupt);
    let mut again = END_TRIES;
    loop {
        match ending::end(&client, GRACE) {
            Ok((_, Some(supervisor))) => {
                return ending::wait(&supervisor, &interrupt).map_err(DensityError::Watch);
            }
            Ok((_, None)) | Err(ClientError::Ended { .. }) => return Ok(()),
            Err(ClientError::NotSupervised { .. }) => {
                remove(&subject.name, subject.directories, Survivors::Kill)?;
                return Ok(());
            }
            // Such as one that dies meanwhile, or is busy.
            Err(error) if again > 0 => {
                tracing::warn!("ending {}: {error}; trying again", subject.name);
            }
            Err(error) => return Err(error.into()),
        }
        again -= 1;
        thread::sleep(END_PAUSE);
    }
}
