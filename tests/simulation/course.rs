//! A run as a text: a seed for what stands from the start, then one step a line.
//!
//! Each step carries its own dice, so that a step which is left out changes nothing in those that follow.

use std::fmt;

use crate::broker::tests::random::Random;

/// What a run plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) seed: u64,
    pub(super) steps: Vec<Step>,
}

/// One thing that happens, and the dice for its particulars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) dice: u64,
}

/// How a run differs from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    /// Messages that a session may have waiting.
    pub(super) most_queued: u64,
    /// Writes that may wait for the store.
    pub(super) most_uncommitted: usize,
    pub(super) segment_rows: u64,
    pub(super) max_size: u64,
    pub(super) commit_messages: u32,
    /// Messages under way to upstream.
    pub(super) window: u16,
    pub(super) group_qos: &'static str,
    /// Whether syncs fail.
    pub(super) fails: bool,
    /// Whether some messages run out of time.
    pub(super) expires: bool,
}

macro_rules! kinds {
    ($($kind:ident $word:literal $weight:literal $why:literal;)*) => {
        /// What may happen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Kind { $(#[doc = $why] $kind,)* }

        const KINDS: &[(Kind, &str, usize)] = &[$((Kind::$kind, $word, $weight),)*];
    };
}

kinds! {
    Publish "publish" 150 "A client publishes.";
    Answer "answer" 130 "A client says what it owes.";
    Come "come" 110 "A client connects.";
    Go "go" 18 "A client's link breaks.";
    Deaf "deaf" 8 "A client's link loses all that is sent on it from now on.";
    Store "store" 120 "The store serves what it was asked and commits if that is due.";
    Tell "tell" 110 "The broker hears of commits, and of what was read.";
    Wait "wait" 60 "A little time passes.";
    Jump "jump" 3 "The wall clock is set.";
    Link "link" 110 "The bridge's loop turns.";
    Pass "pass" 70 "What the bridge has asked for leaves.";
    Cloud "cloud" 90 "Upstream answers.";
    Reach "reach" 30 "Upstream is reached, if it was not.";
    Break "break" 8 "The uplink breaks.";
    Forget "forget" 2 "Upstream forgets the bridge's session, if it is not there.";
    Command "command" 12 "Somebody upstream sends a command.";
    Field "field" 30 "The bridge publishes commands here.";
    Fail "fail" 6 "The next sync fails.";
    Cut "cut" 11 "The power goes: now, or before or after the next sync.";
    Close "close" 2 "The service is stopped and started.";
}

impl Script {
    pub(super) fn random(seed: u64, steps: usize) -> Script {
        let mut random = Random(seed ^ 0x5EED);
        let all: usize = KINDS.iter().map(|(_, _, weight)| weight).sum();
        let mut draw = || {
            let mut at = random.below(all);
            let found = KINDS.iter().find(|(_, _, weight)| match at.checked_sub(*weight) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            });
            let kind = found.expect("the weights add up").0;
            Step { kind, dice: random.next() >> 16 }
        };
        Script { seed, steps: (0..steps).map(|_| draw()).collect() }
    }

    /// Reads what [`fmt::Display`] wrote.
    pub(super) fn parse(text: &str) -> Script {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let seed =
            lines.next().and_then(|line| line.strip_prefix("seed ")).expect("a log begins with its seed");
        let step = |line: &str| {
            let (word, dice) = line.split_once(' ').expect("a step is a word and its dice");
            let kind = KINDS.iter().find(|(_, known, _)| *known == word);
            let kind = kind.unwrap_or_else(|| panic!("no step is called {word}")).0;
            Step { kind, dice: u64::from_str_radix(dice, 16).expect("hexadecimal dice") }
        };
        Script { seed: seed.parse().expect("a number"), steps: lines.map(step).collect() }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "seed {}", self.seed)?;
        self.steps.iter().try_for_each(|step| writeln!(out, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = KINDS.iter().find(|(kind, _, _)| *kind == self.kind).map_or("", |(_, word, _)| word);
        write!(out, "{word} {:x}", self.dice)
    }
}

impl Course {
    pub(super) fn of(random: &mut Random) -> Course {
        Course {
            most_queued: [100_000, 100_000, 6][random.below(3)],
            most_uncommitted: [24, 24, 1_000][random.below(3)],
            segment_rows: [8, 16, 64][random.below(3)],
            max_size: [100_000_000, 40_000, 16_000][random.below(3)],
            commit_messages: [4, 64][random.below(2)],
            window: [1, 3, 8][random.below(3)],
            group_qos: ["q1", "q2"][random.below(2)],
            fails: random.below(2) == 0,
            expires: random.below(2) == 0,
        }
    }
}

#[test]
fn a_script_is_read_as_it_was_written() {
    let script = Script::random(7, 300);
    assert_eq!(Script::parse(&script.to_string()), script);
}
