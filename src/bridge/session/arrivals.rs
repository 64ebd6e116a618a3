//! The downward half of a session: subscriptions, and what comes by them.
//!
//! Whatever comes is acknowledged in its turn, since upstream would send it again for ever; what cannot be
//! published here is counted, and said now and then.

use adapter_api::{Qos, Refusal};
use bytes::Bytes;
use tokio::time::Instant;

use super::{Done, Inbound, Loop, count, lost, overrun};
use crate::bridge::cutter::Cut;
use crate::bridge::mapping::{is_local_topic, is_topic};
use crate::bridge::status::ASKED;
use crate::bridge::trouble::{Trouble, show_reason};
use crate::bridge::uplink::Arrival;
use crate::codec::{QoS, Reason};

impl Loop<'_> {
    /// Subscribes the receive routes, unless upstream has kept them: over 3.1.1 each SUBSCRIBE would bring
    /// the retained messages again. What an earlier configuration subscribed and this one does not is
    /// ended.
    pub(super) fn subscribe(&mut self, session_present: bool) -> Result<(), Trouble> {
        let session = &mut self.session;
        if session_present {
            for filter in &session.memory.stale {
                tracing::info!(bridge = %session.config.name, %filter, "ending a subscription of an earlier configuration");
                self.kept.uplink.unsubscribe(filter).map_err(overrun)?;
                self.kept.leaving += 1;
            }
        } else {
            session.memory.forget();
        }
        if session_present && session.memory.subscribed {
            return Ok(());
        }
        session.memory.subscribed = false;
        for (index, receive) in session.config.receives.iter().enumerate() {
            self.kept.uplink.subscribe(receive.filter.as_str(), receive.qos).map_err(overrun)?;
            self.kept.asked.push_back(index);
            self.answer(index, ASKED.to_owned());
        }
        Ok(())
    }

    pub(super) fn on_unsubscribed(&mut self, answer: Result<(), Reason>) {
        if let Err(reason) = answer {
            let (bridge, reason) = (&self.session.config.name, show_reason(reason));
            tracing::warn!(%bridge, %reason, "upstream keeps a subscription of an earlier configuration");
            // It is asked for again with the next connection.
            return;
        }
        self.kept.leaving = self.kept.leaving.saturating_sub(1);
        if self.kept.leaving == 0 {
            self.session.memory.forget();
        }
    }

    pub(super) fn on_subscribed(&mut self, answer: Result<QoS, Reason>) {
        // An answer after its time finds nobody who asks.
        let Some(index) = self.kept.asked.pop_front() else { return };
        let text = match answer {
            Ok(_) => "granted".to_owned(),
            Err(reason) => {
                self.kept.granted = false;
                let refused = format!("refused ({})", show_reason(reason));
                if let Some(receive) = self.session.config.receives.get(index) {
                    let bridge = &self.session.config.name;
                    tracing::warn!(%bridge, filter = %receive.filter, "upstream has {refused} a subscription");
                }
                refused
            }
        };
        self.answer(index, text);
        self.session.memory.subscribed = self.kept.asked.is_empty() && self.kept.granted;
    }

    pub(super) fn answer(&self, index: usize, text: String) {
        self.session.board.change(|status| {
            if let Some(subscription) = status.subscriptions.get_mut(index) {
                subscription.answer = text;
            }
        });
    }

    /// Maps a message from upstream to its topics here.
    pub(super) fn on_arrival(&mut self, arrival: Arrival) -> Result<(), Trouble> {
        if !is_topic(&arrival.topic) {
            return Err(lost("upstream sends a topic that is none"));
        }
        if let Some(cut) = self.kept.cuts.of_arrival() {
            self.on_cut(&cut);
            self.take_in(Arrival { payload: Bytes::new(), ..arrival }, Vec::new());
            return Ok(());
        }
        let mut targets: Vec<(String, Qos)> = Vec::new();
        for receive in &self.session.config.receives {
            let Some(captures) = receive.filter.captures(&arrival.topic) else { continue };
            let Some(topic) = receive.to.render(&arrival.topic, &captures) else { continue };
            if is_local_topic(&topic) && !targets.iter().any(|(other, _)| *other == topic) {
                targets.push((topic, own_qos(receive.qos)));
            }
        }
        self.session.board.change(|status| {
            status.counts.received += 1;
            status.counts.unrouted += u64::from(targets.is_empty());
        });
        let arrival = if targets.is_empty() {
            // A subscription of an earlier configuration, or a topic that is none here.
            self.on_unrouted(&arrival.topic);
            Arrival { payload: Bytes::new(), ..arrival }
        } else {
            arrival
        };
        self.take_in(arrival, targets);
        Ok(())
    }

    /// In the order of arrival, since so it is acknowledged. [MQTT311-4.6.0-2]
    fn take_in(&mut self, arrival: Arrival, targets: Vec<(String, Qos)>) {
        self.kept.backlog.push_back(Inbound {
            connection: self.session.memory.number,
            receipt: arrival.receipt,
            targets,
            payload: arrival.payload,
            retain: arrival.retain,
            properties: arrival.properties,
            arrived: Instant::now(),
        });
    }

    fn on_cut(&mut self, cut: &Cut) {
        self.session.board.change(|status| {
            status.counts.received += 1;
            status.counts.too_large += 1;
        });
        if self.session.memory.cuts.is_due(self.session.clock.now().mono) {
            let (bridge, topic, size) = (&self.session.config.name, &cut.topic, cut.size);
            tracing::warn!(%bridge, %topic, size, "a message from upstream is beyond [limits] max_packet_size: it is acknowledged and not published");
        }
    }

    fn on_unrouted(&mut self, topic: &str) {
        if self.session.memory.unrouted.is_due(self.session.clock.now().mono) {
            let bridge = &self.session.config.name;
            tracing::warn!(%bridge, %topic, "a message from upstream is for no receive route: it is acknowledged and not published");
        }
    }

    fn on_denied(&mut self, topic: &str, refusal: Refusal) {
        if self.session.memory.denied.is_due(self.session.clock.now().mono) {
            let bridge = &self.session.config.name;
            tracing::warn!(%bridge, %topic, reason = %refusal, "a message from upstream is denied here: it is acknowledged and not published. What the user bridge:{bridge} may publish stands in [auth] acl_file, and a device is written only by who has a line that names its set topic");
        }
    }

    pub(super) fn acknowledge(&mut self, done: Done) -> Result<(), Trouble> {
        if let Some((topic, refusal)) = done.denied.first() {
            self.session.board.change(|status| status.counts.denied += count(done.denied.len()));
            self.on_denied(topic, *refusal);
        }
        if done.connection == self.session.memory.number && done.receipt.packet_id != 0 {
            self.kept.uplink.acknowledge(done.receipt).map_err(overrun)?;
        }
        Ok(())
    }
}

fn own_qos(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}
