//! Keeps canaries' results for as long as nothing that they depend on changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::host::canary::Canary;
use crate::host::snapshot::Ksm;
use crate::host::want::Want;
use crate::host_id::BootId;
use crate::vmm::Part;
use crate::vmm::qemu::Emulator;
use crate::vmm::qemu::argv::kind;
use crate::{durable, plain};

/// Shape of a kept result.
const SCHEMA: u32 = 3;
/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// What a canary's result depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    schema: u32,
    boot_id: BootId,
    artifacts: Sha256,
    qemu: Emulator,
    /// Digest of a guest's argv, which the accelerator, sharing, network and RAM
    /// are part of, and of how QEMU is asked for them.
    argv: Sha256,
    /// KSM's `run`, `pages_to_scan` and `sleep_millisecs`.
    ksm: Option<[Option<u64>; 3]>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: Key,
    canary: Canary,
}

impl Key {
    /// The key of a canary from the output folder whose manifest has the
    /// digest `artifacts`, run by `qemu` in the boot `boot_id`.
    pub(crate) fn new(
        boot_id: &BootId,
        artifacts: Sha256,
        qemu: &Emulator,
        want: &Want,
        ksm: Option<&Ksm>,
    ) -> Self {
        Self {
            schema: SCHEMA,
            boot_id: boot_id.clone(),
            artifacts,
            qemu: qemu.clone(),
            argv: kind(want.machine, &[Part::Overlay, Part::Base]),
            ksm: ksm.map(|ksm| [ksm.run, ksm.pages_to_scan, ksm.sleep_millisecs]),
        }
    }

    fn file(&self, cache: &Path) -> PathBuf {
        let text = serde_json::to_string(self).expect("a key is plain data");
        folder(cache).join(format!("{}.json", Sha256::of_bytes(text)))
    }

    /// The file to lock while a canary runs.
    pub(crate) fn lock(&self, cache: &Path) -> PathBuf {
        self.file(cache).with_extension("lock")
    }

    /// The result kept under this key. What cannot be read, or makes no sense,
    /// counts as not kept.
    pub(crate) fn load(&self, cache: &Path) -> Option<Canary> {
        let entry = read(&self.file(cache))?;
        (entry.key == *self).then_some(entry.canary)
    }

    /// Keeps a result, and removes those of other boots.
    pub(crate) fn store(&self, cache: &Path, canary: Canary) -> io::Result<()> {
        let folder = folder(cache);
        fs::create_dir_all(&folder)?;
        for path in fs::read_dir(&folder)?.flatten().map(|entry| entry.path()) {
            let outlived = path
                .extension()
                .is_some_and(|extension| extension == "json")
                && read(&path).is_none_or(|entry| entry.key.boot_id != self.boot_id);
            if outlived {
                fs::remove_file(&path)?;
                // Nobody waits for what no key leads to any more.
                let _ = fs::remove_file(path.with_extension("lock"));
            }
        }
        let entry = Entry {
            key: self.clone(),
            canary,
        };
        durable::replace(&self.file(cache), &serde_json::to_vec(&entry)?).map(drop)
    }
}

fn folder(cache: &Path) -> PathBuf {
    cache.join("canaries")
}

fn read(path: &Path) -> Option<Entry> {
    let text = plain::read_start(path, FILE_MAX + 1).ok()?;
    if text.len() as u64 > FILE_MAX {
        return None;
    }
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::canary::Merging;
    use crate::host::want::{Basis, Cost, GuestUsers};
    use crate::host_id::boot;
    use crate::vmm::{Accel, Machine, Net, Sharing};

    fn want() -> Want {
        let cost = Cost {
            basis: Basis::Measured,
            memory: 30 << 20,
            memory_merged: Some(22 << 20),
            memory_once: 26 << 20,
            threads: 4,
            kernel_threads: 0,
            files: 14,
            disk: 20_480,
        };
        Want {
            guests: None,
            first: 0,
            machine: Machine {
                accel: Accel::Tcg,
                sharing: Sharing::Guest,
                net: Net::User,
                memory: "64M".parse().unwrap(),
            },
            users: GuestUsers::Apart,
            cost,
        }
    }

    fn canary() -> Canary {
        Canary {
            ready_after: 0.5,
            cost: want().cost,
            merging: Merging::KsmStopped,
        }
    }

    fn qemu() -> Emulator {
        Emulator {
            path: PathBuf::from("/usr/bin/qemu-system-x86_64"),
            version: Some("QEMU 7.2".to_owned()),
            sha256: Sha256::of_bytes("QEMU"),
        }
    }

    fn key(number: u8) -> Key {
        on(number, &qemu())
    }

    fn on(number: u8, qemu: &Emulator) -> Key {
        Key::new(
            &boot(number),
            Sha256::of_bytes("manifest"),
            qemu,
            &want(),
            None,
        )
    }

    #[test]
    fn a_result_is_found_again_until_anything_it_depends_on_changes() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(key(1).load(cache.path()), None);
        key(1).store(cache.path(), canary()).unwrap();
        assert_eq!(key(1).load(cache.path()), Some(canary()));
        let manifest = Sha256::of_bytes("manifest");
        let other = |want| Key::new(&boot(1), manifest, &qemu(), &want, None);
        let on_another = |change: fn(&mut Machine)| {
            let mut want = want();
            change(&mut want.machine);
            other(want)
        };
        let running = Ksm {
            run: Some(1),
            ..Ksm::default()
        };
        for other in [
            key(2),
            Key::new(&boot(1), Sha256::of_bytes("other"), &qemu(), &want(), None),
            Key::new(&boot(1), manifest, &qemu(), &want(), Some(&running)),
            on(
                1,
                &Emulator {
                    version: Some("QEMU 8.0".to_owned()),
                    ..qemu()
                },
            ),
            // A build of one's own may tell the same version.
            on(
                1,
                &Emulator {
                    sha256: Sha256::of_bytes("another QEMU"),
                    ..qemu()
                },
            ),
            on(
                1,
                &Emulator {
                    path: PathBuf::from("/opt/qemu/qemu-system-x86_64"),
                    ..qemu()
                },
            ),
            on_another(|machine| machine.accel = Accel::Kvm),
            on_another(|machine| machine.sharing = Sharing::None),
            on_another(|machine| machine.net = Net::None),
            on_another(|machine| machine.memory = "32M".parse().unwrap()),
        ] {
            assert_eq!(other.load(cache.path()), None, "{other:?}");
        }
        // The number of guests changes nothing.
        assert!(
            other(Want {
                guests: Some(9),
                ..want()
            })
            .load(cache.path())
            .is_some()
        );
    }

    #[test]
    fn results_of_other_boots_go() {
        let cache = tempfile::tempdir().unwrap();
        key(1).store(cache.path(), canary()).unwrap();
        key(2).store(cache.path(), canary()).unwrap();
        assert_eq!(key(1).load(cache.path()), None);
        assert_eq!(key(2).load(cache.path()), Some(canary()));
        assert_eq!(fs::read_dir(folder(cache.path())).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_result_counts_as_none() {
        let cache = tempfile::tempdir().unwrap();
        let key = key(1);
        key.store(cache.path(), canary()).unwrap();
        let path = key.file(cache.path());
        let text = fs::read_to_string(&path).unwrap();
        let oversized = text.clone() + &" ".repeat(1 << 20) + "x";
        for damaged in ["", "{}", &text[..text.len() / 2], &oversized, "\0\0"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(key.load(cache.path()), None);
        }
        // A result moved to another key's place is not that key's.
        fs::write(&path, text.replace("QEMU 7.2", "QEMU 8.0")).unwrap();
        assert_eq!(key.load(cache.path()), None);
        key.store(cache.path(), canary()).unwrap();
        assert_eq!(key.load(cache.path()), Some(canary()));
    }
}
