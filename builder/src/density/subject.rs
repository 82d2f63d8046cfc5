//! The fleet that a run measures, by its control interface. A supervisor that dies is
//! replaced by another, and what was asked of it is asked again.

use std::time::{Duration, Instant};

use super::clock::Diary;
use super::error::DensityError;
use crate::control::client::{Client, ClientError};
use crate::directories::Directories;
use crate::fleet::supervise::Attachment;
use crate::interrupt::Interrupt;
use crate::launch::resume;
use crate::store::folder::{Paths, Supervised};

/// Supervisors that may die in a row before a run gives up.
const PATIENCE: u32 = 3;

#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub name: String,
    pub paths: Paths,
    pub client: Client,
    pub directories: &'a Directories,
    pub interrupt: &'a Interrupt,
    pub diary: &'a Diary,
}

impl<'a> Subject<'a> {
    pub(super) fn new(
        name: &str,
        paths: &Paths,
        directories: &'a Directories,
        interrupt: &'a Interrupt,
        diary: &'a Diary,
    ) -> Self {
        Self {
            name: name.to_owned(),
            paths: paths.clone(),
            client: Client::new(name, paths, interrupt),
            directories,
            interrupt,
            diary,
        }
    }

    /// Asks its supervisor.
    pub(super) fn call<T>(
        &self,
        question: impl Fn(&Client) -> Result<T, ClientError>,
    ) -> Result<T, DensityError> {
        let mut deaths = 0;
        loop {
            let error = match question(&self.client) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match error {
                ClientError::NotSupervised { .. } | ClientError::Lost { .. } => {}
                error => return Err(error.into()),
            }
            if deaths == PATIENCE {
                return Err(DensityError::Supervisor {
                    fleet: self.name.clone(),
                    times: deaths,
                    log: self.paths.supervisor_log(),
                });
            }
            deaths += 1;
            self.resume_if_dead()?;
        }
    }

    /// Starts another supervisor if there is none; gives when it was there.
    pub(super) fn resume_if_dead(&self) -> Result<Option<Instant>, DensityError> {
        if self.paths.supervised() != Supervised::No {
            return Ok(None);
        }
        self.diary.note(format!(
            "the supervisor of {} died; another one adopts its guests",
            self.name
        ));
        let mut ignore = |_| {};
        resume(
            &self.name,
            Attachment::Detached,
            self.directories,
            self.interrupt,
            &mut ignore,
        )?;
        Ok(Some(Instant::now()))
    }

    /// Waits, unless the user asks to stop.
    pub(super) fn pause(&self, time: Duration) -> Result<(), DensityError> {
        if self.interrupt.wait(time) {
            return Err(DensityError::Interrupted);
        }
        Ok(())
    }
}
