//! Who may come in: the password file and the hashes in it.
//!
//! Hashing takes a tenth of a second on purpose, so nothing here runs on the engine's thread. What a
//! user may then do is not decided here but by access rules.

mod config;
mod failures;
mod file;
mod hash;
mod memory;

pub use config::{Config, KEYS};
pub use failures::Failures;
pub use file::{AuthError, Freshness, PasswordFile, Passwords};
pub use hash::{Hash, hash};
pub use memory::{Known, Memory, Pair};
