//! Who may come in: the password file, the hashes in it, and SCRAM; and the file of access rules.
//!
//! Hashing takes a tenth of a second on purpose, and disks are slow, so nothing here runs on the engine's
//! thread. What a user may then do is not decided here but by the rules.

mod config;
mod failures;
mod file;
mod hash;
mod memory;
mod rules;
mod scram;
mod secret;
mod watched;

pub use config::{Config, KEYS};
pub use failures::Failures;
pub use file::{AuthError, Fault, Freshness, Mistake, PasswordFile, Passwords};
pub use hash::{Hash, HashFailed, hash, hash_for_scram};
pub use memory::{Known, Memory, Pair};
pub use rules::RulesFile;
pub use scram::{Credential, Key, Proof, SCHEME, Scram};
pub use secret::{fresh_secret, kept_secret};
pub use watched::Moment;
