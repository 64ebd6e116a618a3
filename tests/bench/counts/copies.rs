//! One message encoded once for many subscribers, or for one alone, at QoS 1, so that each copy has its own packet id.
//!
//! The engine shows this to nobody: its file is built here a second time.

#[allow(dead_code, reason = "the engine uses more of it")]
#[path = "../../../src/engine/template.rs"]
mod template;

use std::hint::black_box;
use std::sync::Arc;

use tidegate::broker::{ConnectionId, Copy};
use tidegate::codec::{Alias, QoS, Version};
use tidegate::record::{Identifiers, Message};

use crate::{TIMES, measured, message};
use template::Templates;

pub(crate) fn encode(subscribers: usize) {
    // Nobody else has them.
    let copies = (0..TIMES / subscribers)
        .map(|_| message())
        .flat_map(|message| (0..subscribers).map(|number| copy(&message, number)).collect::<Vec<_>>());
    let copies: Vec<Copy> = copies.collect();
    let mut buffer = Vec::with_capacity(TIMES * 200);
    let mut templates = Templates::default();
    measured(|| {
        for copy in copies {
            let prepared = templates.prepare(black_box(Version::V311), &copy, Alias::None).unwrap();
            prepared.append(&mut buffer).unwrap();
        }
    });
}

fn copy(message: &Arc<Message>, number: usize) -> Copy {
    Copy {
        connection: ConnectionId { slot: u32::try_from(number).unwrap(), generation: 0 },
        message: message.clone(),
        packet_id: u16::try_from(number).unwrap() + 1,
        qos: QoS::AtLeastOnce,
        dup: false,
        retain: false,
        expiry: None,
        subscription_ids: Identifiers::default(),
        hidden: 0,
    }
}
