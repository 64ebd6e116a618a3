//! One life of the house: its threads, from the making to the end.
//!
//! Made in the order in which each needs the other: the engine's inbox, the store that reports to it,
//! the broker with what the store had, the engine. Taken down the other way round, so that what clients
//! were told is on disk before the store closes.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use adapter_api::Host;
use bytestring::ByteString;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::report::{self, Sources};
use super::routes::{self, Route};
use super::signals::Signals;
use super::tasks::Tasks;
use super::watchdog::Work;
use super::{ServiceError, descriptors, footprint, readings, watchdog};
use crate::auth::{PasswordFile, RulesFile};
use crate::bridge::{self, Bridge, Pace, Supply};
use crate::broker::{self, Broker, Passwords};
use crate::clock::Clock;
use crate::config::Loaded;
use crate::control::Socket;
use crate::engine::{self, AuthFiles, Engine, Heartbeat, Inbox, Input, Inputs};
use crate::field::Field;
use crate::store::{self, Handle, OpenError, Opened, Surroundings};

/// The threads, joined up.
pub(super) struct House {
    clock: Clock,
    inputs: Inputs,
    engine: JoinHandle<io::Result<()>>,
    /// Closed when the engine's thread ends.
    engine_ends: oneshot::Receiver<()>,
    heartbeat: Heartbeat,
    store: Handle,
    store_thread: JoinHandle<()>,
    /// Where the field is served without a store: told when it can be opened.
    store_is_back: Option<oneshot::Receiver<()>>,
    routes: Vec<Route>,
    supplies: Vec<Vec<Supply>>,
    /// Topics of states that nobody reports any more.
    stale: Vec<String>,
    warnings: Vec<String>,
    work: Work,
}

/// Why a house was taken down.
pub(super) enum Ending {
    /// SIGTERM or SIGINT.
    Told,
    /// The store, which was missing, can be opened.
    StoreIsBack,
    /// The engine's thread has ended.
    EngineFailed,
}

impl House {
    /// Makes and joins the threads; clients are served from here on.
    pub(super) fn build(loaded: &Loaded, clock: Clock, work: &Work) -> Result<House, ServiceError> {
        work.making();
        let (inbox, inputs) = Inbox::open()?;
        let names = routes::stored_names(&loaded.bridges);
        let Store { opened, is_back } = open_store(loaded, &names, clock, &inputs, work)?;
        let refusals = routes::refusals(&loaded.bridges, &opened.routes, &loaded.store);
        let (routes, supplies) = routes::join(&loaded.bridges, &opened.routes);
        let passwords = if loaded.auth.password_file.is_some() { Passwords::File } else { Passwords::Absent };
        let config = broker::Config {
            limits: loaded.limits.clone(),
            gateway: loaded.gateway.id.clone(),
            routes: routes::for_broker(&routes),
            passwords,
            rules: loaded.rules.clone(),
            set_topics: loaded.set_topics().into_iter().map(ByteString::from).collect(),
            refusals,
        };
        let mut limits = engine_limits(&loaded.limits);
        let (room, too_few_files) = descriptors::connections(limits.max_connections);
        limits.max_connections = room;
        too_few_files.iter().for_each(|warning| tracing::warn!("{warning}"));
        let stale = readings::stale_states(loaded, &opened.restored.retained);
        let heartbeat = watchdog::heartbeat();
        let engine = Engine::new(engine::Parts {
            inbox,
            clock,
            broker: Broker::new(config, getrandom::u64()?, opened.restored, clock.now()),
            store: opened.handle.clone(),
            listeners: loaded.listeners.clone(),
            limits,
            auth: auth_files(loaded),
            unstored: routes::inlets(&routes),
            heartbeat: heartbeat.clone(),
        })?;
        let (running, engine_ends) = oneshot::channel();
        let engine = std::thread::Builder::new().name("engine".into()).spawn(move || {
            let _until_the_end: oneshot::Sender<()> = running;
            engine.run()
        })?;
        Ok(House {
            clock,
            inputs,
            engine,
            engine_ends,
            heartbeat,
            store: opened.handle,
            store_thread: opened.thread,
            store_is_back: is_back,
            routes,
            supplies,
            stale,
            warnings: too_few_files.into_iter().collect(),
            work: work.clone(),
        })
    }

    /// Runs bridges, adapters and the control socket until the end, and takes everything down.
    pub(super) async fn live(mut self, loaded: &Loaded, signals: &mut Signals) -> Ending {
        let (runtime, stale) = (tokio::runtime::Handle::current(), std::mem::take(&mut self.stale));
        let field = Field::new(self.inputs.clone(), self.clock, runtime, stale);
        let parts = field.parts();
        let host: Arc<dyn Host> = Arc::new(field.clone());
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Tasks::default();
        readings::start(readings::adapters(loaded), &host, &stopped, &mut tasks);
        let bridges = self.start_bridges(loaded, &host, &stopped, &mut tasks);
        let sources = Arc::new(Sources {
            gateway: loaded.gateway.id.clone(),
            clock: self.clock,
            inputs: self.inputs.clone(),
            store: self.store.clone(),
            routes: std::mem::take(&mut self.routes),
            bridges,
            parts,
            warnings: std::mem::take(&mut self.warnings),
        });
        let control = tokio::spawn(serve_control(loaded.gateway.run_dir.clone(), sources));
        let feeding =
            tokio::spawn(watchdog::feed(self.heartbeat.clone(), self.store.clone(), self.work.clone()));
        self.work.ready();
        tracing::info!(gateway = loaded.gateway.id, version = env!("CARGO_PKG_VERSION"), "serving");
        let shrinking = tokio::spawn(footprint::shrink());

        let ending = self.wait(signals).await;
        shrinking.abort();
        if !matches!(ending, Ending::StoreIsBack) {
            watchdog::stopping();
        }
        // What the bridge and the adapters end with still passes the engine, and the engine's last writes
        // the store.
        field.stopping();
        stop.send_replace(true);
        for task in tasks.end(TASKS_END).await {
            tracing::warn!(%task, "it does not end in time: what it had under way comes again");
        }
        control.abort();
        feeding.abort();
        self.take_down().await;
        ending
    }

    fn start_bridges(
        &mut self,
        loaded: &Loaded,
        host: &Arc<dyn Host>,
        stopped: &watch::Receiver<bool>,
        tasks: &mut Tasks,
    ) -> Vec<watch::Receiver<crate::bridge::Status>> {
        let mut watched = Vec::new();
        for (config, supplies) in loaded.bridges.iter().zip(std::mem::take(&mut self.supplies)) {
            let packet_size = loaded.limits.max_packet_size;
            let bridge = Bridge::new(
                config.clone(),
                supplies,
                self.store.clone(),
                self.clock,
                packet_size,
                &loaded.gateway.data_dir,
                Pace { commands: routes::commands(&loaded.bridges, &loaded.store), ..Pace::default() },
            );
            watched.push(bridge.status());
            let name = format!("bridge {}", config.name);
            tasks.start(name, bridge.run(host.clone(), stopped.clone()));
        }
        watched
    }

    /// Until there is a reason to end.
    async fn wait(&mut self, signals: &mut Signals) -> Ending {
        let Signals { ends, hangup } = signals;
        let is_back = self.store_is_back.take();
        let store_is_back = async {
            let told = match is_back {
                Some(is_back) => is_back.await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        };
        let inputs = self.inputs.clone();
        let reread = async {
            while hangup.recv().await.is_some() {
                tracing::info!("SIGHUP: looking at certificates, passwords and access rules");
                if inputs.send(Input::Reread).await.is_err() {
                    break;
                }
            }
            std::future::pending::<Ending>().await
        };
        tokio::select! {
            () = ends.told() => Ending::Told,
            ending = reread => ending,
            _ = &mut self.engine_ends => Ending::EngineFailed,
            () = store_is_back => Ending::StoreIsBack,
        }
    }

    async fn take_down(self) {
        // An engine that has ended already needs no telling.
        let _ = self.inputs.send(Input::Stop).await;
        let (store, thread, engine) = (self.store, self.store_thread, self.engine);
        let joined = tokio::task::spawn_blocking(move || {
            match engine.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the engine has failed"),
                Err(_) => tracing::error!("the engine has panicked"),
            }
            store.close();
            if thread.join().is_err() {
                tracing::error!("the store has panicked");
            }
        });
        if timeout(THREADS_END, joined).await.is_err() {
            tracing::warn!(
                "the store does not end in time: what it was not able to commit was acknowledged to nobody"
            );
        }
    }
}

/// A store at work, or what stands in for it.
struct Store {
    opened: Opened,
    /// For one that stands in: told when the store can be opened after all.
    is_back: Option<oneshot::Receiver<()>>,
}

fn open_store(
    loaded: &Loaded,
    names: &[String],
    clock: Clock,
    inputs: &Inputs,
    work: &Work,
) -> Result<Store, ServiceError> {
    let dir = &loaded.gateway.data_dir;
    let config = &routes::bounded(&loaded.bridges, &loaded.store);
    let (inputs, of_full) = (inputs.clone(), inputs.clone());
    let surroundings = Surroundings {
        resume: Box::new(move |kept| clock.resume(kept)),
        clock: Box::new(move || clock.now()),
        on_commit: Box::new(move |ticket| {
            // Where the engine is gone, nobody waits any more.
            let _ = inputs.send_blocking(Input::Committed(ticket));
        }),
        on_full: Box::new(move |full| {
            let _ = of_full.send_blocking(Input::Full(full));
        }),
        progress: work.progress(),
        gate: None,
    };
    match store::open(dir, config, names, surroundings) {
        Ok(opened) => {
            if let Some(path) = &opened.put_aside {
                tracing::error!(
                    path = %path.display(),
                    "the database was damaged; what could be read of it serves on, the rest is put aside"
                );
            }
            Ok(Store { opened, is_back: None })
        }
        Err(error @ (OpenError::Unavailable { .. } | OpenError::Newer { .. })) => {
            tracing::error!(
                "cannot {error}: serving without a store, nothing that must be kept is acknowledged"
            );
            let (tell, is_back) = oneshot::channel();
            let told = Box::new(move || {
                // Where the house is gone already, nobody needs to know.
                let _ = tell.send(());
            });
            let opened = store::absent(
                dir,
                config,
                names,
                &error,
                Box::new(move || clock.now()),
                work.progress(),
                told,
            )?;
            Ok(Store { opened, is_back: Some(is_back) })
        }
        Err(error) => Err(error.into()),
    }
}

async fn serve_control(run_dir: std::path::PathBuf, sources: Arc<Sources>) {
    loop {
        match Socket::bind(&run_dir) {
            Ok(socket) => {
                let answer =
                    move |_ask| -> crate::control::Answer { Box::pin(report::status(sources.clone())) };
                return socket.serve(answer).await;
            }
            Err(error) => {
                tracing::warn!(%error, "no control socket; it is tried again");
                tokio::time::sleep(CONTROL_RETRY).await;
            }
        }
    }
}

/// What is read again while the service runs.
fn auth_files(loaded: &Loaded) -> AuthFiles {
    let rules = loaded.auth.acl_file.as_ref().zip(loaded.rules.clone());
    AuthFiles {
        passwords: loaded.auth.password_file.as_ref().map(PasswordFile::at),
        rules: rules.map(|(path, rules)| RulesFile::at(path, rules)),
        secret: Some(loaded.gateway.data_dir.join(SECRET_FILE)),
    }
}

fn engine_limits(limits: &broker::Limits) -> engine::Limits {
    let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
    engine::Limits {
        max_connections: size(limits.max_connections),
        max_connections_per_address: limits.max_connections_per_address,
        max_connect_rate: limits.max_connect_rate,
        max_login_failures: limits.max_login_failures,
        max_packet_size: size(limits.max_packet_size),
        max_send_buffer: limits.max_send_buffer,
        max_memory: limits.max_memory,
        ..engine::Limits::default()
    }
}

/// How long adapters and bridges may take to end.
const TASKS_END: Duration = Duration::from_millis(1_500);
/// A bridge whose upstream does not answer ends by itself, with time to spare.
const _: () = assert!(bridge::ENDS_WITHIN.as_millis() + 500 <= TASKS_END.as_millis());
/// How long engine and store may take after them; all together stays below 5 s.
const THREADS_END: Duration = Duration::from_secs(3);
/// In `data_dir`: the secret by which users who are unknown are answered.
const SECRET_FILE: &str = "scram-secret";
/// How often a control socket that could not be bound is tried again.
const CONTROL_RETRY: Duration = Duration::from_secs(10);
