//! Keeps a listener's TLS fresh: files that were replaced are used from the next handshake on.
//!
//! Clients that are connected stay so. What cannot be used changes nothing and is said once; it is looked
//! at again when a file changes once more.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

use super::tls::{Identity, Made, Tls};

/// One listener's TLS, as its files were when they were last good.
#[derive(Debug)]
pub(super) struct Keeper {
    listener: String,
    tls: Tls,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    made: Option<Arc<Made>>,
    /// The files that were looked at last.
    seen: Vec<Stamp>,
    trouble: Option<String>,
}

/// What tells that a file has changed, or who may read it: its time in seconds and nanoseconds, its number,
/// its size.
type Stamp = Option<(i64, i64, u64, u64)>;

impl Keeper {
    /// Reads the files for the first time.
    pub(super) fn new(listener: &str, tls: Tls) -> Keeper {
        let keeper = Keeper { listener: listener.to_owned(), tls, state: Mutex::default() };
        keeper.look();
        keeper
    }

    /// Reads the files again where one has changed. For a helper thread, since a disk may be slow.
    pub(super) fn look(&self) {
        // Before the files are read, so that one that changes meanwhile is read again.
        let stamps = self.stamps();
        if self.state().seen == stamps {
            return;
        }
        let made = self.tls.make();
        let mut state = self.state();
        let first = state.seen.is_empty();
        state.seen = stamps;
        match made {
            Ok(made) => {
                if !first {
                    info!(listener = %self.listener, "renewed certificates are used from now on");
                }
                state.made = Some(Arc::new(made));
                state.trouble = None;
            }
            Err(flaw) => {
                let rest = if state.made.is_some() { "; the ones before are used on" } else { "" };
                // At the start the door says it, since it stays closed.
                if !first {
                    warn!(listener = %self.listener, "{}{rest}", flaw.text);
                }
                state.trouble = Some(flaw.text);
            }
        }
    }

    /// What a handshake is to be made with; `None` while the files were never good.
    pub(super) fn current(&self) -> Option<Arc<Made>> {
        self.state().made.clone()
    }

    /// What of a client's certificate is the user's name.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.tls.identity()
    }

    /// What is wrong with the files as they are.
    pub(super) fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path| {
            let data = fs::metadata(path).ok()?;
            Some((data.ctime(), data.ctime_nsec(), data.ino(), data.size()))
        };
        self.tls.files().map(stamp).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
