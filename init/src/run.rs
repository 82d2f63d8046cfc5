//! Runs the commands of a connection or the console, except those that only PID 1
//! can run.

use core::ffi::CStr;

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use tty_init::command::{Command, HELP, Words};
use tty_init::fields::{after, digits, number, word};
use tty_init::lines::COMMAND_MAX;

use crate::failure::{Context, Failure};
use crate::status::{Phase, read, write_report};
use crate::streams::{Gone, Printer, Streams, write_all};
use crate::sys::net::{IFF_UP, Interface};
use crate::{burn, shell};

/// Bytes that are read and written at a time.
const BLOCK: usize = 8 * 1024;

/// Why a command did not end well.
pub(crate) enum Fault {
    /// Nobody to tell.
    Gone,
    /// What failed, on which of its arguments.
    Failed(Failure),
    /// A code of its own, after it said why.
    Code(u8),
}

impl From<Gone> for Fault {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Runs a command; gives its exit code.
pub(crate) fn run(
    command: Command<'_>,
    phase: Phase,
    streams: &mut dyn Streams,
) -> Result<u8, Gone> {
    match try_run(command, phase, streams) {
        Ok(()) => Ok(0),
        Err(Fault::Gone) => Err(Gone),
        Err(Fault::Code(code)) => Ok(code),
        Err(Fault::Failed(failure)) => {
            complain(streams, &failure)?;
            Ok(1)
        }
    }
}

/// Says what is wrong.
pub(crate) fn complain(
    streams: &mut dyn Streams,
    wrong: &dyn core::fmt::Display,
) -> Result<(), Gone> {
    let text = crate::text::Text::<256>::line(format_args!("{wrong}"));
    streams.error(text.as_str().as_bytes())
}

fn try_run(command: Command<'_>, phase: Phase, streams: &mut dyn Streams) -> Result<(), Fault> {
    match command {
        Command::Help => print(streams, format_args!("{HELP}\n")),
        Command::Status { json } => {
            let mut printer = Printer::new(streams);
            write_report(phase, json, &mut printer).or(Err(Gone))?;
            printer.print(format_args!("\n"))?;
            Ok(printer.finish()?)
        }
        Command::Burn(duty) => Ok(burn::ask(duty)?),
        Command::Uptime => uptime(streams),
        Command::Free => free(streams),
        Command::Ps => ps(streams),
        Command::Dmesg => dmesg(streams),
        Command::Mounts => copy_file(c"/proc/mounts", streams),
        Command::Ifconfig => ifconfig(streams),
        Command::Ls(paths) => list(paths, streams),
        Command::Cat(paths) => cat(paths, streams),
        Command::Write { path, text } => write(path, text, streams),
        Command::Echo(text) => print(streams, format_args!("{text}\n")),
        Command::Sync => {
            // Without a journal, the kernel flushes the disk before it writes what
            // describes the files: that is flushed by the second.
            rustix::fs::sync();
            rustix::fs::sync();
            Ok(())
        }
        Command::Sh(command) => match shell::run(command, streams)? {
            0 => Ok(()),
            code => Err(Fault::Code(code)),
        },
        // PID 1's own; whoever calls this keeps them.
        Command::Heartbeat | Command::Identify(_) | Command::Poweroff | Command::Reboot => {
            streams.error(b"this command works only on the console\n")?;
            Err(Fault::Code(2))
        }
    }
}

fn print(streams: &mut dyn Streams, text: core::fmt::Arguments<'_>) -> Result<(), Fault> {
    let mut printer = Printer::new(streams);
    printer.print(text)?;
    Ok(printer.finish()?)
}

fn uptime(streams: &mut dyn Streams) -> Result<(), Fault> {
    let mut buffer = [0; 64];
    let seconds = crate::sys::clock::age_ms() / 1000;
    let load = read(c"/proc/loadavg", &mut buffer);
    print(
        streams,
        format_args!(
            "up {} days, {:02}:{:02}:{:02}, load average {} {} {}\n",
            seconds / 86400,
            seconds / 3600 % 24,
            seconds / 60 % 60,
            seconds % 60,
            word(load, 0),
            word(load, 1),
            word(load, 2)
        ),
    )
}

fn free(streams: &mut dyn Streams) -> Result<(), Fault> {
    let mut buffer = [0; 2048];
    let text = read(c"/proc/meminfo", &mut buffer);
    let value = |name| number(after(text, name), 0);
    let (total, available) = (value("MemTotal"), value("MemAvailable"));
    print(
        streams,
        format_args!(
            "{:>10} {:>10} {:>10} {:>10} {:>10}\n{:>10} {:>10} {:>10} {:>10} {:>10}\n",
            "total KiB",
            "used",
            "free",
            "slab",
            "available",
            total,
            total.saturating_sub(available),
            value("MemFree"),
            value("Slab"),
            available
        ),
    )
}

fn ps(streams: &mut dyn Streams) -> Result<(), Fault> {
    let mut printer = Printer::new(streams);
    printer.print(format_args!("  PID  PPID S  RSS KiB COMMAND\n"))?;
    for_each_process(&mut |pid| {
        let mut buffer = [0; 512];
        let path = proc_path(pid, "stat");
        let stat = read(path.as_c_str(), &mut buffer);
        // PID (NAME) STATE PPID …, and a name may hold anything.
        let Some((name, rest)) = stat
            .split_once('(')
            .and_then(|(_, rest)| rest.rsplit_once(')'))
        else {
            return Ok(());
        };
        printer.print(format_args!(
            "{pid:>5} {:>5} {} {:>8} {name}\n",
            word(rest, 1),
            word(rest, 0),
            number(rest, 21) * 4
        ))
    })?;
    Ok(printer.finish()?)
}

/// A file of /proc/PID.
pub(crate) fn proc_path(pid: u32, file: &str) -> crate::text::Path {
    crate::text::Path::new(format_args!("/proc/{pid}/{file}"))
}

/// Calls `each` with the number of every process.
pub(crate) fn for_each_process(each: &mut dyn FnMut(u32) -> Result<(), Gone>) -> Result<(), Fault> {
    let folder = open(c"/proc", OFlags::RDONLY | OFlags::DIRECTORY).context("/proc")?;
    for_each_entry(
        &folder,
        &mut |name, _| match digits(name).and_then(|pid| pid.try_into().ok()) {
            Some(pid) => each(pid),
            None => Ok(()),
        },
    )
}

fn dmesg(streams: &mut dyn Streams) -> Result<(), Fault> {
    let log = open(c"/dev/kmsg", OFlags::RDONLY | OFlags::NONBLOCK).context("/dev/kmsg")?;
    let mut printer = Printer::new(streams);
    let mut record = [0; 1024];
    loop {
        let length = match rustix::io::read(&log, &mut record) {
            Ok(length) => length,
            Err(Errno::AGAIN) => break,
            // Overwritten while it was read, or too long for the buffer.
            Err(Errno::PIPE | Errno::INVAL | Errno::INTR) => continue,
            Err(errno) => return Err(Failure::new("/dev/kmsg", errno).into()),
        };
        // PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT (kernel document
        // ABI/testing/dev-kmsg)
        let text = core::str::from_utf8(&record[..length]).unwrap_or_default();
        let Some((prefix, text)) = text.split_once(';') else {
            continue;
        };
        let time = digits(prefix.split(',').nth(2).unwrap_or_default()).unwrap_or_default();
        let line = text.split('\n').next().unwrap_or_default();
        printer.print(format_args!(
            "[{:>5}.{:06}] {line}\n",
            time / 1_000_000,
            time % 1_000_000
        ))?;
    }
    Ok(printer.finish()?)
}

fn ifconfig(streams: &mut dyn Streams) -> Result<(), Fault> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).context("socket")?;
    let mut buffer = [0; 2048];
    let statistics = read(c"/proc/net/dev", &mut buffer);
    let mut printer = Printer::new(streams);
    for (name, interface) in [("lo", Interface(c"lo")), ("eth0", Interface(c"eth0"))] {
        let Ok(flags) = interface.flags(&socket) else {
            continue;
        };
        let state = if flags & IFF_UP == 0 { "down" } else { "up" };
        printer.print(format_args!("{name}: {state}"))?;
        if let Ok(mac) = interface.mac(&socket) {
            for (index, byte) in mac.into_iter().enumerate() {
                let before = if index == 0 { " mac " } else { ":" };
                printer.print(format_args!("{before}{byte:02x}"))?;
            }
        }
        if let (Ok(address), Ok(mask)) = (interface.address(&socket), interface.netmask(&socket)) {
            for (index, byte) in address.octets().into_iter().enumerate() {
                let before = if index == 0 { " inet " } else { "." };
                printer.print(format_args!("{before}{byte}"))?;
            }
            printer.print(format_args!("/{}", u32::from(mask).count_ones()))?;
        }
        // NAME: BYTES PACKETS and six more received, then the same sent.
        let numbers = after(statistics, name);
        printer.print(format_args!(
            " rx {} bytes tx {} bytes\n",
            number(numbers, 0),
            number(numbers, 8)
        ))?;
    }
    Ok(printer.finish()?)
}

/// Calls `each` with the name and type of every entry of a folder.
fn for_each_entry(
    folder: &OwnedFd,
    each: &mut dyn FnMut(&str, FileType) -> Result<(), Gone>,
) -> Result<(), Fault> {
    let mut buffer = [const { core::mem::MaybeUninit::uninit() }; 2048];
    let mut entries = RawDir::new(folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.context("getdents")?;
        let name = entry.file_name().to_str().unwrap_or("?");
        if name != "." && name != ".." {
            each(name, entry.file_type())?;
        }
    }
    Ok(())
}

fn list(paths: Words<'_>, streams: &mut dyn Streams) -> Result<(), Fault> {
    for_each_path(paths, streams, &|path, streams| {
        let folder = match open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::NOTDIR) => {
                let mut printer = Printer::new(streams);
                printer.print(format_args!("{}\n", path.to_str().unwrap_or("?")))?;
                return Ok(printer.finish()?);
            }
            other => other.context("open")?,
        };
        let mut printer = Printer::new(streams);
        for_each_entry(&folder, &mut |name, kind| {
            let mark = match kind {
                FileType::Directory => "/",
                FileType::Symlink => "@",
                _ => "",
            };
            printer.print(format_args!("{name}{mark}\n"))
        })?;
        Ok(printer.finish()?)
    })
}

fn cat(paths: Words<'_>, streams: &mut dyn Streams) -> Result<(), Fault> {
    if paths.iter().next().is_some() {
        return for_each_path(paths, streams, &copy_file);
    }
    let mut block = [0; BLOCK];
    loop {
        let length = streams.input(&mut block)?;
        streams.output(&block[..length])?;
        if length < block.len() {
            return Ok(());
        }
    }
}

/// Does something for each path, or for `.`; goes on after a failure, and says
/// which it was.
fn for_each_path(
    paths: Words<'_>,
    streams: &mut dyn Streams,
    each: &dyn Fn(&CStr, &mut dyn Streams) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut code = 0;
    let fallback = paths.iter().next().is_none().then_some(".");
    for path in paths.iter().chain(fallback) {
        let mut buffer = [0; COMMAND_MAX + 1];
        match c_path(path, &mut buffer)
            .map_err(Fault::from)
            .and_then(|path| each(path, streams))
        {
            Ok(()) => {}
            Err(Fault::Failed(failure)) => {
                complain(streams, &format_args!("{path}: {failure}"))?;
                code = 1;
            }
            Err(fault) => return Err(fault),
        }
    }
    match code {
        0 => Ok(()),
        code => Err(Fault::Code(code)),
    }
}

fn copy_file(path: &CStr, streams: &mut dyn Streams) -> Result<(), Fault> {
    let file = open(path, OFlags::RDONLY).context("open")?;
    let mut block = [0; BLOCK];
    loop {
        match rustix::io::read(&file, &mut block) {
            Ok(0) => return Ok(()),
            Ok(length) => streams.output(&block[..length])?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::new("read", errno).into()),
        }
    }
}

fn write(path: &str, text: Option<&str>, streams: &mut dyn Streams) -> Result<(), Fault> {
    let mut buffer = [0; COMMAND_MAX + 1];
    let mode = Mode::from_raw_mode(0o644);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let written = c_path(path, &mut buffer)
        .and_then(|path| rustix::fs::open(path, flags, mode).context("open"));
    let written = match (written, text) {
        (Err(failure), _) => Err(failure),
        (Ok(file), Some(text)) => write_all(&file, text.as_bytes())
            .and_then(|()| write_all(&file, b"\n"))
            .context("write"),
        (Ok(file), None) => {
            let mut written = Ok(());
            streams.whole_input(&mut |bytes| {
                written = write_all(&file, bytes).context("write");
                written.is_ok()
            })?;
            written
        }
    };
    written.or_else(|failure| {
        complain(streams, &format_args!("{path}: {failure}"))?;
        Err(Fault::Code(1))
    })
}

fn open(path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
}

/// The path with a NUL at its end.
fn c_path<'b>(path: &str, buffer: &'b mut [u8; COMMAND_MAX + 1]) -> Result<&'b CStr, Failure> {
    if let Some(place) = buffer.get_mut(..path.len()) {
        place.copy_from_slice(path.as_bytes());
    }
    CStr::from_bytes_with_nul(buffer.get(..=path.len()).unwrap_or_default())
        .or(Err(Failure::new("path", Errno::INVAL)))
}
