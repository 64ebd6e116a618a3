//! The appliance, put together: three threads, and who hands what to whom.
//!
//! Nothing is decided here that a room could decide itself: the service makes the rooms, joins them, waits
//! for the end, and takes them down in the order in which nothing is lost. Where the store cannot be
//! opened the field is served without it, and the house is built anew once it can.

mod descriptors;
mod footprint;
mod house;
mod readings;
mod tasks;
mod report;
mod routes;
mod signals;
mod watchdog;

use tokio::runtime::{self, Runtime};

use crate::clock::Clock;
use crate::config::Loaded;
use crate::store::OpenError;
use house::{Ending, House};
use signals::Signals;
use watchdog::Work;

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Another instance has the data, or a newer program wrote it.
    #[error("{0}")]
    Store(#[from] OpenError),
    /// The kernel gives no poll, thread, or random numbers.
    #[error("start: {0}")]
    Kernel(#[from] std::io::Error),
    /// The kernel gives no random numbers.
    #[error("choose a seed: {0}")]
    Seed(#[from] getrandom::Error),
}

/// The service before it has its configuration: it hears signals already.
pub struct Service {
    runtime: Runtime,
    signals: Signals,
}

impl Service {
    /// Hears SIGTERM, SIGINT and SIGHUP from now on.
    ///
    /// # Errors
    /// Where the kernel gives no poll.
    pub fn prepare() -> Result<Service, ServiceError> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = Signals::hear(&runtime)?;
        Ok(Service { runtime, signals })
    }

    /// Does what cannot be interrupted before it runs. SIGTERM or SIGINT end the process where it does not come to
    /// its end.
    ///
    /// # Errors
    /// Where the kernel gives no thread.
    pub fn beside<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, ServiceError> {
        Ok(self.signals.ends.beside(&self.runtime, work)?)
    }

    /// Runs until SIGTERM or SIGINT. SIGHUP has the files that may change looked at.
    ///
    /// # Errors
    /// Where another instance has the data directory, and where the kernel gives nothing to start with.
    pub fn run(self, loaded: &Loaded) -> Result<(), ServiceError> {
        let Service { runtime, mut signals } = self;
        let result = live(loaded, &runtime, &mut signals);
        // A resolver or a disk that hangs must not hold the end up.
        runtime.shutdown_background();
        result
    }
}

/// One house after the other, until the end.
fn live(loaded: &Loaded, runtime: &Runtime, signals: &mut Signals) -> Result<(), ServiceError> {
    let work = Work::default();
    loop {
        // One for each store: the house's time goes on from what that has kept.
        let clock = Clock::start();
        adapter_api::clock::follow(move || clock.wall());
        let house = signals.ends.beside(runtime, || House::build(loaded, clock, &work))??;
        match runtime.block_on(house.live(loaded, signals)) {
            Ending::Told => return Ok(()),
            Ending::EngineFailed => return Err(std::io::Error::other("the engine has ended").into()),
            Ending::StoreIsBack => tracing::info!("the store can be opened: starting anew with it"),
        }
    }
}
