//! The SSH server's end in PID 1: it listens, makes a process for each
//! connection, and keeps their number small. Nothing more exists while nobody
//! is connected.

use rustix::event::PollFlags;
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
use crate::wait::Waiting;

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
pub struct Server {
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

impl Server {
    /// Listens on every address.
    pub fn open(terms: Terms) -> Result<Self, Failure> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener =
            socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).context("socket")?;
        set_socket_reuseaddr(&listener, true).context("SO_REUSEADDR")?;
        // Connections inherit both.
        set_socket_recv_buffer_size(&listener, SOCKET_BUFFER).context("SO_RCVBUF")?;
        set_socket_send_buffer_size(&listener, SOCKET_BUFFER).context("SO_SNDBUF")?;
        let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT);
        bind(&listener, &address).context("bind")?;
        listen(&listener, BACKLOG).context("listen")?;
        Ok(Self {
            listener,
            terms,
            connections: [None; CONNECTIONS_MAX],
        })
    }

    /// What to wait for: somebody who connects, or, while there is no room, the
    /// time in milliseconds to [`Self::make_room`].
    pub fn waits_for(&self) -> (Option<BorrowedFd<'_>>, Option<u64>) {
        if self.connections.iter().any(Option::is_none) {
            return (Some(self.listener.as_fd()), None);
        }
        let patience = self.oldest_stranger().map(|(_, connection)| {
            (connection.since_ms + self.patience_ms()).saturating_sub(clock::boottime_ms())
        });
        (None, patience)
    }

    /// Takes a connection, if there is one, and makes a process for it.
    pub fn accept(&mut self, found: Found) -> Result<(), Failure> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Some(place) = self.connections.iter_mut().find(|place| place.is_none()) else {
            return Ok(());
        };
        // Who connected may be gone again by now.
        let Ok(socket) = accept_with(&self.listener, flags) else {
            return Ok(());
        };
        // A packet is a message and wants to leave; a peer that is no more
        // wants to be noticed.
        let _ = set_tcp_nodelay(&socket, true);
        let _ = set_socket_keepalive(&socket, true);
        match fork().context("fork")? {
            Forked::Child => serve(&socket, &self.terms, found),
            Forked::Parent(pid) => {
                *place = Some(Connection {
                    pid,
                    since_ms: clock::boottime_ms(),
                });
                Ok(())
            }
        }
    }

    /// Where others wait for a place, ends the oldest connection that is not
    /// logged in, once it had its share of the time to do so.
    pub fn make_room(&mut self) -> Result<(), Failure> {
        let Some((index, connection)) = self.oldest_stranger() else {
            return Ok(());
        };
        let age = clock::boottime_ms().saturating_sub(connection.since_ms);
        if self.connections.iter().all(Option::is_some)
            && age >= self.patience_ms()
            && Waiting::new(self.listener.as_fd(), PollFlags::IN).wait(Some(0))?
        {
            let _ = kill_process(connection.pid, Signal::KILL);
            self.connections[index % CONNECTIONS_MAX] = None;
        }
        Ok(())
    }

    /// Forgets a process that ended.
    pub fn ended(&mut self, pid: Pid) {
        for place in &mut self.connections {
            if place.is_some_and(|connection| connection.pid == pid) {
                *place = None;
            }
        }
    }

    /// The oldest connection that is not logged in; one that is leads a session
    /// of its own.
    fn oldest_stranger(&self) -> Option<(usize, Connection)> {
        self.connections
            .iter()
            .enumerate()
            .filter_map(|(index, place)| Some((index, (*place)?)))
            .filter(|(_, connection)| getsid(Some(connection.pid)) != Ok(connection.pid))
            .min_by_key(|(_, connection)| connection.since_ms)
    }

    /// How long a stranger may keep a place that others wait for.
    fn patience_ms(&self) -> u64 {
        self.terms.login_ms / 4
    }
}
