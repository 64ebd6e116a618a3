//! The bytes of one connection of `pub` or `sub`: TCP, TLS and WebSocket over it, or a unix socket.
//!
//! One thread reads, another writes. Under TLS they share the connection's state: who waits for something
//! to read does not hold it, and who writes does until the network has taken it all, so that a broker that
//! takes nothing holds up reading too.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::options::{ClientArgs, TlsVersion};
use super::url::Carrier;
use super::websocket::WebSocket;

/// The socket.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Tls),
    WebSocket(WebSocket),
}

/// TLS, as one of the two threads sees it.
pub(super) struct Tls {
    stream: TcpStream,
    connection: Arc<Mutex<ClientConnection>>,
    /// Read and decrypted, and not yet taken; the reading thread's alone.
    plain: Vec<u8>,
}

/// Takes a certificate for another name, as `--insecure` asks; everything else must be right.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl Stream {
    /// Connects, and shakes hands where TLS is asked for. The text names the place.
    pub(super) fn open(args: &ClientArgs) -> anyhow::Result<(Stream, String)> {
        if let Some(path) = &args.unix {
            let place = path.display().to_string();
            let stream = UnixStream::connect(path).with_context(|| format!("connect to {place}"))?;
            return Ok((Stream::Unix(stream), place));
        }
        let (host, port) = args.address();
        let place = format!("{host}:{port}");
        let stream = TcpStream::connect((host, port)).with_context(|| format!("connect to {place}"))?;
        // Packets are written whole, so there is nothing to wait for.
        stream.set_nodelay(true).with_context(|| format!("connect to {place}"))?;
        let stream = if args.wants_tls() {
            Stream::Tls(Tls::open(args, host, stream).with_context(|| format!("speak TLS with {place}"))?)
        } else {
            Stream::Tcp(stream)
        };
        let stream = match args.carrier() {
            Carrier::Stream => stream,
            Carrier::WebSocket => Stream::WebSocket(
                WebSocket::open(stream, host, port)
                    .with_context(|| format!("speak WebSocket with {place}"))?,
            ),
        };
        Ok((stream, place))
    }

    pub(super) fn try_clone(&self) -> io::Result<Stream> {
        match self {
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
            Stream::Tls(tls) => tls.try_clone().map(Stream::Tls),
            Stream::WebSocket(framed) => framed.try_clone().map(Stream::WebSocket),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
            Stream::WebSocket(framed) => framed.read(buffer),
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes),
            Stream::WebSocket(framed) => framed.write_all(bytes),
        }
    }

    /// The other end may have done it already, so errors say nothing.
    pub(super) fn shutdown_write(&mut self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(tls) => tls.say_end(),
            Stream::WebSocket(framed) => framed.say_end(),
        };
    }

    pub(super) fn shutdown(&self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
            Stream::Tls(tls) => tls.stream.shutdown(Shutdown::Both),
            Stream::WebSocket(framed) => return framed.shutdown(),
        };
    }
}

impl Tls {
    fn open(args: &ClientArgs, host: &str, mut stream: TcpStream) -> anyhow::Result<Tls> {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| anyhow!("use the name {host}: {error}"))?;
        let mut connection = ClientConnection::new(Arc::new(config(args)?), name)?;
        stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(|error| explain(&error, host))?;
        }
        stream.set_read_timeout(None)?;
        Ok(Tls { stream, connection: Arc::new(Mutex::new(connection)), plain: Vec::new() })
    }

    fn try_clone(&self) -> io::Result<Tls> {
        let (stream, connection) = (self.stream.try_clone()?, self.connection.clone());
        Ok(Tls { stream, connection, plain: Vec::new() })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut sealed = vec![0; SEALED_BYTES];
        loop {
            if !self.plain.is_empty() {
                let count = self.plain.len().min(buffer.len());
                buffer.iter_mut().zip(self.plain.drain(..count)).for_each(|(place, byte)| *place = byte);
                return Ok(count);
            }
            // What came with the handshake is there already.
            let mut ended = self.unseal(&[])?;
            if !ended && self.plain.is_empty() {
                let count = self.stream.read(&mut sealed)?;
                ended = count == 0 || self.unseal(sealed.get(..count).unwrap_or_default())?;
            }
            if ended && self.plain.is_empty() {
                return Ok(0);
            }
        }
    }

    /// Decrypts what came; whether the broker has ended the stream.
    fn unseal(&mut self, mut sealed: &[u8]) -> io::Result<bool> {
        let mut connection = lock(&self.connection);
        loop {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            let state = connection.process_new_packets().map_err(invalid)?;
            if state.plaintext_bytes_to_read() > 0 {
                let start = self.plain.len();
                self.plain.resize(start + state.plaintext_bytes_to_read(), 0);
                connection.reader().read_exact(self.plain.get_mut(start..).unwrap_or_default())?;
            }
            if state.peer_has_closed() {
                return Ok(true);
            }
            if sealed.is_empty() {
                break;
            }
            connection.read_tls(&mut sealed)?;
        }
        push(&mut connection, &mut self.stream)?;
        Ok(false)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut connection = lock(&self.connection);
        while !bytes.is_empty() {
            let taken = connection.writer().write(bytes)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            push(&mut connection, &mut self.stream)?;
        }
        Ok(())
    }

    fn say_end(&mut self) -> io::Result<()> {
        let mut connection = lock(&self.connection);
        connection.send_close_notify();
        push(&mut connection, &mut self.stream)?;
        self.stream.shutdown(Shutdown::Write)
    }
}

fn lock(connection: &Mutex<ClientConnection>) -> MutexGuard<'_, ClientConnection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn push(connection: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(stream)?;
    }
    Ok(())
}

fn config(args: &ClientArgs) -> anyhow::Result<ClientConfig> {
    let versions = match args.tls_version {
        None => rustls::ALL_VERSIONS,
        Some(TlsVersion::V12) => &[&rustls::version::TLS12],
        Some(TlsVersion::V13) => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(args)?), provider.clone());
    let verifier = verifier.build().context("use the certificate authorities")?;
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let builder = if args.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(verifier)))
    } else {
        builder.with_webpki_verifier(verifier)
    };
    let (Some(cert), Some(key)) = (&args.cert, &args.key) else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(cert)?;
    let using = || format!("use {}", key.display());
    let key_der = PrivateKeyDer::from_pem_file(key).with_context(using)?;
    builder.with_client_auth_cert(chain, key_der).with_context(using)
}

/// The authorities that are named, or the system's.
fn roots(args: &ClientArgs) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &args.cafile {
        for certificate in certificates(file)? {
            roots.add(certificate).with_context(|| format!("use {}", file.display()))?;
        }
    }
    if let Some(folder) = &args.capath {
        let reading = || format!("read {}", folder.display());
        for entry in std::fs::read_dir(folder).with_context(reading)? {
            let path = entry.with_context(reading)?.path();
            // Keys and lists lie there too; and `openssl rehash` makes a second name for each.
            if path.is_file()
                && path.extension().is_some_and(|extension| extension == "crt" || extension == "pem")
            {
                let found = certificates(&path).unwrap_or_default();
                roots.add_parsable_certificates(found);
            }
        }
    }
    if args.cafile.is_none() && args.capath.is_none() || args.tls_use_os_certs {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        bail!("find a certificate authority to trust: see --cafile and --capath");
    }
    Ok(roots)
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let using = || format!("use {}", file.display());
    let opened = File::open(file).with_context(using)?;
    let found: Vec<_> =
        CertificateDer::pem_reader_iter(opened).collect::<Result<_, _>>().with_context(using)?;
    if found.is_empty() {
        bail!("use {}: no certificate in it", file.display());
    }
    Ok(found)
}

/// What a failed handshake means to the person at the keyboard.
fn explain(error: &io::Error, host: &str) -> anyhow::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                anyhow!("the broker's certificate is from an authority that is not trusted: see --cafile")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                anyhow!("the broker's certificate is not for {host}: see --insecure")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                anyhow!("the broker's certificate has expired")
            }
            other => anyhow!("the broker's certificate is not accepted: {other}"),
        },
        Some(rustls::Error::AlertReceived(alert)) => anyhow!("the broker refuses: {alert:?}"),
        Some(rustls::Error::InvalidMessage(_)) => anyhow!("the broker speaks no TLS there"),
        Some(other) => anyhow!("{other}"),
        None => anyhow!("{error}"),
    }
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        status: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(certificate, between, name, status, now) {
            // The name is looked at last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// How long the broker may take for each of its words of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of TLS read at once: one record and more.
const SEALED_BYTES: usize = 32 << 10;
