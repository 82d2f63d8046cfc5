//! How long one of many guests may take for something that needs little CPU time.

use std::time::Duration;

use crate::recipe::SshServer;

/// Least time, on a host with CPUs to spare.
const MIN: Duration = Duration::from_secs(10);
/// CPU time within which a guest answers, or lets a client log in.
const CPU: Duration = Duration::from_millis(100);

/// So many times as long as an answer may take a log-in and a command: a log-in
/// alone may take as long as one (`ssh_config`).
const COMMAND: u32 = 6;

/// So many times as long as init's may a server take that the image brings.
const IMAGE: u32 = 3;

/// How long one of `guests` burning on `cpus` CPUs may take to answer:
/// max(10 s, 4 × guests ÷ CPUs × 0.1 s of CPU).
pub(crate) fn scaled(guests: u32, cpus: usize) -> Duration {
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX).max(1);
    MIN.max(4 * CPU * guests / cpus)
}

/// How long a log-in among `guests`, and what is run there, may take: what a
/// guest's answer may, [`COMMAND`] times over.
pub(crate) fn command(guests: u32, cpus: usize) -> Duration {
    COMMAND * scaled(guests, cpus)
}

/// How long ssh(1) may wait for the greeting of one of `guests`. A server that the image
/// brings starts programs for each client, whose code is translated under TCG: it has
/// [`IMAGE`] times as long, as it has to be there at all.
pub(crate) fn greeting(guests: u32, cpus: usize, server: SshServer) -> Duration {
    let own = scaled(guests, cpus);
    match server {
        SshServer::Imgbuild => own,
        SshServer::Image => IMAGE * own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_guests_to_a_cpu() {
        assert_eq!(scaled(1, 2), MIN);
        assert_eq!(scaled(50, 2), MIN);
        assert_eq!(scaled(6417, 2), Duration::from_millis(1_283_400));
        assert_eq!(scaled(6417, 72), Duration::from_secs_f64(35.65));
        assert_eq!(scaled(100_000, 0), Duration::from_secs(40_000));
        assert_eq!(command(1, 2), Duration::from_secs(60));
        assert_eq!(greeting(1, 2, SshServer::Imgbuild), MIN);
        assert_eq!(greeting(1, 2, SshServer::Image), 3 * MIN);
    }
}
