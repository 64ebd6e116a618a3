//! The password file: `user:hash` lines, and beside a user's hash a second line where he may use SCRAM.
//!
//! The file is read when a password is first asked for and again whenever it has changed, so a new
//! password works without a restart. Where the new file is wrong the old one stays in force and the
//! trouble is said once; where there never was a good one, nobody gets in.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::scram::{self, Credential};
use super::{Hash, SCHEME};

/// Users and their hashes.
#[derive(Debug, Clone, Default)]
pub struct Passwords {
    users: BTreeMap<String, Hash>,
    credentials: BTreeMap<String, Credential>,
    /// Iterations and salt bytes of each credential, from which those of unknown users are taken.
    forms: Vec<(u32, usize)>,
}

/// A password file on disk, and what was last read from it.
#[derive(Debug)]
pub struct PasswordFile {
    path: PathBuf,
    passwords: Passwords,
    stamp: Option<Stamp>,
}

/// Whether the file is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// What was read before holds.
    Same,
    /// Other passwords may fit now.
    Changed,
}

/// Why there are no passwords to compare with.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The disk.
    #[error("read the password file {path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The operator.
    #[error("use the password file {path}: {mistake}")]
    WrongLine {
        /// Which file.
        path: PathBuf,
        /// Which line.
        mistake: Mistake,
    },
}

/// A line that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {fault}")]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a line, and what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No user, or no colon.
    #[error("is not \"user:hash\": let tidegate passwd write it")]
    NotUserAndHash,
    /// What stands behind the colon is no hash.
    #[error("has no hash that is known: set the password anew with tidegate passwd")]
    UnknownHash,
    /// It is for SCRAM, and is not as it should be.
    #[error(
        "is not \"user:$scram-sha-256$iterations$salt$StoredKey$ServerKey\", of 4096 iterations or more: set the password anew with tidegate passwd --scram"
    )]
    NotForScram,
    /// There is such a line already.
    #[error("gives its user a second password of the same kind: delete one of the two")]
    Repeated,
}

impl Passwords {
    /// Reads lines; empty ones and comments (`#`) are passed over.
    ///
    /// # Errors
    /// The first wrong line.
    pub fn parse(text: &str) -> Result<Passwords, Mistake> {
        let mut passwords = Passwords::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            passwords.add(line).map_err(|fault| Mistake { line: index + 1, fault })?;
        }
        Ok(passwords)
    }

    fn add(&mut self, line: &str) -> Result<(), Fault> {
        let (user, hash) = line.split_once(':').ok_or(Fault::NotUserAndHash)?;
        if user.is_empty() {
            return Err(Fault::NotUserAndHash);
        }
        let former = match hash.strip_prefix(SCHEME) {
            Some(text) => {
                let credential = Credential::parse(text).ok_or(Fault::NotForScram)?;
                self.forms.push(credential.form());
                self.credentials.insert(user.to_owned(), credential).is_some()
            }
            None => {
                let hash = Hash::parse(hash).ok_or(Fault::UnknownHash)?;
                self.users.insert(user.to_owned(), hash).is_some()
            }
        };
        if former { Err(Fault::Repeated) } else { Ok(()) }
    }

    /// What is kept for the user's SCRAM.
    pub(super) fn credential(&self, user: &str) -> Option<&Credential> {
        self.credentials.get(user)
    }

    /// Iterations and salt bytes that somebody has; who is told by `pick`.
    pub(super) fn credential_form(&self, pick: u16) -> (u32, usize) {
        let known = usize::from(pick).checked_rem(self.forms.len());
        known
            .and_then(|index| self.forms.get(index).copied())
            .unwrap_or((scram::ITERATIONS, scram::SALT_BYTES))
    }

    /// Whether this is the user's password. An unknown user takes as long as a known one, so that
    /// names cannot be found out by the clock.
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        match self.users.get(user) {
            Some(hash) => hash.fits(password),
            None => {
                if let Some(decoy) = self.users.values().next() {
                    let _ = decoy.fits(password);
                }
                false
            }
        }
    }
}

impl PasswordFile {
    /// Names the file; nothing is read yet.
    pub fn at(path: impl Into<PathBuf>) -> PasswordFile {
        PasswordFile { path: path.into(), passwords: Passwords::default(), stamp: None }
    }

    /// Reads the file if it has changed since it was last read.
    ///
    /// # Errors
    /// Once per change of the file; what was read before stays in force.
    pub fn refresh(&mut self) -> Result<Freshness, AuthError> {
        let stamp = Stamp::of(&self.path);
        if self.stamp.is_some() && self.stamp == stamp {
            return Ok(Freshness::Same);
        }
        let known = self.stamp.replace(stamp.unwrap_or(Stamp::MISSING));
        if stamp.is_none() && known == Some(Stamp::MISSING) {
            return Ok(Freshness::Same);
        }
        self.passwords = read(&self.path)?;
        Ok(Freshness::Changed)
    }

    /// What was last read.
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Whether this is the user's password, by what was last read.
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        self.passwords.verify(user, password)
    }
}

fn read(path: &Path) -> Result<Passwords, AuthError> {
    let unreadable = |source| AuthError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(unreadable)?;
    Passwords::parse(&text).map_err(|mistake| AuthError::WrongLine { path: path.to_owned(), mistake })
}

/// What tells two states of a file apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Stands for a file that is not there.
    const MISSING: Stamp = Stamp { inode: 0, length: 0, modified: (0, 0) };

    fn of(path: &Path) -> Option<Stamp> {
        let data = fs::metadata(path).ok()?;
        Some(Stamp { inode: data.ino(), length: data.len(), modified: (data.mtime(), data.mtime_nsec()) })
    }
}

/// A password file beyond this is cut, and then its last line is wrong: 100,000 users fit.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::hash;

    #[test]
    fn a_new_password_works_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        let mut file = PasswordFile::at(&path);
        assert!(matches!(file.refresh(), Err(AuthError::Unreadable { .. })));
        assert!(file.refresh().is_ok(), "the same trouble is not told twice");
        assert!(!file.verify("anna", b"one"));

        fs::write(&path, format!("# who\n\nanna:{}\n", hash(b"one").unwrap())).unwrap();
        file.refresh().unwrap();
        assert!(file.verify("anna", b"one"));
        assert!(!file.verify("bert", b"one"));

        fs::write(&path, "anna:nonsense, and longer than before so that the stamp differs\n").unwrap();
        assert!(matches!(file.refresh(), Err(AuthError::WrongLine { mistake: Mistake { line: 1, .. }, .. })));
        assert!(file.verify("anna", b"one"), "the last good file stays in force");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let good = hash(b"x").unwrap();
        let scram = Credential::of(b"x", vec![0; 16], 4_096);
        for (text, line, fault) in [
            (format!("a:{good}\nb\n"), 2, Fault::NotUserAndHash),
            (format!(":{good}\n"), 1, Fault::NotUserAndHash),
            (format!("a:{good}\na:{good}\n"), 2, Fault::Repeated),
            (format!("# x\n\na:{scram}\na:{scram}\n"), 4, Fault::Repeated),
            (format!("a:{good}\nb:plain\n"), 2, Fault::UnknownHash),
            (format!("a:{scram}x\n"), 1, Fault::NotForScram),
        ] {
            assert_eq!(Passwords::parse(&text).err(), Some(Mistake { line, fault }), "{text}");
        }
        let error = AuthError::WrongLine {
            path: "passwd".into(),
            mistake: Mistake { line: 3, fault: Fault::UnknownHash },
        };
        let said = error.to_string();
        assert!(said.contains("passwd: line 3 has no hash that is known: set"), "{said}");
    }

    #[test]
    fn a_user_has_a_hash_and_a_line_for_scram_or_one_of_them() {
        let (good, scram) = (hash(b"x").unwrap(), Credential::of(b"x", vec![0; 16], 4_096));
        let text = format!("a:{good}\na:{scram}\nb:{good}\nc:{scram}\n");
        let passwords = Passwords::parse(&text).unwrap();
        let known = ["a", "b", "c"].map(|user| passwords.credential(user).is_some());
        assert_eq!(known, [true, false, true]);
        assert_eq!(["a", "b", "c"].map(|user| passwords.verify(user, b"x")), [true, true, false]);
    }
}
