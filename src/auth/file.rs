//! The password file: `user:hash` lines.
//!
//! The file is read at the start and again whenever it has changed, so a new password works without a
//! restart. Where the new file is wrong the old one stays in force and the trouble is said once; where
//! there never was a good one, nobody gets in.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::Hash;
use super::watched::Watched;

/// Users and their hashes.
#[derive(Debug, Clone, Default)]
pub struct Passwords {
    users: BTreeMap<String, Hash>,
    /// One of those as which most are made, to be compared for users that there are not.
    decoy: Option<Hash>,
}

/// A password file on disk, and what was last read from it.
#[derive(Debug)]
pub struct PasswordFile {
    file: Watched,
    passwords: Passwords,
}

/// Whether the file is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// What was read before holds.
    Same,
    /// Other passwords may fit now.
    Changed,
}

/// Why a file of passwords or rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The disk.
    #[error("read {path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The operator.
    #[error("use the password file {path}: line {line} is not \"user:hash\" as tidegate passwd writes it")]
    WrongLine {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The operator.
    #[error("use the ACL file {path}: {mistakes}")]
    WrongRules {
        /// Which file.
        path: PathBuf,
        /// Every wrong line.
        mistakes: String,
    },
}

impl Passwords {
    /// Reads lines; empty ones and comments (`#`) are passed over. The number of the first wrong line
    /// comes back as the error.
    pub fn parse(text: &str) -> Result<Passwords, usize> {
        let mut users = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line.split_once(':').ok_or(index + 1)?;
            let hash = Hash::parse(hash).ok_or(index + 1)?;
            if user.is_empty() || users.insert(user.to_owned(), hash).is_some() {
                return Err(index + 1);
            }
        }
        let decoy = decoy(&users);
        Ok(Passwords { users, decoy })
    }

    /// Whether this is the user's password. An unknown user takes as long as most known ones, so that
    /// names cannot be found out by the clock.
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        match self.users.get(user) {
            Some(hash) => hash.fits(password),
            None => {
                if let Some(decoy) = &self.decoy {
                    let _ = decoy.fits(password);
                }
                false
            }
        }
    }
}

/// A hash made in the way that most of these are.
fn decoy(users: &BTreeMap<String, Hash>) -> Option<Hash> {
    let mut ways = BTreeMap::new();
    for hash in users.values() {
        ways.entry(hash.scheme()).or_insert((0_usize, hash)).0 += 1;
    }
    ways.into_values().max_by_key(|(count, _)| *count).map(|(_, hash)| hash.clone())
}

impl PasswordFile {
    /// Names the file; nothing is read yet.
    pub fn at(path: impl Into<PathBuf>) -> PasswordFile {
        PasswordFile { file: Watched::at(path), passwords: Passwords::default() }
    }

    /// Reads the file if it has changed since it was last read.
    ///
    /// # Errors
    /// Once for each trouble; what was read before stays in force.
    pub fn refresh(&mut self) -> Result<Freshness, AuthError> {
        match self.file.refresh(parse)? {
            None => Ok(Freshness::Same),
            Some(passwords) => {
                self.passwords = passwords;
                Ok(Freshness::Changed)
            }
        }
    }

    /// Whether this is the user's password, by what was last read.
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        self.passwords.verify(user, password)
    }
}

fn parse(path: &Path, text: &str) -> Result<Passwords, AuthError> {
    Passwords::parse(text).map_err(|line| AuthError::WrongLine { path: path.to_owned(), line })
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        assert!(matches!(file.refresh(), Err(AuthError::WrongLine { line: 1, .. })));
        assert!(file.verify("anna", b"one"), "the last good file stays in force");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let good = hash(b"x").unwrap();
        assert_eq!(Passwords::parse(&format!("a:{good}\nb\n")).err(), Some(2));
        assert_eq!(Passwords::parse(&format!("a:{good}\na:{good}\n")).err(), Some(2));
        assert_eq!(Passwords::parse(&format!(":{good}\n")).err(), Some(1));
    }

    #[test]
    fn an_unknown_user_costs_what_most_known_ones_do() {
        let fast = "$6$z8dlHH+B3UV1eRTv$GQlwMS0v6wxHJM8Cy/hmG8oAkHIOP1XLnlq2RzvpBPmueQGnLFB4wi9rLYuLuJPwx9Kmy99EFJmlt7aLxRMVBA==";
        let slow = hash(b"x").unwrap();
        let scheme = |text: &str| Hash::parse(text).map(|hash| hash.scheme());
        for (lines, expected) in [
            (format!("a:{fast}\nb:{slow}\nc:{slow}\n"), scheme(&slow)),
            (format!("a:{slow}\nb:{fast}\nc:{fast}\n"), scheme(fast)),
            (String::new(), None),
        ] {
            let passwords = Passwords::parse(&lines).unwrap();
            assert_eq!(passwords.decoy.as_ref().map(Hash::scheme), expected);
            assert!(!passwords.verify("nobody", b"x"));
        }
    }
}
