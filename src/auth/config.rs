//! The keys of `[auth]`.
//!
//! Only where the file lies is configuration; what is in it is read by [`super::PasswordFile`], when the
//! service runs and again whenever the file changes.

use std::path::PathBuf;

use adapter_api::schema::{Key, Kind};
use serde::Deserialize;

/// `[auth]` as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Lines of `tidegate passwd`; none means that nobody has a password.
    pub password_file: Option<PathBuf>,
    /// Access rules in mosquitto's syntax; none means that every client may do what the house allows.
    pub acl_file: Option<PathBuf>,
}

/// What `[auth]` may hold.
pub const KEYS: &[Key] = &[Key::optional("password_file", Kind::Path), Key::optional("acl_file", Kind::Path)];
