//! What goes a known way goes where it would have gone.
//!
//! Random scripts run against two brokers, of which one uses ways: each says what the other says, and counts the same.

mod pair;
mod known;
mod waiting;

use std::sync::Arc;

use self::pair::Pair;
use super::random::{Random, fresh_seed};
use super::script::with_route;
use crate::access::Rules;
use crate::broker::{Config, Event, Route};
use crate::codec::QoS;
use crate::record::ReaderId;

const SLOTS: usize = 5;
const TOPICS: [&str; 7] = ["t", "t/a", "barn/t", "up/a", "down/a", "news", "$x/a"];
const FILTERS: [&str; 10] =
    ["t", "#", "t/+", "+/a", "up/#", "news", "$x/#", "$share/g/t/#", "$share/g/news", "down/a"];

fn two_routes() -> Config {
    let unstored = Route { reader: ReaderId(2), filter: "down/#".into(), store: false, name: "down".into() };
    let mut config = with_route(true);
    config.routes.push(unstored);
    config
}

/// Opens a connection in place of whoever has the slot.
fn arrival(random: &mut Random, slot: usize) -> [String; 2] {
    let terms = ["", "", "", " mount=barn/", " port credit=3"][random.below(5)];
    let clean = ["clean", "clean", "clean", "clean", "", "expiry=1000"][random.below(6)];
    let version = ["v5", "v311", "v31"][random.below(3)];
    let (clean, size) = if version == "v5" {
        (clean, ["", "", " size=30", " window=2"][random.below(4)])
    } else {
        (clean.trim_start_matches("expiry=1000"), "")
    };
    [format!("open {slot}{terms}"), format!("{slot} connect c{slot} {version} {clean}{size}")]
}

fn subscription(random: &mut Random, slot: usize) -> String {
    let filter = FILTERS[random.below(FILTERS.len())];
    let nl = if filter.starts_with("$share") { "" } else { [" nl", ""][random.below(2)] };
    let options = format!(" q{}{nl}{}", random.below(3), ["", "", " sid=9"][random.below(3)]);
    format!("{slot} subscribe 1 {filter}{options}")
}

const RULES: [&str; 3] = [
    "topic readwrite #\ntopic readwrite $x/#\n",
    "topic readwrite t/#\ntopic read news\n",
    "topic write #\npattern readwrite t/#\n",
];

/// What may be under way is little, and what may wait.
fn narrow() -> Config {
    let mut config = two_routes();
    (config.limits.max_inflight, config.limits.max_send_buffer) = (4, 700);
    config
}

fn run(seed: u64, steps: usize) -> Pair {
    let mut random = Random(seed);
    let mut pair = Pair::new(&if seed.is_multiple_of(2) { narrow() } else { two_routes() });
    for _ in 0..steps {
        let slot = random.below(SLOTS) + 1;
        match random.below(12) {
            0 => arrival(&mut random, slot).iter().for_each(|line| pair.run(line)),
            1..4 => pair.run(&subscription(&mut random, slot)),
            4 => pair.run(&format!("{slot} unsubscribe 2 {}", FILTERS[random.below(FILTERS.len())])),
            5 => pair.run(&format!("{slot} {}", ["lost", "disconnect"][random.below(2)])),
            6 => pair.run(&format!("{slot} publish {} x retain", TOPICS[random.below(TOPICS.len())])),
            // Whatever waits for a commit waits for no more.
            7 => (0..3).for_each(|_| pair.run("commit")),
            8 if random.below(10) == 0 => {
                let rules = Arc::new(Rules::parse(RULES[random.below(RULES.len())]).expect("right"));
                pair.plain.handle(vec![Event::Rules(rules.clone())]);
                pair.straight.handle(vec![Event::Rules(rules)]);
            }
            _ => talk(&mut random, &mut pair),
        }
        pair.compare();
    }
    pair
}

/// Publishes, and what clients say on the exchanges that come of it.
fn talk(random: &mut Random, pair: &mut Pair) {
    let (answered, most) = (50 + 20 * random.below(4), random.below(3));
    let (talkers, topics) = ([random.below(SLOTS), random.below(SLOTS)], random.below(TOPICS.len() - 2));
    pair.run("commit");
    for number in 0..60 {
        let slot = u32::try_from(talkers[random.below(2)] + 1).expect("small");
        // Some are too large for some.
        let payload = ["m", "a-message-of-many-letters"][random.below(2)];
        let own = if random.below(4) > 0 { most } else { random.below(3) };
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][own];
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { number % 7 + 1 };
        let topic = TOPICS[topics + random.below(3)];
        pair.publish_at(qos, packet_id, slot, topic, &format!("{payload}{number}"));
        while !pair.due.is_empty() && random.below(100) < answered {
            let place = if random.below(4) > 0 { 0 } else { random.below(pair.due.len()) };
            // Now and then it is said twice.
            let due = if random.below(20) > 0 { pair.due.remove(place) } else { pair.due[place] };
            pair.say(due);
        }
    }
}

#[test]
fn whatever_happens_a_known_way_leads_where_a_message_would_have_gone() {
    let fresh = fresh_seed();
    println!("seed {fresh}");
    let (mut known, mut sure, mut words) = (0, 0, 0);
    for seed in (0..50).chain(fresh..fresh + 30) {
        let pair = run(seed, 150);
        (known, sure, words) = (known + pair.known, sure + pair.sure, words + pair.words);
    }
    println!("measured: {known} have gone straight, {sure} of them at QoS 1 and 2, and {words} words");
    assert!(known - sure > 2_000 && sure > 2_000 && words > 5_000, "{known}, {sure}, {words}");
}
