//! Who may read and write what, and how often: the operator's access rules and rates.
//!
//! [`Rules`] are the lines of an ACL file in mosquitto's syntax. From them each client gets its [`Access`]
//! when it connects: the lines of its user and the patterns, both shared, and its names, so that a
//! message is checked without an allocation. What is not granted is denied, and a `deny` line wins over
//! every other, wherever it stands.

mod filters;
mod granted;
mod names;
mod rate;
mod rules;

pub use granted::Access;
pub use rate::Bucket;
pub use rules::{Mistake, Rules};
