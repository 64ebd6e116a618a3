//! The status document, gathered from those who know.
//!
//! Each room says what it knows when it is asked; one that does not answer in time is left out, and that
//! is said. No figure is computed here from others, but for the sum of what sessions have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::routes::{Place, Route};
use crate::bridge;
use crate::clock::Clock;
use crate::control::{AdapterStatus, Conservation, GoneRoute, RouteStatus, Status, StoreFigures};
use crate::engine::{Input, Inputs};
use crate::field::Parts;
use crate::record::{DropReason, ReaderId};
use crate::store::{Handle, ReaderStatus, StoreStatus};

/// Whom to ask.
pub(super) struct Sources {
    pub(super) gateway: String,
    pub(super) clock: Clock,
    pub(super) inputs: Inputs,
    pub(super) store: Handle,
    pub(super) routes: Vec<Route>,
    pub(super) bridges: Vec<watch::Receiver<bridge::Status>>,
    pub(super) parts: Parts,
    /// What went wrong at the start and stays worth knowing.
    pub(super) warnings: Vec<String>,
}

/// The document as it stands now.
pub(super) async fn status(sources: Arc<Sources>) -> Value {
    let mut engine = ask_engine(&sources.inputs).await;
    let store = ask_store(&sources).await;
    let warning = store.as_ref().and_then(|store| store.warning.clone());
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").into(),
        gateway: sources.gateway.clone(),
        uptime_s: sources.clock.now().mono / 1_000,
        routes: sources.routes.iter().map(|route| route_status(route, store.as_ref(), &engine)).collect(),
        routes_gone: store.as_ref().map(|store| gone(&sources.routes, store)).unwrap_or_default(),
        store: store.map(figures),
        adapters: adapters(&sources.parts),
        warnings: sources.warnings.iter().cloned().chain(warning).collect(),
        ..Status::default()
    };
    if status.store.is_none() {
        status.warnings.push("the store does not answer".into());
    }
    // Those of the engine stand beside the house's own.
    if let Some(Value::Array(warnings)) = engine.as_object_mut().and_then(|engine| engine.remove("warnings"))
    {
        status.warnings.extend(warnings.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    let mut document = serde_json::to_value(status).unwrap_or_default();
    let bridges = sources.bridges.iter().map(|bridge| serde_json::to_value(&*bridge.borrow()));
    if let (Some(whole), Value::Object(engine)) = (document.as_object_mut(), engine) {
        whole.insert("bridges".into(), bridges.flatten().collect());
        // Listeners, the broker's counters and the engine's own are the engine's to tell.
        whole.extend(engine);
    }
    document
}

async fn ask_engine(inputs: &Inputs) -> Value {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        inputs.send(Input::Status(reply)).await.ok()?;
        answer.await.ok()
    };
    timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_default()
}

async fn ask_store(sources: &Sources) -> Option<StoreStatus> {
    let (reply, answer) = oneshot::channel();
    sources.store.status(move |status| {
        // Whoever asked may have given up.
        let _ = reply.send(status);
    });
    timeout(PATIENCE, answer).await.ok()?.ok()
}

fn figures(store: StoreStatus) -> StoreFigures {
    let mut sessions = Conservation::default();
    for one in store.readers.values().filter(|reader| !reader.route).chain([&store.past]) {
        let line = line(one);
        sessions.received += line.received;
        sessions.delivered += line.delivered;
        sessions.queued += line.queued;
        sessions.expired += line.expired;
        for (reason, count) in line.dropped {
            *sessions.dropped.entry(reason).or_default() += count;
        }
    }
    StoreFigures {
        full: store.full.store,
        sessions,
        size: store.size,
        max_size: store.max_size,
        put_aside: store.put_aside,
        put_aside_as: store.put_aside_as.map(|path| path.display().to_string()),
        commits: store.commits,
        written: store.written,
        trouble: store.trouble,
    }
}

fn route_status(route: &Route, store: Option<&StoreStatus>, engine: &Value) -> RouteStatus {
    let named =
        RouteStatus { name: route.name.clone(), bridge: route.bridge.clone(), ..RouteStatus::default() };
    match &route.place {
        Place::Stored(reader) => {
            // What is refused never reaches the store.
            let refused =
                engine.pointer("/broker/not_accepted_by_route").and_then(|all| all.get(&route.name));
            let named = RouteStatus { not_accepted: refused.and_then(Value::as_u64).unwrap_or(0), ..named };
            match store.and_then(|store| store.readers.get(reader)) {
                Some(counts) => of_reader(named, counts),
                None => RouteStatus { unknown: true, ..named },
            }
        }
        Place::Unstored(inlet) => of_reader(named, &inlet.line()),
    }
}

fn of_reader(named: RouteStatus, counts: &ReaderStatus) -> RouteStatus {
    let Conservation { received, delivered, queued, expired, dropped } = line(counts);
    RouteStatus { received, delivered, queued, expired, dropped, full: counts.full, ..named }
}

/// Routes that the configuration names no more. For a moment after the start the store still has those that were
/// taken out since it last ran.
fn gone(routes: &[Route], store: &StoreStatus) -> Vec<GoneRoute> {
    let is_configured = |id: ReaderId| {
        routes.iter().any(|route| matches!(route.place, Place::Stored(stored) if stored == id))
    };
    let leaving = store.readers.iter().filter(|(id, one)| one.route && !is_configured(**id));
    let all = leaving.chain(&store.gone).map(|(_, one)| one);
    all.map(|one| GoneRoute { name: one.name.clone(), line: line(one) }).collect()
}

fn line(counts: &ReaderStatus) -> Conservation {
    Conservation {
        received: counts.received,
        delivered: counts.delivered,
        queued: counts.queued,
        expired: counts.expired,
        dropped: words(&counts.dropped),
    }
}

fn words(dropped: &BTreeMap<DropReason, u64>) -> BTreeMap<String, u64> {
    dropped.iter().map(|(reason, count)| (reason.as_str().to_owned(), *count)).collect()
}

fn adapters(parts: &Parts) -> BTreeMap<String, AdapterStatus> {
    let part = |part: crate::field::Part| AdapterStatus {
        state: part.health.state.as_str().into(),
        since: Duration::from_millis(part.since).as_secs_f64(),
        reason: part.health.reason,
        counters: part.health.counters,
    };
    parts.read().into_iter().map(|(path, status)| (path, part(status))).collect()
}

/// How long a room may take to answer, before it is left out.
const PATIENCE: Duration = Duration::from_secs(2);
