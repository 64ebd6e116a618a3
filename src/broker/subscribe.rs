//! SUBSCRIBE and UNSUBSCRIBE.
//!
//! For a session that outlives its connection the answer leaves after the commit of the session as it
//! then is; retained messages follow the answer.

use std::collections::{BTreeMap, BTreeSet};

use super::client::ClientKey;
use super::connection::{Answer, Connection};
use super::memory::Level;
use super::pace::Kind;
use super::{Broker, ConnectionId, Effect, Turn};
use crate::codec::{
    Packet, Properties, QoS, Reason, RetainHandling, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe,
};
use crate::record::{StoredSubscription, Ticket};
use crate::router::Interest;
use crate::router::filter::{self, FilterKind};
use crate::session::{RetainedWalk, Sought};

impl Broker {
    pub(super) fn on_subscribe(&mut self, id: ConnectionId, subscribe: Subscribe, turn: &mut Turn<'_>) {
        let Some(key) = self.connections.get(id).and_then(|connection| connection.client) else { return };
        let Subscribe { packet_id, properties, filters } = subscribe;
        let identifier = properties.subscription_identifiers().next();
        let mut reasons = Vec::with_capacity(filters.len());
        let (mut walks, mut replaced) = (Vec::new(), Vec::new());
        let mut changed = false;
        for Subscription { filter, options } in filters {
            self.before_subscribing(&filter, turn);
            let granted = self.grant(key, &filter, options.qos);
            let (filter, reason) = self.place_filter(key, &filter, granted);
            reasons.push(reason);
            if reason.is_error() {
                continue;
            }
            let new = !self.has(key, &filter);
            let subscription = StoredSubscription { filter, options, identifier };
            changed = true;
            let shared = filter::of_share(&subscription.filter).is_some();
            // [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
            let brings = match options.retain_handling {
                // [MQTT5-4.8.2]: a shared one brings no retained messages.
                _ if shared => false,
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => new,
                RetainHandling::DoNotSend => false,
            };
            if brings {
                walks.push(RetainedWalk {
                    filter: subscription.filter.clone(),
                    options,
                    identifier,
                    after: None,
                    behind: Ticket(0),
                });
            }
            if new {
                self.enter_subscription(key, &subscription, turn.effects);
                self.remember(key, subscription);
            } else {
                replaced.push(subscription);
            }
        }
        let replaces = !replaced.is_empty();
        self.replace(key, replaced, turn);
        let ticket = changed.then(|| self.write_session(key, turn)).filter(|ticket| *ticket > Ticket(0));
        if let Some(client) = self.clients.get_mut(key) {
            walks.iter_mut().for_each(|walk: &mut RetainedWalk| walk.behind = ticket.unwrap_or_default());
            client.session.add_walks(walks);
        }
        let answer = SubAck { packet_id, properties: Properties::new(), reasons };
        self.answer(id, ticket, Kind::Other, Answer::Other(Box::new(Packet::SubAck(answer))), turn);
        if replaces || ticket.is_some() {
            self.rest_after_list(id, key, turn);
        }
    }

    pub(super) fn on_unsubscribe(&mut self, id: ConnectionId, unsubscribe: Unsubscribe, turn: &mut Turn<'_>) {
        let Some(key) = self.connections.get(id).and_then(|connection| connection.client) else { return };
        let subscriber = self.subscriber(key.slot);
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        let mut sought = BTreeSet::new();
        for filter in &unsubscribe.filters {
            let Some(client) = self.clients.get(key) else { return };
            let placed = client.mounted_filter(filter);
            let gone = match filter::of_share(&placed) {
                Some(_) => self.leave_group(key, &placed, turn),
                None => self.router.unsubscribe(&placed, subscriber),
            };
            if gone {
                sought.insert(Sought(placed));
            }
            reasons.push(match gone {
                true => Reason::Success,
                false if filter::check_filter(filter).is_err() => Reason::TopicFilterInvalid,
                false => Reason::NoSubscriptionExisted, // [MQTT5-3.11.3-1]
            });
        }
        let changed = !sought.is_empty();
        if changed && let Some(client) = self.clients.get_mut(key) {
            let lighter = client.session.remove_subscriptions(&sought);
            self.weigh_subscriptions(key, &[], &lighter);
        }
        let ticket = changed.then(|| self.write_session(key, turn)).filter(|ticket| *ticket > Ticket(0));
        let answer = UnsubAck { packet_id: unsubscribe.packet_id, properties: Properties::new(), reasons };
        self.answer(id, ticket, Kind::Other, Answer::Other(Box::new(Packet::UnsubAck(answer))), turn);
        if changed {
            self.rest_after_list(id, key, turn);
        }
    }

    /// The whole list of a client's subscriptions was gone through, or handed to the store, for one packet.
    fn rest_after_list(&mut self, id: ConnectionId, key: ClientKey, turn: &mut Turn<'_>) {
        let length = self.clients.get(key).map_or(0, |client| client.session.subscriptions.len());
        self.rest(id, length as u64, turn);
    }

    /// Other options for filters that the client has. One that a packet names many times is entered once, as it
    /// was named last. [MQTT5-3.8.4-3] [MQTT311-3.8.4-3]
    fn replace(&mut self, key: ClientKey, subscriptions: Vec<StoredSubscription>, turn: &mut Turn<'_>) {
        let last: BTreeMap<Sought, StoredSubscription> =
            subscriptions.into_iter().map(|one| (Sought(one.filter.clone()), one)).collect();
        for subscription in last.values() {
            self.enter_subscription(key, subscription, turn.effects);
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.session.replace_subscriptions(last);
        }
    }

    /// Lets the router know.
    pub(super) fn enter_subscription(
        &mut self,
        key: ClientKey,
        subscription: &StoredSubscription,
        effects: &mut Vec<Effect>,
    ) {
        if filter::of_share(&subscription.filter).is_some() {
            return self.join(key, subscription, effects);
        }
        self.lead(key, subscription);
    }

    /// The same for a subscription that is not shared.
    pub(super) fn lead(&mut self, key: ClientKey, subscription: &StoredSubscription) {
        let StoredSubscription { filter, options, identifier } = subscription;
        let interest = Interest {
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            identifier: *identifier,
            dollar_at: self.clients.get(key).map_or(0, |client| client.dollar_at(filter)),
        };
        let subscriber = self.subscriber(key.slot);
        self.router.subscribe(filter, subscriber, interest);
    }

    /// The answer to one filter.
    fn grant(&self, key: ClientKey, filter: &str, qos: QoS) -> Reason {
        let connection = self.clients.get(key).and_then(|client| self.connections.get(client.connection?));
        // What clients take is no reason for the house to miss anything.
        let is_house = connection.is_some_and(Connection::is_of_the_house);
        let full = self.clients.get(key).is_none_or(|client| {
            let most = client.session.subscriptions.len() >= SUBSCRIPTIONS_MAX;
            let short = !is_house && self.level() == Level::Full;
            let crowded = !is_house && self.names_are_full(Some(key));
            (most || short || crowded) && {
                // What it has already takes no more. [MQTT5-3.8.4-3]
                let filter = client.mounted_filter(filter);
                !self.has(key, &filter) && (most || short || !self.is_spared(key, &filter))
            }
        });
        match filter::check_filter(filter) {
            Err(_) => Reason::TopicFilterInvalid,
            Ok(_) if full => Reason::QuotaExceeded,
            Ok(FilterKind::Exact | FilterKind::Wildcard | FilterKind::Shared) => match qos {
                QoS::AtMostOnce => Reason::Success,
                QoS::AtLeastOnce => Reason::GrantedQoS1,
                QoS::ExactlyOnce => Reason::GrantedQoS2,
            },
        }
    }

    fn has(&self, key: ClientKey, filter: &str) -> bool {
        match filter::of_share(filter) {
            Some(_) => self.groups.has(filter, key),
            None => self.router.has(filter, self.subscriber(key.slot)),
        }
    }

    fn remember(&mut self, key: ClientKey, subscription: StoredSubscription) {
        self.weigh_subscriptions(key, std::slice::from_ref(&subscription), &[]);
        if let Some(client) = self.clients.get_mut(key) {
            client.session.add_subscription(subscription);
        }
    }
}

/// Subscriptions of one client; further ones are refused (0x97).
const SUBSCRIPTIONS_MAX: usize = 10_000;
