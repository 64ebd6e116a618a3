//! Stands for the service until its room lands.

use crate::config::Loaded;

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
#[error("run: the service is not in this build")]
pub struct ServiceError;

/// Runs the service until it is told to stop.
///
/// # Errors
/// Where it cannot start at all.
pub fn run(_loaded: Loaded) -> Result<(), ServiceError> {
    Err(ServiceError)
}
