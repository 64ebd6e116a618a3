//! Who may come in: the password file and the hashes in it.
//!
//! Hashing takes a tenth of a second on purpose, so nothing here runs on the engine's thread. What a
//! user may then do is not decided here but by access rules.

mod config;
mod file;
mod hash;

pub use config::{Config, KEYS};
pub use file::{AuthError, PasswordFile, Passwords};
pub use hash::{Hash, hash};
