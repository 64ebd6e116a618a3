//! QoS 1 for a session that is away, where an acknowledgement means that the message is kept.
//!
//! With many under way the throughput is measured, with few how long an acknowledgement takes. Then the
//! session comes for all of them: what is missing, doubled or out of order makes the round void.

use std::time::Duration;

use tidegate::codec::{QoS, Version};

use super::brokers::{Broker, MAX_QUEUED_MESSAGES};
use super::flow::{Flow, Look, Plan, Streams, take};
use super::gauge::{Cost, Meter, Taken};
use super::hub::{Client, Handler, Hub, Session};
use super::packet::{Packet, Template};
use super::tracker::{PAYLOAD, Stamp, Tracker, judge};
use super::{Outcome, Sample, Size, Span};
use crate::process::{median, quantile};

/// Takes in, and drains.
pub(crate) fn drained(broker: &Broker, size: Size) -> Outcome<Sample> {
    let count = if matches!(size, Size::Small) { 2_000 } else { 500_000 };
    let (flow, taken) = ingest(broker, PUBLISHERS, 100, Look::Leisurely, Span::Count(count))?;
    let drain = drain(broker, &flow.sent())?;
    let (messages, cost) = (taken.inward as f64, &taken.cost);
    Ok(vec![
        cost.broker / messages,
        cost.both / messages,
        messages / cost.seconds,
        cost.written / messages,
        drain.broker / messages,
        drain.both / messages,
        messages / drain.seconds,
        drain.written / messages,
    ])
}

/// Acknowledgements for so many publishers with so few under way each; that they were true is seen after.
pub(crate) fn acknowledged(
    broker: &Broker,
    publishers: usize,
    window: usize,
    sync: Duration,
    size: Size,
) -> Outcome<Sample> {
    let span = match size {
        Size::Small => Span::Count(FEW),
        Size::Whole(measured) => Span::Time { warm_up: measured / 4, measured, most: MOST },
    };
    let disk = broker.disk.as_ref().expect("started with one");
    disk.slow_down(sync);
    let before = disk.syncs();
    let (flow, taken) = ingest(broker, publishers, window, Look::Eager, span)?;
    if flow.waits.is_empty() {
        return Err("nothing is acknowledged in the measured span".into());
    }
    let all: u64 = flow.sent().iter().sum();
    let syncs = (disk.syncs() - before) as f64 / all as f64;
    disk.slow_down(Duration::ZERO);
    drain(broker, &flow.sent())?;
    let (messages, cost) = (taken.inward as f64, &taken.cost);
    Ok(vec![
        messages / cost.seconds,
        median(flow.waits.clone()),
        quantile(flow.waits, 99),
        syncs,
        cost.written / messages,
        cost.broker / messages,
    ])
}

fn absent() -> Client {
    Client { id: "bench-absent".into(), session: Session::Kept, filters: Vec::new() }
}

fn ingest(
    broker: &Broker,
    publishers: usize,
    window: usize,
    look: Look,
    span: Span,
) -> Outcome<(Flow, Taken)> {
    let connect = || Hub::new(Version::V311, broker);
    let mut hub = connect();
    let filters = vec!["bench/kept/#".into()];
    hub.connect(&[Client { filters, ..absent() }], QoS::AtLeastOnce)?;
    hub.leave()?;
    let mut hub = connect();
    let publisher = |number| Client {
        id: format!("bench-publisher-{number}"),
        session: Session::Brief,
        filters: Vec::new(),
    };
    let clients: Vec<Client> = (0..publishers).map(publisher).collect();
    hub.connect(&clients, QoS::AtLeastOnce)?;
    let template = |number| vec![Template::new(Version::V311, &topic(number), QoS::AtLeastOnce, &PAYLOAD)];
    let plan = Plan {
        templates: (0..publishers).map(template).collect(),
        qos: 1,
        readers: 0,
        streams: Streams::Publishers,
        look,
        window,
    };
    let mut flow = Flow::new(&hub, plan);
    let taken = flow.run(&mut hub, broker.pid, span)?;
    Ok((flow, taken))
}

/// The session comes for what was sent by each publisher.
fn drain(broker: &Broker, sent: &[u64]) -> Outcome<Cost> {
    let total: u64 = sent.iter().sum();
    let trackers = sent.iter().map(|_| Tracker::default()).collect();
    let topics = (0..sent.len()).map(topic).collect();
    let mut drain = Drain { sent: sent.to_vec(), topics, trackers, arrived: 0, spoiled: 0 };
    let mut hub = Hub::new(Version::V311, broker);
    let meter = Meter::start(broker.pid);
    hub.connect(&[absent()], QoS::AtLeastOnce)?;
    if !hub.connections[0].present {
        return Err("the session is lost".into());
    }
    let mut patience = hub.patience();
    while drain.arrived < total {
        hub.poll(patience.wait(), &mut drain)?;
        patience.look(drain.arrived, &mut hub)?;
        std::thread::park_timeout(NAP);
    }
    hub.barrier(0..1, &mut drain)?;
    let cost = meter.stop();
    hub.await_doubles(&mut drain)?;
    judge(drain.trackers.iter().zip(sent.iter().copied()), drain.spoiled)?;
    Ok(cost)
}

fn topic(publisher: usize) -> String {
    format!("bench/kept/{publisher}/data")
}

struct Drain {
    /// By each publisher.
    sent: Vec<u64>,
    topics: Vec<String>,
    trackers: Vec<Tracker>,
    arrived: u64,
    spoiled: u64,
}

impl Handler for Drain {
    fn on(&mut self, _: usize, packet: Packet<'_>, out: &mut Vec<u8>, _: Duration) -> Outcome<()> {
        let Packet::Publish(publish) = packet else { return Err(format!("sends {packet:?}")) };
        take(&publish, out);
        let stamp = Stamp::read(&publish, &[], 0).filter(|stamp| {
            let sent = self.sent.get(stamp.publisher).is_some_and(|sent| stamp.number < *sent);
            sent && publish.qos == 1 && publish.topic == self.topics[stamp.publisher].as_bytes()
        });
        match stamp {
            Some(stamp) => self.arrived += u64::from(self.trackers[stamp.publisher].saw(stamp.number)),
            None => self.spoiled += 1,
        }
        Ok(())
    }
}

const PUBLISHERS: usize = 10;
/// Messages that are enough for a test.
const FEW: u64 = 100;
/// What a timed span acknowledges at most: with what is under way then, a queue has room for all of it.
const MOST: u64 = MAX_QUEUED_MESSAGES / 10 * 9;
/// Between two looks at what was drained: as long as a broker surely has something to do.
const NAP: Duration = Duration::from_micros(24);

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::super::packet::{PUBACK, answer, hear};
    use super::super::patience::STALL;
    use super::super::rows::ACKNOWLEDGERS;
    use super::super::tracker::STAMP;
    use super::super::wire::Dial;
    use super::*;
    use crate::stand::Disk;

    /// What a broker makes of the messages that it has acknowledged.
    type Fate = fn(&mut Vec<Vec<u8>>);

    #[test]
    fn figures_are_given_where_all_that_was_acknowledged_comes() {
        let sample = check(|_| {}).expect("an honest broker");
        assert_eq!(sample.len(), 6);
    }

    #[test]
    fn who_acknowledges_and_keeps_nothing_has_no_figures() {
        assert_eq!(check(Vec::clear), Err("the session is lost".into()));
    }

    #[test]
    fn loss_doubles_and_another_order_make_an_acknowledged_round_void() {
        let doubled: Fate = |kept| kept.insert(50, kept[50].clone());
        let reordered: Fate = |kept| kept.swap(50, 51);
        let spoiled: Fate = |kept| insert_changed(kept, |message| message.len() - 1);
        // Behind the head and the length of the topic, and in the number.
        let elsewhere: Fate = |kept| insert_changed(kept, |_| 4);
        let unsent: Fate = |kept| insert_changed(kept, |message| message.len() - PAYLOAD.len() + STAMP - 1);
        for (fate, finding) in [
            (doubled, "0 lost, 1 doubled, 0 reordered, 0 spoiled"),
            (reordered, "0 lost, 0 doubled, 1 reordered, 0 spoiled"),
            (spoiled, "0 lost, 0 doubled, 0 reordered, 1 spoiled"),
            (elsewhere, "0 lost, 0 doubled, 0 reordered, 1 spoiled"),
            (unsent, "0 lost, 0 doubled, 0 reordered, 1 spoiled"),
        ] {
            assert_eq!(check(fate), Err(finding.into()));
        }
        // The one who has too few hangs up at the end of them.
        assert_eq!(check(|kept| _ = kept.pop()), Err("client 0 was closed by the broker".into()));
    }

    #[test]
    fn a_span_ends_before_a_queue_is_full() {
        let (broker, _folder) = broker(|_| {});
        let hour = Duration::from_secs(3_600);
        let span = Span::Time { warm_up: hour, measured: hour, most: 500 };
        let (flow, taken) = ingest(&broker, 1, 20, Look::Eager, span).expect("an honest broker");
        let sent: u64 = flow.sent().iter().sum();
        assert!((500..=540).contains(&sent), "{sent} were sent");
        assert!((360..=420).contains(&taken.inward), "{} were measured", taken.inward);
        let most_under_way = ACKNOWLEDGERS.iter().map(|(publishers, window)| publishers * window).max();
        assert!(MOST + 2 * most_under_way.unwrap() as u64 <= MAX_QUEUED_MESSAGES);
    }

    /// One more, which has another byte there.
    fn insert_changed(kept: &mut Vec<Vec<u8>>, place: fn(&[u8]) -> usize) {
        let mut other = kept[50].clone();
        let place = place(&other);
        other[place] ^= 1;
        kept.insert(50, other);
    }

    fn check(fate: Fate) -> Outcome<Sample> {
        let (broker, _folder) = broker(fate);
        acknowledged(&broker, 1, 1, Duration::ZERO, Size::Small)
    }

    /// One for the session that is away, one publisher, and the session again.
    fn broker(fate: Fate) -> (Broker, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (port, pid) = (listener.local_addr().unwrap().port(), std::process::id());
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            serve(&listener.accept().unwrap().0, &mut kept, false);
            serve(&listener.accept().unwrap().0, &mut kept, false);
            fate(&mut kept);
            serve(&listener.accept().unwrap().0, &mut kept, true);
        });
        let disk = Some(Disk::within(folder.path()));
        (Broker { port, pid, dial: Dial::Plain, stall: STALL, disk, _process: None }, folder)
    }

    /// Keeps all that comes, or gives back all that was kept; until the client has gone.
    fn serve(mut stream: &TcpStream, kept: &mut Vec<Vec<u8>>, back: bool) {
        let (mut bytes, mut chunk, mut taken) = (Vec::new(), [0; 4_096], 0);
        loop {
            let count = match stream.read(&mut chunk) {
                Ok(0) => return,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                count => count.unwrap(),
            };
            bytes.extend_from_slice(&chunk[..count]);
            let mut out = Vec::new();
            while let Some((packet, used)) = hear(&bytes, Version::V311).unwrap() {
                match (packet, bytes[0] >> 4) {
                    (Packet::Publish(publish), _) => {
                        answer(&mut out, PUBACK, publish.id);
                        kept.push(bytes[..used].to_vec());
                    }
                    (Packet::Ack(..), _) => taken += 1,
                    (_, 1) => {
                        out.extend_from_slice(&[0x20, 2, u8::from(back && !kept.is_empty()), 0]);
                        kept.iter().filter(|_| back).for_each(|message| out.extend_from_slice(message));
                    }
                    (_, 8) => out.extend_from_slice(&[0x90, 3, bytes[2], bytes[3], 1]),
                    (_, 12) => out.extend_from_slice(&[0xd0, 0]),
                    (_, 14) => return,
                    _ => {}
                }
                bytes.drain(..used);
            }
            stream.write_all(&out).unwrap();
            if back && taken == kept.len() && taken < FEW as usize {
                return;
            }
        }
    }
}
