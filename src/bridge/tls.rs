//! The TLS side of the dialer: which authorities are trusted, who we say we are, and what went wrong.
//!
//! The crypto provider is named here and never taken from the process. The configuration is kept between
//! connections, so that sessions resume, and made anew when a file has changed, so that a renewed
//! certificate needs no restart.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};

use super::config::{Tls, TlsConfig};
use super::trouble::Trouble;

/// The client side of TLS, with what it was made from.
pub(super) struct Client {
    tls: Tls,
    name: String,
    made: Option<(Vec<Stamp>, Arc<ClientConfig>)>,
}

/// What tells that a file has changed.
type Stamp = Option<(SystemTime, u64)>;

impl Client {
    /// For this host, unless the configuration names another.
    pub(super) fn new(tls: Tls, host: &str) -> Client {
        let name = tls.server_name.clone().unwrap_or_else(|| host.to_owned());
        Client { tls, name, made: None }
    }

    /// The name that the certificate must hold.
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, Trouble> {
        ServerName::try_from(self.name.clone()).map_err(|error| self.trouble(error.to_string()))
    }

    /// The configuration, made from the files as they are now. Reads files: for a helper thread.
    pub(super) fn config(&mut self) -> Result<Arc<ClientConfig>, Trouble> {
        let stamps = self.stamps();
        if let Some((made_from, config)) = &self.made
            && *made_from == stamps
        {
            return Ok(config.clone());
        }
        let config = Arc::new(self.make()?);
        self.made = Some((stamps, config.clone()));
        Ok(config)
    }

    fn stamps(&self) -> Vec<Stamp> {
        let identity = self.tls.identity.iter().flat_map(|(cert, key)| [cert, key]);
        self.tls.ca.iter().chain(identity).map(|path| stamp(path)).collect()
    }

    fn make(&self) -> Result<ClientConfig, Trouble> {
        let roots = match &self.tls.ca {
            Some(file) => own_roots(file)?,
            None => system_roots()?,
        };
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| self.trouble(error.to_string()))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| self.trouble(error.to_string()))?
            .with_webpki_verifier(verifier);
        match &self.tls.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((cert, key)) => {
                let chain = certificates(cert)?;
                let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
                builder.with_client_auth_cert(chain, key_der).map_err(|error| unusable(cert, error))
            }
        }
    }

    /// What a failed handshake means.
    pub(super) fn explain(&self, error: &io::Error) -> Trouble {
        let name = self.name.clone();
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let Some(inner) = inner else { return self.trouble(error.to_string()) };
        match inner {
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                CertificateError::UnknownIssuer => Trouble::UnknownAuthority { name },
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Trouble::WrongName { name }
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Trouble::Expired { name }
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Trouble::NotYetValid { name }
                }
                // A signature that does not fit comes from another authority of the same name.
                CertificateError::BadSignature => Trouble::UnknownAuthority { name },
                other => self.trouble(other.to_string()),
            },
            other => self.trouble(other.to_string()),
        }
    }

    fn trouble(&self, error: String) -> Trouble {
        Trouble::Tls { name: self.name.clone(), error }
    }
}

/// What is wrong with the files as they are now, by key; each is looked at, whichever are missing. Reads
/// files.
pub(super) fn examine(tls: &TlsConfig) -> Vec<(&'static str, Trouble)> {
    let mut flaws = Vec::new();
    let mut keep = |key, trouble: Option<Trouble>| flaws.extend(trouble.map(|trouble| (key, trouble)));
    keep("tls.ca", tls.ca.as_deref().and_then(|file| own_roots(file).err()));
    let chain = tls.cert.as_deref().map(certificates).transpose();
    let private = tls.key.as_deref().map(private_key).transpose();
    match (chain, private, &tls.cert) {
        (Ok(Some(chain)), Ok(Some(private)), Some(cert)) => {
            let pair = CertifiedKey::from_der(chain, private, &ring::default_provider());
            keep("tls.cert", pair.err().map(|error| unusable(cert, error)));
        }
        (chain, private, _) => {
            keep("tls.cert", chain.err());
            keep("tls.key", private.err());
        }
    }
    flaws
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Trouble> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| unusable(file, error))
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn own_roots(file: &Path) -> Result<RootCertStore, Trouble> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| unusable(file, error))?;
    }
    Ok(roots)
}

/// The system's authorities; single ones that do not parse are left out, as everywhere.
fn system_roots() -> Result<RootCertStore, Trouble> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let error = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(Trouble::File { file: "the system's certificate authorities".to_owned(), error });
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(file, error))?;
    if certificates.is_empty() {
        return Err(unusable(file, "no certificate in it"));
    }
    Ok(certificates)
}

fn unusable(file: &Path, error: impl ToString) -> Trouble {
    Trouble::File { file: file.display().to_string(), error: error.to_string() }
}
