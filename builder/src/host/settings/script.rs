//! Prints what `--fix` would do as a shell script.

use std::fmt::Write as _;

use super::{Module, Setting, in_order};

const HEAD: &str = "#!/bin/sh
# What `imgbuild check --fix` would do on this host. Run it as root. It keeps no
# record: `imgbuild check --restore` puts nothing of it back, a reboot does.
set -eu
";

/// A POSIX shell script that loads `modules` and writes `settings`, in the order
/// in which `--fix` does.
pub(crate) fn script(settings: &[Setting], modules: &[Module]) -> String {
    let mut script = HEAD.to_owned();
    // A module's settings are there only once it is.
    for module in modules {
        let _ = write!(script, "\n# {}; no restore unloads it\n", module.purpose());
        let _ = writeln!(script, "modprobe {module}");
    }
    for Setting { knob, value } in in_order(settings) {
        let _ = writeln!(script, "\n# {}", knob.purpose());
        let _ = match (knob.sysctl(), knob.file()) {
            (Some(name), _) => writeln!(script, "sysctl -w {name}={value}"),
            (None, Some(file)) => writeln!(script, "echo {value} > /{file}"),
            // Kernel threads are the children of process 2.
            (None, None) => writeln!(script, "renice {value} -p \"$(pgrep -P 2 -x ksmd)\""),
        };
    }
    script
}
