//! What is the same in every guest, done before the identity is known: a template is
//! cloned when all of it is.

use core::hint::black_box;

use rustix::rand::{GetRandomFlags, getrandom};
use tty_init::parameters::Parameters;

use crate::console::Console;
use crate::failure::{Context, Failure};
use crate::identify::Sources;
use crate::net::Interfaces;
use crate::server::Port;
use crate::userland;

/// More bytes of stack than `identify` takes.
const STACK: usize = 16 * 1024;

/// What `identify` finds done. It holds nothing of the identity or the disk.
pub(crate) struct Prepared {
    pub sources: Sources,
    pub interfaces: Interfaces,
    /// The port of init's own SSH server, unless the image's serves.
    pub port: Option<Result<Port, Failure>>,
    /// What the recipe has the guest run.
    pub command: Option<userland::Command>,
}

impl Prepared {
    /// Does what every guest does first.
    pub(crate) fn new(parameters: &Parameters, console: &mut Console) -> Self {
        let interfaces = Interfaces::open(console);
        if !parameters.root_on_disk {
            userland::furnish(console);
        }
        Self {
            sources: Sources::open(),
            interfaces,
            port: (!parameters.image_serves_ssh).then(Port::bind),
            // Before the root is switched: it lies beside init.
            command: userland::Command::read(),
        }
    }

    /// Does besides what a template does for its clones.
    pub(crate) fn poise(&self, console: &mut Console) {
        self.interfaces.bring_up_eth0(console);
        // Waits until the kernel has random numbers, so that no clone has to make them
        // ready: its identity's entropy goes to a generator that runs.
        if let Err(failure) = getrandom(&mut [0; 1], GetRandomFlags::empty()).context("getrandom") {
            console.log(format_args!("{failure}"));
        }
        touch_stack();
    }
}

/// Has the kernel give a template the pages of stack that its clones use.
#[inline(never)]
fn touch_stack() {
    black_box([0_u8; STACK]);
}
