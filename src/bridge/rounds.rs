//! Finds messages that would go round for ever: down by a receive route, up by a forward route, and so on.
//! Pure.
//!
//! Whole sets of topics are followed instead of single ones, each written as a filter. Where a template
//! mixes text and a wildcard in one level, that level is taken to be anything.

use std::fmt;

use super::config::{Forward, Receive};
use super::mapping::{Filter, Level, Piece, Template};

/// A receive route whose messages come back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Round {
    /// Its index.
    pub(super) receive: usize,
    /// What the messages are here, as a filter.
    here: String,
    /// Which forward route takes them.
    forward: String,
    /// What they are upstream then, as a filter.
    up: String,
}

/// Every receive route that takes, by one way or another, what it has brought down before.
pub(super) fn find(forwards: &[Forward], receives: &[Receive]) -> Vec<Round> {
    // Which receive routes take what one has brought down, and how that comes about.
    let steps: Vec<Vec<Option<Round>>> = (0..receives.len())
        .map(|from| receives.iter().map(|to| step(from, receives.get(from)?, forwards, to)).collect())
        .collect();
    (0..receives.len()).filter_map(|start| round(start, &steps)).collect()
}

/// The first step of a way from this route back to it.
fn round(start: usize, steps: &[Vec<Option<Round>>]) -> Option<Round> {
    let next = |from: usize| {
        let row = steps.get(from).map_or(&[][..], Vec::as_slice);
        row.iter().enumerate().filter_map(|(to, step)| Some((to, step.as_ref()?)))
    };
    next(start).find_map(|(first, step)| {
        let (mut seen, mut ahead) = (vec![first], vec![first]);
        while let Some(at) = ahead.pop() {
            if at == start {
                return Some(step.clone());
            }
            for (to, _) in next(at) {
                if !seen.contains(&to) {
                    seen.push(to);
                    ahead.push(to);
                }
            }
        }
        None
    })
}

/// How what one route brings down goes up again to where another takes it.
fn step(index: usize, from: &Receive, forwards: &[Forward], to: &Receive) -> Option<Round> {
    let here = image(&from.filter, &from.to, &from.filter.levels);
    forwards.iter().find_map(|forward| {
        let taken = meet(&here, &forward.filter.levels)?;
        let up = image(&forward.filter, &forward.to, &taken);
        let back = meet(&up, &to.filter.levels)?;
        let forward = forward.filter.to_string();
        Some(Round { receive: index, here: show(&taken), forward, up: show(&back) })
    })
}

/// Where messages of a receive route come to here, of these topics: a filter of both.
pub(super) fn landing(route: &Receive, topics: &Filter) -> Option<String> {
    meet(&image(&route.filter, &route.to, &route.filter.levels), &topics.levels).map(|both| show(&both))
}

/// The first level of every topic that a receive route makes here, where it is always the same.
pub(super) fn first_level(route: &Receive) -> Option<String> {
    match image(&route.filter, &route.to, &route.filter.levels).into_iter().next() {
        Some(Level::Exact(text)) => Some(text),
        _ => None,
    }
}

/// The topics that both take.
fn meet(one: &[Level], other: &[Level]) -> Option<Vec<Level>> {
    let both = meet_levels(one, other)?;
    let is_wild = |levels: &[Level]| !matches!(levels.first(), Some(Level::Exact(_)));
    // [MQTT311-4.7.2-1] a leading wildcard does not reach topics of the server itself.
    let is_servers = matches!(both.first(), Some(Level::Exact(text)) if text.starts_with('$'));
    (!is_servers || !(is_wild(one) || is_wild(other))).then_some(both)
}

fn meet_levels(one: &[Level], other: &[Level]) -> Option<Vec<Level>> {
    match (one, other) {
        ([], []) => Some(Vec::new()),
        ([Level::Rest, ..], rest) | (rest, [Level::Rest, ..]) => Some(rest.to_vec()),
        ([], _) | (_, []) => None,
        ([first, one @ ..], [second, other @ ..]) => {
            let both = match (first, second) {
                (Level::Exact(one), Level::Exact(other)) if one != other => return None,
                (Level::Exact(_), _) => first,
                _ => second,
            };
            let mut levels = vec![both.clone()];
            levels.extend(meet_levels(one, other)?);
            Some(levels)
        }
    }
}

/// What a template makes of topics of its filter.
fn image(filter: &Filter, to: &Template, topics: &[Level]) -> Vec<Level> {
    let wildcards = filter.levels.iter().enumerate().filter_map(|(at, level)| match level {
        Level::Exact(_) => None,
        Level::One => topics.get(at..=at),
        Level::Rest => topics.get(at..),
    });
    let wildcards: Vec<&[Level]> = wildcards.collect();
    let mut made = Made { levels: Vec::new(), last: Level::Exact(String::new()) };
    for piece in &to.pieces {
        match piece {
            Piece::Text(text) => made.text(text),
            Piece::Topic => made.levels(topics),
            Piece::Wildcard(index) => made.levels(wildcards.get(*index).copied().unwrap_or_default()),
        }
    }
    made.levels.push(made.last);
    made.levels
}

/// A set of topics in the making.
struct Made {
    levels: Vec<Level>,
    last: Level,
}

impl Made {
    fn text(&mut self, text: &str) {
        for (number, part) in text.split('/').enumerate() {
            if number > 0 {
                self.next();
            }
            self.add(part);
        }
    }

    fn levels(&mut self, levels: &[Level]) {
        if levels.is_empty() && self.last == Level::Exact(String::new()) {
            // `a/#` also takes `a`: then the slash before the wildcard goes with it.
            self.last = self.levels.pop().unwrap_or(Level::Exact(String::new()));
        }
        for (number, level) in levels.iter().enumerate() {
            if number > 0 {
                self.next();
            }
            match (level, &self.last) {
                (Level::Exact(text), _) => self.add(text),
                (Level::Rest, Level::Exact(text)) if text.is_empty() => self.last = Level::Rest,
                (Level::Rest, Level::Exact(_) | Level::One) => {
                    self.last = Level::One;
                    self.next();
                    self.last = Level::Rest;
                }
                (Level::One, Level::Exact(_)) => self.last = Level::One,
                (Level::One | Level::Rest, _) => {}
            }
        }
    }

    fn next(&mut self) {
        // What follows the rest of a topic is a part of any rest.
        if self.last != Level::Rest {
            self.levels.push(std::mem::replace(&mut self.last, Level::Exact(String::new())));
        }
    }

    fn add(&mut self, part: &str) {
        if let Level::Exact(text) = &mut self.last {
            text.push_str(part);
        }
    }
}

fn show(levels: &[Level]) -> String {
    let words: Vec<&str> = levels
        .iter()
        .map(|level| match level {
            Level::Exact(text) => text.as_str(),
            Level::One => "+",
            Level::Rest => "#",
        })
        .collect();
    words.join("/")
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Round { here, forward, up, .. } = self;
        write!(
            f,
            "what comes here as \"{here}\" goes up again by the forward route \"{forward}\" as \"{up}\", and comes back, for ever: expected a topic here that no forward route takes, or protocol = 5, in which upstream does not send us our own messages"
        )
    }
}
