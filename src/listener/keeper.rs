//! Keeps a listener's TLS fresh: files that were replaced are used from the next handshake on.
//!
//! Clients that are connected stay so. What cannot be used changes nothing and is said once; it is looked
//! at again when a file changes once more, and what cannot be read at every look. Our pair and what concerns
//! clients do not hold each other up.

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
    /// The files that were read last, whatever was in them.
    seen: Vec<Stamp>,
    /// At least once.
    looked: bool,
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
        let before = self.current();
        let (made, flaws) = self.tls.make(before.as_deref());
        let mut state = self.state();
        // What could not be read this time may be readable the next time, as it is.
        if !flaws.iter().any(|flaw| flaw.may_pass) {
            state.seen = stamps;
        }
        let trouble = flaws.iter().map(|flaw| flaw.text.as_str()).collect::<Vec<_>>().join("; ");
        let trouble = (!trouble.is_empty()).then_some(trouble);
        // At the start the door says it, since it stays closed.
        if before.is_some() || state.looked {
            let rest = if before.is_some() { "; the ones before are used on" } else { "" };
            match &trouble {
                None => info!(listener = %self.listener, "renewed certificates are used from now on"),
                Some(text) if state.trouble != trouble => warn!(listener = %self.listener, "{text}{rest}"),
                Some(_) => {}
            }
        }
        state.looked = true;
        if let Some(made) = made {
            state.made = Some(Arc::new(made));
        }
        state.trouble = trouble;
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

#[cfg(test)]
mod tests {
    use super::super::TlsConfig;
    use super::super::testing::{Authority, secure_listener};
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_tried_at_every_look_and_the_pair_is_renewed_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let server = authority.issue("server", &["localhost"], 1);
        let crl = authority.revoke(&[66], 2999);
        let tls =
            TlsConfig { client_ca: Some(authority.file.clone()), crl: Some(crl.clone()), ..server.tls() };
        let keeper = Keeper::new("x", secure_listener(tls).tls.unwrap());
        let first = keeper.current().unwrap();
        keeper.look();
        assert!(Arc::ptr_eq(&first, &keeper.current().unwrap()), "nothing has changed");

        fs::remove_file(&crl).unwrap();
        fs::create_dir(&crl).unwrap();
        server.become_like(&authority.issue("renewed", &["localhost"], 2));
        keeper.look();
        let second = keeper.current().unwrap();
        assert!(keeper.trouble().unwrap().contains("revoked.crl"));
        assert!(!Arc::ptr_eq(&first.config.cert_resolver, &second.config.cert_resolver), "the pair is new");
        assert!(second.is_guarded_as(&first), "the list is that of before");
        keeper.look();
        assert!(!Arc::ptr_eq(&second, &keeper.current().unwrap()), "read again although nothing changed");

        fs::remove_dir(&crl).unwrap();
        authority.revoke(&[7], 2999);
        keeper.look();
        assert_eq!(keeper.trouble(), None);
        assert!(!keeper.current().unwrap().is_guarded_as(&first));
    }
}
