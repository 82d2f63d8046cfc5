//! PID 1 of an imgbuild guest.
//!
//! It has no libc and no allocator, and wakes only when it has something to do:
//! thousands of these run on one host, so every waste counts thousands of times.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod burn;
mod console;
mod disk;
mod failure;
mod fw_cfg;
mod guest;
mod identify;
mod image_server;
mod job;
mod net;
mod output;
mod power;
mod prepared;
mod run;
mod server;
mod session;
mod shell;
mod status;
mod streams;
mod sys;
mod text;
mod userland;
mod wait;

use core::panic::PanicInfo;

use guest::Guest;
use text::Text;

/// Where `_start` leads.
extern "C" fn pid1() -> ! {
    sys::stack::begins_here();
    sys::fault::handle(fault);
    let mut guest = Guest::park();
    match guest.run() {
        Ok(end) => guest.console.end(end),
        Err(failure) => {
            let reason = Text::<128>::new(format_args!("{failure}"));
            guest.console.fatal(reason.as_str());
        }
    }
    power::off(&mut guest.console)
}

extern "C" fn fault(signal: i32) -> ! {
    let reason = Text::<32>::new(format_args!("signal {signal}"));
    power::died(reason.as_str())
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    let reason = Text::<128>::new(format_args!("panic at{}", sys::stack::Callers));
    power::died(reason.as_str())
}
