//! QEMU.

use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::{Host, Qemu};
use crate::host::want::Want;

const QEMU: Check = Check {
    id: "qemu",
    document: "https://www.qemu.org/docs/master/system/index.html",
};
const MICROVM: Check = Check {
    id: "microvm",
    document: "https://www.qemu.org/docs/master/system/i386/microvm.html",
};

/// A version of QEMU: major and minor.
type Version = (u32, u32);

/// The oldest that imgbuild is tested with. Before 7.1 none takes all the
/// options that it gives, such as `main-loop,thread-pool-max=`.
const TESTED: Version = (7, 2);

/// Judges QEMU.
pub fn judge(host: &Host, _want: &Want) -> Vec<Finding> {
    let need = "7.2 or later";
    let package = Fix::manual(
        Needs::Package,
        "install QEMU for x86 (Debian: apt install qemu-system-x86; Fedora: dnf install \
         qemu-system-x86-core)",
    );
    let unusable = |value: String, meaning: &str| {
        let finding = QEMU.finds(Severity::Blocker, value, need, meaning);
        vec![finding.mended_by(package.clone())]
    };
    match &host.qemu {
        Qemu::Missing => unusable("missing".to_owned(), "There is nothing to run guests with."),
        Qemu::Broken { why } => unusable(
            format!("does not work: {why}"),
            "A QEMU that cannot even tell its version runs no guest.",
        ),
        Qemu::Found { version, microvm } => {
            let (severity, meaning) = match parse(version) {
                Some(parsed) if parsed >= TESTED => {
                    (Severity::Ok, "It runs guests as imgbuild's tests do.")
                }
                Some(_) => (
                    Severity::Blocker,
                    "It lacks options that every guest is started with, such as the main loop's \
                     thread-pool-max.",
                ),
                None => (
                    Severity::Advice,
                    "It does not say its version as QEMU does; it may be something else.",
                ),
            };
            vec![
                QEMU.finds(severity, version, need, meaning)
                    .mended_by(package),
                judge_microvm(*microvm),
            ]
        }
    }
}

fn judge_microvm(there: bool) -> Finding {
    let (severity, value) = if there {
        (Severity::Ok, "present")
    } else {
        (Severity::Blocker, "absent")
    };
    MICROVM
        .finds(
            severity,
            value,
            "the machine type microvm",
            "Every guest runs on this board, which has no firmware and no PCI to wait for.",
        )
        .mended_by(Fix::manual(
            Needs::Package,
            "install a QEMU built with CONFIG_MICROVM, as Debian's qemu-system-x86 and Fedora's \
             qemu-system-x86-core are",
        ))
}

/// The version in `QEMU emulator version 7.2.19 (Debian …)`.
fn parse(line: &str) -> Option<Version> {
    let version = line.strip_prefix("QEMU emulator version ")?;
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let read = |version| parse(&format!("QEMU emulator version {version}"));
        assert_eq!(read("7.2.19 (Debian 1:7.2+dfsg-7)"), Some((7, 2)));
        assert_eq!(read("10.0.50"), Some((10, 0)));
        assert!(read("10.0") > read("7.2"));
        for garbled in ["", "7", "x.y", ".", "99999999999.1"] {
            assert_eq!(read(garbled), None, "{garbled}");
        }
        assert_eq!(parse("qemu 7.2"), None);
    }
}
