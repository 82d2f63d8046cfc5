//! Clients other than OpenSSH's, pinned, on a guest's SSH server.

use std::time::Duration;

use imgbuild_tests::reachable::{self, Guest};
use imgbuild_tests::{TestEnv, python, run, workspace};

#[test]
fn clients_that_want_a_mac_or_the_former_name_of_the_key_exchange_log_in() {
    let env = TestEnv::new();
    let bin = python::installed(&env, "ssh-clients");
    let out = reachable::artifacts(&env);
    let mut guest = Guest::start(&env, &out, Duration::from_secs(60));
    run(env
        .command(bin.join("python"))
        .arg(workspace().join("tests/python/ssh_clients.py"))
        .args([guest.config(), guest.key()])
        .arg(guest.port.to_string()))
    .succeeds()
    .shows(&["asyncssh 2.22.0: id=g00000", "libssh2 1.11.1: id=g00000"]);
    let former = ["-o", "KexAlgorithms=curve25519-sha256@libssh.org"];
    run(&mut guest.ssh(&former, ["status"]))
        .succeeds()
        .shows(&["id=g00000"]);
    guest.assert_well();
}
