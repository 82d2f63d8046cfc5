//! Copy-on-write overlays, one a guest, written by the thousand.
//!
//! All overlays of a batch have the same bytes, so they are laid out once, and each
//! costs one file creation and a few small writes. Hard links would be cheaper but
//! wrong, because guests write to their overlays.
//!
//! Attach them with QEMU's `cache=unsafe`. In any other mode QEMU flushes to the
//! host's disk before it links a new table, which takes 2 ms for each scattered
//! write and protects data that nobody keeps.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, open, openat, unlinkat};

use crate::disk::qcow2::{Backing, Geometry, Qcow2Error, SmallImage, overlay_image};
use crate::interrupt::Interrupt;
use crate::units::{ByteSize, GuestIndex, GuestRange};

/// The file name of a guest's overlay: `00000.qcow2` is g00000's.
pub(crate) fn name(guest: GuestIndex) -> String {
    format!("{:05}.qcow2", guest.get())
}

/// Why overlays were not written.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// No such image can be laid out.
    #[error(transparent)]
    Layout(#[from] Qcow2Error),
    /// The folder for them cannot be opened.
    #[error("cannot open the folder for overlays, {}: {source}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One of them could not be written.
    #[error(
        "cannot write the overlay {}: {source}; \
         {written} of {wanted} had been written, and were removed again", path.display()
    )]
    Write {
        /// The overlay.
        path: PathBuf,
        /// How many were complete by then.
        written: u32,
        /// How many were asked for.
        wanted: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The user asked to stop.
    #[error("interrupted after {written} of {wanted} overlays, which were removed again")]
    Interrupted {
        /// How many were complete by then.
        written: u32,
        /// How many were asked for.
        wanted: u32,
    },
}

/// The content of an overlay, laid out and ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    image: SmallImage,
}

impl Overlay {
    /// An overlay of `virtual_size` over `backing`, which must be as large.
    pub fn new(backing: &Backing, virtual_size: ByteSize) -> Result<Self, Qcow2Error> {
        let geometry = Geometry::of_overlay(virtual_size)?;
        Ok(Self {
            image: overlay_image(geometry, backing),
        })
    }
}

/// Writes `overlay` into `dir` once for each of `guests`, and calls `on_written`
/// after each.
///
/// A file that is already there is an error and stays as it was. On any error
/// the overlays that this call wrote are removed.
pub fn write_overlays(
    dir: &Path,
    guests: GuestRange,
    overlay: &Overlay,
    interrupt: &Interrupt,
    mut on_written: impl FnMut(),
) -> Result<(), OverlayError> {
    let folder = open(
        dir,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| OverlayError::Folder {
        dir: dir.to_owned(),
        source: errno.into(),
    })?;
    let wanted = guests.count();
    let mut written = 0;
    let outcome = guests.iter().try_for_each(|guest| {
        if interrupt.requested() {
            return Err(OverlayError::Interrupted { written, wanted });
        }
        let name = name(guest);
        write_image(&folder, &name, &overlay.image).map_err(|source| OverlayError::Write {
            path: dir.join(&name),
            written,
            wanted,
            source,
        })?;
        written += 1;
        on_written();
        Ok(())
    });
    if outcome.is_err() {
        for guest in guests.iter().take(written as usize) {
            // The error that ended the batch is the one worth reporting.
            let _ = unlinkat(&folder, name(guest), AtFlags::empty());
        }
    }
    outcome
}

/// Creates the file `name`; removes it again when it cannot be filled.
fn write_image(folder: impl AsFd, name: &str, image: &SmallImage) -> io::Result<()> {
    /// Before the umask takes its part.
    const MODE: Mode = Mode::from_raw_mode(0o644);

    let file = File::from(openat(
        &folder,
        name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
        MODE,
    )?);
    let write = || {
        for extent in &image.extents {
            file.write_all_at(&extent.bytes, extent.offset)?;
        }
        file.set_len(image.length)
    };
    write().inspect_err(|_| {
        // The error of the write is the one worth reporting.
        let _ = unlinkat(&folder, name, AtFlags::empty());
    })
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
        process::Command,
    };

    use super::*;
    use crate::{disk::tool, rights, units::MAX_GUESTS};

    /// A folder with `base.qcow2` of `size` and an empty `overlays/`.
    fn folder(size: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("overlays")).unwrap();
        let base = dir.path().join("base.qcow2");
        let create = ["create", "-q", "-f", "qcow2"].map(OsStr::new);
        tool::run(
            "qemu-img",
            create.into_iter().chain([base.as_ref(), size.as_ref()]),
        );
        dir
    }

    fn overlay(size: &str) -> Overlay {
        let backing = Backing::new("../base.qcow2").unwrap();
        Overlay::new(&backing, size.parse().unwrap()).unwrap()
    }

    fn write(dir: &Path, count: u32, size: &str) -> Result<(), OverlayError> {
        let guests = GuestRange::first(count).unwrap();
        let interrupt = Interrupt::never().unwrap();
        write_overlays(dir, guests, &overlay(size), &interrupt, || {})
    }

    fn check(image: &Path) {
        let text = tool::run("qemu-img", [OsStr::new("check"), image.as_ref()]);
        assert!(text.contains("No errors were found"), "{text}");
    }

    fn qemu_io(image: &Path, commands: &[&str]) {
        let args = ["-f", "qcow2"].into_iter();
        let args = args.chain(commands.iter().flat_map(|command| ["-c", command]));
        let args = args.map(OsStr::new).chain([image.as_ref()]);
        let text = tool::run("qemu-io", args);
        assert!(!text.contains("failed"), "{text}");
    }

    #[test]
    fn overlays_of_every_size_pass_the_check_and_take_16_kib() {
        for size in ["512", "4608", "1G", "5G", "100G", "600G", "2T", "4T"] {
            let dir = folder(size);
            let overlays = dir.path().join("overlays");
            write(&overlays, 2, size).unwrap();
            for name in ["00000.qcow2", "00001.qcow2"] {
                let path = overlays.join(name);
                check(&path);
                let meta = fs::metadata(&path).unwrap();
                assert!(
                    meta.blocks() * 512 <= 16 * 1024,
                    "{size}: {}",
                    meta.blocks()
                );
            }
            let chain = [OsStr::new("info"), OsStr::new("--backing-chain")];
            let first = overlays.join("00000.qcow2");
            let text = tool::run("qemu-img", chain.into_iter().chain([first.as_ref()]));
            let bytes = format!("({} bytes)", size.parse::<ByteSize>().unwrap().bytes());
            assert_eq!(text.matches(&bytes).count(), 2, "{text}");
            assert!(text.contains("backing file: ../base.qcow2"), "{text}");
            assert!(text.contains("backing file format: qcow2"), "{text}");
        }
    }

    #[test]
    fn a_guest_writes_to_its_overlay_alone_wherever_the_folder_is() {
        let dir = folder("1G");
        qemu_io(&dir.path().join("base.qcow2"), &["write -P 1 0 64k"]);
        write(&dir.path().join("overlays"), 2, "1G").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let moved = elsewhere.path().join("moved");
        fs::rename(dir.path(), &moved).unwrap();

        let [first, second] =
            ["00000.qcow2", "00001.qcow2"].map(|n| moved.join("overlays").join(n));
        let writes = [
            "write -P 2 4k 4k",
            "write -P 3 1023M 1M",
            "write -P 4 511k 3k",
        ];
        qemu_io(&first, &writes);
        let own = ["read -P 1 0 4k", "read -P 2 4k 4k", "read -P 1 8k 56k"];
        qemu_io(
            &first,
            &[&own[..], &["read -P 3 1023M 1M", "read -P 4 511k 3k"]].concat(),
        );
        qemu_io(&second, &["read -P 1 0 64k", "read -P 0 64k 1M"]);
        check(&first);
        check(&second);
    }

    /// Names the folder in which a test that runs itself again does its work.
    const CHILD: &str = "IMGBUILD_TEST_DIR";

    /// Runs the named test of this module again with [`CHILD`] set to `dir`,
    /// behind a shell script that ends in `exec "$@"`.
    fn run_again(name: &str, dir: &Path, program: &str, options: &[&str], script: &str) {
        let status = Command::new(program)
            .args(options)
            .args(["-c", script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("disk::overlay::tests::{name}")])
            .env(CHILD, dir)
            .status();
        let status = status.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(status.success(), "{name} failed in its child");
    }

    #[test]
    fn overlays_are_separate_files_of_the_modes_that_the_umask_leaves() {
        if let Some(dir) = std::env::var_os(CHILD) {
            return write(Path::new(&dir), 3, "1G").unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        // The umask belongs to the whole process, so a process of its own sets it.
        run_again(
            "overlays_are_separate_files_of_the_modes_that_the_umask_leaves",
            dir.path(),
            "sh",
            &[],
            "umask 027; exec \"$@\"",
        );
        for index in 0..3 {
            let name = name(GuestIndex::new(index).unwrap());
            let meta = fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!(
                (meta.permissions().mode() & 0o7777, meta.nlink()),
                (0o640, 1)
            );
        }
    }

    #[test]
    fn a_full_disk_names_the_file_and_leaves_nothing_behind() {
        let Some(dir) = std::env::var_os(CHILD) else {
            if !rights::has_namespaces() {
                return;
            }
            let dir = tempfile::tempdir().unwrap();
            return run_again(
                "a_full_disk_names_the_file_and_leaves_nothing_behind",
                dir.path(),
                "unshare",
                &["--map-root-user", "--mount", "sh"],
                "mount -t tmpfs -o size=64k none \"$IMGBUILD_TEST_DIR\" && exec \"$@\"",
            );
        };
        let error = write(Path::new(&dir), 10, "1G").unwrap_err().to_string();
        // Eight overlays of 8 KiB fit, a ninth does not.
        assert!(error.contains("/00008.qcow2: No space left"), "{error}");
        assert!(error.contains("8 of 10 had been written"), "{error}");
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    }

    #[test]
    fn what_is_already_there_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("00002.qcow2"), "mine").unwrap();
        let error = write(dir.path(), 5, "1G").unwrap_err().to_string();
        assert!(error.contains("/00002.qcow2: File exists"), "{error}");
        assert!(error.contains("2 of 5"), "{error}");
        assert_eq!(fs::read(dir.path().join("00002.qcow2")).unwrap(), b"mine");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_missing_or_closed_to_us_is_named() {
        let missing = write(Path::new("/nonexistent/overlays"), 1, "1G").unwrap_err();
        assert!(
            missing
                .to_string()
                .contains("/nonexistent/overlays: No such file")
        );
        // Not even root creates files in sysfs.
        let closed = write(Path::new("/sys"), 1, "1G").unwrap_err();
        assert!(
            closed.to_string().contains("/sys/00000.qcow2: "),
            "{closed}"
        );
    }

    #[test]
    fn an_interruption_removes_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::never().unwrap();
        let mut seen = 0;
        let guests = GuestRange::first(MAX_GUESTS).unwrap();
        let outcome = write_overlays(dir.path(), guests, &overlay("1G"), &interrupt, || {
            seen += 1;
            if seen == 3 {
                interrupt.raise();
            }
        });
        assert!(matches!(
            outcome,
            Err(OverlayError::Interrupted {
                written: 3,
                wanted: MAX_GUESTS
            })
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
