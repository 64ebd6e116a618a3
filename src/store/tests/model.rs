//! The store against a naive model, over scripts from a seed.
//!
//! The model keeps every row of every reader in a map. What the store drops because it is full the model
//! cannot foresee, but it checks that the oldest went, for all readers up to the same place, and that
//! they were counted. Runs from fixed seeds and from a fresh one, which is printed.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of a script are small")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind};
use std::sync::Mutex;

use super::*;
use crate::broker::tests::random::{Random, fresh_seed};
use crate::record::{DropReason, Keep, Policy};

/// One reader as it should be.
#[derive(Debug, Clone, Default)]
struct ModelReader {
    /// Row to number.
    wanted: BTreeMap<u64, u64>,
    leased: BTreeSet<u64>,
    /// Rows that it was given, where its oldest may go.
    handed: BTreeSet<u64>,
    numbered: u64,
    received: u64,
    delivered: u64,
    expired: u64,
    dropped: BTreeMap<DropReason, u64>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    readers: BTreeMap<ReaderId, ModelReader>,
    removed_routes: BTreeMap<ReaderId, ModelReader>,
    topics: BTreeMap<u64, String>,
    last_seq: u64,
    last_reader: u32,
}

/// A script under way.
struct Script {
    random: Random,
    trial: Trial,
    model: Model,
    /// The model at the last commit: what a kill goes back to.
    committed: Model,
    /// Rows that orders outside of a commit have ended.
    ending: BTreeSet<(ReaderId, u64)>,
    scale: Scale,
    failures: Arc<Mutex<Vec<Failure>>>,
}

#[derive(Debug, Clone, Copy)]
enum Failure {
    Before(ErrorKind),
    After,
}

/// How large things are.
#[derive(Debug, Clone, Copy)]
struct Scale {
    segment_rows: u64,
    copy_below: u64,
    max_size: u64,
    steps: usize,
    fail: bool,
    /// Of the second route.
    bounds: Bounds,
}

const FREE: Bounds = Bounds {
    max_age: None,
    max_messages: None,
    max_bytes: None,
    when_full: Policy::DropOldest,
    keep: Keep::All,
};
/// A full store turns the newest away without a word that the model could foresee, so only a roomy one does.
const BOUNDED: [Scale; 4] = [
    Scale { bounds: Bounds { max_messages: Some(12), when_full: Policy::DropNewest, ..FREE }, ..FAILING },
    Scale { bounds: Bounds { max_messages: Some(12), ..FREE }, ..TIGHT },
    Scale { bounds: Bounds { max_messages: Some(3), keep: Keep::Latest, ..FREE }, ..FAILING_TIGHT },
    Scale {
        bounds: Bounds { max_messages: Some(3), keep: Keep::Latest, when_full: Policy::DropNewest, ..FREE },
        ..ROOMY
    },
];
const ROOMY: Scale =
    Scale { segment_rows: 24, copy_below: 4, max_size: 100_000_000, steps: 150, fail: false, bounds: FREE };
const TIGHT: Scale = Scale { segment_rows: 30, copy_below: 5, max_size: 450_000, ..ROOMY };
const FAILING: Scale = Scale { fail: true, ..ROOMY };
const FAILING_TIGHT: Scale = Scale { fail: true, ..TIGHT };

fn sizes(scale: Scale) -> Sizes {
    Sizes {
        segment_rows: scale.segment_rows,
        segment_bytes: 25_000,
        copy_below: scale.copy_below,
        checkpoint_frames: 16,
        reserve: 100_000,
    }
}

fn gate(failures: &Arc<Mutex<Vec<Failure>>>) -> Option<Gate> {
    let failures = failures.clone();
    Some(Box::new(move |stage| {
        let mut failures = failures.lock().unwrap();
        match (stage, failures.last().copied()) {
            (Stage::BeforeSync, Some(Failure::Before(kind))) => {
                failures.pop();
                Err(Error::from(kind))
            }
            (Stage::AfterSync, Some(Failure::After)) => {
                failures.pop();
                Err(Error::from(ErrorKind::Other))
            }
            _ => Ok(()),
        }
    }))
}

fn check(seed: u64, scale: Scale) {
    println!("seed {seed}, {scale:?}");
    let failures = Arc::new(Mutex::new(Vec::new()));
    let terms = Terms {
        sizes: Some(sizes(scale)),
        max_size: Some(scale.max_size),
        routes: vec!["one".into(), "two".into()],
        bounds: vec![("two", scale.bounds)],
        gate: gate(&failures),
        ..Terms::default()
    };
    let trial = terms.open();
    let mut model = Model { last_reader: 2, ..Model::default() };
    for route in &trial.opened.routes {
        model.readers.insert(*route, ModelReader::default());
    }
    let committed = model.clone();
    let random = Random(seed);
    let mut script = Script { random, trial, model, committed, ending: BTreeSet::new(), scale, failures };
    script.commit(Vec::new());
    for _ in 0..scale.steps {
        script.step();
    }
    script.reopen(Ending::Close);
    script.compare();
}

enum Ending {
    Close,
    Kill,
}

impl Script {
    fn step(&mut self) {
        match self.random.below(20) {
            0..=11 => self.traffic(),
            12..=14 => self.settle_later(),
            15 => self.sessions(),
            16 => self.compare(),
            17 => self.reopen(Ending::Close),
            18 => self.reopen(Ending::Kill),
            _ => self.change_routes(),
        }
    }

    /// Some writes of every kind in one commit.
    fn traffic(&mut self) {
        let mut batch = Vec::new();
        let slow = self.random.below(4) == 0;
        for _ in 0..self.random.below(30) + 1 {
            let write = match self.random.below(if slow { 30 } else { 12 }) {
                8 | 9 => self.settle(),
                10 => self.drop_some(),
                11 if self.random.below(3) == 0 => self.unlease(),
                11 => self.lease(),
                _ => Some(self.put()),
            };
            if let Some(write) = write {
                batch.push(write);
            }
        }
        self.commit(batch);
    }

    fn put(&mut self) -> Write {
        let seq = self.model.last_seq + 1;
        let rare = self.random.below(3) == 0;
        let mut readers = Vec::new();
        for id in self.model.readers.keys() {
            // The last reader wants little, so that its rows are copied on.
            let wants = if id.0 % 3 == 0 { self.random.below(9) == 0 } else { self.random.below(3) > 0 };
            if wants && !(rare && id.0 == 1) {
                readers.push(*id);
            }
        }
        let expires = self.random.below(15) == 0;
        let topic = format!("t/{}", self.random.below(5));
        let mut message = Message::clone(&message(seq, &topic));
        message.received = self.trial.time.load(Ordering::SeqCst);
        message.payload = Bytes::from(format!("payload {seq} {}", "x".repeat(self.random.below(900))));
        message.expiry = expires.then_some(0);
        for id in &readers {
            let routed = self.trial.opened.routes.contains(id);
            if *id == BOUNDED_ROUTE && !self.model.admits(*id, &topic, self.scale.bounds) {
                continue;
            }
            let reader = self.model.readers.get_mut(id).unwrap();
            reader.received += u64::from(*id != BOUNDED_ROUTE);
            reader.numbered += u64::from(routed);
            reader.wanted.insert(seq, if routed { reader.numbered } else { 0 });
        }
        self.model.topics.insert(seq, topic);
        self.model.last_seq = seq;
        // Somebody who is not there any more changes nothing.
        readers.push(ReaderId(self.model.last_reader + 100));
        let audience: Vec<Want> = readers.into_iter().map(want).collect();
        Write::Message {
            seq: Seq(seq),
            message: Arc::new(message),
            audience: audience.into(),
            retained: self.random.below(9) == 0,
            inward: None,
        }
    }

    /// Any reader, and one of its first rows, or any row at all.
    fn target(&mut self) -> Option<(ReaderId, u64)> {
        let ids: Vec<ReaderId> = self.model.readers.keys().copied().collect();
        let id = *ids.get(self.random.below(ids.len().max(1)))?;
        if self.random.below(6) == 0 {
            return Some((id, self.random.below(self.model.last_seq as usize + 2) as u64));
        }
        let place = self.random.below(10);
        Some((id, *self.model.readers[&id].wanted.keys().nth(place)?))
    }

    fn settle(&mut self) -> Option<Write> {
        let (reader, seq) = self.target()?;
        self.model.end(reader, seq, None);
        Some(Write::Settled { reader, seq: Seq(seq) })
    }

    fn drop_some(&mut self) -> Option<Write> {
        let (reader, seq) = self.target()?;
        if self.random.below(2) == 0 {
            self.model.end(reader, seq, Some(DropReason::TooLarge));
            return Some(Write::Dropped { reader, seq: Seq(seq), reason: DropReason::TooLarge });
        }
        let count = self.random.below(4) as u64;
        let model = &self.model.readers[&reader];
        let is_out = |seq: &u64| model.leased.contains(seq) || model.handed.contains(seq);
        let free = model.wanted.keys().filter(|seq| !is_out(seq));
        for seq in free.take(count as usize).copied().collect::<Vec<_>>() {
            self.model.end(reader, seq, Some(DropReason::QueueFull));
        }
        Some(Write::DropOldest { reader, after: Seq(0), count })
    }

    fn lease(&mut self) -> Option<Write> {
        let (reader, seq) = self.target()?;
        if seq > self.model.last_seq {
            return None;
        }
        self.model.readers.get_mut(&reader)?.leased.insert(seq);
        Some(Write::Leased { reader, seq: Seq(seq), packet_id: 1, holder: None })
    }

    fn unlease(&mut self) -> Option<Write> {
        let (reader, mut seq) = self.target()?;
        let model = self.model.readers.get_mut(&reader)?;
        if let Some(leased) = model.leased.first() {
            seq = *leased;
        }
        model.leased.remove(&seq);
        Some(Write::Unleased { reader, seq: Seq(seq) })
    }

    /// Settles as a route does it: outside of the broker's stream, committed with what comes next.
    fn settle_later(&mut self) {
        for _ in 0..self.random.below(12) {
            let Some((reader, seq)) = self.target() else { continue };
            let seqs = self.followers(reader, seq);
            for seq in &seqs {
                self.ending.insert((reader, *seq));
                self.model.end(reader, *seq, None);
            }
            self.trial.opened.handle.settle(reader, seqs.into_iter().map(Seq).collect());
        }
    }

    /// A row and some of those behind it, mostly all and in order.
    fn followers(&mut self, reader: ReaderId, seq: u64) -> Vec<u64> {
        let behind = self.model.readers[&reader].wanted.range(seq + 1..).map(|(seq, _)| *seq);
        let count = [0, 3, 40][self.random.below(3)];
        let mut seqs: Vec<u64> =
            [seq].into_iter().chain(behind).take(1 + self.random.below(count + 1)).collect();
        match self.random.below(6) {
            0 => seqs.reverse(),
            1 => seqs.retain(|_| self.random.below(4) > 0),
            2 => seqs.push(seq),
            _ => {}
        }
        seqs
    }

    fn sessions(&mut self) {
        let sessions: Vec<ReaderId> =
            self.model.readers.keys().copied().filter(|id| !self.trial.opened.routes.contains(id)).collect();
        if sessions.len() > 3 {
            let reader = sessions[self.random.below(sessions.len())];
            self.model.readers.remove(&reader);
            self.commit(vec![Write::SessionRemoved { reader }]);
        } else {
            self.model.last_reader += 1;
            let reader = ReaderId(self.model.last_reader);
            self.model.readers.insert(reader, ModelReader::default());
            self.commit(vec![session(reader)]);
        }
    }

    fn commit(&mut self, batch: Vec<Write>) {
        if self.scale.fail && self.random.below(4) == 0 {
            let mut failures = self.failures.lock().unwrap();
            match self.random.below(4) {
                // A second one in a row would drop rows before the batch is carried out.
                0 => failures.push(Failure::Before(ErrorKind::StorageFull)),
                1 => failures.push(Failure::After),
                more => failures.extend(vec![Failure::Before(ErrorKind::Other); more]),
            }
        }
        // Something to commit in any case, so that what was settled before goes with it.
        let mut batch = batch;
        batch.push(Write::InwardReleased { reader: ReaderId(1), packet_id: 1 });
        self.trial.commit(batch);
        self.ending.clear();
        self.model.trim(BOUNDED_ROUTE, self.scale.bounds);
        self.sync_with_full_store();
        self.committed = self.model.clone();
    }

    /// Takes over what the store has dropped because it is full, after a look at whether it may.
    fn sync_with_full_store(&mut self) {
        let status = self.trial.assert_conserved();
        let mut edge = 0;
        let mut gone: BTreeMap<ReaderId, Vec<u64>> = BTreeMap::new();
        for (id, line) in &status.readers {
            let full = line.dropped.get(&DropReason::StoreFull).copied().unwrap_or(0);
            let model = self.model.readers.get_mut(id).unwrap();
            let news = full - model.dropped.get(&DropReason::StoreFull).copied().unwrap_or(0);
            let rows: Vec<u64> = model.wanted.keys().copied().take(news as usize).collect();
            assert_eq!(rows.len() as u64, news, "{id:?} lost more than it had");
            edge = edge.max(rows.last().copied().unwrap_or(0));
            gone.insert(*id, rows);
        }
        for (id, rows) in gone {
            for seq in &rows {
                self.model.end(id, *seq, Some(DropReason::StoreFull));
            }
            let oldest = self.model.readers[&id].wanted.keys().next();
            assert!(oldest.is_none_or(|oldest| *oldest > edge), "{id:?} kept {oldest:?} though {edge} went");
        }
    }

    /// Reads everything and looks at every counter.
    fn compare(&mut self) {
        for id in self.model.readers.keys().copied().collect::<Vec<_>>() {
            let mut after = 0;
            loop {
                let limit = self.random.below(9) as u32 + 1;
                let read = self.trial.read(id, after, limit);
                self.hand(id, after, &read);
                for row in &read.rows {
                    let number = self.model.readers[&id].wanted.get(&row.seq.0);
                    assert_eq!(number, Some(&row.number), "{id:?} {:?}", row.seq);
                    let start = format!("payload {} ", row.seq.0);
                    assert!(row.message.payload.starts_with(start.as_bytes()), "{:?}", row.message);
                    assert!(row.seq.0 > after, "{id:?} was given {:?} after {after}", row.seq);
                    // What lies between was expired: nothing else may be left out.
                    self.expire(id, after, row.seq.0);
                    after = row.seq.0;
                }
                if read.through.0 >= self.model.last_seq {
                    self.expire(id, after, u64::MAX);
                    break;
                }
                self.expire(id, after, read.through.0 + 1);
                after = read.through.0;
            }
        }
        if self.random.below(2) == 0 && self.model.readers.contains_key(&BOUNDED_ROUTE) {
            // A new connection: most of what the former had waits again.
            let read = self.trial.read(BOUNDED_ROUTE, 0, 2);
            self.hand(BOUNDED_ROUTE, 0, &read);
        }
        self.commit(Vec::new());
        let status = self.trial.assert_conserved();
        assert_eq!(status.readers.len(), self.model.readers.len());
        for (id, model) in &self.model.readers {
            let line = &status.readers[id];
            let found = (line.received, line.delivered, line.queued, line.expired, &line.dropped);
            let queued = model.wanted.len() as u64;
            assert_eq!(
                found,
                (model.received, model.delivered, queued, model.expired, &model.dropped),
                "{id:?}"
            );
        }
    }

    /// A reader was given rows; what it had been given after that place it has no longer.
    fn hand(&mut self, id: ReaderId, after: u64, read: &Rows) {
        let Bounds { max_messages, when_full, .. } = self.scale.bounds;
        if id == BOUNDED_ROUTE && max_messages.is_some() && when_full == Policy::DropOldest {
            let handed = &mut self.model.readers.get_mut(&id).unwrap().handed;
            drop(handed.split_off(&(after + 1)));
            handed.extend(read.rows.iter().map(|row| row.seq.0));
        }
    }

    /// Rows between two places that a read left out: they must have run out of time.
    fn expire(&mut self, id: ReaderId, after: u64, before: u64) {
        let model = self.model.readers.get_mut(&id).unwrap();
        let between: Vec<u64> =
            model.wanted.keys().copied().filter(|seq| *seq > after && *seq < before).collect();
        for seq in between {
            if !self.ending.contains(&(id, seq)) {
                assert!(!model.leased.contains(&seq), "{id:?} {seq} is in an exchange");
                self.model.end(id, seq, Some(DropReason::Expired));
                // Only rows that the script gave no time may go so; they are known by their expiry of 0.
                return self.expire(id, after, before);
            }
        }
    }

    fn reopen(&mut self, ending: Ending) {
        let terms = match ending {
            Ending::Kill => {
                self.model = self.committed.clone();
                self.trial.killed()
            }
            Ending::Close => {
                let dummy = Terms { routes: Vec::new(), ..Terms::default() }.open();
                std::mem::replace(&mut self.trial, dummy).close()
            }
        };
        self.ending.clear();
        self.failures.lock().unwrap().clear();
        let routes = self.route_names();
        self.open(terms, routes);
        // The commit at the close may have dropped rows.
        self.sync_with_full_store();
        for session in &self.trial.opened.restored.sessions {
            let model = &self.model.readers[&session.record.reader];
            assert_eq!(session.queued, model.wanted.len() as u64, "{:?}", session.record.reader);
            let leases: BTreeSet<u64> = session.leases.iter().map(|lease| lease.seq.0).collect();
            assert_eq!(leases, model.leased);
            for lease in &session.leases {
                assert_eq!(lease.has_row, model.wanted.contains_key(&lease.seq.0), "{lease:?}");
            }
        }
        assert!(self.trial.opened.restored.last_seq.0 == self.model.last_seq);
        self.commit(Vec::new());
    }

    fn open(&mut self, terms: Terms, routes: Vec<String>) {
        self.model.readers.values_mut().for_each(|reader| reader.handed.clear());
        self.trial = Terms {
            sizes: Some(sizes(self.scale)),
            max_size: Some(self.scale.max_size),
            routes,
            bounds: vec![("two", self.scale.bounds)],
            gate: gate(&self.failures),
            ..terms
        }
        .open();
    }

    fn route_names(&self) -> Vec<String> {
        let names = [(ReaderId(1), "one"), (ReaderId(2), "two")];
        let there = names.into_iter().filter(|(id, _)| self.model.readers.contains_key(id));
        there.map(|(_, name)| name.to_string()).collect()
    }

    /// The second route goes or comes back.
    fn change_routes(&mut self) {
        self.reopen(Ending::Close);
        let two = ReaderId(2);
        if let Some(mut model) = self.model.readers.remove(&two) {
            let rows: Vec<u64> = model.wanted.keys().copied().collect();
            *model.dropped.entry(DropReason::Purged).or_default() += rows.len() as u64;
            model.dropped.retain(|_, count| *count > 0);
            model.wanted.clear();
            model.leased.clear();
            model.handed.clear();
            self.model.removed_routes.insert(two, model);
        } else if let Some(model) = self.model.removed_routes.remove(&two) {
            self.model.readers.insert(two, model);
        }
        let dummy = Terms { routes: Vec::new(), ..Terms::default() }.open();
        let terms = std::mem::replace(&mut self.trial, dummy).close();
        let routes = self.route_names();
        self.open(terms, routes);
        self.commit(Vec::new());
    }
}

impl Model {
    /// A message comes for a reader with bounds: whether it has room.
    fn admits(&mut self, id: ReaderId, topic: &str, bounds: Bounds) -> bool {
        let reader = self.readers.get_mut(&id).unwrap();
        reader.received += 1;
        let mut newest_first = reader.wanted.keys().rev().copied();
        let former = newest_first.find(|seq| self.topics.get(seq).is_some_and(|known| known == topic));
        if let Some(former) = former.filter(|_| bounds.keep == Keep::Latest) {
            self.end(id, former, Some(DropReason::Superseded));
            return true;
        }
        let full = bounds.max_messages.is_some_and(|most| reader.wanted.len() as u64 >= most);
        let turned_away = full && bounds.when_full == Policy::DropNewest;
        if turned_away {
            *reader.dropped.entry(DropReason::QueueFull).or_default() += 1;
        }
        !turned_away
    }

    /// A commit ends: the oldest that are in no exchange and with nobody go where too many wait.
    fn trim(&mut self, id: ReaderId, bounds: Bounds) {
        let Some(reader) = self.readers.get(&id) else { return };
        let most = bounds.max_messages.filter(|_| bounds.when_full == Policy::DropOldest);
        let waiting = (reader.wanted.len() - reader.handed.len()) as u64;
        let over = waiting.saturating_sub(most.unwrap_or(u64::MAX));
        let is_out = |seq: &u64| reader.leased.contains(seq) || reader.handed.contains(seq);
        let free = reader.wanted.keys().filter(|seq| !is_out(seq));
        for seq in free.take(over as usize).copied().collect::<Vec<_>>() {
            self.end(id, seq, Some(DropReason::QueueFull));
        }
    }

    /// A row ends for a reader, if it still wants it.
    fn end(&mut self, id: ReaderId, seq: u64, reason: Option<DropReason>) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        // An exchange outlives its row, until it ends itself.
        if reason.is_none() {
            reader.leased.remove(&seq);
        }
        if reader.wanted.remove(&seq).is_none() {
            return;
        }
        reader.handed.remove(&seq);
        match reason {
            None => reader.delivered += 1,
            Some(DropReason::Expired) => reader.expired += 1,
            Some(reason) => *reader.dropped.entry(reason).or_default() += 1,
        }
    }
}

/// The second route.
const BOUNDED_ROUTE: ReaderId = ReaderId(2);

#[test]
fn the_store_is_its_model_from_fixed_seeds() {
    for seed in [1, 2, 10_813_568_151_180_829_108] {
        check(seed, ROOMY);
    }
}

#[test]
fn the_store_is_its_model_from_a_fresh_seed() {
    check(fresh_seed(), ROOMY);
}

#[test]
fn a_full_store_is_its_model_from_fixed_seeds() {
    for seed in [3, 4, 10_813_568_151_180_829_108] {
        check(seed, TIGHT);
    }
}

#[test]
fn a_full_store_is_its_model_from_a_fresh_seed() {
    check(fresh_seed(), TIGHT);
}

#[test]
fn a_store_with_a_bounded_route_is_its_model() {
    for scale in BOUNDED {
        for seed in [6, 7, 100_237, fresh_seed()] {
            check(seed, scale);
        }
    }
}

#[test]
fn a_store_whose_syncs_fail_is_its_model() {
    for seed in [5, fresh_seed()] {
        check(seed, FAILING);
        check(seed, FAILING_TIGHT);
    }
}
