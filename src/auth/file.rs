//! The password file: `user:hash` lines.
//!
//! The file is read when a password is first asked for and again whenever it has changed, so a new
//! password works without a restart. Where the new file is wrong the old one stays in force and the
//! trouble is said once; where there never was a good one, nobody gets in.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Hash;

/// Users and their hashes.
#[derive(Debug, Clone, Default)]
pub struct Passwords {
    users: BTreeMap<String, Hash>,
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
    #[error("use the password file {path}: line {line} is not \"user:hash\" as tidegate passwd writes it")]
    WrongLine {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
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
        Ok(Passwords { users })
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
    Passwords::parse(&text).map_err(|line| AuthError::WrongLine { path: path.to_owned(), line })
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
}
