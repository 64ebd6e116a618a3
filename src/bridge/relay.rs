//! The hop between rumqttc and our own stream.
//!
//! rumqttc takes no stream of ours, but it connects to a unix socket: so it gets the address of one that
//! we serve, and its bytes are passed on. The socket has an abstract name, so nothing lies in the file
//! system; only this very process is let in, since a password comes over it. What has been written to the
//! stream is told, since for QoS 0 that is all that anybody will know; and what is too large for the
//! engine is cut on its way down, and told before the engine sees that.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::cutter::{Cut, Cutter};
use super::dialer::Stream;
use super::tally::Tally;

/// A running hop. Dropped, it ends at once.
pub(super) struct Relay {
    path: String,
    verdict: Verdict,
    written: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

/// Why the stream ended, once it has: `None` inside where upstream simply closed it.
#[derive(Clone, Default)]
pub(super) struct Verdict(Arc<Mutex<Option<io::Error>>>);

impl Relay {
    /// Serves one connection to `stream`. What is cut on its way down is told to `cuts`.
    pub(super) fn start(
        stream: Box<dyn Stream>,
        cutter: Cutter,
        cuts: mpsc::Sender<Cut>,
    ) -> io::Result<Relay> {
        let random = getrandom::u64().map_err(io::Error::other)?;
        let name = format!("tidegate-{}-{random:016x}", std::process::id());
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let verdict = Verdict::default();
        let (counter, written) = watch::channel(0);
        let ways = Ways { counter, cutter, cuts };
        let task = tokio::spawn(serve(listener, stream, verdict.clone(), ways));
        // A leading NUL is how tokio, below rumqttc, knows an abstract name.
        Ok(Relay { path: format!("\0{name}"), verdict, written, task })
    }

    /// Where rumqttc must connect to.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where the reason of the end will stand.
    pub(super) fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }

    /// How many QoS 0 messages have been written to the stream.
    pub(super) fn written(&self) -> watch::Receiver<u64> {
        self.written.clone()
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

/// What is done to the bytes on their ways.
struct Ways {
    counter: watch::Sender<u64>,
    cutter: Cutter,
    cuts: mpsc::Sender<Cut>,
}

async fn serve(listener: UnixListener, stream: Box<dyn Stream>, verdict: Verdict, ways: Ways) {
    let mut engine = match accept(listener).await {
        Ok(engine) => engine,
        Err(error) => return verdict.set(error),
    };
    let Ways { counter, cutter, cuts } = ways;
    let (from_engine, to_engine) = engine.split();
    let (from_upstream, to_upstream) = split(stream);
    let down = down(from_upstream, to_engine, cutter, cuts);
    // The verdict stands before the engine's side closes, so that whoever sees the end finds it.
    if let Err(error) = tokio::try_join!(up(from_engine, to_upstream, counter), down) {
        verdict.set(error);
    }
}

/// Passes bytes up and counts what was written.
async fn up(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    counter: watch::Sender<u64>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut tally = Tally::default();
    loop {
        let count = from.read(&mut buffer).await?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(bytes).await?;
        to.flush().await?;
        let ended = tally.pass(bytes);
        if ended > 0 {
            counter.send_modify(|written| *written += ended);
        }
    }
}

/// Passes bytes down, but for what is too large.
async fn down(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut cutter: Cutter,
    tell: mpsc::Sender<Cut>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let (mut out, mut cuts) = (Vec::with_capacity(BUFFER), Vec::new());
    loop {
        let count = from.read(&mut buffer).await?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        cutter.pass(bytes, &mut out, &mut cuts);
        for cut in cuts.drain(..) {
            // Where the bridge has given this connection up, nobody needs to know.
            let _ = tell.send(cut).await;
        }
        to.write_all(&out).await?;
        out.clear();
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

/// Bytes that are passed on at once.
const BUFFER: usize = 16 << 10;
