//! The hop between rumqttc and our own stream.
//!
//! rumqttc takes no stream of ours, but it connects to a unix socket: so it gets the address of one that
//! we serve, and its bytes are passed on. The socket has an abstract name, so nothing lies in the file
//! system; only this very process is let in, since a password comes over it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::dialer::Stream;

/// A running hop. Dropped, it ends at once.
pub(super) struct Relay {
    path: String,
    verdict: Verdict,
    task: JoinHandle<()>,
}

/// Why the stream ended, once it has: `None` inside where upstream simply closed it.
#[derive(Clone, Default)]
pub(super) struct Verdict(Arc<Mutex<Option<io::Error>>>);

impl Relay {
    /// Serves one connection to `stream`.
    pub(super) fn start(stream: Box<dyn Stream>) -> io::Result<Relay> {
        let random = getrandom::u64().map_err(io::Error::other)?;
        let name = format!("tidegate-{}-{random:016x}", std::process::id());
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let verdict = Verdict::default();
        let task = tokio::spawn(serve(listener, stream, verdict.clone()));
        // A leading NUL is how tokio, below rumqttc, knows an abstract name.
        Ok(Relay { path: format!("\0{name}"), verdict, task })
    }

    /// Where rumqttc must connect to.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where the reason of the end will stand.
    pub(super) fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }

    /// Waits until everything was passed on and the stream is closed.
    pub(super) async fn finished(&mut self) {
        // A panic of the task was reported by its own hook; there is nothing left to wait for.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Verdict {
    /// Takes the error that ended the stream, if one did.
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: io::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

async fn serve(listener: UnixListener, mut stream: Box<dyn Stream>, verdict: Verdict) {
    let mut engine = match accept(listener).await {
        Ok(engine) => engine,
        Err(error) => return verdict.set(error),
    };
    // The verdict stands before the engine's side closes, so that whoever sees the end finds it.
    if let Err(error) = copy_bidirectional(&mut engine, &mut stream).await {
        verdict.set(error);
    }
}

/// The first connection of this process; strangers are dropped.
async fn accept(listener: UnixListener) -> io::Result<UnixStream> {
    loop {
        let (stream, _) = listener.accept().await?;
        let own = i32::try_from(std::process::id()).ok();
        if own.is_some() && stream.peer_cred()?.pid() == own {
            return Ok(stream);
        }
    }
}
