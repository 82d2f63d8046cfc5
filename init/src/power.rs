//! How a guest ends.

use core::sync::atomic::{AtomicBool, Ordering};

use rustix::process::getpid;
use rustix::system::{RebootCommand, reboot};
use rustix::thread::{Timespec, nanosleep};

use crate::console::Console;
use crate::sys::process;
use crate::{burn, disk, userland};

static DEAD: AtomicBool = AtomicBool::new(false);

/// Ends the guest with its disk clean and its last lines sent.
pub(crate) fn off(console: &mut Console) -> ! {
    burn::stop();
    userland::end();
    disk::unmount();
    console.drain();
    restart()
}

/// Says why, from a panic or a fault anywhere, and ends the guest, or only the
/// process that it made for a connection or a command.
pub(crate) fn died(reason: &str) -> ! {
    if !process::is_init() {
        Console::open().log(format_args!(
            "process {} died: {reason}",
            getpid().as_raw_nonzero()
        ));
        process::exit(1);
    }
    if DEAD.swap(true, Ordering::Relaxed) {
        restart();
    }
    let mut console = Console::open();
    // The old console may have stopped within a line: this one ends it.
    console.log(format_args!("PID 1 died"));
    console.fatal(reason);
    off(&mut console)
}

/// Restarts the machine, which QEMU's `-no-reboot` makes the VM's end: without
/// ACPI there is no power to switch off.
fn restart() -> ! {
    loop {
        let _ = reboot(RebootCommand::Restart);
        // Refused by nothing that we know of; PID 1 must not return.
        let _ = nanosleep(&Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
    }
}
