//! Those who speak without a connection: publishers at QoS -1, and clients that have just left.
//!
//! All publishers at QoS -1 share one port, opened with the first message; they are never answered, and
//! what cannot be published is counted. Of clients that have left only a few are remembered, and each is
//! answered only a few times, so that nobody is made to send DISCONNECT for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use adapter_api::{FromPort, Hello, Qos, ToPort};
use bytes::Bytes;

use super::inward::unregistered_topic;
use super::{Effect, Peer, PortNumber, Turn};
use crate::codec::{Publish, TopicId};
use crate::{Checked, QosMinusOne};

/// Publishers at QoS -1.
#[derive(Debug, Default)]
pub(super) struct Unconnected {
    port: Option<PortNumber>,
    /// When the port may be opened again.
    not_before: Duration,
}

/// Whether the shared port was opened for a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    Now,
    Not,
}

impl Unconnected {
    /// Publishes what somebody sent at QoS -1. // [SN-6.8]
    pub(super) fn publish(&mut self, publish: Publish, fresh: PortNumber, turn: &mut Turn<'_>) -> Opened {
        let wanted = turn.settings.qos_minus_one == QosMinusOne::Accepted
            && matches!(publish.topic, TopicId::Predefined(_) | TopicId::Short(_));
        let topic = unregistered_topic(publish.topic, turn.settings);
        let (true, Ok(topic)) = (wanted, topic) else {
            turn.counters.ignored_qos_minus_1 += 1;
            return Opened::Not;
        };
        let (port, opened) = match self.port {
            Some(port) => (port, Opened::Not),
            None if turn.now < self.not_before => {
                turn.counters.busy += 1;
                return Opened::Not;
            }
            None => (self.open(fresh, turn), Opened::Now),
        };
        let Publish { payload, retain, .. } = publish;
        turn.counters.published += 1;
        // MQTT knows no QoS below 0.
        let (qos, properties) = (Qos::AtMostOnce, Bytes::new());
        turn.ask(port, FromPort::Publish { id: 0, topic, payload, qos, retain, properties });
        opened
    }

    fn open(&mut self, port: PortNumber, turn: &mut Turn<'_>) -> PortNumber {
        self.port = Some(port);
        self.not_before = turn.now + REOPEN_AFTER;
        let hello = Hello {
            client_id: client_id(turn.settings),
            user: turn.settings.user.clone(),
            clean_start: true,
            session_expiry: 0,
            will: None,
            credit: 0,
            waits: false,
        };
        turn.effects.push(Effect::Open { port, hello });
        port
    }

    /// Whether the shared port goes by this client id, so that no client may take it over.
    pub(super) fn owns(&self, name: &str, settings: &Checked) -> bool {
        settings.qos_minus_one == QosMinusOne::Accepted && name == client_id(settings)
    }

    pub(super) fn word(&mut self, port: PortNumber, word: &ToPort, turn: &mut Turn<'_>) {
        if self.port == Some(port) && matches!(word, ToPort::Closed(_)) {
            self.port = None;
            turn.effects.push(Effect::Drop { port });
        }
    }

    pub(super) fn gone(&mut self, port: PortNumber) {
        if self.port == Some(port) {
            self.port = None;
        }
    }
}

fn client_id(settings: &Checked) -> String {
    format!("mqtt-sn-{}", settings.gateway_id)
}

/// Clients that have left, so that a DISCONNECT whose answer was lost is answered again. // [SN-6.12]
#[derive(Debug, Default)]
pub(super) struct Departed {
    peers: BTreeMap<Peer, Farewell>,
}

#[derive(Debug)]
struct Farewell {
    until: Duration,
    answers: u32,
}

impl Departed {
    pub(super) fn remember(&mut self, peer: Peer, now: Duration, settings: &Checked) {
        self.peers.retain(|_, farewell| farewell.until > now);
        if self.peers.len() >= DEPARTED_MAX {
            let oldest = self.peers.iter().min_by_key(|(_, farewell)| farewell.until);
            if let Some(oldest) = oldest.map(|(peer, _)| peer.clone()) {
                self.peers.remove(&oldest);
            }
        }
        let until = now + settings.retry_interval * (settings.retries + 1);
        self.peers.insert(peer, Farewell { until, answers: settings.retries });
    }

    /// Counts one answer.
    pub(super) fn may_answer(&mut self, peer: &Peer, now: Duration) -> bool {
        let Some(farewell) = self.peers.get_mut(peer).filter(|farewell| farewell.until > now) else {
            return false;
        };
        let may = farewell.answers > 0;
        farewell.answers = farewell.answers.saturating_sub(1);
        may
    }

    pub(super) fn forget(&mut self, peer: &Peer) {
        self.peers.remove(peer);
    }
}

/// Clients that are remembered after they left. Beyond: the one that left first is forgotten.
const DEPARTED_MAX: usize = 256;

/// A broker that closes the shared port is not asked again at once.
const REOPEN_AFTER: Duration = Duration::from_secs(10);
