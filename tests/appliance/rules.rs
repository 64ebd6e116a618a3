//! Random ACL files and messages, given to tidegate and to Debian's mosquitto.
//!
//! Each broker must do what its own reading of the rules says, and the two readings stand beside each
//! other in [`may`]: where they part, a sentence says why.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use tidegate::codec::{
    Packet, Properties, QoS, RetainHandling, Subscribe, Subscription, SubscriptionOptions,
};
use tidegate::router::filter::matches;

use crate::program;
use crate::stand::{Client, Cloud, Dice, Gateway, Options, Security, proof, seed};

/// User name and client id; names that could widen a pattern are among them.
const ACTORS: [(Option<&str>, &str); 7] = [
    (None, "c0"),
    (Some("u1"), "c1"),
    (Some("u2"), "u1"),
    (Some("p+q"), "c2"),
    (Some("s/t"), "c3"),
    (Some("u1"), "x#y"),
    (Some("u2"), "a/b"),
];
const SECTIONS: [Option<&str>; 5] = [None, Some("u1"), Some("u2"), Some("p+q"), Some("s/t")];
const LEVELS: [&str; 8] = ["a", "b", "u1", "u2", "c1", "s", "t", "x"];

/// One line; a pattern has no section.
struct Line {
    pattern: bool,
    section: Option<&'static str>,
    right: &'static str,
    filter: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Ours,
    Theirs,
}

/// Who published, to which topic, and who got it; by the places of the actors.
type Delivered = BTreeSet<(usize, String, usize)>;

#[test]
fn both_brokers_read_random_rules_as_they_say_that_they_do() {
    let mut dice = Dice::new(seed());
    let rounds = if proof() { 60 } else { 5 };
    let (mut allowed, mut denied, mut apart) = (0, 0, 0);
    for round in 0..rounds {
        let folder = tempfile::tempdir().unwrap();
        let lines = random_lines(&mut dice);
        let topics: BTreeSet<String> = (0..16).map(|_| random_topic(&mut dice)).collect();
        let (passwords, rules) = (folder.path().join("passwd"), folder.path().join("acl"));
        write_passwords(&passwords);
        fs::write(&rules, written(&lines)).unwrap();
        let ours = {
            let configuration = format!("[auth]\npassword_file = {passwords:?}\nacl_file = {rules:?}\n");
            let gateway = Gateway::start(program(), folder.path(), &configuration);
            deliver(gateway.port(), &topics)
        };
        let theirs = {
            let cloud = Cloud::start(folder.path(), &Security::Rules(&passwords, &rules));
            deliver(cloud.port, &topics)
        };
        let (our_word, their_word) =
            (foretell(Reading::Ours, &lines, &topics), foretell(Reading::Theirs, &lines, &topics));
        let text = written(&lines);
        assert_eq!(differences(&ours, &our_word), [""; 0], "round {round}: tidegate with\n{text}");
        assert_eq!(differences(&theirs, &their_word), [""; 0], "round {round}: mosquitto with\n{text}");
        allowed += ours.len();
        denied += topics.len() * ACTORS.len() * ACTORS.len() - ours.len();
        apart += ours.symmetric_difference(&theirs).count();
    }
    println!("measured: ACL: {allowed} deliveries allowed, {denied} denied, {apart} where the readings part");
    assert!(allowed > 0 && denied > 0);
}

/// The two readings of the rules.
fn may(reading: Reading, lines: &[Line], actor: (Option<&str>, &str), want: &str, topic: &str) -> bool {
    let (user, client_id) = actor;
    let grants = |line: &&Line| line.right == want || line.right == "readwrite" || line.right.is_empty();
    let denies = |line: &&Line| line.right == "deny";
    let own =
        || lines.iter().filter(|line| !line.pattern && line.section == user && matches(&line.filter, topic));
    let odd = |name: &str| name.contains(['+', '#']);
    // For them a name with `/` reaches into the next level; for us it may not widen a pattern.
    let unfit = |name: &str| odd(name) || (reading == Reading::Ours && name.contains('/'));
    let uses_unfit = |line: &Line| {
        (line.filter.contains("%u") && user.is_some_and(unfit))
            || (line.filter.contains("%c") && unfit(client_id))
    };
    let nameless = |line: &Line| user.is_none() && line.filter.contains("%u");
    let put = |line: &Line| line.filter.replace("%c", client_id).replace("%u", user.unwrap_or_default());
    let patterns = || lines.iter().filter(|line| line.pattern && !nameless(line));
    match reading {
        Reading::Theirs => {
            // Their own lines are asked first, denying ones before the others, and if one of them speaks no
            // pattern is asked: a `pattern deny` does not take away what a user's own line grants.
            if own().any(|line| denies(&line)) {
                return false;
            }
            if own().any(|line| grants(&line)) {
                return true;
            }
            // A name with a wildcard is denied everything that patterns grant, also those that do not use it.
            if user.is_some_and(odd) || odd(client_id) {
                return false;
            }
            let hits = || patterns().filter(|line| matches(&put(line), topic));
            !hits().any(|line| denies(&line)) && hits().any(|line| grants(&line))
        }
        Reading::Ours => {
            // A denying line wins wherever it stands; one whose name cannot be put in denies all below it.
            let below = |line: &Line| {
                let marks = [("%u", user.unwrap_or_default()), ("%c", client_id)];
                let unfit_marks = marks.iter().filter(|(_, name)| unfit(name));
                let cut = unfit_marks.filter_map(|(mark, _)| line.filter.find(mark)).min().unwrap_or(0);
                let before =
                    line.filter[..cut].replace("%c", client_id).replace("%u", user.unwrap_or_default());
                let level = before.rfind('/').map_or(0, |slash| slash + 1);
                format!("{}#", &before[..level])
            };
            let denied = patterns().filter(denies).any(|line| match uses_unfit(line) {
                true => matches(&below(line), topic),
                false => matches(&put(line), topic),
            });
            let granted =
                patterns().filter(grants).any(|line| !uses_unfit(line) && matches(&put(line), topic));
            !denied && !own().any(|line| denies(&line)) && (granted || own().any(|line| grants(&line)))
        }
    }
}

fn foretell(reading: Reading, lines: &[Line], topics: &BTreeSet<String>) -> Delivered {
    let mut foretold = BTreeSet::new();
    for (publisher, writes) in ACTORS.iter().enumerate() {
        for topic in topics.iter().filter(|topic| may(reading, lines, *writes, "write", topic)) {
            for (reader, reads) in ACTORS.iter().enumerate() {
                if may(reading, lines, *reads, "read", topic) {
                    foretold.insert((publisher, topic.clone(), reader));
                }
            }
        }
    }
    foretold
}

/// Everybody subscribes to everything and publishes to every topic.
fn deliver(port: u16, topics: &BTreeSet<String>) -> Delivered {
    let mut clients: Vec<Client> = ACTORS
        .iter()
        .map(|(user, client_id)| {
            let login = user.map(|user| (user.to_owned(), "tide".to_owned()));
            let mut client = Client::connect(port, &Options { login, ..Options::new(client_id) });
            ask_for_everything(&mut client);
            client
        })
        .collect();
    let mut delivered = BTreeSet::new();
    for (publisher, client) in clients.iter_mut().enumerate() {
        for topic in topics {
            client.publish(topic, publisher.to_string(), QoS::AtMostOnce);
        }
        listen(client, publisher, &mut delivered);
    }
    for (reader, client) in clients.iter_mut().enumerate() {
        listen(client, reader, &mut delivered);
    }
    delivered
}

/// Takes what comes until the answer to a ping: what was published before is on its way before that.
fn listen(client: &mut Client, reader: usize, delivered: &mut Delivered) {
    client.send(&Packet::PingReq);
    loop {
        match client.next().expect("an answer") {
            // What the gateway says of itself is no client's.
            Packet::Publish(publish) if publish.topic.starts_with("tidegate/") => {}
            Packet::Publish(publish) => {
                let publisher = String::from_utf8_lossy(&publish.payload).parse().unwrap();
                delivered.insert((publisher, publish.topic.to_string(), reader));
            }
            Packet::PingResp => return,
            other => panic!("{other:?}"),
        }
    }
}

/// Whatever the answer is: who may read nothing may be told so.
fn ask_for_everything(client: &mut Client) {
    let options = SubscriptionOptions {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    let filters = vec![Subscription { filter: "#".into(), options }];
    client.send(&Packet::Subscribe(Subscribe { packet_id: 1, properties: Properties::new(), filters }));
    assert!(matches!(client.next(), Some(Packet::SubAck(_))));
}

fn random_lines(dice: &mut Dice) -> Vec<Line> {
    let count = 4 + dice.below(14);
    let mut lines: Vec<Line> = (0..count)
        .map(|_| {
            let pattern = dice.below(3) == 0;
            let section = if pattern { None } else { SECTIONS[pick(dice, SECTIONS.len())] };
            let right = ["read", "write", "readwrite", "readwrite", "deny", ""][pick(dice, 6)];
            Line { pattern, section, right, filter: random_filter(dice, pattern) }
        })
        .collect();
    // Somebody has to say something that somebody may hear.
    for section in [Some("u1"), Some("u2")] {
        lines.push(Line { pattern: false, section, right: "", filter: random_filter(dice, false) });
    }
    lines.push(Line { pattern: true, section: None, right: "read", filter: "a/#".into() });
    lines
}

fn random_filter(dice: &mut Dice, pattern: bool) -> String {
    let mut filter: Vec<String> = Vec::new();
    for _ in 0..=dice.below(3) {
        filter.push(match dice.below(if pattern { 10 } else { 7 }) {
            0 | 1 => "+".into(),
            2 => {
                filter.push("#".into());
                break;
            }
            7 => "%u".into(),
            8 => "%c".into(),
            9 => "x%u".into(),
            _ => LEVELS[pick(dice, LEVELS.len())].into(),
        });
    }
    filter.join("/")
}

fn random_topic(dice: &mut Dice) -> String {
    let levels: Vec<&str> = (0..=dice.below(3)).map(|_| LEVELS[pick(dice, LEVELS.len())]).collect();
    levels.join("/")
}

fn pick(dice: &mut Dice, end: usize) -> usize {
    usize::try_from(dice.below(end as u64)).unwrap()
}

/// The lines as a file; sections in the order of their users.
fn written(lines: &[Line]) -> String {
    let mut text = String::new();
    for section in SECTIONS {
        if let Some(user) = section {
            let _ = writeln!(text, "user {user}");
        }
        for line in lines.iter().filter(|line| !line.pattern && line.section == section) {
            let _ = writeln!(text, "topic {} {}", line.right, line.filter);
        }
    }
    for line in lines.iter().filter(|line| line.pattern) {
        let _ = writeln!(text, "pattern {} {}", line.right, line.filter);
    }
    text.replace("  ", " ")
}

fn write_passwords(file: &Path) {
    for (index, user) in SECTIONS.iter().flatten().enumerate() {
        let mut command = Command::new("mosquitto_passwd");
        command.arg("-b");
        if index == 0 {
            command.arg("-c");
        }
        assert!(command.arg(file).args([user, "tide"]).output().unwrap().status.success());
    }
}

fn differences(found: &Delivered, foretold: &Delivered) -> Vec<String> {
    let show = |(publisher, topic, reader): &(usize, String, usize)| {
        format!("{:?} -> {topic} -> {:?}", ACTORS[*publisher], ACTORS[*reader])
    };
    let too_many = found.difference(foretold).map(|one| format!("should not: {}", show(one)));
    too_many.chain(foretold.difference(found).map(|one| format!("should: {}", show(one)))).collect()
}
