//! One listening socket: opened, accepted from, closed.
//!
//! Knows the kernel's calls, and nothing of clients or limits.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::{Bind, Stream, StreamPeer};

/// An open door.
#[derive(Debug)]
pub(super) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Door {
    /// Opens the door and has its knocks reported under the token.
    pub(super) fn open(bind: &Bind, registry: &Registry, token: Token) -> io::Result<Door> {
        let mut door = match bind {
            Bind::Tcp(address) => Door::Tcp(listen(*address)?),
            Bind::Unix(path) => Door::Unix(listen_unix(path)?, path.clone()),
        };
        match &mut door {
            Door::Tcp(listener) => listener.register(registry, token, Interest::READABLE)?,
            Door::Unix(listener, _) => listener.register(registry, token, Interest::READABLE)?,
        }
        Ok(door)
    }

    /// Where it is, with the port that was given for port 0.
    pub(super) fn bound(&self) -> io::Result<Bind> {
        match self {
            Door::Tcp(listener) => listener.local_addr().map(Bind::Tcp),
            Door::Unix(_, path) => Ok(Bind::Unix(path.clone())),
        }
    }

    /// The next one who knocks.
    pub(super) fn accept(&self) -> io::Result<(Stream, StreamPeer)> {
        match self {
            Door::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                Ok((Stream::Tcp(stream), StreamPeer::Tcp(address)))
            }
            Door::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                Ok((Stream::Unix(stream), StreamPeer::Unix))
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Door::Unix(_, path) = self {
            // What is left behind is taken away at the next start.
            let _ = fs::remove_file(path);
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] may stand beside each other, each with its own rules.
        socket.set_only_v6(true)?;
    }
    // On Linux what is accepted inherits these, which saves the calls for each client.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    let left_behind = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if left_behind {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Who knocks while the engine is busy waits in the kernel, up to this many; then SYNs are dropped and sent again.
const BACKLOG: i32 = 1_024;

/// A client with MQTT's keep alive off that has vanished is found after 120 s + 4 x 30 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_RETRIES: u32 = 4;
