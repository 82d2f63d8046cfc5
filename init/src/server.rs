//! The SSH server's part in PID 1: it listens, makes a process for each connection,
//! and limits their number. While nobody is connected, nothing else exists.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::sockopt::{
    set_socket_keepalive, set_socket_recv_buffer_size, set_socket_reuseaddr,
    set_socket_send_buffer_size, set_tcp_nodelay,
};
use rustix::net::{
    AddressFamily, Ipv4Addr, SocketAddrV4, SocketFlags, SocketType, accept_with, bind, listen,
    socket_with,
};
use rustix::process::{Pid, Signal, getsid, kill_process};

use crate::failure::{Context, Failure};
use crate::session::{Terms, serve};
use crate::status::Found;
use crate::sys::clock;
use crate::sys::process::{Forked, fork};

const PORT: u16 = 22;
/// Most connections at once.
const CONNECTIONS_MAX: usize = 8;
/// Connections that wait for their turn in the kernel. It refuses none beyond
/// that but lets them try again, and then QEMU's user-mode network (libslirp 4.7)
/// loses what the client sent first.
const BACKLOG: i32 = 128;
/// Bytes of a connection's socket buffers, each way. The kernel's own sizes
/// grow to megabytes, and every page that was ever touched is the host's loss.
const SOCKET_BUFFER: usize = 64 * 1024;

/// The server.
pub(crate) struct Server {
    listener: OwnedFd,
    terms: Terms,
    connections: [Option<Connection>; CONNECTIONS_MAX],
}

/// A connection's process, and when it began, in milliseconds of uptime.
#[derive(Clone, Copy)]
struct Connection {
    pid: Pid,
    since_ms: u64,
}

/// The server's port, which nobody reaches yet.
pub(crate) struct Port(OwnedFd);

impl Port {
    /// Takes the port on every address.
    pub(crate) fn bind() -> Result<Self, Failure> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener =
            socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).context("socket")?;
        set_socket_reuseaddr(&listener, true).context("SO_REUSEADDR")?;
        // Connections inherit both.
        set_socket_recv_buffer_size(&listener, SOCKET_BUFFER).context("SO_RCVBUF")?;
        set_socket_send_buffer_size(&listener, SOCKET_BUFFER).context("SO_SNDBUF")?;
        let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT);
        bind(&listener, &address).context("bind")?;
        Ok(Self(listener))
    }
}

impl Server {
    /// Listens.
    pub(crate) fn open(Port(listener): Port, terms: Terms) -> Result<Self, Failure> {
        listen(&listener, BACKLOG).context("listen")?;
        Ok(Self {
            listener,
            terms,
            connections: [None; CONNECTIONS_MAX],
        })
    }

    /// What to wait for: somebody who connects, if there is a place for them or
    /// one can be made; or the time in milliseconds until one can.
    pub(crate) fn waits_for(&self) -> (Option<BorrowedFd<'_>>, Option<u64>) {
        let listener = Some(self.listener.as_fd());
        if self.connections.iter().any(Option::is_none) {
            return (listener, None);
        }
        match self.oldest_stranger() {
            None => (None, None),
            Some((_, 0)) => (listener, None),
            Some((_, patience_ms)) => (None, Some(patience_ms)),
        }
    }

    /// Takes a connection, if there is one, and makes a process for it.
    ///
    /// Where no place is free, it takes that of the oldest connection which is
    /// not logged in and had its share of the time to do so.
    pub(crate) fn accept(&mut self, found: Found) -> Result<(), Failure> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let free = self.connections.iter().position(Option::is_none);
        let Some(place) = free.or_else(|| {
            let (index, patience_ms) = self.oldest_stranger()?;
            (patience_ms == 0).then_some(index)
        }) else {
            return Ok(());
        };
        // Who connected may be gone again by now.
        let Ok(socket) = accept_with(&self.listener, flags) else {
            return Ok(());
        };
        if let Some(stranger) = self.connections[place % CONNECTIONS_MAX].take() {
            let _ = kill_process(stranger.pid, Signal::KILL);
        }
        // A packet is a message and wants to leave; a peer that is no more
        // wants to be noticed.
        let _ = set_tcp_nodelay(&socket, true);
        let _ = set_socket_keepalive(&socket, true);
        match fork().context("fork")? {
            Forked::Child => serve(&socket, &self.terms, found),
            Forked::Parent(pid) => {
                self.connections[place % CONNECTIONS_MAX] = Some(Connection {
                    pid,
                    since_ms: clock::boottime_ms(),
                });
                Ok(())
            }
        }
    }

    /// Forgets a process that ended.
    pub(crate) fn ended(&mut self, pid: Pid) {
        for place in &mut self.connections {
            if place.is_some_and(|connection| connection.pid == pid) {
                *place = None;
            }
        }
    }

    /// The place of the oldest connection that is not logged in, and for how
    /// many milliseconds it may keep it though others wait. One that is logged
    /// in leads a session of its own.
    fn oldest_stranger(&self) -> Option<(usize, u64)> {
        let (index, connection) = self
            .connections
            .iter()
            .enumerate()
            .filter_map(|(index, place)| Some((index, (*place)?)))
            .filter(|(_, connection)| getsid(Some(connection.pid)) != Ok(connection.pid))
            .min_by_key(|(_, connection)| connection.since_ms)?;
        let end = connection.since_ms + self.terms.login_ms / 4;
        Some((index, end.saturating_sub(clock::boottime_ms())))
    }
}
