//! What a broker takes while nothing is asked of it, alone and with many clients that say nothing.
//!
//! Memory is what the kernel counts as resident; a broker that has nothing to do should not wake.

use std::time::Duration;

use tidegate::codec::{QoS, Version};

use super::brokers::Broker;
use super::gauge::Meter;
use super::hub::{Client, Hub, Session, Silence};
use super::{Outcome, Sample, Size};

/// Memory, and how often it wakes.
pub(crate) fn alone(broker: &Broker, size: Size) -> Outcome<Sample> {
    let mut hub = Hub::new(Version::V311, broker);
    let (resident, sleeps) = rest(&mut hub, broker, size)?;
    Ok(vec![resident, sleeps])
}

/// What each of ten thousand clients adds to that.
pub(crate) fn clients(broker: &Broker, size: Size) -> Outcome<Sample> {
    let count = if matches!(size, Size::Small) { 50 } else { CLIENTS };
    let client = |number| Client {
        id: format!("bench-client-{number}"),
        session: Session::Brief,
        filters: vec![format!("bench/client/{number}/data")],
    };
    let clients: Vec<Client> = (0..count).map(client).collect();
    let mut hub = Hub::new(Version::V311, broker);
    // Some of what a start takes is given back seconds after it.
    let (before, _) = rest(&mut hub, broker, size)?;
    hub.connect(&clients, QoS::AtMostOnce)?;
    let (resident, sleeps) = rest(&mut hub, broker, size)?;
    Ok(vec![(resident - before) * 1_024.0 / f64::from(count), sleeps])
}

/// KB that are resident after ten seconds, and how often it went to sleep in them.
fn rest(hub: &mut Hub, broker: &Broker, size: Size) -> Outcome<(f64, f64)> {
    let whole =
        if matches!(size, Size::Small) { Duration::from_millis(100) } else { Duration::from_secs(10) };
    // What a start or a connection leaves to do is done by then.
    hub.linger(whole / 20, &mut Silence)?;
    let meter = Meter::start(broker.pid);
    hub.linger(whole, &mut Silence)?;
    let cost = meter.stop();
    if broker.has_ended() {
        return Err("nobody is there any more".into());
    }
    Ok((cost.resident, cost.sleeps))
}

const CLIENTS: u32 = 10_000;
