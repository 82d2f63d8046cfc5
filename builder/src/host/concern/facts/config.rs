//! The kernel's version and configuration.

use std::collections::BTreeMap;

use super::processor;
use crate::host::settings::Module;
use crate::host::snapshot::Host;

/// Options that are set, and to what.
pub(crate) type Config = BTreeMap<String, String>;

/// Whether the kernel is built with KVM for this CPU; `None` without a
/// configuration to read.
pub(crate) fn has_kvm(host: &Host) -> Option<bool> {
    let config = host.kernel.config.as_ref()?;
    Some(missing(config, &kvm_options(host)).is_empty())
}

/// Its version, the first two numbers of its release.
pub(crate) fn version(host: &Host) -> Option<(u32, u32)> {
    let mut numbers = host
        .kernel
        .release
        .as_deref()?
        .split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

/// The options of KVM for this CPU.
pub(crate) fn kvm_options(host: &Host) -> [&'static str; 2] {
    let vendor = match processor::vendor_module(host) {
        Module::KvmAmd => "CONFIG_KVM_AMD",
        Module::KvmIntel => "CONFIG_KVM_INTEL",
    };
    ["CONFIG_KVM", vendor]
}

/// Those of `options` that are neither built in nor modules.
pub(crate) fn missing<'a>(config: &Config, options: &[&'a str]) -> Vec<&'a str> {
    let set = |option: &str| matches!(config.get(option).map(String::as_str), Some("y" | "m"));
    let options = options.iter().copied();
    options.filter(|option| !set(option)).collect()
}
