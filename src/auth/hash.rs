//! One password hash: made, read, compared.
//!
//! Ours are argon2id in the PHC form; mosquitto's `$6$` (one round of SHA-512) and `$7$` (PBKDF2) are
//! read, so that a password file can be brought along. A comparison takes as long wherever it fails.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha512};

/// The hash of one password.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    scheme: Scheme,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

/// How a hash is made, and so what a comparison costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scheme {
    Argon2id { memory: u32, passes: u32, lanes: u32 },
    Sha512,
    Pbkdf2Sha512 { rounds: u32 },
}

/// Hashes a password with a fresh salt, as a line of the password file has it.
///
/// # Errors
/// Only where the system has no randomness or no memory.
pub fn hash(password: &[u8]) -> Result<String, HashFailed> {
    let mut salt = vec![0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|_| HashFailed::NoRandomness)?;
    let mut made = Hash { scheme: OURS, salt, digest: vec![0; DIGEST_BYTES] };
    made.digest = made.digest_of(password).ok_or(HashFailed::NoMemory)?;
    Ok(made.to_string())
}

/// A password could not be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashFailed {
    /// The kernel gave no random bytes.
    #[error("get randomness from the system")]
    NoRandomness,
    /// The hash's memory could not be had.
    #[error("get the memory that the hash needs")]
    NoMemory,
}

impl Hash {
    /// Reads the part of a line behind the colon; `None` where it is no hash that we know.
    pub fn parse(text: &str) -> Option<Hash> {
        let mut fields = text.strip_prefix('$')?.split('$');
        let hash = match fields.next()? {
            "argon2id" => Hash::parse_argon2id(&mut fields)?,
            "6" => Hash {
                scheme: Scheme::Sha512,
                salt: STANDARD.decode(fields.next()?).ok()?,
                digest: STANDARD.decode(fields.next()?).ok()?,
            },
            "7" => Hash {
                scheme: Scheme::Pbkdf2Sha512 { rounds: bounded(fields.next()?, 1, ROUNDS_MAX)? },
                salt: STANDARD.decode(fields.next()?).ok()?,
                digest: STANDARD.decode(fields.next()?).ok()?,
            },
            _ => return None,
        };
        let sound = fields.next().is_none() && hash.salt.len() >= 8 && hash.digest.len() >= 16;
        (sound && hash.digest.len() <= 64).then_some(hash)
    }

    fn parse_argon2id<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Option<Hash> {
        if fields.next()? != "v=19" {
            return None;
        }
        let mut costs = fields.next()?.split(',');
        let memory = bounded(costs.next()?.strip_prefix("m=")?, 8, MEMORY_MAX_KIB)?;
        let passes = bounded(costs.next()?.strip_prefix("t=")?, 1, PASSES_MAX)?;
        let lanes = bounded(costs.next()?.strip_prefix("p=")?, 1, 16)?;
        Some(Hash {
            scheme: Scheme::Argon2id { memory, passes, lanes },
            salt: STANDARD_NO_PAD.decode(fields.next()?).ok()?,
            digest: STANDARD_NO_PAD.decode(fields.next()?).ok()?,
        })
    }

    /// How it is made.
    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether this is the password.
    pub fn fits(&self, password: &[u8]) -> bool {
        let Some(digest) = self.digest_of(password) else { return false };
        let differing = digest.iter().zip(&self.digest).fold(0, |sum, (ours, theirs)| sum | (ours ^ theirs));
        differing == 0 && digest.len() == self.digest.len()
    }

    fn digest_of(&self, password: &[u8]) -> Option<Vec<u8>> {
        let mut digest = vec![0; self.digest.len()];
        match self.scheme {
            Scheme::Argon2id { memory, passes, lanes } => {
                let params = Params::new(memory, passes, lanes, Some(digest.len())).ok()?;
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(password, &self.salt, &mut digest)
                    .ok()?;
            }
            Scheme::Sha512 => {
                digest = Sha512::new().chain_update(password).chain_update(&self.salt).finalize().to_vec();
            }
            Scheme::Pbkdf2Sha512 { rounds } => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password, &self.salt, rounds, &mut digest);
            }
        }
        Some(digest)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Argon2id { memory, passes, lanes } => {
                let (salt, digest) =
                    (STANDARD_NO_PAD.encode(&self.salt), STANDARD_NO_PAD.encode(&self.digest));
                write!(out, "$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${digest}")
            }
            Scheme::Sha512 => {
                write!(out, "$6${}${}", STANDARD.encode(&self.salt), STANDARD.encode(&self.digest))
            }
            Scheme::Pbkdf2Sha512 { rounds } => {
                write!(out, "$7${rounds}${}${}", STANDARD.encode(&self.salt), STANDARD.encode(&self.digest))
            }
        }
    }
}

/// A hash is a secret of sorts: it does not belong in a log.
impl fmt::Debug for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Hash").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

fn bounded(text: &str, lowest: u32, highest: u32) -> Option<u32> {
    text.parse().ok().filter(|number| (lowest..=highest).contains(number))
}

/// 7 MiB and five passes: as hard to guess as 19 MiB and two, and a gateway of 512 MB has it to spare.
const OURS: Scheme = Scheme::Argon2id { memory: 7 * 1_024, passes: 5, lanes: 1 };
const SALT_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;

/// A line of the file that asks for more is refused, so that a slip cannot take the machine's memory.
const MEMORY_MAX_KIB: u32 = 256 * 1_024;
const PASSES_MAX: u32 = 64;
const ROUNDS_MAX: u32 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_own_hash_and_no_other() {
        let line = hash(b"spring tide").unwrap();
        assert!(line.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{line}");
        let read = Hash::parse(&line).unwrap();
        assert_eq!(read.to_string(), line);
        assert!(read.fits(b"spring tide"));
        assert!(!read.fits(b"spring tidE") && !read.fits(b""));
        assert_ne!(hash(b"spring tide").unwrap(), line, "the salt is fresh");
    }

    #[test]
    fn lines_that_mosquitto_wrote_are_read() {
        // Made by mosquitto_passwd 2.0.11: `-b`, and `-b -H sha512`.
        for (line, password) in MOSQUITTO {
            let read = Hash::parse(line).unwrap();
            assert_eq!(read.to_string(), *line);
            assert!(read.fits(password.as_bytes()), "{line}");
            assert!(!read.fits(b"wrong"), "{line}");
        }
    }

    const MOSQUITTO: &[(&str, &str)] = &[
        (
            "$7$101$2t/lWV0FnAf+zPYJ$ypXI0oAvT5d3ZLnSKGJYw9yOkrQjb0GpANoCeUHuHz7FscumjgoAnVfh/4xWhTJ8vy4pbybw1vS3qniOlbH46A==",
            "ebb and flow",
        ),
        (
            "$6$z8dlHH+B3UV1eRTv$GQlwMS0v6wxHJM8Cy/hmG8oAkHIOP1XLnlq2RzvpBPmueQGnLFB4wi9rLYuLuJPwx9Kmy99EFJmlt7aLxRMVBA==",
            "ebb and flow",
        ),
    ];

    #[test]
    fn what_is_no_hash_is_refused() {
        let dear = "$argon2id$v=19$m=99999999,t=5,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaA";
        for text in ["", "plain", "$", "$6$", "$6$c2FsdA==$", "$7$0$AAAAAAAAAAAAAAAA$AAAA", "$5$x$y", dear] {
            assert_eq!(Hash::parse(text), None, "{text}");
        }
    }
}
