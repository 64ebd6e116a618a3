//! The password file: `user:hash` lines, and beside a user's hash a second line where he may use SCRAM.
//!
//! The file is read at the start and again whenever it has changed, so a new password works without a
//! restart. Where the new file is wrong the old one stays in force and the trouble is said once; where
//! there never was a good one, nobody gets in.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::scram::{self, Credential};
use super::watched::{Moment, Watched};
use super::{Hash, SCHEME};

/// Users and their hashes.
#[derive(Debug, Clone, Default)]
pub struct Passwords {
    users: BTreeMap<String, Hash>,
    /// One of those as which most are made, to be compared for users that there are not.
    decoy: Option<Hash>,
    credentials: BTreeMap<String, Credential>,
    /// Iterations and salt bytes that most credentials have, for users that there are not.
    form: Option<(u32, usize)>,
}

/// A password file on disk, and what was last read from it.
#[derive(Debug)]
pub struct PasswordFile {
    file: Watched,
    passwords: Passwords,
}

/// Whether the file is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// What was read before holds.
    Same,
    /// Other passwords may fit now.
    Changed {
        /// Whose hash is there no more, or now, or another.
        users: Vec<String>,
    },
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
    #[error("use the password file {path}: {mistake}")]
    WrongLine {
        /// Which file.
        path: PathBuf,
        /// Which line.
        mistake: Mistake,
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
        passwords.decoy = decoy(&passwords.users);
        passwords.form = most_frequent(passwords.credentials.values().map(Credential::form));
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

    /// Iterations and salt bytes that most have, so that an unknown user stays the same when lines come
    /// and go.
    pub(super) fn credential_form(&self) -> (u32, usize) {
        self.form.unwrap_or((scram::ITERATIONS, scram::SALT_BYTES))
    }

    /// Users whose hash is another than it was.
    fn changed_since(&self, former: &Passwords) -> Vec<String> {
        let users = self.users.keys().chain(former.users.keys());
        users.filter(|user| self.users.get(*user) != former.users.get(*user)).cloned().collect()
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

/// Of as many the largest.
fn most_frequent(forms: impl Iterator<Item = (u32, usize)>) -> Option<(u32, usize)> {
    let mut counts = BTreeMap::new();
    forms.for_each(|form| *counts.entry(form).or_insert(0_usize) += 1);
    counts.into_iter().max_by_key(|(form, count)| (*count, *form)).map(|(form, _)| form)
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

    /// Reads the file if it has changed since it was last read and been left alone for a second.
    ///
    /// # Errors
    /// Once for each trouble; what was read before stays in force.
    pub fn refresh(&mut self, now: &Moment) -> Result<Freshness, AuthError> {
        match self.file.refresh(now, parse)? {
            None => Ok(Freshness::Same),
            Some(passwords) => {
                let users = passwords.changed_since(&self.passwords);
                self.passwords = passwords;
                Ok(Freshness::Changed { users })
            }
        }
    }

    /// Whether it has changed and is to be looked at again in a second.
    pub fn is_settling(&self) -> bool {
        self.file.is_settling()
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

fn parse(path: &Path, text: &str) -> Result<Passwords, AuthError> {
    Passwords::parse(text).map_err(|mistake| AuthError::WrongLine { path: path.to_owned(), mistake })
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
        assert!(matches!(file.refresh(&Moment::at(0)), Err(AuthError::Unreadable { .. })));
        assert!(file.refresh(&Moment::at(0)).is_ok(), "the same trouble is not told twice");
        assert!(!file.verify("anna", b"one"));

        fs::write(&path, format!("# who\n\nanna:{}\n", hash(b"one").unwrap())).unwrap();
        assert_eq!(file.refresh(&Moment::at(0)).unwrap(), Freshness::Same);
        assert!(file.is_settling() && !file.verify("anna", b"one"));
        assert_eq!(
            file.refresh(&Moment::at(1_000)).unwrap(),
            Freshness::Changed { users: vec!["anna".to_owned()] }
        );
        assert!(file.verify("anna", b"one"));
        assert!(!file.verify("bert", b"one"));

        fs::write(&path, "anna:nonsense, and longer than before so that the stamp differs\n").unwrap();
        assert!(file.refresh(&Moment::at(1_000)).is_ok());
        assert!(matches!(
            file.refresh(&Moment::at(2_000)),
            Err(AuthError::WrongLine { mistake: Mistake { line: 1, .. }, .. })
        ));
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
