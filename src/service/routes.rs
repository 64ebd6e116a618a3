//! The forward routes of all bridges, as each room wants to have them.
//!
//! The broker knows them by index, the store by name and reader, the bridges as supplies. One list, in
//! the order of the configuration, keeps the three in step.

use crate::bridge::{self, Commands, Supply};
use crate::broker;
use crate::record::{Policy, ReaderId};
use crate::store;
use crate::unstored::{self, Inlet};

/// One forward route, joined up.
pub(super) struct Route {
    /// `<bridge>:<filter>`.
    pub(super) name: String,
    /// The bridge's name.
    pub(super) bridge: String,
    /// Its filter.
    filter: String,
    /// Where its messages wait.
    pub(super) place: Place,
}

/// Where a route's messages wait.
pub(super) enum Place {
    /// In the store, for this reader.
    Stored(ReaderId),
    /// In RAM (`store = false`).
    Unstored(Inlet),
}

/// The names of the routes that the store keeps, in order.
pub(super) fn stored_names(bridges: &[bridge::Checked]) -> Vec<String> {
    stored(bridges).map(|forward| forward.name.clone()).collect()
}

/// What `[store]` says, and what the routes may have waiting.
pub(super) fn bounded(bridges: &[bridge::Checked], store: &store::Checked) -> store::Checked {
    let bounds = stored(bridges).map(|forward| (forward.name.clone(), forward.bounds(store.when_full)));
    store::Checked { routes: bounds.collect(), ..store.clone() }
}

/// Who refuses what it has no room for; `readers` are those of [`stored_names`].
pub(super) fn refusals(
    bridges: &[bridge::Checked],
    readers: &[ReaderId],
    store: &store::Checked,
) -> broker::Refusals {
    let policies = stored(bridges).map(|forward| forward.bounds(store.when_full).when_full);
    broker::Refusals {
        policy: store.when_full,
        routes: readers.iter().copied().zip(policies).collect(),
        timeout: u64::try_from(store.refuse_timeout.as_millis()).unwrap_or(u64::MAX),
        in_flight: usize::try_from(store.in_flight()).unwrap_or(usize::MAX),
        retained: usize::try_from(store.retained()).unwrap_or(usize::MAX),
    }
}

/// How commands go into the broker.
pub(super) fn commands(bridges: &[bridge::Checked], store: &store::Checked) -> Commands {
    let mut policies = stored(bridges).map(|forward| forward.bounds(store.when_full).when_full);
    match store.when_full == Policy::Refuse || policies.any(|policy| policy == Policy::Refuse) {
        true => Commands::OneByOne,
        false => Commands::Together,
    }
}

fn stored(bridges: &[bridge::Checked]) -> impl Iterator<Item = &bridge::Forward> {
    bridges.iter().flat_map(|bridge| &bridge.forwards).filter(|forward| forward.store)
}

/// All routes, and for each bridge its supplies; `readers` are those of [`stored_names`].
pub(super) fn join(bridges: &[bridge::Checked], readers: &[ReaderId]) -> (Vec<Route>, Vec<Vec<Supply>>) {
    let mut readers = readers.iter();
    let mut routes = Vec::new();
    let mut supplies = Vec::new();
    for bridge in bridges {
        let mut of_bridge = Vec::new();
        for forward in &bridge.forwards {
            let (place, supply) = if forward.store {
                let reader = *readers.next().expect("one reader for each stored route");
                (Place::Stored(reader), Supply::Stored(reader))
            } else {
                let (inlet, outlet) = unstored::queue(&forward.name, unstored::LIMIT);
                (Place::Unstored(inlet), Supply::Unstored(outlet))
            };
            routes.push(Route {
                name: forward.name.clone(),
                bridge: bridge.name.clone(),
                filter: forward.filter.to_string(),
                place,
            });
            of_bridge.push(supply);
        }
        supplies.push(of_bridge);
    }
    (routes, supplies)
}

/// The routes as the broker wants to have them.
pub(super) fn for_broker(routes: &[Route]) -> Vec<broker::Route> {
    let route = |route: &Route| broker::Route {
        reader: route.reader(),
        filter: route.filter.as_str().into(),
        store: matches!(route.place, Place::Stored(_)),
        name: route.name.clone(),
    };
    routes.iter().map(route).collect()
}

/// The routes' queues in RAM, by the broker's index.
pub(super) fn inlets(routes: &[Route]) -> Vec<Option<Inlet>> {
    let inlet = |route: &Route| match &route.place {
        Place::Unstored(inlet) => Some(inlet.clone()),
        Place::Stored(_) => None,
    };
    routes.iter().map(inlet).collect()
}

impl Route {
    fn reader(&self) -> ReaderId {
        match self.place {
            Place::Stored(reader) => reader,
            // No audience ever names it.
            Place::Unstored(_) => ReaderId(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_bounded_and_refuses_as_the_configuration_says() {
        let forward = |filter: &str, when_full: Option<&str>, store| bridge::ForwardConfig {
            filter: filter.to_owned(),
            store,
            max_messages: store.then_some(7),
            when_full: when_full.map(str::to_owned),
            ..bridge::ForwardConfig::default()
        };
        let config = bridge::Config {
            name: "cloud".to_owned(),
            urls: vec!["mqtt://127.0.0.1".to_owned()],
            forward: vec![
                forward("a/#", None, true),
                forward("live/#", None, false),
                forward("b/#", Some("drop-newest"), true),
            ],
            ..bridge::Config::default()
        };
        let bridges = [config.check("barn-7").unwrap()];
        let (when_full, refuse_timeout) = ("refuse".to_owned(), "7s".to_owned());
        let store = store::Config { when_full, refuse_timeout, ..store::Config::default() }.check().unwrap();
        let refusals = refusals(&bridges, &[ReaderId(4), ReaderId(9)], &store);
        assert_eq!(refusals.policy, Policy::Refuse);
        assert_eq!(
            refusals.routes,
            [(ReaderId(4), Policy::Refuse), (ReaderId(9), Policy::DropNewest)].into()
        );
        assert_eq!(commands(&bridges, &store), Commands::OneByOne);
        let others = store::Config::default().check().unwrap();
        assert_eq!(commands(&bridges, &others), Commands::Together);
        assert_eq!((refusals.timeout, refusals.in_flight), (7_000, 4_000_000));
        let bounded = bounded(&bridges, &store);
        assert_eq!(bounded.bounds_of("cloud:b/#").max_messages, Some(7));
        assert_eq!(bounded.bounds_of("cloud:b/#").when_full, Policy::DropNewest);
        assert_eq!(bounded.bounds_of_sessions().when_full, Policy::Refuse);
        assert_eq!(bounded.routes.len(), 2);
    }
}
