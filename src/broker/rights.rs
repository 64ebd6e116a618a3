//! What a client may read and write, and what becomes of a publish that it may not.
//!
//! The rules of the house stand first: only tidegate publishes below `$SYS` and `tidegate`, and an
//! adapter's `…/set` topic needs a line that names it. Then come the operator's rules. Where there are
//! none and no listener has a mount point, a delivery costs one look at a flag.
//!
//! Invariant: a denied publish is either refused, so that its publisher knows (`not_accepted`), or
//! counted as dropped, in all and for every stored route that wanted it.

use std::mem;
use std::sync::Arc;

use bytestring::ByteString;

use super::client::{Client, ClientKey};
use super::publish::is_reserved;
use super::{Broker, ConnectionId, Taker, Trust, Turn};
use crate::access::{Access, Rules};
use crate::codec::{Publish, QoS, Reason, Version};
use crate::record::{DropReason, Presence, Write};
use crate::router::Match;
use crate::router::filter::{self, FilterKind};
use crate::session::Session;

impl Broker {
    /// What somebody is sent is looked at from now on; known ways did not.
    pub(super) fn restrict(&mut self) {
        self.restricted = true;
        self.atlas.close();
    }

    /// Other rules, for everybody and at once: who is connected keeps his subscriptions, and each delivery
    /// is looked at anew: what waits in RAM now, so that nobody has to look when it leaves.
    pub(super) fn on_rules(&mut self, rules: Arc<Rules>, turn: &mut Turn<'_>) {
        self.config.rules = Some(rules.clone());
        self.restrict();
        for key in self.clients.keys() {
            let Some(client) = self.clients.get(key).filter(|client| !client.house) else { continue };
            let Session { user, client_id, .. } = &client.session;
            let access = match client.connection {
                Some(id) => self.access_of(id, key),
                None => Some(Box::new(rules.of_client(user.as_ref(), client_id))),
            };
            if let Some(client) = self.clients.get_mut(key) {
                client.access = access;
            }
        }
        self.recall_all(turn);
        for key in self.clients.keys() {
            self.sift_line(key, turn);
        }
    }

    /// Drops what waits in RAM for a client that may no longer read it.
    fn sift_line(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key).filter(|client| !client.session.line.is_empty()) else {
            return;
        };
        let mut line = mem::take(&mut client.session.line);
        let (count, weight) = line.sift(|topic| client.may_read(topic));
        client.session.line = line;
        if count > 0 {
            self.memory.queues -= weight;
            self.counters.drop(DropReason::Denied, count);
            // A port that asked is told when nothing waits any more.
            self.pump(key, turn);
        }
    }

    /// The rules for whoever connects; none where there are none, and for the house itself.
    pub(super) fn access_of(&self, id: ConnectionId, key: ClientKey) -> Option<Box<Access>> {
        let rules = self.config.rules.as_ref()?;
        let connection = self.connections.get(id)?;
        if connection.is_house() {
            return None;
        }
        let Session { user, client_id, .. } = &self.clients.get(key)?.session;
        let access = match (&connection.peer.trust, user) {
            (Trust::Port { .. }, Some(user)) if is_adapter(user) => rules.of_adapter(user, client_id),
            (_, user) => rules.of_client(user.as_ref(), client_id),
        };
        Some(Box::new(access))
    }

    /// Whether a client may publish to this topic, as the house names it.
    pub(super) fn may_publish(&self, client: &Client, topic: &str) -> bool {
        if is_reserved(client.seen(topic)) {
            return client.house;
        }
        if topic.ends_with("/set") && self.config.set_topics.iter().any(|set| filter::matches(set, topic)) {
            return client.access.as_ref().is_some_and(|access| access.may_set(topic));
        }
        client.access.as_ref().is_none_or(|access| access.may_write(topic))
    }

    /// Takes out of `matches` who may not read this topic. Of a group of which nobody may, each member is looked
    /// at, which is work of the publisher's.
    pub(super) fn hold_back(&mut self, topic: &str, matches: &mut Vec<Match>) {
        let mut looks = 0;
        matches.retain(|found| match self.taker(found.subscriber) {
            Taker::Route(_) => true,
            Taker::Client(slot) => self.clients.in_slot(slot).is_none_or(|client| client.may_read(topic)),
            // A group wants what one of its members may read.
            Taker::Group(id) => self.groups.get(id).is_none_or(|group| {
                let members = group.members.keys().inspect(|_| looks += 1);
                let mut members = members.filter_map(|key| self.clients.get(*key));
                members.any(|client| client.may_draw(&group.filter, topic))
            }),
        });
        self.member_looks += looks;
    }

    /// The filter as the house names it, and the answer to it.
    pub(super) fn place_filter(&self, key: ClientKey, said: &str, granted: Reason) -> (ByteString, Reason) {
        let Some(client) = self.clients.get(key) else { return (said.into(), granted) };
        let filter = client.mounted_filter(said);
        if granted.is_error() {
            return (filter, granted);
        }
        let inner = match filter::check_filter(&filter) {
            Ok(FilterKind::Shared) => filter.splitn(3, '/').nth(2).unwrap_or_default(),
            Ok(_) if filter.len() <= TOPIC_BYTES_MAX => &*filter,
            _ => return (filter, Reason::TopicFilterInvalid),
        };
        // Nothing would ever come: better said than kept quiet. What comes is looked at one by one.
        let barred = client.access.as_ref().is_some_and(|access| !access.may_subscribe(inner));
        let reason = if barred { Reason::NotAuthorized } else { granted };
        (filter, reason)
    }

    /// Turns away a publish that a rule forbids.
    pub(super) fn deny(&mut self, id: ConnectionId, publish: &Publish, topic: &str, turn: &mut Turn<'_>) {
        self.withhold(id, publish, topic, (DropReason::Denied, Reason::NotAuthorized), turn);
    }

    /// Turns a publish away. MQTT 5 is told so; older versions know no refusal, so theirs is acknowledged and
    /// dropped.
    pub(super) fn withhold(
        &mut self,
        id: ConnectionId,
        publish: &Publish,
        topic: &str,
        (dropped, told): (DropReason, Reason),
        turn: &mut Turn<'_>,
    ) {
        let v5 = self.connections.get(id).is_some_and(|connection| connection.version == Version::V5);
        if v5 && publish.qos > QoS::AtMostOnce {
            self.counters.not_accepted += 1;
        } else {
            self.count_withheld(topic, dropped);
        }
        self.turn_down(id, publish, told, turn);
    }

    /// Counts a message that nobody gets and whose publisher does not know: in all, and for every stored
    /// route that would have had it, where it counts as received and dropped. A route that keeps nothing
    /// counts what enters its queue, and this does not.
    pub(super) fn count_withheld(&mut self, topic: &str, reason: DropReason) {
        self.counters.drop(reason, 1);
        for reader in self.stored_routes_of(topic) {
            *self.shed.entry((reader, reason)).or_default() += 1;
        }
    }

    /// Hands the counts of publishes that readers did not get to the store; one write for a reader and a
    /// reason, however many there were.
    /// No answer waits for it: a count is no message, and one that a crash takes loses nobody anything.
    pub(super) fn write_shed(&mut self, turn: &mut Turn<'_>) {
        if self.store == Presence::Absent {
            return self.shed.clear();
        }
        if self.shed.is_empty() || self.ledger.is_busy() {
            return;
        }
        for ((reader, reason), count) in std::mem::take(&mut self.shed) {
            self.ledger.write(Write::Shed { reader, reason, count }, turn.effects);
        }
    }
}

impl Client {
    /// Whether it may be given a message of this topic: it lies under its mount point and the rules grant it.
    pub(super) fn may_read(&self, topic: &str) -> bool {
        self.mount.as_deref().is_none_or(|mount| topic.starts_with(mount))
            && self.access.as_ref().is_none_or(|access| access.may_read(topic))
    }

    /// The same of a message for a group that it is a member of.
    pub(super) fn may_draw(&self, share: &str, topic: &str) -> bool {
        self.may_read(topic) && !self.is_hidden(filter::of_share(share).unwrap_or(share), topic)
    }

    /// Where in a topic `$` hides it from one of this client's filters; see `Interest::dollar_at`.
    pub(super) fn dollar_at(&self, filter: &str) -> u16 {
        let Some(mount) = self.mount.as_deref() else { return 0 };
        let begins_wild = filter.strip_prefix(mount).is_some_and(|said| said.starts_with(['+', '#']));
        if begins_wild { u16::try_from(mount.len()).unwrap_or(0) } else { 0 }
    }

    /// Whether `$` hides a topic that matches one of its filters. [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
    pub(super) fn is_hidden(&self, filter: &str, topic: &str) -> bool {
        let at = usize::from(self.dollar_at(filter));
        at > 0 && topic.as_bytes().get(at) == Some(&b'$')
    }

    /// A topic as this client knows it.
    pub(super) fn seen<'a>(&self, topic: &'a str) -> &'a str {
        self.mount.as_deref().and_then(|mount| topic.strip_prefix(mount)).unwrap_or(topic)
    }

    /// A filter of this client as the house knows it.
    pub(super) fn mounted_filter(&self, said: &str) -> ByteString {
        let Some(mount) = &self.mount else { return said.into() };
        // The mount point belongs to the filter, not to the name of the share.
        let shared = said.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
        match shared {
            Some((name, filter)) => format!("$share/{name}/{mount}{filter}").into(),
            None => format!("{mount}{said}").into(),
        }
    }
}

/// A topic of a client behind this mount point, as the house knows it; in any case its name, which may be more than
/// a topic can have.
pub(super) fn mounted_topic(mount: Option<&Arc<str>>, said: ByteString) -> Result<ByteString, ByteString> {
    let Some(mount) = mount else { return Ok(said) };
    let topic = ByteString::from(format!("{mount}{said}"));
    if topic.len() > TOPIC_BYTES_MAX || filter::check_topic(&topic).is_err() {
        return Err(topic);
    }
    Ok(topic)
}

/// Whether an in-process client is an adapter or a bridge of ours. Others speak for somebody outside.
fn is_adapter(user: &str) -> bool {
    ADAPTERS.iter().any(|kind| user.starts_with(kind))
}

/// Whether access rules know the house or a part of it by this name, so that nobody else may bear it.
pub fn is_house_user(user: &str) -> bool {
    user == "tidegate" || is_port_of_the_house(user)
}

/// Whether a part of the house has this client id, so that nobody else may push it out.
pub(super) fn is_port_of_the_house(client_id: &str) -> bool {
    client_id.starts_with("tidegate:") || is_adapter(client_id)
}

/// Whether the user is an adapter that reads a device and renders what it says.
pub(super) fn is_device_user(user: &str) -> bool {
    DEVICES.iter().any(|begin| user.starts_with(begin))
}

/// How the user names of adapters and bridges begin.
const ADAPTERS: &[&str] = &["bridge:", "modbus:", "serial:"];

/// And those of adapters that read devices.
const DEVICES: &[&str] = &["modbus:", "serial:"];

/// What MQTT can say of a topic or a filter.
const TOPIC_BYTES_MAX: usize = 65_535;
