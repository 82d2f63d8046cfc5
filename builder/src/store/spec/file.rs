//! The versioned form of a [`FleetSpec`] in the file `spec.json`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{FleetSpec, HostSettings};
use crate::any_path;
use crate::digest::Sha256;
use crate::guest::admission::AdmissionSpec;
use crate::guest::{BurnAt, Restart};
use crate::host_id::HostId;
use crate::net::tap::Subnet;
use crate::placement::PlacementSpec;
use crate::recipe::SshServer;
use crate::template::Fingerprint;
use crate::units::{ByteSize, Duty, GuestIndex, GuestIndexError, GuestRange, Instance};
use crate::vmm::qemu::Emulator;
use crate::vmm::{Accel, Machine, Net, Outbound, Sharing};

/// The version of this document.
pub const SPEC_VERSION: u32 = 2;

/// The document; what a field means stands at the fleet's own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::store) struct SpecFile {
    spec_version: u32,
    name: String,
    instance: Instance,
    host: HostId,
    #[serde(with = "any_path")]
    runtime: PathBuf,
    #[serde(with = "any_path")]
    out: PathBuf,
    artifacts: Sha256,
    qemu: Emulator,
    count: u32,
    #[serde(default, skip_serializing_if = "GuestIndex::is_first")]
    first: GuestIndex,
    #[serde(default)]
    at_most: u32,
    accel: Accel,
    sharing: Sharing,
    net: Net,
    outbound: bool,
    tap_subnet: Option<Subnet>,
    memory: ByteSize,
    command_line: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<Fingerprint>,
    burn: Duty,
    burn_at: BurnAt,
    restart: Restart,
    health: Option<Duration>,
    boot_timeout: Duration,
    authorized_key: Option<[u8; 32]>,
    #[serde(with = "any_path::option")]
    identity_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "SshServer::is_default")]
    ssh_server: SshServer,
    ports: Vec<u16>,
    admission: AdmissionSpec,
    placement: PlacementSpec,
    run_as_base: Option<u32>,
    #[serde(default, skip_serializing_if = "HostSettings::are_kept")]
    settings: HostSettings,
    metrics: Option<SocketAddr>,
    keep: Option<Duration>,
    until: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unfinished: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    forced: Vec<String>,
}

impl From<FleetSpec> for SpecFile {
    fn from(spec: FleetSpec) -> Self {
        Self {
            spec_version: SPEC_VERSION,
            name: spec.name,
            instance: spec.instance,
            host: spec.host,
            runtime: spec.runtime,
            out: spec.out,
            artifacts: spec.artifacts,
            qemu: spec.qemu,
            count: spec.guests.count(),
            first: spec.guests.begin(),
            accel: spec.machine.accel,
            sharing: spec.machine.sharing,
            net: spec.machine.net,
            outbound: spec.outbound == Outbound::Open,
            tap_subnet: spec.tap_subnet,
            memory: spec.machine.memory,
            command_line: spec.command_line,
            template: spec.template,
            burn: spec.burn,
            burn_at: spec.burn_at,
            restart: spec.restart,
            health: spec.health,
            boot_timeout: spec.boot_timeout,
            authorized_key: spec.authorized_key,
            identity_file: spec.identity_file,
            ssh_server: spec.ssh_server,
            ports: spec.ports,
            admission: spec.admission,
            placement: spec.placement,
            run_as_base: spec.run_as_base,
            settings: spec.settings,
            metrics: spec.metrics,
            keep: spec.keep,
            until: spec.until,
            at_most: spec.at_most,
            unfinished: spec.unfinished,
            forced: spec.forced,
        }
    }
}

impl TryFrom<SpecFile> for FleetSpec {
    type Error = GuestIndexError;

    fn try_from(file: SpecFile) -> Result<Self, Self::Error> {
        Ok(Self {
            name: file.name,
            instance: file.instance,
            host: file.host,
            runtime: file.runtime,
            out: file.out,
            artifacts: file.artifacts,
            qemu: file.qemu,
            guests: GuestRange::starting_at(file.first, file.count)?,
            machine: Machine {
                accel: file.accel,
                sharing: file.sharing,
                net: file.net,
                memory: file.memory,
            },
            outbound: file.outbound.into(),
            tap_subnet: file.tap_subnet,
            command_line: file.command_line,
            template: file.template,
            burn: file.burn,
            burn_at: file.burn_at,
            restart: file.restart,
            health: file.health,
            boot_timeout: file.boot_timeout,
            authorized_key: file.authorized_key,
            identity_file: file.identity_file,
            ssh_server: file.ssh_server,
            ports: file.ports,
            admission: file.admission,
            placement: file.placement,
            run_as_base: file.run_as_base,
            settings: file.settings,
            metrics: file.metrics,
            keep: file.keep,
            until: file.until,
            at_most: file.at_most,
            unfinished: file.unfinished,
            forced: file.forced,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::folder::tests::spec;

    #[test]
    fn the_document_is_that_of_version_2_and_tells_all_of_a_fleet() {
        let spec = FleetSpec {
            tap_subnet: Some("10.9.0.0/24".parse().unwrap()),
            identity_file: Some("/root/.ssh/id_ed25519".into()),
            outbound: Outbound::Open,
            run_as_base: Some(70_000),
            ssh_server: SshServer::Image,
            settings: HostSettings::Fixed,
            at_most: 0,
            unfinished: true,
            ..spec("web", 2)
        };
        let document = serde_json::to_value(SpecFile::from(spec.clone())).unwrap();
        for (field, value) in [
            ("spec_version", json!(2)),
            ("accel", json!("tcg")),
            ("sharing", json!("guest")),
            ("net", json!("user")),
            ("memory", json!("64M")),
            ("outbound", json!(true)),
            ("ssh_server", json!("image")),
            ("settings", json!("fixed")),
            ("ports", json!([40_000, 40_000])),
            ("unfinished", json!(true)),
        ] {
            assert_eq!(document[field], value, "{field}");
        }
        let file: SpecFile = serde_json::from_value(document).unwrap();
        assert_eq!(FleetSpec::try_from(file), Ok(spec));
    }
}
