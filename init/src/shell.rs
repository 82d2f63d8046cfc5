//! The image's own shell, if the image has one.

use core::ffi::CStr;

use rustix::event::PollFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Access, Mode, OFlags, fstat, open, stat};
use rustix::io::{Errno, pread};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, chdir, kill_process_group, pidfd_open,
    set_parent_process_death_signal, setsid, waitpid,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use tty_init::lines::COMMAND_MAX;

use crate::console;
use crate::failure::{Context, Failure};
use crate::run::{Fault, for_each_process, proc_path};
use crate::status::read;
use crate::streams::{Gone, Streams, write_all};
use crate::sys::process::{Forked, exec, exit, fork};
use crate::sys::signal;
use crate::text::Text;
use crate::wait::Waiting;

const SHELL: &CStr = c"/bin/sh";
const ENVIRONMENT: [&CStr; 5] = [
    c"HOME=/root",
    c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    c"SHELL=/bin/sh",
    c"TERM=dumb",
    c"USER=root",
];

/// How long a program is quiet before it is looked at whether it waits for
/// input, at first and at the most.
const QUIET_MS: u64 = 1;
const QUIET_MAX_MS: u64 = 160;

/// Most bytes of input that are taken at a time: what an empty pipe takes at once
/// (pipe(7)).
const BLOCK: usize = 64 * 1024;
/// Bytes of output that are carried at a time.
const OUTPUT: usize = 4096;

/// Whether the image holds a shell.
pub(crate) fn exists() -> bool {
    rustix::fs::access(SHELL, Access::EXEC_OK).is_ok()
}

/// Runs a command of the shell, or the shell itself; gives its exit code.
pub(crate) fn run(command: Option<&str>, streams: &mut dyn Streams) -> Result<u8, Fault> {
    if !exists() {
        streams.error(b"this image holds no shell\n")?;
        return Err(Fault::Code(127));
    }
    let mut text = [0; COMMAND_MAX + 1];
    let mut child = match command {
        None => Child::start(&[c"-sh"])?,
        Some(command) => {
            let place = text.get_mut(..command.len()).ok_or(TOO_LONG)?;
            place.copy_from_slice(command.as_bytes());
            let command = CStr::from_bytes_until_nul(&text).or(Err(TOO_LONG))?;
            Child::start(&[c"sh", c"-c", command])?
        }
    };
    let served = match command {
        Some(_) => child.serve(Taken::Block, streams),
        None => child.serve(Taken::Line, streams),
    };
    if served.is_err() {
        // The client is gone, and with it whoever would read or type.
        let _ = kill_process_group(child.pid, Signal::HUP);
    }
    served
}

const TOO_LONG: Failure = Failure::new("command", Errno::TOOBIG);

/// How much input is taken at a time. Each time costs a look at all processes and,
/// since the SSH crate cannot write before it has read as much as it let the client
/// send, a time without output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// A block: a command that is sent data.
    Block,
    /// A line: a shell that somebody types at.
    Line,
}

impl Taken {
    /// Takes input; gives its length, and whether there is more.
    fn take(self, block: &mut [u8], streams: &mut dyn Streams) -> Result<(usize, bool), Gone> {
        if self == Self::Block {
            let length = streams.input(block)?;
            return Ok((length, length == block.len()));
        }
        for (index, byte) in block.iter_mut().enumerate() {
            // Whoever types waits for what comes behind a line's end, and sends no
            // byte more than this.
            match streams.input(core::slice::from_mut(byte))? {
                0 => return Ok((index, false)),
                _ if *byte == b'\n' => return Ok((index + 1, true)),
                _ => {}
            }
        }
        Ok((block.len(), true))
    }
}

/// A program with pipes at its three streams, in a session of its own.
struct Child {
    pid: Pid,
    /// Readable once it has ended.
    end: OwnedFd,
    /// Known then.
    code: Option<u8>,
    /// Until the client's input ends.
    input: Option<OwnedFd>,
    /// Output and error output, each until it ends.
    outputs: [Option<OwnedFd>; 2],
}

impl Child {
    fn start(arguments: &[&CStr]) -> Result<Self, Failure> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context("pipe");
        let (its_input, input) = pipe()?;
        let (output, its_output) = pipe()?;
        let (error, its_error) = pipe()?;
        match fork().context("fork")? {
            Forked::Parent(pid) => Ok(Self {
                pid,
                end: pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?,
                code: None,
                input: Some(input),
                outputs: [Some(output), Some(error)],
            }),
            Forked::Child => become_program(SHELL, arguments, &its_input, &its_output, &its_error),
        }
    }

    /// Carries bytes between program and client until the program and its
    /// outputs end; gives its exit code.
    #[expect(
        clippy::large_stack_arrays,
        reason = "there is no heap, and the stack may have 8 MiB"
    )]
    fn serve(&mut self, taken: Taken, streams: &mut dyn Streams) -> Result<u8, Fault> {
        let mut quiet_ms = QUIET_MS;
        let mut at_line_start = true;
        loop {
            if let (Some(code), [None, None]) = (self.code, &self.outputs) {
                return Ok(code);
            }
            if self.forward(quiet_ms, streams)? {
                quiet_ms = QUIET_MS;
                continue;
            }
            quiet_ms = (quiet_ms * 2).min(QUIET_MAX_MS);
            let Some(input) = &self.input else { continue };
            let Some(reader) = waiting_reader(input)? else {
                continue;
            };
            // What it wrote just before it began to wait comes before a prompt.
            if self.forward(0, streams)? {
                quiet_ms = QUIET_MS;
                continue;
            }
            let Some(input) = &self.input else { continue };
            if taken == Taken::Line && at_line_start && reader == self.pid {
                prompt(streams)?;
            }
            let mut block = [0; BLOCK];
            let (length, is_more) = taken.take(&mut block, streams)?;
            let bytes = block.get(..length).unwrap_or_default();
            at_line_start = bytes.last() == Some(&b'\n');
            if write_all(input, bytes).is_err() || !is_more {
                self.input = None;
            }
            quiet_ms = QUIET_MS;
        }
    }

    /// Waits for output or the end, and carries what there is; `false` if there
    /// was neither for so long.
    fn forward(&mut self, quiet_ms: u64, streams: &mut dyn Streams) -> Result<bool, Fault> {
        let peer = streams.peer();
        let [output, error] = self.outputs.each_ref();
        let [output, error] = [output, error].map(|pipe| pipe.as_ref().map(AsFd::as_fd));
        let end = self.code.is_none().then(|| self.end.as_fd());
        // There is one of the three: the caller sees to it.
        let Some(any) = end.or(output).or(error) else {
            return Ok(true);
        };
        let mut waiting = Waiting::new(any, PollFlags::empty());
        let end = waiting.and(end, PollFlags::IN);
        let output = waiting.and(output, PollFlags::IN);
        let error = waiting.and(error, PollFlags::IN);
        let peer = waiting.and(peer, PollFlags::RDHUP);
        // Without input to ask for there is nothing to look at in between.
        if !waiting.wait(self.input.is_some().then_some(quiet_ms))? {
            return Ok(false);
        }
        // A client that only has no more input says so in a message.
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        if waiting.ready(peer).intersects(gone) {
            return Err(Fault::Gone);
        }
        let [end, output, error] =
            [end, output, error].map(|place| !waiting.ready(place).is_empty());
        if end {
            self.code = Some(self.code()?);
        }
        let mut block = [0; OUTPUT];
        for (which, (pipe, ready)) in self.outputs.iter_mut().zip([output, error]).enumerate() {
            let (Some(open), true) = (&pipe, ready) else {
                continue;
            };
            match rustix::io::read(open, &mut block) {
                Ok(length @ 1..) if which == 0 => streams.output(&block[..length])?,
                Ok(length @ 1..) => streams.error(&block[..length])?,
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => *pipe = None,
            }
        }
        Ok(true)
    }

    /// The exit code of the program, which has ended: 128 and the signal's
    /// number if one ended it.
    fn code(&self) -> Result<u8, Fault> {
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(Errno::INTR) | Ok(None) => {}
                Err(errno) => return Err(Failure::new("waitpid", errno).into()),
                Ok(Some((_, status))) => {
                    let signal = status.terminating_signal().map(|signal| signal + 128);
                    let code = status.exit_status().or(signal).unwrap_or(1);
                    return Ok(u8::try_from(code).unwrap_or(u8::MAX));
                }
            }
        }
    }
}

/// Prints the prompt: the guest's name.
pub(crate) fn prompt(streams: &mut dyn Streams) -> Result<(), Gone> {
    let id = console::id();
    let id = id.as_ref().map_or("guest", |id| id.as_str());
    let prompt = Text::<32>::new(format_args!("{id}# "));
    streams.output(prompt.as_str().as_bytes())
}

/// The process that waits for bytes from this pipe at its descriptor 0, if
/// there is one.
///
/// No event tells that, so it has to be looked up: `/proc/PID/syscall` has the
/// call that a process waits in (proc_pid_syscall(5)).
fn waiting_reader(input: &OwnedFd) -> Result<Option<Pid>, Fault> {
    let pipe = fstat(input).context("fstat")?;
    let mut found = None;
    for_each_process(&mut |pid| {
        let is_reader = stat(proc_path(pid, "fd/0").as_c_str())
            .is_ok_and(|file| (file.st_dev, file.st_ino) == (pipe.st_dev, pipe.st_ino));
        if is_reader {
            let mut buffer = [0; 128];
            let call = read(proc_path(pid, "syscall").as_c_str(), &mut buffer);
            if waits_for_input(pid, call) {
                found = Pid::from_raw(pid.cast_signed());
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// Whether a call is for descriptor 0 to read from: a read, or a wait that has
/// it among its descriptors.
fn waits_for_input(pid: u32, call: &str) -> bool {
    let mut words = call.split(' ');
    let number = words.next().unwrap_or_default();
    let mut argument = || {
        let digits = words.next()?.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    };
    let (Some(first), Some(second)) = (argument(), argument()) else {
        return false;
    };
    match number {
        // read and readv
        "0" | "19" => first == 0,
        // poll and ppoll: descriptors of eight bytes, 0 and POLLIN among them
        "7" | "271" => {
            let mut waits = [0; 64];
            let length = read_memory(pid, first, &mut waits);
            waits[..length]
                .chunks_exact(8)
                .zip(0..second)
                .any(|(wait, _)| matches!(wait, [0, 0, 0, 0, events, ..] if events & 1 == 1))
        }
        // select and pselect6: a bit for each descriptor below the first argument
        "23" | "270" => {
            let mut bits = [0];
            read_memory(pid, second, &mut bits);
            first > 0 && bits[0] & 1 == 1
        }
        _ => false,
    }
}

/// Reads a process's memory; gives the number of bytes.
fn read_memory(pid: u32, address: u64, buffer: &mut [u8]) -> usize {
    let path = proc_path(pid, "mem");
    open(
        path.as_c_str(),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .and_then(|memory| pread(&memory, buffer, address))
    .unwrap_or_default()
}

/// In the new process: becomes a program, in a session of its own, with these
/// streams.
pub(crate) fn become_program(
    path: &CStr,
    arguments: &[&CStr],
    input: &OwnedFd,
    output: &OwnedFd,
    error: &OwnedFd,
) -> ! {
    let _ = setsid();
    // Whoever would read what it says is gone with its parent.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    signal::unblock();
    let streams = [dup2_stdin(input), dup2_stdout(output), dup2_stderr(error)];
    if streams.iter().all(Result::is_ok) {
        // In an image without the folder, the root is as good.
        let _ = chdir(c"/root");
        let errno = exec(path, arguments, &ENVIRONMENT);
        let failure = Failure::new("exec", errno);
        let path = path.to_str().unwrap_or("?");
        let text = Text::<128>::line(format_args!("{path}: {failure}"));
        let _ = write_all(error, text.as_str().as_bytes());
    }
    exit(127)
}
