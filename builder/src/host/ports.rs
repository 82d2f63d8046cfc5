//! TCP ports of the loopback interface.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::path::Path;

/// The file that holds them, below a root.
pub(crate) const RANGE: &str = "proc/sys/net/ipv4/ip_local_port_range";

/// What the kernel has by default (Linux's
/// Documentation/networking/ip-sysctl).
const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;

/// The ports from which the kernel of the machine under `root` serves those
/// who do not ask for one.
pub(crate) fn ephemeral(root: &Path) -> RangeInclusive<u16> {
    fs::read_to_string(root.join(RANGE))
        .ok()
        .and_then(|text| parse(&text))
        .unwrap_or(EPHEMERAL)
}

/// The first and the last of two ports.
pub(crate) fn parse(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_ascii_whitespace().map(str::parse);
    match (words.next(), words.next(), words.next()) {
        (Some(Ok(low)), Some(Ok(high)), None) if low <= high => Some(low..=high),
        _ => None,
    }
}

/// The first port that needs no privilege (ip(7)).
pub(crate) const FIRST: u16 = 1024;

/// The ports that need no privilege and that the kernel, which serves `kernel`,
/// gives to nobody.
pub(crate) fn usable(kernel: &RangeInclusive<u16>) -> impl Iterator<Item = u16> {
    (FIRST..=u16::MAX).filter(|port| !kernel.contains(port))
}

/// Whether this process could listen on `port` of 127.0.0.1 now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_the_default() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(ephemeral(root.path()), EPHEMERAL);
        let folder = root.path().join("proc/sys/net/ipv4");
        fs::create_dir_all(&folder).unwrap();
        for (text, range) in [
            ("20000\t40000\n", 20000..=40000),
            ("1 65535", 1..=65535),
            ("40000\t20000\n", EPHEMERAL),
            ("20000\n", EPHEMERAL),
            ("20000 40000 60000", EPHEMERAL),
            ("20000 65536", EPHEMERAL),
            ("", EPHEMERAL),
        ] {
            fs::write(folder.join("ip_local_port_range"), text).unwrap();
            assert_eq!(ephemeral(root.path()), range, "{text:?}");
        }
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_taken() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        drop(listener);
        assert!(is_free(port));
    }
}
