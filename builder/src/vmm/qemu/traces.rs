//! What the command line of a process says to those who look for guests. A zero byte
//! ends each argument.

use tty_init::identity::FW_CFG_NAME;

use super::argv::{FW_CFG, UUID};
use crate::sample::processes::values;

/// The UUIDs that it gives to machines.
pub(crate) fn uuids(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    values(line, UUID.as_bytes())
}

/// Whether it hands a guest of imgbuild's an identity. The name alone may be in
/// that of who looks for guests.
pub(crate) fn has_identity(line: &[u8]) -> bool {
    values(line, FW_CFG.as_bytes()).any(names_identity)
}

fn names_identity(value: &[u8]) -> bool {
    value
        .strip_prefix(b"name=")
        .and_then(|rest| rest.strip_prefix(FW_CFG_NAME.as_bytes()))
        .is_some_and(|rest| rest.starts_with(b","))
}

#[cfg(test)]
mod tests {
    use super::super::argv::argv;
    use super::*;
    use crate::kernel::Format;
    use crate::vmm::{Accel, GuestSpec, Machine, Net, Outbound, Part, Sharing};

    #[test]
    fn a_guest_is_known_by_the_arguments_that_it_is_started_with() {
        let uuid = "abababab-abab-abab-abab-abab00000007";
        let guest = GuestSpec {
            id: "g00007".to_owned(),
            uuid: Some(uuid.to_owned()),
            machine: Machine {
                accel: Accel::Tcg,
                sharing: Sharing::None,
                net: Net::None,
                memory: "64M".parse().unwrap(),
            },
            kernel_format: Format::Elf,
            command_line: String::new(),
            ssh_port: None,
            outbound: Outbound::Closed,
        };
        let line = |parts: &[Part]| {
            let arguments = argv(&guest, parts).into_iter();
            let texts = arguments.map(|argument| argument.into_string().unwrap() + "\0");
            texts.collect::<String>().into_bytes()
        };
        let known = line(&[Part::Kernel, Part::Identity]);
        assert_eq!(uuids(&known).collect::<Vec<_>>(), [uuid.as_bytes()]);
        assert!(has_identity(&known));
        assert!(!has_identity(&line(&[Part::Kernel])));
    }

    #[test]
    fn who_looks_for_guests_is_none() {
        let searched = format!("grep\0name={FW_CFG_NAME},file=x\0-uuid\0");
        assert!(!has_identity(searched.as_bytes()));
        assert_eq!(uuids(searched.as_bytes()).collect::<Vec<_>>(), [b""]);
        let other = format!("qemu\0-fw_cfg\0name={FW_CFG_NAME}x,file=x\0");
        assert!(!has_identity(other.as_bytes()));
    }
}
