//! Who gets the numbers: the cloud's subscriber, and kept sessions at the gateway that come and go.
//!
//! Each notes what came first and whether that was in order, of every publisher and topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use tidegate::codec::{Packet, Publish, QoS, Reason, Version};

use super::publisher::{Publisher, text, topic};
use super::{Door, Promise};
use crate::stand::{Client, Options, monotonic};

/// What has come to one of them.
#[derive(Default)]
pub(super) struct Arrivals {
    /// By publisher.
    seen: BTreeMap<usize, BTreeSet<u64>>,
    /// By publisher and topic.
    newest: BTreeMap<(usize, String), u64>,
    /// With those that came again.
    pub(super) copies: u64,
    late: Vec<Late>,
    faults: Vec<String>,
}

/// What came first behind something that its publisher sent later.
struct Late {
    publisher: usize,
    number: u64,
    /// What was there already.
    newest: u64,
}

/// The subscriber in the cloud; its session is kept there.
pub(super) struct Collector {
    arrivals: Arc<Mutex<Arrivals>>,
    ended: Arc<AtomicBool>,
}

/// A session at the gateway that is kept.
pub(super) struct Session {
    options: Options,
    arrivals: Mutex<Arrivals>,
}

impl Arrivals {
    fn note(&mut self, name: &str, publish: &Publish) {
        self.copies += 1;
        let payload = String::from_utf8_lossy(&publish.payload);
        let numbers: Vec<u64> = payload.split(' ').map_while(|word| word.parse().ok()).collect();
        let whole = match numbers[..] {
            [publisher, number, length] => {
                let publisher = usize::try_from(publisher).unwrap();
                let is_whole = payload == text(publisher, number, length) && name == topic(number);
                is_whole.then_some((publisher, number))
            }
            _ => None,
        };
        let Some((publisher, number)) = whole else {
            return self.faults.push(format!("{name}: {payload:?} was never published"));
        };
        if self.seen.entry(publisher).or_default().insert(number) {
            let newest = self.newest.entry((publisher, name.to_owned())).or_default();
            if *newest > number {
                self.late.push(Late { publisher, number, newest: *newest });
            }
            *newest = number.max(*newest);
        }
    }

    /// Different numbers that came.
    pub(super) fn distinct(&self) -> u64 {
        self.seen.values().map(|numbers| numbers.len() as u64).sum()
    }

    /// Whether the last `count` numbers of each publisher are there, where it ended before this one.
    pub(super) fn has_last(&self, ends: &[u64], count: u64) -> bool {
        ends.iter().enumerate().all(|(publisher, end)| {
            let numbers = self.seen.get(&publisher);
            numbers.is_some_and(|seen| (end - count..*end).all(|number| seen.contains(&number)))
        })
    }

    /// Panics where something is wrong already. Where the oldest go, the first copy of what was sent twice may be gone,
    /// and the second one lies behind what was published after the first.
    pub(super) fn assert_in_order(&self, who: &str, publishers: &[Publisher], promise: Promise) {
        let faults: Vec<&String> = self.faults.iter().take(5).collect();
        assert!(faults.is_empty(), "{} faults in what came to {who}, of them {faults:#?}", self.faults.len());
        let is_excused = |late: &&Late| {
            promise == Promise::AllIsCounted && publishers[late.publisher].repeated.contains(&late.number)
        };
        let late: Vec<&Late> = self.late.iter().filter(|late| !is_excused(late)).collect();
        if let Some(Late { publisher, number, newest }) = late.first() {
            panic!(
                "{} messages came to {who} out of order, first {number} of publisher {publisher} after {newest}",
                late.len()
            );
        }
    }

    /// All that was acknowledged is there, but for so many that gave way, and nothing that was refused.
    pub(super) fn assert_complete(&self, who: &str, publishers: &[Publisher], gone: u64) {
        let missing = self.missing(publishers);
        assert!(
            missing <= gone,
            "{missing} acknowledged messages are missing, {who} lacks them; {gone} gave way"
        );
        for (id, publisher) in publishers.iter().enumerate() {
            let Some(seen) = self.seen.get(&id) else { continue };
            let refused: Vec<_> = publisher.refused.intersection(seen).collect();
            assert!(refused.is_empty(), "publisher {id} was refused {refused:?}, and {who} has them");
        }
    }

    /// Numbers that were acknowledged and have not come.
    pub(super) fn missing(&self, publishers: &[Publisher]) -> u64 {
        let none = BTreeSet::new();
        let lacks = |(id, publisher): (usize, &Publisher)| {
            let lacks = publisher.acknowledged.difference(self.seen.get(&id).unwrap_or(&none)).count();
            lacks as u64
        };
        publishers.iter().enumerate().map(lacks).sum()
    }
}

impl Collector {
    /// Subscribes at this port.
    pub(super) fn start(port: u16) -> Collector {
        let mut client = Client::connect(port, &Options::kept("collector"));
        client.subscribe("sites/#", QoS::AtLeastOnce);
        let arrivals = Arc::new(Mutex::new(Arrivals::default()));
        let ended = Arc::new(AtomicBool::new(false));
        let (keep, end) = (arrivals.clone(), ended.clone());
        thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                let Ok(Some(packet)) = client.next_within(Duration::from_millis(200)) else { continue };
                let Packet::Publish(publish) = packet else { continue };
                client.acknowledge(&publish);
                let name = publish.topic.strip_prefix("sites/barn-7/").unwrap_or_default();
                keep.lock().unwrap().note(name, &publish);
            }
        });
        Collector { arrivals, ended }
    }

    /// What has come.
    pub(super) fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

impl Session {
    /// Those of a test, each known to the gateway at this port.
    pub(super) fn all(port: u16) -> Vec<Session> {
        let known = |(name, version): (&str, Version)| {
            let options = Options { version, ..Options::kept(name) };
            Client::connect(port, &options).subscribe("sensors/#", QoS::AtLeastOnce);
            Session { options, arrivals: Mutex::default() }
        };
        [("absent-5", Version::V5), ("absent-311", Version::V311)].map(known).into()
    }

    /// Takes what comes, for so long or until the door is shut.
    pub(super) fn live(&self, door: &Door, stay: Duration) {
        let began = monotonic();
        while !door.is_shut() && began.elapsed() < stay {
            let Ok(mut client) = Client::reach(door.port(), &self.options) else {
                thread::park_timeout(Duration::from_millis(5));
                continue;
            };
            while began.elapsed() < stay {
                match client.next_within(Duration::from_millis(20)) {
                    Err(()) => {}
                    Ok(None) => break,
                    Ok(Some(Packet::Publish(publish))) => {
                        self.arrivals().note(&publish.topic, &publish);
                        client.acknowledge(&publish);
                    }
                    Ok(Some(Packet::ConnAck(answer))) if answer.reason == Reason::Success => {
                        assert!(answer.session_present, "the session of {} is gone", self.name());
                    }
                    Ok(Some(Packet::ConnAck(_) | Packet::Disconnect(_))) => {}
                    Ok(Some(other)) => panic!("{other:?} to {}", self.name()),
                }
            }
        }
    }

    /// Its client id.
    pub(super) fn name(&self) -> &str {
        &self.options.id
    }

    /// What has come.
    pub(super) fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap()
    }
}
