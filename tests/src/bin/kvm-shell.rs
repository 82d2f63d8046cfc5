//! A shell in a machine with real KVM, which QEMU emulates: imgbuild is in its
//! PATH, and a guest's kernel at `/test/vmlinux`. `exit` ends it.

use std::process::ExitCode;

use clap::Parser;
use imgbuild_tests::TestEnv;
use imgbuild_tests::machine::{Machine, Release};

/// Brings KVM up, and a shell with job control on the console.
const SCRIPT: &str = r#"
exec </dev/ttyS0 >/dev/ttyS0 2>&1
kvm_module
echo "try: imgbuild tty-burn --kernel /test/vmlinux --out /root/out && imgbuild launch /root/out --count 3 --detach"
cd /root
busybox setsid -c busybox sh -i
busybox reboot -f
"#;

/// Open a shell in an emulated machine with real KVM.
#[derive(Parser)]
#[command(name = "kvm-shell", help_expected = true)]
struct Arguments {
    /// Boot Linux 6.4 or later, which can merge all of a process's memory
    #[arg(long)]
    sharing: bool,
}

fn main() -> ExitCode {
    let release = if Arguments::parse().sharing {
        Release::Backports
    } else {
        Release::Own
    };
    let env = TestEnv::new();
    let machine = Machine::with_kvm(&env, release);
    let mut qemu = machine.boots(SCRIPT);
    let status = qemu.args(["-serial", "mon:stdio"]).status();
    if status.is_ok_and(|status| status.success()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
