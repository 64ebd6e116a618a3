//! The bridge as a whole, against an upstream of the test and a store of the test.
//!
//! Promises: nothing that was acknowledged is lost, first arrivals are in order, the window is never
//! exceeded, a row is settled only after its PUBACK, and every refusal is told for what it is.

mod certificates;
mod commands;
mod forward;
mod host;
mod mosquitto;
mod progress;
mod refusal;
mod shelf;
mod upstream;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::host::House;
pub(super) use self::shelf::reading;
use super::{Bridge, Checked, Commands, Config, ForwardConfig, Pace, ReceiveConfig, Status, Supply};
use crate::clock::Clock;
use crate::store::Handle;

/// A bridge under test.
struct Running {
    status: watch::Receiver<Status>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Its own, where it was given none.
    folder: Option<tempfile::TempDir>,
}

impl Running {
    fn start(config: &Config, supplies: Vec<Supply>, store: Handle, house: &House) -> Running {
        Running::start_at(config, supplies, store, house, pace())
    }

    fn start_at(config: &Config, supplies: Vec<Supply>, store: Handle, house: &House, pace: Pace) -> Running {
        Running::start_checked(config.check("barn-7").unwrap(), supplies, store, house, pace)
    }

    fn start_checked(
        checked: Checked,
        supplies: Vec<Supply>,
        store: Handle,
        house: &House,
        pace: Pace,
    ) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let mut running = Running::start_in(folder.path(), checked, supplies, store, house, pace);
        running.folder = Some(folder);
        running
    }

    /// With what an earlier run has left in the folder.
    fn start_in(
        folder: &Path,
        checked: Checked,
        supplies: Vec<Supply>,
        store: Handle,
        house: &House,
        pace: Pace,
    ) -> Running {
        let bridge = Bridge::new(checked, supplies, store, Clock::start(), 256_000, folder, pace);
        let (stop, stopped) = watch::channel(false);
        let status = bridge.status();
        let task = tokio::spawn(bridge.run(Arc::new(house.clone()), stopped));
        Running { status, stop, task, folder: None }
    }

    /// Waits until the status is so; fails the test where it does not come to that.
    async fn until(&mut self, what: &str, is_so: impl FnMut(&Status) -> bool) -> Status {
        let seen = self.status.clone();
        match timeout(PATIENCE, self.status.wait_for(is_so)).await {
            Ok(status) => status.expect("the bridge runs").clone(),
            Err(_) => panic!("not {what}: {:?}", *seen.borrow()),
        }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.task).await.expect("it stops").expect("it does not panic");
    }
}

/// Quick attempts; what waits for a silent peer waits a moment.
fn pace() -> Pace {
    let (moment, ever) = (Duration::from_millis(2), Duration::from_secs(20));
    Pace {
        dial: ever,
        connack: ever,
        suback: ever,
        stall: ever,
        refill: moment,
        commands: Commands::Together,
        backoff_first: moment,
        backoff_last: moment,
        report: ever,
    }
}

fn config(url: &str, protocol: u8) -> Config {
    Config {
        name: "cloud".to_owned(),
        urls: vec![url.to_owned()],
        protocol,
        forward: vec![forward("sensors/#", "sites/{gateway}/{topic}")],
        ..Config::default()
    }
}

fn with_ca(mut config: Config, ca: &Path) -> Config {
    config.tls = Some(super::TlsConfig { ca: Some(ca.to_owned()), ..super::TlsConfig::default() });
    config
}

fn forward(filter: &str, to: &str) -> ForwardConfig {
    ForwardConfig { filter: filter.to_owned(), to: to.to_owned(), ..ForwardConfig::default() }
}

fn receive(filter: &str, to: &str) -> ReceiveConfig {
    ReceiveConfig { filter: filter.to_owned(), to: to.to_owned(), qos: 1 }
}

/// Long enough for a loaded machine; nothing waits for it where all is well.
const PATIENCE: Duration = Duration::from_secs(60);
