//! Opens a guest's files, hands them to its VMM, and starts that.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::Site;
use super::artifact::named;
use super::error::SpawnError;
use crate::disk::overlay::write_overlays;
use crate::fleet::site::socket::listener;
use crate::interrupt::Interrupt;
use crate::net::tap;
use crate::placement::Prepared;
use crate::store::identity;
use crate::units::{GuestIndex, GuestRange};
use crate::vmm::running::Running;
use crate::vmm::{Confinement, Disk, Files, Net, hand_over, qemu};

impl Site {
    /// Opens what a guest is handed. Its console listens from here on.
    pub fn files(&self, guest: GuestIndex) -> Result<Files, SpawnError> {
        let overlay = self.folder.overlay(guest);
        if !overlay.exists() {
            tracing::warn!(
                "{} is gone: {guest} gets a new, empty one",
                overlay.display()
            );
            let interrupt = Interrupt::never()?;
            write_overlays(
                &self.folder.overlays(),
                GuestRange::one(guest),
                &self.overlay,
                &interrupt,
                || {},
            )
            .map_err(io::Error::other)?;
        }
        let next = identity::for_next_start(&self.identity(guest)?).map_err(io::Error::from)?;
        let identity = self
            .folder
            .write_identity(guest, next.encode().as_slice())
            .map_err(io::Error::other)?;
        if let Some(uid) = self.uid(guest) {
            hand_over(&identity, uid).map_err(|error| named(&identity, &error))?;
        }
        let open = |path: &Path, options: &OpenOptions| {
            options.open(path).map_err(|error| named(path, &error))
        };
        let listen = |path: &Path| {
            listener(path).map_err(|error| match (error.kind(), path.parent()) {
                (io::ErrorKind::NotFound, Some(folder)) => SpawnError::NoRuntimeFolder {
                    path: folder.to_path_buf(),
                },
                _ => named(path, &error).into(),
            })
        };
        Ok(Files {
            kernel: self.kernel.shared()?,
            initramfs: self.initramfs.shared()?,
            ram: self.source().ram()?,
            disk: Some(Disk {
                overlay: open(&overlay, OpenOptions::new().read(true).write(true))?,
                base: self.base.again()?,
            }),
            identity: Some(open(&identity, OpenOptions::new().read(true))?),
            console: listen(&self.folder.socket(&self.folder.console(guest)))?,
            monitor: listen(&self.folder.socket(&self.folder.monitor(guest)))?,
            errors: open(
                &self.folder.error(guest),
                OpenOptions::new().append(true).create(true).mode(0o600),
            )?,
            tap: match (self.spec.machine.net, self.spec.tap_subnet) {
                (Net::Tap, Some(_)) => Some(tap::open(self.spec.instance, guest)?),
                (Net::Tap, None) => Some(tap::open_on_trial()?),
                (Net::User | Net::None, _) => None,
            },
        })
    }

    pub(crate) fn spawn(&self, guest: GuestIndex) -> Result<Running, SpawnError> {
        self.look_at_qemu()?;
        let files = self.files(guest)?;
        let socket = self.folder.console(guest);
        let console = UnixStream::connect(&socket).map_err(|error| named(&socket, &error))?;
        let prepared = self
            .placement
            .as_ref()
            .map(|placement| placement.prepared(guest.get()));
        let in_child = || prepared.as_ref().map_or(Ok(()), Prepared::in_child);
        // What it said in an earlier life is not judged again.
        let said = files.errors.metadata();
        let said = said.map_err(|error| named(&self.folder.error(guest), &error))?;
        let child = qemu::spawn(
            &self.spec.qemu.path,
            &self.guest_spec(guest),
            files,
            &Confinement {
                lifetime: self.lifetime,
                uid: self.uid(guest),
                extra: Some(&in_child),
            },
        );
        child
            .and_then(|child| Running::started(child, console, said.len(), self.lifetime))
            .map_err(SpawnError::Process)
    }
}
