//! What the process is told by signals: to end, and to look at its files again.
//!
//! They are heard from the first moment on, since one that nobody hears ends the process as it stands.

use std::io;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::journal;

/// All that are heard.
pub(super) struct Signals {
    pub(super) ends: Ends,
    /// SIGHUP.
    pub(super) hangup: Signal,
}

/// SIGTERM and SIGINT.
pub(super) struct Ends {
    terminate: Signal,
    interrupt: Signal,
    /// One has come.
    told: bool,
}

impl Signals {
    /// Hears them from now on, on this runtime.
    pub(super) fn hear(runtime: &Runtime) -> io::Result<Signals> {
        let _within = runtime.enter();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let ends = Ends { terminate, interrupt, told: false };
        Ok(Signals { ends, hangup: signal(SignalKind::hangup())? })
    }
}

impl Ends {
    /// Waits until the service is told to end; not at all where it was.
    pub(super) async fn told(&mut self) {
        if !self.told {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            self.told = true;
        }
    }

    /// Does on this thread what cannot be interrupted. Where the service is told to end meanwhile and the work
    /// does not come to its end soon, the process ends: nothing is served yet, and the disk may be left at any
    /// moment, as when the power goes.
    pub(super) fn beside<T>(&mut self, runtime: &Runtime, work: impl FnOnce() -> T) -> io::Result<T> {
        let (done, mut is_done) = oneshot::channel::<()>();
        std::thread::scope(|scope| {
            let watch = async {
                tokio::select! {
                    _ = &mut is_done => return,
                    () = self.told() => {}
                }
                if timeout(WORK_ENDS, is_done).await.is_err() {
                    last_word("told to end at the start: ending in the middle of it");
                    std::process::exit(0);
                }
            };
            let watching = std::thread::Builder::new().name("start".into());
            watching.spawn_scoped(scope, || runtime.block_on(watch))?;
            let result = work();
            drop(done);
            Ok(result)
        })
    }
}

/// Says why the process ends now, also while there is no log yet.
fn last_word(why: &str) {
    if tracing::dispatcher::has_been_set() {
        tracing::warn!("{why}");
        journal::flush();
    } else {
        eprintln!("{why}");
    }
}

/// How long a start may go on after the service was told to end: the end itself takes time, too.
const WORK_ENDS: Duration = Duration::from_millis(500);
