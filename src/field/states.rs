//! Publishes what adapters report, retained, under `tidegate/<path>/state`.
//!
//! A new state is published at once, mere counters once in a while, one message at a time: each is a
//! write to flash.

use std::time::Duration;

use adapter_api::{FromPort, Hello, Host, Port, PortClosed, Qos, ToPort};
use bytes::Bytes;

use super::Field;
use super::parts::Due;

/// Publishes until the engine ends.
pub(super) async fn publish(field: Field) {
    loop {
        let mut port = field.open(hello());
        if matches!(port.next().await, Some(ToPort::Connected { .. })) {
            field.parts.publish_again();
            // It ends where the broker closes the port, which is then opened anew.
            let _ = publish_on(&field, &mut port).await;
        }
        if field.inputs.is_closed() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn publish_on(field: &Field, port: &mut Port) -> Result<(), PortClosed> {
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
        will: None,
        credit: 0,
        waits: false,
    }
}

/// How often counters alone are published.
const COUNTERS: Duration = Duration::from_secs(60);

/// Before the port is opened again.
const AGAIN: Duration = Duration::from_secs(5);
