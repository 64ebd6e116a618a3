//! How the engine does, as `status` shows it: a JSON value, since it crosses to another thread whole.
//!
//! No figure is computed here: each is read where it is kept.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Counters;
use crate::broker;
use crate::listener::{HandshakeCounts, Standing};

/// `{"listeners": [...], "broker": {...}, "engine": {...}, "handshakes": {...}, "warnings": [...]}`.
pub(super) fn of(
    engine: &Counters,
    broker: &broker::Counters,
    doors: &[Standing],
    handshakes: &HandshakeCounts,
    warnings: &[String],
) -> Value {
    json!({
        "listeners": doors.iter().map(door).collect::<Vec<_>>(),
        "broker": figures(broker),
        "engine": engine,
        "handshakes": handshakes,
        "warnings": warnings,
    })
}

fn figures(broker: &broker::Counters) -> Value {
    let dropped: BTreeMap<&str, u64> =
        broker.dropped.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    let turned_away: BTreeMap<&String, &str> =
        broker.turned_away.iter().map(|(part, reason)| (part, reason.text())).collect();
    json!({
        "clients": broker.clients,
        "sessions": broker.sessions,
        "kept_sessions": broker.kept_sessions,
        "sessions_displaced": broker.sessions_displaced,
        "subscriptions": broker.subscriptions,
        "shared_subscriptions": broker.shared_subscriptions,
        "retained": broker.retained,
        "messages_received": broker.received,
        "messages_sent": broker.sent,
        "connections_accepted": broker.connections_accepted,
        "connections_refused": broker.connections_refused,
        "not_accepted": broker.not_accepted,
        "not_accepted_by_route": broker.not_accepted_by_route,
        "slowed": broker.slowed,
        "expired": broker.expired,
        "dropped": dropped,
        "lost_by_session": broker.lost_by_session,
        "turned_away": turned_away,
        "memory": broker.memory,
        "uncommitted": broker.uncommitted,
        "paused": broker.paused,
        "waiting_for_room": broker.waiting_for_room,
    })
}

fn door(standing: &Standing) -> Value {
    let address = standing.bound.as_ref().unwrap_or(&standing.bind).to_string();
    json!({
        "name": standing.name,
        "address": address,
        "open": standing.bound.is_some(),
        "error": standing.trouble,
    })
}
