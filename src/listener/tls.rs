//! TLS of one listener: its settings, and rustls's configuration made from the files that they name.
//!
//! The crypto provider is named here and never taken from the process. TLS 1.2 is the least that is
//! spoken. A client's certificate is asked for only where an authority for clients is named; then no
//! session is resumed, so that nobody passes by the list of the revoked.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use adapter_api::schema::{Key, Kind, Problem};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use serde::Deserialize;

use super::certificate::{Certificate, Validity, overdue};

/// `tls` as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Our certificate and those between it and its authority, PEM.
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// The authorities whose clients are let in, PEM.
    pub client_ca: Option<PathBuf>,
    /// Revoked certificates of clients: one list or more, PEM.
    pub crl: Option<PathBuf>,
    /// Whether a client without a certificate is turned away.
    pub require_client_cert: Option<bool>,
    /// `cn` or `san`.
    pub identity: Option<String>,
}

/// What `tls` may hold.
pub(super) const TLS_KEYS: &[Key] = &[
    Key::required("cert", Kind::Path),
    Key::required("key", Kind::Path),
    Key::optional("client_ca", Kind::Path),
    Key::optional("crl", Kind::Path),
    Key::optional("require_client_cert", Kind::Boolean),
    Key::optional("identity", Kind::Choice(&["cn", "san"])),
];

/// Checked settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    clients: Option<Clients>,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Clients {
    authority: PathBuf,
    revoked: Option<PathBuf>,
    /// Whether one is a must.
    required: bool,
    /// What of it is the user's name; without one it names nobody.
    identity: Option<Identity>,
}

/// The field of a certificate that is the user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The subject's common name.
    CommonName,
    /// The first e-mail address, DNS name or URI among the alternative names.
    AlternativeName,
}

/// A file that cannot be used, or not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The key that names it, below the listener.
    pub key: &'static str,
    /// What is wrong; names the file.
    pub text: String,
    /// The file is there and could not be read: that may pass without a change of it.
    pub may_pass: bool,
}

/// What rustls needs for one handshake, and who was refused in it.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) config: Arc<ServerConfig>,
    guard: Option<Arc<Guard>>,
}

/// rustls's own verifier, which tells whom it has refused.
#[derive(Debug)]
struct Guard {
    inner: Arc<dyn ClientCertVerifier>,
    refused: Mutex<Option<String>>,
}

/// What the files held, as far as they could be read.
struct Material {
    pair: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    clients: Option<(RootCertStore, Vec<CertificateRevocationListDer<'static>>)>,
}

impl TlsConfig {
    /// Checks the values; no file is read.
    pub(super) fn check(&self, problems: &mut Vec<Problem>) -> Option<Tls> {
        let mut complain = |key: &str, text: &str| {
            problems.push(Problem { key: format!("tls.{key}"), text: text.to_owned() });
        };
        let identity = match self.identity.as_deref() {
            None => None,
            Some("cn") => Some(Identity::CommonName),
            Some("san") => Some(Identity::AlternativeName),
            Some(_) => {
                complain("identity", "expected \"cn\" or \"san\"");
                None
            }
        };
        if self.client_ca.is_none() {
            let given = [
                ("crl", self.crl.is_some()),
                ("require_client_cert", self.require_client_cert == Some(true)),
                ("identity", self.identity.is_some()),
            ];
            for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                complain(key, "needs client_ca, the authority of the clients' certificates");
            }
        }
        let clients = self.client_ca.clone().map(|authority| Clients {
            authority,
            revoked: self.crl.clone(),
            required: self.require_client_cert.unwrap_or(true),
            identity,
        });
        if let (Some(cert), Some(key)) = (self.cert.clone(), self.key.clone()) {
            return Some(Tls { cert, key, clients });
        }
        for key in [("cert", &self.cert), ("key", &self.key)].iter().filter(|(_, path)| path.is_none()) {
            complain(key.0, "is missing");
        }
        None
    }
}

impl TlsConfig {
    /// What [`Tls::examine`] says; where that needs what is missing, what is wrong with the files that are
    /// named. Reads files.
    pub(super) fn examine(&self, wall: u64) -> (Vec<Flaw>, Vec<Flaw>) {
        // What is wrong with the values themselves is told by who checks them.
        if let Some(tls) = self.check(&mut Vec::new()) {
            return tls.examine(wall);
        }
        let mut flaws = Vec::new();
        for (key, file) in [("tls.cert", &self.cert), ("tls.client_ca", &self.client_ca)] {
            file.iter().for_each(|file| drop(keep(certificates(key, file), &mut flaws)));
        }
        self.key.iter().for_each(|file| drop(keep(private_key(file), &mut flaws)));
        self.crl.iter().for_each(|file| drop(keep(revocations(file), &mut flaws)));
        (flaws, Vec::new())
    }
}

impl Tls {
    /// What of a client's certificate is the user's name.
    pub fn identity(&self) -> Option<Identity> {
        self.clients.as_ref()?.identity
    }

    /// Whether every client comes with a certificate that names its user.
    pub fn names_everybody(&self) -> bool {
        self.clients.as_ref().is_some_and(|clients| clients.required && clients.identity.is_some())
    }

    /// Whether nobody comes in without a certificate.
    pub fn wants_certificates(&self) -> bool {
        self.clients.as_ref().is_some_and(|clients| clients.required)
    }

    /// Every file that it names.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let clients = self.clients.iter();
        let more = clients.flat_map(|clients| [Some(&clients.authority), clients.revoked.as_ref()]).flatten();
        [&self.cert, &self.key].into_iter().chain(more).map(PathBuf::as_path)
    }

    /// What the operator should know of the files: first what makes them useless, then what is well
    /// enough and perhaps not meant. `wall` is the time in milliseconds since 1970. Reads files.
    fn examine(&self, wall: u64) -> (Vec<Flaw>, Vec<Flaw>) {
        let mut flaws = Vec::new();
        let material = self.read(&mut flaws);
        let doubts = if flaws.is_empty() { self.doubts(&material, wall) } else { Vec::new() };
        self.assemble(material, None, &mut flaws);
        (flaws, doubts)
    }

    /// Makes rustls's configuration from the files as they are now. Our pair and what concerns clients stand
    /// each for itself: where one cannot be used, that of before is used on. `None` where there is no before.
    pub(super) fn make(&self, before: Option<&Made>) -> (Option<Made>, Vec<Flaw>) {
        let mut flaws = Vec::new();
        let material = self.read(&mut flaws);
        (self.assemble(material, before, &mut flaws), flaws)
    }

    fn read(&self, flaws: &mut Vec<Flaw>) -> Material {
        let chain = keep(certificates("tls.cert", &self.cert), flaws);
        let key = keep(private_key(&self.key), flaws);
        let clients = self.clients.as_ref().and_then(|clients| {
            let before = flaws.len();
            let mut roots = RootCertStore::empty();
            let file = &clients.authority;
            for certificate in keep(certificates("tls.client_ca", file), flaws).unwrap_or_default() {
                let added = roots.add(certificate).map_err(|error| flaw("tls.client_ca", file, &error));
                keep(added, flaws);
            }
            let lists =
                clients.revoked.as_deref().map(|file| keep(revocations(file), flaws).unwrap_or_default());
            (flaws.len() == before).then(|| (roots, lists.unwrap_or_default()))
        });
        Material { pair: chain.zip(key), clients }
    }

    fn assemble(&self, material: Material, before: Option<&Made>, flaws: &mut Vec<Flaw>) -> Option<Made> {
        let provider = Arc::new(ring::default_provider());
        let resolver = material.pair.and_then(|(chain, key)| {
            let pair = CertifiedKey::from_der(chain, key, &provider);
            keep(pair.map_err(|error| self.unfit(&error)), flaws)
        });
        let resolver: Arc<dyn ResolvesServerCert> = match resolver {
            Some(pair) => Arc::new(SingleCertAndKey::from(pair)),
            None => before?.config.cert_resolver.clone(),
        };
        let guard = match &self.clients {
            None => None,
            Some(clients) => {
                let made = material.clients.and_then(|(roots, lists)| {
                    keep(Guard::new(clients, roots, lists, provider.clone()), flaws)
                });
                // Without one of before nobody could be verified.
                Some(made.or_else(|| before?.guard.clone())?)
            }
        };
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = keep(builder.map_err(|error| flaw("tls.cert", &self.cert, &error)), flaws)?;
        let builder = match &guard {
            None => builder.with_no_client_auth(),
            Some(guard) => builder.with_client_cert_verifier(guard.clone()),
        };
        let mut config = builder.with_cert_resolver(resolver);
        if guard.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Some(Made { config: Arc::new(config), guard })
    }

    /// Why our certificate and its key cannot be used together.
    fn unfit(&self, error: &rustls::Error) -> Flaw {
        match error {
            rustls::Error::InconsistentKeys(_) => {
                let text = format!("{} is not the key of {}", self.key.display(), self.cert.display());
                Flaw { key: "tls.key", text, may_pass: false }
            }
            error => flaw("tls.cert", &self.cert, error),
        }
    }

    fn doubts(&self, material: &Material, wall: u64) -> Vec<Flaw> {
        let mut doubts = Vec::new();
        let mut doubt = |key, text| doubts.push(Flaw { key, text, may_pass: false });
        let cert = self.cert.display();
        let leaf = material.pair.as_ref().and_then(|(chain, _)| chain.first());
        match leaf.and_then(Certificate::parse).map(|leaf| leaf.validity(wall)) {
            Some(Validity::Expired(at)) => {
                doubt("tls.cert", format!("{cert} has expired at {at}, so clients will not trust it"));
            }
            Some(Validity::NotYet(at)) => {
                doubt("tls.cert", format!("{cert} is valid only from {at} on (is the clock right?)"));
            }
            Some(Validity::Valid) => {}
            None => doubt("tls.cert", format!("{cert} is not a certificate that can be looked into")),
        }
        let mode = fs::metadata(&self.key).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o044 != 0 {
            let who = if mode & 0o004 != 0 { "everybody" } else { "its group" };
            doubt(
                "tls.key",
                format!("{} can be read by {who}; mode 0600 keeps it secret", self.key.display()),
            );
        }
        let revoked = self.clients.as_ref().and_then(|clients| clients.revoked.as_ref());
        let lists = material.clients.iter().flat_map(|(_, lists)| lists);
        let late = lists.into_iter().find_map(|list| overdue(list, wall));
        if let (Some(file), Some(at)) = (revoked, late) {
            doubt(
                "tls.crl",
                format!("{} was to be renewed at {at}; it is used all the same", file.display()),
            );
        }
        doubts
    }
}

impl Made {
    /// Whose certificate the last failed handshake refused, where it did. Handshakes go one at a time.
    pub(super) fn refused(&self) -> Option<String> {
        self.guard.as_ref()?.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
impl Made {
    /// Whether clients are verified by the very same lists.
    pub(super) fn is_guarded_as(&self, other: &Made) -> bool {
        self.guard.as_ref().zip(other.guard.as_ref()).is_some_and(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl Guard {
    fn new(
        clients: &Clients,
        roots: RootCertStore,
        lists: Vec<CertificateRevocationListDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Guard>, Flaw> {
        // A list past its time is used on: otherwise a gateway without an uplink would lock everybody out.
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists);
        if !clients.required {
            builder = builder.allow_unauthenticated();
        }
        let inner = builder.build().map_err(|error| {
            let file = clients.revoked.as_ref().unwrap_or(&clients.authority);
            let key = if clients.revoked.is_some() { "tls.crl" } else { "tls.client_ca" };
            flaw(key, file, &error)
        })?;
        Ok(Arc::new(Guard { inner, refused: Mutex::default() }))
    }
}

impl ClientCertVerifier for Guard {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(certificate, between, now);
        if verified.is_err() {
            let name = Certificate::parse(certificate).map(|certificate| certificate.to_string());
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = name;
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(key, file, &error))?;
    if found.is_empty() { Err(flaw(key, file, &"no certificate in it")) } else { Ok(found) }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Flaw> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            flaw("tls.key", file, &"no key in it (one with a passphrase cannot be used)")
        }
        error => unreadable("tls.key", file, &error),
    })
}

fn revocations(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Flaw> {
    let found: Vec<_> = CertificateRevocationListDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable("tls.crl", file, &error))?;
    if found.is_empty() { Err(flaw("tls.crl", file, &"no revocation list in it")) } else { Ok(found) }
}

fn unreadable(key: &'static str, file: &Path, error: &pem::Error) -> Flaw {
    // A file that is missing changes when it comes.
    let may_pass = matches!(error, pem::Error::Io(error) if error.kind() != io::ErrorKind::NotFound);
    Flaw { may_pass, ..flaw(key, file, error) }
}

fn flaw(key: &'static str, file: &Path, error: &impl ToString) -> Flaw {
    let text = format!("cannot use {}: {}", file.display(), error.to_string());
    Flaw { key, text, may_pass: false }
}

fn keep<T>(result: Result<T, Flaw>, flaws: &mut Vec<Flaw>) -> Option<T> {
    result.map_err(|flaw| flaws.push(flaw)).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::listener::testing::Authority;

    /// Some day in 2026.
    const NOW: u64 = 1_780_000_000_000;

    fn examine(tls: &TlsConfig) -> (Vec<Flaw>, Vec<Flaw>) {
        tls.check(&mut Vec::new()).unwrap().examine(NOW)
    }

    /// The one complaint, its key and the file that it names.
    fn only(flaws: &[Flaw], key: &str, file: &Path, words: &str) {
        let [flaw] = flaws else { panic!("{flaws:?}") };
        assert_eq!(flaw.key, key);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(flaw.text.contains(name) && flaw.text.contains(words), "{}", flaw.text);
    }

    #[test]
    fn each_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let good = authority.issue("good", &["localhost"], 1);
        let other = authority.issue("other", &["localhost"], 2);
        let crl = authority.revoke(&[3], 2999);
        let garbage = folder.path().join("garbage");
        fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let whole = TlsConfig { client_ca: Some(authority.file.clone()), crl: Some(crl), ..good.tls() };
        assert_eq!(examine(&whole), (Vec::new(), Vec::new()));

        let missing = folder.path().join("missing.pem");
        let tls = TlsConfig { key: Some(missing.clone()), ..whole.clone() };
        only(&examine(&tls).0, "tls.key", &missing, "No such file");
        let tls = TlsConfig { key: Some(good.cert.clone()), ..whole.clone() };
        only(&examine(&tls).0, "tls.key", &good.cert, "no key in it");
        let tls = TlsConfig { key: Some(other.key.clone()), ..whole.clone() };
        only(&examine(&tls).0, "tls.key", &other.key, "is not the key of");
        let tls = TlsConfig { cert: Some(good.key.clone()), ..whole.clone() };
        only(&examine(&tls).0, "tls.cert", &good.key, "no certificate in it");
        let tls = TlsConfig { client_ca: Some(garbage.clone()), ..whole.clone() };
        only(&examine(&tls).0, "tls.client_ca", &garbage, "cannot use");
        let tls = TlsConfig { crl: Some(good.cert.clone()), ..whole.clone() };
        only(&examine(&tls).0, "tls.crl", &good.cert, "no revocation list in it");
        let tls = TlsConfig { cert: Some(missing.clone()), key: Some(missing.clone()), ..whole };
        assert_eq!(examine(&tls).0.len(), 2, "both are told at once");
    }

    #[test]
    fn what_is_usable_and_perhaps_not_meant_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let old = authority.expired("old");
        let (flaws, doubts) = examine(&old.tls());
        assert_eq!(flaws, []);
        only(&doubts, "tls.cert", &old.cert, "has expired at 2002-01-01");
        let good = authority.issue("good", &["localhost"], 1);
        for (mode, words) in [(0o640, "its group"), (0o644, "everybody")] {
            fs::set_permissions(&good.key, fs::Permissions::from_mode(mode)).unwrap();
            only(&examine(&good.tls()).1, "tls.key", &good.key, words);
        }
        fs::set_permissions(&good.key, fs::Permissions::from_mode(0o600)).unwrap();
        let crl = authority.revoke(&[], 2021);
        let client_ca = Some(authority.file.clone());
        let tls = TlsConfig { client_ca, crl: Some(crl.clone()), ..good.tls() };
        only(&examine(&tls).1, "tls.crl", &crl, "2021-01-01");
    }
}
