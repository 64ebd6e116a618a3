//! What a certificate or a revocation list says of itself: whose it is, and when it is valid.
//!
//! Nothing is verified here; rustls has done that for a client's certificate before its name is used.

use std::fmt;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::Identity;

/// A parsed certificate.
#[derive(Debug)]
pub(super) struct Certificate(CertificateInner<Raw>);

/// How a moment stands to the time in which a document is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Validity {
    /// It is valid.
    Valid,
    /// Only from this time on.
    NotYet(String),
    /// It was until this time.
    Expired(String),
}

impl Certificate {
    /// Reads it; `None` where it is no X.509.
    pub(super) fn parse(der: &CertificateDer<'_>) -> Option<Certificate> {
        CertificateInner::from_der(der.as_ref()).ok().map(Certificate)
    }

    /// The user that it names by this field; `None` where it has no such field or no name that MQTT could
    /// carry.
    pub(super) fn user(&self, identity: Identity) -> Option<String> {
        let name = match identity {
            Identity::CommonName => self.common_name(),
            Identity::AlternativeName => self.alternative_name(),
        };
        name.filter(|name| !name.is_empty() && name.len() <= 65_535 && !name.contains(char::is_control))
    }

    fn common_name(&self) -> Option<String> {
        let name = self.0.tbs_certificate().subject().common_name().ok()??;
        Some(name.value().into_owned())
    }

    /// The first of its alternative names that is a text.
    fn alternative_name(&self) -> Option<String> {
        let (_, names) = self.0.tbs_certificate().get_extension::<SubjectAltName>().ok()??;
        names.0.iter().find_map(|name| match name {
            GeneralName::Rfc822Name(text)
            | GeneralName::DnsName(text)
            | GeneralName::UniformResourceIdentifier(text) => Some(text.to_string()),
            _ => None,
        })
    }

    /// At this time, in milliseconds since 1970.
    pub(super) fn validity(&self, wall: u64) -> Validity {
        let validity = self.0.tbs_certificate().validity();
        if wall < millis(validity.not_before) {
            Validity::NotYet(validity.not_before.to_string())
        } else if wall > millis(validity.not_after) {
            Validity::Expired(validity.not_after.to_string())
        } else {
            Validity::Valid
        }
    }
}

/// Its subject, for logs: no line of the log can be broken by it.
impl fmt::Display for Certificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.0.tbs_certificate().subject().to_string();
        subject
            .chars()
            .filter(|letter| !letter.is_control())
            .take(SHOWN)
            .try_for_each(|letter| write!(out, "{letter}"))
    }
}

/// When the next revocation list is due, where this one is older; milliseconds since 1970.
pub(super) fn overdue(list: &CertificateRevocationListDer<'_>, wall: u64) -> Option<String> {
    let list = CertificateList::<Raw>::from_der(list.as_ref()).ok()?;
    let next = list.tbs_cert_list.next_update?;
    (wall > millis(next)).then(|| next.to_string())
}

fn millis(time: x509_cert::time::Time) -> u64 {
    u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX)
}

/// Letters of a subject that a log shows.
const SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::listener::testing::Authority;

    #[test]
    fn users_are_named_by_the_field_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let user = |common_name: &str, names: &[&str], identity| {
            let issued = authority.issue(common_name, names, 5);
            let der = CertificateDer::from_pem_file(issued.cert).unwrap();
            Certificate::parse(&der).unwrap().user(identity)
        };
        let (cn, san) = (Identity::CommonName, Identity::AlternativeName);
        assert_eq!(user("pump 7 größe", &["a.example"], cn).as_deref(), Some("pump 7 größe"));
        assert_eq!(user("pump", &["192.0.2.1", "a.example", "b.example"], san).as_deref(), Some("a.example"));
        assert_eq!(user("pump", &[], san), None);
        assert_eq!(user("", &["a.example"], cn), None);
        assert_eq!(user("line\nbreak", &[], cn), None, "no name that MQTT could carry");
    }
}
