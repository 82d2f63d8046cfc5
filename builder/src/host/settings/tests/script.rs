use std::io::Write as _;
use std::process::{Command, Stdio};

use super::super::{Knob, Module, load_module, script};
use super::fake::{fast_ksm, setting};
use crate::interrupt::Interrupt;

fn sh_accepts(script: &str) -> bool {
    let mut sh = Command::new("sh")
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    sh.stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    sh.wait().unwrap().success()
}

#[test]
fn the_script_is_one_that_a_shell_takes() {
    let mut settings = fast_ksm().to_vec();
    settings.push(setting(Knob::PidMax, 50000));
    let script = script(&settings, &[Module::KvmIntel]);
    assert!(script.starts_with("#!/bin/sh\n"));
    assert!(sh_accepts(&script));
    assert!(!sh_accepts(&format!("{script}if")));
    let place = |line: &str| {
        let line = format!("\n{line}\n");
        script
            .find(&line)
            .unwrap_or_else(|| panic!("no {line} in {script}"))
    };
    let order = [
        "set -eu",
        "modprobe kvm_intel",
        "sysctl -w kernel.pid_max=50000",
        "echo 4096 > /sys/kernel/mm/ksm/max_page_sharing",
        "echo 0 > /sys/kernel/mm/ksm/merge_across_nodes",
        "echo 1 > /sys/kernel/mm/ksm/use_zero_pages",
        "echo 1 > /sys/kernel/mm/ksm/run",
    ];
    assert!(order.map(place).is_sorted(), "{script}");
}

#[test]
fn every_command_of_the_script_says_what_for() {
    let script = script(&fast_ksm(), &[Module::KvmIntel, Module::KvmAmd]);
    let mut lines = script.lines().skip_while(|line| *line != "set -eu").skip(1);
    let mut commands = 0;
    while let Some(line) = lines.next() {
        if line.starts_with("# ") {
            assert!(!lines.next().unwrap().starts_with('#'));
            commands += 1;
        } else {
            assert_eq!(line, "");
        }
    }
    assert_eq!(commands, 7);
}

#[test]
fn a_module_that_cannot_be_loaded_says_why() {
    // No test loads a module; without modprobe, or without root, none can be.
    let installed = Command::new("modprobe").arg("--version").output().is_ok();
    let root = rustix::process::geteuid().is_root();
    if installed && root {
        eprintln!("SKIPPED: modprobe is installed, and might load the module");
        return;
    }
    let error = load_module(Module::KvmIntel, &Interrupt::never().unwrap()).unwrap_err();
    let hint = if root { "apt install kmod" } else { "as root" };
    assert!(error.to_string().contains(hint), "{error}");
}
