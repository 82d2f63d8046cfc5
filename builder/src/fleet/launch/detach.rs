//! `launch --detach`: a supervisor of its own.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, setsid};

use super::{LaunchError, LaunchEvent, Milestone};
use crate::directories::Directories;
use crate::fleet::api::client::Client;
use crate::fleet::folder::Paths;
use crate::fleet::logs;
use crate::interrupt::Interrupt;

/// Starts a process that supervises the fleet, and waits until it does.
pub(super) fn detach(
    name: &str,
    directories: &Directories,
    interrupt: &Interrupt,
    emit: &mut dyn FnMut(LaunchEvent),
) -> Result<(), LaunchError> {
    let paths = Paths::of(name, directories);
    let client = Client::new(name, directories, interrupt);
    let log = paths.supervisor_log();
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "--verbose",
            "--log-format",
            "json",
            "launch",
            "--background",
            "--resume",
            name,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(opened);
    // SAFETY: the closure runs between fork and exec and makes one system call;
    // it takes no lock and allocates nothing.
    unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
    let mut child = command.spawn()?;
    let pid = child.id();
    loop {
        if client.fleet(false).is_ok() {
            break;
        }
        if let Some(status) = child.try_wait()? {
            return Err(LaunchError::Supervisor {
                status,
                last: last_words(&log)?,
            });
        }
        if interrupt.requested() {
            // It stops the fleet, as Ctrl-C does for one in the foreground.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            child.wait()?;
            return Err(LaunchError::Interrupted);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    emit(LaunchEvent::Launch(Milestone::Detached {
        fleet: name.to_owned(),
        pid,
        log,
    }));
    Ok(())
}

/// The last message in a supervisor's log, whose lines are JSON.
fn last_words(log: &Path) -> io::Result<String> {
    let line = logs::tail(log, 1)?.pop().unwrap_or_default();
    let event = serde_json::from_str::<serde_json::Value>(&line).unwrap_or_default();
    let message = event["fields"]["message"].as_str().map(str::to_owned);
    Ok(message.unwrap_or(line))
}
