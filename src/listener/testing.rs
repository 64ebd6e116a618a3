//! An authority of the test's own, what it signs and revokes, and clients that trust it.
//!
//! Each certificate is good until 2999, save those that are made to be refused.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::{Config, Listener, TlsConfig};
use revoked::revocation_list;

#[path = "../../tests/stand/revoked.rs"]
mod revoked;

/// An authority and the folder in which its files lie.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    pub(crate) file: PathBuf,
}

/// A certificate with its key, as files.
#[derive(Clone)]
pub(crate) struct Identified {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// What a client brings.
pub(crate) struct Bearer<'a> {
    pub(crate) trusts: &'a Path,
    pub(crate) identity: Option<&'a Identified>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
}

/// TLS of a client.
pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), folder: folder.to_owned(), file }
    }

    /// A certificate for `localhost` and the names, of the common name and with the serial number.
    pub(crate) fn issue(&self, common_name: &str, names: &[&str], serial: u64) -> Identified {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2999, 1, 1));
        self.sign(common_name, params)
    }

    /// One that ran out long ago.
    pub(crate) fn expired(&self, common_name: &str) -> Identified {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        self.sign(common_name, params)
    }

    fn sign(&self, name: &str, params: CertificateParams) -> Identified {
        let key = KeyPair::generate().unwrap();
        let identified = Identified {
            cert: self.folder.join(format!("{name}.crt")),
            key: self.folder.join(format!("{name}.key")),
        };
        fs::write(&identified.cert, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&identified.key, key.serialize_pem()).unwrap();
        private(&identified.key);
        identified
    }

    /// A list of revoked serial numbers that was to be renewed in this year.
    pub(crate) fn revoke(&self, serials: &[u64], renewed_in: i32) -> PathBuf {
        let file = self.folder.join("revoked.crl");
        fs::write(&file, revocation_list(&self.issuer, serials, renewed_in)).unwrap();
        file
    }
}

impl Identified {
    /// A listener's `tls` with this certificate.
    pub(crate) fn tls(&self) -> TlsConfig {
        TlsConfig { cert: Some(self.cert.clone()), key: Some(self.key.clone()), ..TlsConfig::default() }
    }

    /// Another's content takes the place of these files, each at once.
    pub(crate) fn become_like(&self, other: &Identified) {
        fs::rename(&other.cert, &self.cert).unwrap();
        fs::rename(&other.key, &self.key).unwrap();
    }
}

impl Bearer<'_> {
    /// Of both versions, without a certificate.
    pub(crate) fn nobody(trusts: &Path) -> Bearer<'_> {
        Bearer { trusts, identity: None, versions: rustls::ALL_VERSIONS }
    }

    /// TLS to a listener; the handshake is yet to come.
    pub(crate) fn dial(&self, address: SocketAddr) -> Secure {
        self.over(TcpStream::connect(address).unwrap())
    }

    /// TLS over a stream that stands; the handshake is yet to come.
    pub(crate) fn over(&self, stream: TcpStream) -> Secure {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.trusts).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(Identified { cert, key }) => builder
                .with_client_auth_cert(
                    CertificateDer::pem_file_iter(cert).unwrap().map(Result::unwrap).collect(),
                    PrivateKeyDer::from_pem_file(key).unwrap(),
                )
                .unwrap(),
        };
        // For those who write records themselves.
        config.enable_secret_extraction = true;
        let name = ServerName::try_from("localhost").unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
    }
}

/// A listener on a free port of this machine.
pub(crate) fn secure_listener(tls: TlsConfig) -> Listener {
    Config { bind: "127.0.0.1:0".to_owned(), tls: Some(tls), ..Config::default() }.check().unwrap()
}

fn private(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}
