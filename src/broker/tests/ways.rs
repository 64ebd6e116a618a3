//! What goes a known way goes where it would have gone.
//!
//! Random scripts run against two brokers, of which one uses ways: each says what the other says, and counts the same.
//! A few clients say a few things again and again while little happens, so that ways live long enough to be wrong.

mod pair;
mod known;
mod waiting;
mod keeping;

use std::sync::Arc;

use self::pair::Pair;
use super::random::{Random, fresh_seed};
use super::script::with_route;
use crate::access::Rules;
use crate::broker::{Config, Event, Passwords, Route, WhenFull};
use crate::codec::QoS;
use crate::record::{Policy, ReaderId};

#[test]
fn whatever_happens_a_known_way_leads_where_a_message_would_have_gone() {
    let fresh = fresh_seed();
    println!("seed {fresh}");
    let (mut known, mut sure, mut words) = (0, 0, 0);
    let (mut kept, mut both, mut rows) = (0, 0, 0);
    for seed in (0..50).chain(fresh..fresh + 30) {
        let pair = run(seed);
        (known, sure, words) = (known + pair.known - pair.kept, sure + pair.sure, words + pair.words);
        (kept, both, rows) = (kept + pair.kept, both + pair.both, rows + pair.rows_sent);
    }
    println!("measured: {known} have gone straight, {sure} of them at QoS 1 and 2, and {words} words");
    println!("measured: {kept} were kept, {both} of them sent to others too, and {rows} to their readers");
    assert!(known - sure > 5_000 && sure > 5_000 && words > 10_000, "{known}, {sure}, {words}");
    assert!(kept > 300 && both > 40 && rows > 80, "{kept}, {both}, {rows}");
}

fn run(seed: u64) -> Pair {
    let mut random = Random(seed);
    let mut pair = Pair::new(&configured(&mut random));
    pair.lines.push(format!("seed {seed}"));
    (1..=CLIENTS).for_each(|client| arrive(&mut random, &mut pair, client, client));
    let mut speeches = [(); SPEECHES].map(|()| Speech::new(&mut random));
    for _ in 0..STEPS {
        match random.below(16) {
            0 => change_hands(&mut random, &mut pair, &mut speeches),
            _ => happen(&mut random, &mut pair),
        }
        talk(&mut random, &mut pair, &mut speeches);
        pair.compare();
    }
    pair
}

/// Each run has limits of its own, and its own rules or none.
fn configured(random: &mut Random) -> Config {
    let unstored = Route { reader: ReaderId(2), filter: "down/#".into(), store: false, name: "down".into() };
    let mut config = with_route(true);
    config.routes.push(unstored);
    if random.below(2) == 0 {
        // What may be under way is little, and what may wait.
        (config.limits.max_inflight, config.limits.max_send_buffer) = (4, 700);
    }
    if random.below(3) == 0 {
        config.limits.max_queued_messages = 3;
    }
    config.limits.when_queue_full = [WhenFull::DropOldest, WhenFull::DropNewest][random.below(2)];
    config.refusals.policy = [Policy::DropOldest, Policy::Refuse][random.below(2)];
    config.passwords = if random.below(6) > 0 { Passwords::File } else { Passwords::Absent };
    config.rules = (random.below(4) > 0).then(|| rules(random));
    config
}

fn rules(random: &mut Random) -> Arc<Rules> {
    // Most often by name.
    let first = if random.below(3) > 0 { RULES.len() - BY_NAME } else { 0 };
    let text = RULES[first + random.below(RULES.len() - first)];
    Arc::new(Rules::parse(text).expect("right"))
}

/// One thing happens.
fn happen(random: &mut Random, pair: &mut Pair) {
    let slot = random.below(SLOTS) + 1;
    match random.below(16) {
        0..4 => come(random, pair, slot),
        4..8 => pair.run(&subscription(random, slot)),
        8 => pair.run(&format!("{slot} unsubscribe 2 {}", FILTERS[random.below(FILTERS.len())])),
        9..12 => {
            let slot = if random.below(2) == 0 { slot } else { CLIENTS - random.below(KEPT) };
            pair.run(&format!("{slot} {}", ["lost", "disconnect"][random.below(2)]));
        }
        12 => pair.run(&format!("{slot} publish {} x retain", TOPICS[random.below(TOPICS.len())])),
        // Whatever waits for a commit waits for no more.
        13 => (0..3).for_each(|_| pair.run("commit")),
        14 => pair.run(["rows", "full", "full", "full store"][random.below(4)]),
        15 if random.below(3) == 0 => {
            pair.lines.push("other rules".to_owned());
            let rules = rules(random);
            pair.plain.handle(vec![Event::Rules(rules.clone())]);
            pair.straight.handle(vec![Event::Rules(rules)]);
        }
        _ => {}
    }
}

/// Somebody comes, most often who is not here, and where nobody else is.
fn come(random: &mut Random, pair: &mut Pair, slot: usize) {
    let away: Vec<usize> = (1..=CLIENTS).filter(|client| !pair.is_connected(*client)).collect();
    let anybody = random.below(CLIENTS) + 1;
    let chosen = away.get(random.below(away.len())).filter(|_| random.below(4) > 0);
    let client = chosen.copied().unwrap_or(anybody);
    let slot = if random.below(4) > 0 { client } else { slot };
    arrive(random, pair, slot, client);
}

/// A client opens a connection in place of whoever has the slot. A session that was made without a name becomes that
/// of the first user who comes for it, and is ended by him later.
fn arrive(random: &mut Random, pair: &mut Pair, slot: usize, client: usize) {
    let terms = ["", "", "", "", "", "", "", "", " mount=barn/", " port credit=3"][random.below(10)];
    let version = ["v5", "v311", "v31"][random.below(3)];
    let (is_known, owner) = (pair.is_known(client), pair.owner(client));
    let is_kept = random.below(8) < if client > CLIENTS - KEPT { 6 } else { 1 };
    let (user, is_kept) = match owner {
        Some(user) if random.below(4) > 0 => (user, is_kept && random.below(4) == 0),
        _ if is_known => (["", "anna", "ben"][random.below(3)].to_owned(), is_kept),
        _ => (["", "", "", "anna", "ben"][random.below(5)].to_owned(), is_kept),
    };
    let (session, size) = match (version, is_kept) {
        ("v5", true) => (" expiry=1000", ["", "", "", " window=1", " size=30"][random.below(5)]),
        ("v5", false) => (" clean", ["", "", "", " window=2", " size=30"][random.below(5)]),
        (_, true) => ("", ""),
        (_, false) => (" clean", ""),
    };
    pair.run(&format!("open {slot}{terms}"));
    connect(pair, slot, &format!("c{client} {version}{session}{size}"), &user);
    let new = if is_known && is_kept { 0 } else { 1 + usize::from(is_kept) };
    (0..new).for_each(|_| pair.run(&subscription(random, slot)));
}

/// By that user, or by nobody.
fn connect(pair: &mut Pair, slot: usize, terms: &str, user: &str) {
    if user.is_empty() {
        return pair.run(&format!("{slot} connect {terms}"));
    }
    pair.run(&format!("{slot} connect {terms} user={user} pass=x"));
    pair.run(&format!("{slot} verified"));
}

/// Somebody without a name leaves a session, much is said past it, and a user comes for it.
fn change_hands(random: &mut Random, pair: &mut Pair, speeches: &mut [Speech]) {
    let client = CLIENTS - random.below(KEPT);
    // A session that has an owner ends first.
    let owner = pair.owner(client).unwrap_or_default();
    for (session, user) in [("clean", &*owner), ("expiry=1000", "")] {
        pair.run(&format!("open {client}"));
        connect(pair, client, &format!("c{client} v5 {session}"), user);
        pair.run("commit");
        if session != "clean" {
            let filter = ["#", "t/+", "t/#", "$share/g/t/+"][random.below(4)];
            pair.run(&format!("{client} subscribe 1 {filter} q{}", random.below(3)));
            pair.run("commit");
        }
        pair.run(&format!("{client} lost"));
    }
    pair.run("commit");
    (0..2).for_each(|_| talk(random, pair, speeches));
    pair.run(&format!("open {client}"));
    connect(pair, client, &format!("c{client} v5 expiry=1000"), ["anna", "ben"][random.below(2)]);
}

fn subscription(random: &mut Random, slot: usize) -> String {
    let filter = FILTERS[random.below(FILTERS.len())];
    let nl = if filter.starts_with("$share") { "" } else { ["", "", " nl"][random.below(3)] };
    let sid = if random.below(10) == 0 { " sid=9" } else { "" };
    let retained = ["", " rap", " rh1", " rh2"][random.below(4)];
    format!("{slot} subscribe 1 {filter} q{}{nl}{retained}{sid}", random.below(3))
}

/// What somebody says again and again.
#[derive(Clone, Copy)]
struct Speech {
    slot: u32,
    topic: &'static str,
    qos: QoS,
}

impl Speech {
    fn new(random: &mut Random) -> Speech {
        // Most often of those whose sessions end with them, and of what is one client's.
        let speakers = if random.below(4) > 0 { CLIENTS - KEPT } else { SLOTS };
        let topics = if random.below(4) > 0 { OWN_TOPICS } else { TOPICS.len() };
        let slot = u32::try_from(random.below(speakers) + 1).expect("small");
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(3)];
        Speech { slot, topic: TOPICS[random.below(topics)], qos }
    }
}

/// Publishes, and what clients say on the exchanges that come of it.
fn talk(random: &mut Random, pair: &mut Pair, speeches: &mut [Speech]) {
    let answered = [60, 80, 95, 100][random.below(4)];
    // Mostly who has just come with a session that is kept is not welcomed yet.
    if random.below(3) == 0 {
        pair.run("commit");
    }
    for speech in speeches.iter_mut() {
        // Who is gone says no more.
        let over = random.below(20) == 0 || !pair.is_here(speech.slot);
        *speech = if over { Speech::new(random) } else { *speech };
    }
    for number in 0..PUBLISHES {
        let Speech { slot, topic, qos } = speeches[random.below(SPEECHES)];
        // Some are too large for some.
        let payload = ["m", "a-message-of-many-letters"][random.below(2)];
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { number % 7 + 1 };
        pair.publish_at(qos, packet_id, slot, topic, &format!("{payload}{number}"));
        while !pair.due.is_empty() && random.below(100) < answered {
            let place = if random.below(4) > 0 { 0 } else { random.below(pair.due.len()) };
            // Now and then it is said twice.
            let due = if random.below(20) > 0 { pair.due.remove(place) } else { pair.due[place] };
            pair.say(due);
        }
    }
}

/// Events of one run, after each of which some publish.
const STEPS: usize = 160;

/// Publishes after an event.
const PUBLISHES: u16 = 8;

/// What is said again and again at a time.
const SPEECHES: usize = 3;

const CLIENTS: usize = 5;

/// So many of them, the last ones, mostly keep their sessions.
const KEPT: usize = 2;

/// More than clients, so that some come elsewhere than they were.
const SLOTS: usize = 6;

/// First what is somebody's own.
const TOPICS: [&str; 12] =
    ["t/c1", "t/c2", "t/c3", "t/anna", "t/ben", "t/c4", "t", "barn/t", "up/a", "down/a", "news", "$x/a"];

const OWN_TOPICS: usize = 5;

const FILTERS: [&str; 12] = [
    "t",
    "#",
    "t/+",
    "t/#",
    "+/c1",
    "up/#",
    "$x/#",
    "down/a",
    "$share/g/t/#",
    "$share/g/t/+",
    "$share/h/t/+",
    "$share/g/#",
];

/// Where all may publish, and each may read something else.
const RULES: [&str; 6] = [
    "pattern readwrite #\npattern readwrite $x/#\n",
    "topic readwrite t/#\ntopic read news\nuser anna\ntopic readwrite #\n",
    "pattern write #\npattern read t/#\n",
    "pattern write #\npattern read t/%c\npattern read t/%u\n",
    "pattern write #\npattern read t/%c\nuser anna\ntopic read t/c1\ntopic read t/c2\nuser ben\ntopic read t/c3\n",
    "pattern write #\npattern read +/%c\ntopic read t/c1\nuser anna\ntopic read #\ntopic deny t/c2\n",
];

/// So many of them, the last ones, tell clients apart.
const BY_NAME: usize = 3;
