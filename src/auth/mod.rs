//! Who may come in: the password file, the hashes in it, and SCRAM.
//!
//! Hashing takes a tenth of a second on purpose, so nothing here runs on the engine's thread. What a
//! user may then do is not decided here but by access rules.

mod config;
mod failures;
mod file;
mod hash;
mod memory;
mod scram;

pub use config::{Config, KEYS};
pub use failures::Failures;
pub use file::{AuthError, Fault, Freshness, Mistake, PasswordFile, Passwords};
pub use hash::{Hash, HashFailed, hash, hash_for_scram};
pub use memory::{Known, Memory, Pair};
pub use scram::{Credential, Key, Proof, SCHEME, Scram};
