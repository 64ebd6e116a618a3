//! That long work goes on, told by those who do it.
//!
//! A salvage keeps the store's thread for minutes, in which it answers nobody: whoever watches it could not tell
//! that from a thread that hangs. Told is only what has been done, never that something is begun.

use std::fmt;
use std::sync::Arc;

/// Where it is told; nowhere by default.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn() + Send + Sync>);

impl Progress {
    /// Calls this after each piece of work, on the thread that does it.
    pub fn new(tell: impl Fn() + Send + Sync + 'static) -> Progress {
        Progress(Arc::new(tell))
    }

    /// A piece is done.
    pub(super) fn step(&self) {
        (self.0)();
    }
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new(|| ())
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Progress")
    }
}
