//! What lets a user open a `/dev/kvm` that is refused for want of permission; pure.

use std::fmt;

use super::Access;

/// What lets a user open the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Its group may open it.
    JoinGroup(String),
    /// Only root may open it: by its mode, or because its group is root's.
    GiveToGroup(String),
    /// Everybody may open it, and is refused.
    LookAtRules(u32),
}

impl Remedy {
    /// By the device's mode, where that was seen, and the name of its group.
    pub(crate) fn of(access: Option<Access>, group: Option<&str>) -> Self {
        let mode = access.map_or(0o660, |access| access.mode);
        let rights = format!("mode {mode:04o}, group {}", group.unwrap_or("unknown"));
        let group = group.filter(|group| !["root", "0"].contains(group));
        match group {
            _ if mode & 0o006 == 0o006 => Self::LookAtRules(mode),
            Some(group) if mode & 0o060 == 0o060 => Self::JoinGroup(group.to_owned()),
            _ => Self::GiveToGroup(rights),
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JoinGroup(group) => write!(
                f,
                "join the group {group}, which may open it, and log out and in again: sudo usermod \
                 -aG {group} \"$USER\""
            ),
            Self::GiveToGroup(rights) => write!(
                f,
                "only root may open it ({rights}): give it to a group by a udev rule, KERNEL==\
                 \"kvm\", GROUP=\"kvm\", MODE=\"0660\", or until the next boot by sudo chgrp kvm \
                 /dev/kvm; sudo chmod 0660 /dev/kvm; then join that group, sudo usermod -aG kvm \
                 \"$USER\", and log out and in again"
            ),
            Self::LookAtRules(mode) => write!(
                f,
                "its mode {mode:04o} lets everybody open it, so a security module such as SELinux \
                 or AppArmor refuses: look for what it logged (sudo dmesg, ausearch -m avc)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_follows_from_mode_and_group() {
        let remedy = |mode, group| Remedy::of(Some(Access { mode, group: 1 }), group);
        let join = Remedy::JoinGroup("kvm".to_owned());
        assert_eq!(remedy(0o660, Some("kvm")), join);
        assert_eq!(Remedy::of(None, Some("kvm")), join);
        for (mode, group) in [
            (0o600, Some("kvm")),
            (0o640, Some("kvm")),
            (0o660, Some("root")),
            (0o660, Some("0")),
            (0o600, None),
        ] {
            let said = remedy(mode, group).to_string();
            let rights = format!("({:04o}, group {})", mode, group.unwrap_or("unknown"));
            assert!(said.contains(&rights[1..rights.len() - 1]), "{said}");
            assert!(said.contains("chmod 0660"), "{said}");
        }
        assert_eq!(remedy(0o666, Some("root")), Remedy::LookAtRules(0o666));
    }
}
