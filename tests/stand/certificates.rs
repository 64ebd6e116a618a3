//! An authority of the test's own, and the certificates that it signs.
//!
//! Also what must be refused: another authority, another name, a certificate that has expired.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
    date_time_ymd,
};

use super::revoked::revocation_list;

/// An authority and where its certificates lie.
pub struct Certificates {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    /// A new authority, with its certificate at `ca.pem` in the folder.
    pub fn new(folder: &Path, name: &str) -> Certificates {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        Certificates { folder, issuer: Issuer::new(params, key) }
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A server's certificate and key for this host name.
    pub fn server(&self, host: &str) -> (PathBuf, PathBuf) {
        self.sign(host, CertificateParams::new(vec![host.to_string()]).unwrap())
    }

    /// One that ran out long ago.
    pub fn expired(&self, host: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![host.to_string()]).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(&format!("{host}-expired"), params)
    }

    /// A client's certificate and key, with this common name and serial number.
    pub fn client(&self, name: &str, serial: u64) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        self.sign(name, params)
    }

    /// The list of these revoked serial numbers.
    pub fn revoke(&self, serials: &[u64]) -> PathBuf {
        let path = self.folder.join("revoked.pem");
        fs::write(&path, revocation_list(&self.issuer, serials, 2999)).unwrap();
        path
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> (PathBuf, PathBuf) {
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (self.folder.join(format!("{name}.pem")), self.folder.join(format!("{name}.key")));
        fs::write(&paths.0, certificate.pem()).unwrap();
        fs::write(&paths.1, key.serialize_pem()).unwrap();
        fs::set_permissions(&paths.1, fs::Permissions::from_mode(0o600)).unwrap();
        paths
    }
}
