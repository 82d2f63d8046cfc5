//! `launch --detach`: a supervisor of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, setsid};
use serde_json::Value;

use super::{LaunchError, LaunchEvent, Milestone};
use crate::control::bridge::Detail;
use crate::control::client::Client;
use crate::interrupt::Interrupt;
use crate::process;
use crate::store::folder::Paths;
use crate::system::Doing as _;

const WAIT: &str = "wait for the process that supervises the fleet";

/// How often it is looked whether the new process supervises the fleet.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Starts a process that supervises the fleet, and waits until it does.
pub(crate) fn detach(
    name: &str,
    paths: &Paths,
    interrupt: &Interrupt,
    emit: &mut dyn FnMut(LaunchEvent),
) -> Result<(), LaunchError> {
    let client = Client::new(name, paths, interrupt);
    let log = paths.supervisor_log();
    let use_log = || format!("use the supervisor's log {}", log.display());
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log)
        .doing(use_log())?;
    let mut said = File::open(&log).doing(use_log())?;
    said.seek(SeekFrom::End(0)).doing(use_log())?;
    let mut command = process::this_program();
    // It outlives the script that launches the fleet, which may hold a lock by a
    // descriptor, or read a pipe to its end, and may want its folder away.
    process::close_inherited(&mut command);
    command
        .current_dir("/")
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
    let child = command.spawn();
    let mut child = child.doing("start imgbuild once more to supervise it")?;
    let pid = child.id();
    loop {
        // Another process that was started to supervise it may have been faster.
        let answer = client.fleet(Detail::Summary).ok();
        let supervisor = answer.and_then(|fleet| fleet.supervisor);
        if supervisor.is_some_and(|supervisor| supervisor.pid == pid) {
            break;
        }
        if let Some(status) = child.try_wait().doing(WAIT)? {
            return Err(LaunchError::Supervisor {
                status,
                last: last_words(&said).doing(use_log())?,
                log: Some(log),
            });
        }
        if interrupt.wait(LOOK_AGAIN) {
            // It stops the fleet, as Ctrl-C does for one in the foreground.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            child.wait().doing(WAIT)?;
            return Err(LaunchError::Interrupted);
        }
    }
    emit(LaunchEvent::Launch(Milestone::Detached {
        fleet: name.to_owned(),
        pid,
        log,
    }));
    Ok(())
}

/// The last error in the rest of a supervisor's log, whose lines are JSON, or
/// else its last message: one that supervises the fleet may write to it, too.
fn last_words(log: impl Read) -> io::Result<String> {
    let mut last = String::new();
    let mut is_error = false;
    for line in BufReader::new(log).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        let event = serde_json::from_str::<Value>(&line).unwrap_or_default();
        if event["level"] == "ERROR" || !is_error {
            is_error = event["level"] == "ERROR";
            let message = event["fields"]["message"].as_str().map(str::to_owned);
            last = message.unwrap_or(line);
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_an_error_if_there_is_one() {
        let said = |level: &str, message: &str| {
            format!("{{\"level\":\"{level}\",\"fields\":{{\"message\":\"{message}\"}}}}\n")
        };
        let first = said("ERROR", "a first") + &said("ERROR", "it is running");
        let both = first + &said("DEBUG", "g00000 is ready");
        assert_eq!(last_words(both.as_bytes()).unwrap(), "it is running");
        let panicked = said("INFO", "adopted 1 guest") + "note: no backtrace\n";
        assert_eq!(
            last_words(panicked.as_bytes()).unwrap(),
            "note: no backtrace"
        );
        assert_eq!(last_words(&b""[..]).unwrap(), "");
    }
}
