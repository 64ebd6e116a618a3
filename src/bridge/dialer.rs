//! From a URL to a connected stream: DNS, TCP, TLS, each with its time limit.
//!
//! Every failure is told as exactly as it is known, since the person who reads it stands in a field. The
//! stream that comes out is plain bytes to and from upstream, whatever lies below.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::Checked;
use super::tls;
use super::trouble::Trouble;
use super::url::Url;

/// Bytes to and from upstream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections to one upstream.
pub(super) struct Dialer {
    url: Url,
    /// Shared with the helper thread that reads its files.
    client: Arc<Mutex<tls::Client>>,
    within: Duration,
}

impl Dialer {
    /// For this bridge; each step of a connect may take `within`.
    pub(super) fn new(bridge: &Checked, within: Duration) -> Dialer {
        let client = tls::Client::new(bridge.tls.clone(), bridge.url.host());
        Dialer { url: bridge.url.clone(), client: Arc::new(Mutex::new(client)), within }
    }

    /// Connects.
    pub(super) async fn dial(&self) -> Result<Box<dyn Stream>, Trouble> {
        let tcp = self.reach().await?;
        if self.url.is_secure() { self.secure(tcp).await } else { Ok(Box::new(tcp)) }
    }

    async fn reach(&self) -> Result<TcpStream, Trouble> {
        let mut trouble = self.dns("no address");
        for address in self.resolve().await? {
            match timeout(self.within, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    prepare(&tcp).map_err(|error| network(address, &error))?;
                    return Ok(tcp);
                }
                Ok(Err(error)) => trouble = network(address, &error),
                Err(_) => trouble = self.timeout("reach", address.to_string()),
            }
        }
        Err(trouble)
    }

    async fn resolve(&self) -> Result<impl Iterator<Item = SocketAddr>, Trouble> {
        match timeout(self.within, lookup_host((self.url.host(), self.url.port()))).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(self.dns(&error.to_string())),
            Err(_) => Err(self.timeout("resolve", self.url.host().to_owned())),
        }
    }

    async fn secure(&self, tcp: TcpStream) -> Result<Box<dyn Stream>, Trouble> {
        let client = self.client.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
            Ok((client.config()?, client.server_name()?))
        });
        let (config, name) = prepared.await.map_err(|error| self.lost(&error.to_string()))??;
        match timeout(self.within, TlsConnector::from(config).connect(name, tcp)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => Err(self.timeout("speak TLS with", self.url.host().to_owned())),
        }
    }

    /// What an error of the stream means: with TLS, upstream's refusal of our certificate comes as one.
    pub(super) fn explain(&self, error: &io::Error) -> Trouble {
        let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        if is_tls {
            self.client.lock().unwrap_or_else(PoisonError::into_inner).explain(error)
        } else {
            self.lost(&error.to_string())
        }
    }

    fn dns(&self, error: &str) -> Trouble {
        Trouble::Dns { host: self.url.host().to_owned(), error: error.to_owned() }
    }

    fn lost(&self, why: &str) -> Trouble {
        Trouble::Lost { why: why.to_owned() }
    }

    fn timeout(&self, what: &'static str, address: String) -> Trouble {
        Trouble::Timeout { what, address, within: self.within }
    }
}

fn network(address: SocketAddr, error: &io::Error) -> Trouble {
    let address = address.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Trouble::Refused { address },
        _ => Trouble::Network { address, error: error.to_string() },
    }
}

/// What a link over a modem needs: no waiting for company, and an end when nothing gets through.
fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

/// An idle connection is probed after this long.
const PROBE_AFTER: Duration = Duration::from_secs(120);
/// And then so often.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// Bytes that upstream's kernel has not acknowledged for so long end the connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);
