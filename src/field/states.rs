//! Publishes, retained, that the gateway is there, under `tidegate/status`, and what adapters report, under
//! `tidegate/<path>/state`.
//!
//! A new state is published at once, mere counters once in a while, one message at a time: each is a
//! write to flash. What an earlier run has left of parts that are no longer configured is cleared.

use std::time::Duration;

use adapter_api::{FromPort, Hello, Host, Port, PortClosed, Qos, ToPort, Will};
use bytes::Bytes;

use super::Field;
use super::parts::Due;

/// Publishes until the engine ends; first it clears the topics that are stale.
pub(super) async fn publish(field: Field, mut stale: Vec<String>) {
    loop {
        let mut port = field.open(hello());
        if matches!(port.next().await, Some(ToPort::Connected { .. })) {
            field.parts.publish_again();
            // It ends where the broker closes the port, which is then opened anew.
            let _ = publish_on(&field, &mut port, &mut stale).await;
        }
        if field.inputs.is_closed() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn publish_on(field: &Field, port: &mut Port, stale: &mut Vec<String>) -> Result<(), PortClosed> {
    publish_one(port, STATUS.to_owned(), ONLINE.to_owned()).await?;
    while let Some(topic) = stale.pop() {
        publish_one(port, topic, String::new()).await?;
    }
    let mut counters = tokio::time::interval(COUNTERS);
    counters.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let due = tokio::select! {
            () = field.parts.changed() => Due::States,
            _ = counters.tick() => Due::All,
            // Nothing is asked, so a word can only be the last one.
            _ = port.next() => return Err(PortClosed),
        };
        for (path, state) in field.parts.unpublished(due) {
            // A part named by the operator with a wildcard has no topic.
            if path.contains(['+', '#']) {
                continue;
            }
            publish_one(port, format!("tidegate/{path}/state"), state.to_string()).await?;
        }
    }
}

async fn publish_one(port: &mut Port, topic: String, text: String) -> Result<(), PortClosed> {
    let payload = Bytes::from(text);
    let (qos, properties) = (Qos::AtLeastOnce, Bytes::new());
    port.send(FromPort::Publish { id: 0, topic, payload, qos, retain: true, properties }).await?;
    match port.next().await {
        Some(ToPort::Published(_)) => Ok(()),
        _ => Err(PortClosed),
    }
}

fn hello() -> Hello {
    Hello {
        client_id: "tidegate:states".to_owned(),
        user: Some("tidegate".to_owned()),
        clean_start: true,
        session_expiry: 0,
        // Also where the service ends in good order.
        will: Some(Will {
            topic: STATUS.to_owned(),
            payload: Bytes::from_static(OFFLINE.as_bytes()),
            qos: Qos::AtLeastOnce,
            retain: true,
        }),
        credit: 0,
        waits: false,
    }
}

/// Whether the gateway is there.
const STATUS: &str = "tidegate/status";
const ONLINE: &str = "online";
const OFFLINE: &str = "offline";

/// How often counters alone are published.
const COUNTERS: Duration = Duration::from_secs(60);

/// Before the port is opened again.
const AGAIN: Duration = Duration::from_secs(5);
