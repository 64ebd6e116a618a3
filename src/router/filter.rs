//! Topic names and topic filters: what is valid, and the plain meaning of a match.
//!
//! [`matches()`] is the rule by the letter, one filter against one topic; the tree must agree with it and
//! a test holds it to that. Length and UTF-8 are the codec's to check.

use crate::codec::octets;

/// Levels of a topic or filter, so that no client can make a walk deep.
pub const LEVELS_MAX: usize = 128;

/// What a valid filter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterKind {
    /// No wildcard: it names one topic.
    Exact,
    /// With `+` or `#`.
    Wildcard,
    /// `$share/{name}/{filter}`.
    Shared,
}

/// Not a topic name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotATopic {
    /// It is empty.
    #[error("publish to an empty topic")]
    Empty,
    /// It holds `+`, `#` or U+0000.
    #[error("publish to a topic with a wildcard or a zero")]
    Character,
    /// It has more levels than [`LEVELS_MAX`].
    #[error("publish to a topic of more than {LEVELS_MAX} levels")]
    Levels,
}

/// Not a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAFilter {
    /// It is empty.
    #[error("subscribe to an empty filter")]
    Empty,
    /// A wildcard shares its level, `#` is not last, or U+0000 is in it.
    #[error("subscribe to a filter whose wildcards are misplaced")]
    Wildcard,
    /// It has more levels than [`LEVELS_MAX`].
    #[error("subscribe to a filter of more than {LEVELS_MAX} levels")]
    Levels,
    /// `$share` without a name or a filter.
    #[error("subscribe to a shared filter without name or filter")]
    Share,
}

/// The filter within `$share/{name}/{filter}`; `None` for a filter that is not shared.
pub fn of_share(filter: &str) -> Option<&str> {
    filter.strip_prefix("$share/")?.split_once('/').map(|(_, inner)| inner)
}

/// Whether a message may be published to this.
#[inline]
pub fn check_topic(topic: &str) -> Result<(), NotATopic> {
    if topic.is_empty() {
        return Err(NotATopic::Empty); // [MQTT5-4.7.3-1] [MQTT311-4.7.3-1]
    }
    if octets::is_no_topic_name(topic.as_bytes()) {
        return Err(NotATopic::Character); // [MQTT5-3.3.2-2] [MQTT5-4.7.3-2]
    }
    // Of few bytes there are few levels.
    let is_deep =
        topic.len() >= LEVELS_MAX && topic.bytes().filter(|byte| *byte == b'/').count() >= LEVELS_MAX;
    if is_deep { Err(NotATopic::Levels) } else { Ok(()) }
}

/// Whether this can be subscribed to, and what it is.
pub fn check_filter(filter: &str) -> Result<FilterKind, NotAFilter> {
    if let Some(shared) = filter.strip_prefix("$share/") {
        let (name, inner) = shared.split_once('/').ok_or(NotAFilter::Share)?;
        // [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
        if name.is_empty() || name.contains(['+', '#']) {
            return Err(NotAFilter::Share);
        }
        check_levels(inner)?;
        return Ok(FilterKind::Shared);
    }
    check_levels(filter)
}

fn check_levels(filter: &str) -> Result<FilterKind, NotAFilter> {
    if filter.is_empty() {
        return Err(NotAFilter::Empty); // [MQTT5-4.7.3-1] [MQTT311-4.7.3-1]
    }
    if filter.contains('\0') {
        return Err(NotAFilter::Wildcard); // [MQTT5-4.7.3-2] [MQTT311-4.7.3-2]
    }
    let mut kind = FilterKind::Exact;
    let mut levels = filter.split('/');
    let mut count = 0;
    while let Some(level) = levels.next() {
        count += 1;
        match level {
            "#" if levels.next().is_some() => return Err(NotAFilter::Wildcard), // [MQTT5-4.7.1-1] [MQTT311-4.7.1-2]
            "#" | "+" => kind = FilterKind::Wildcard,
            // [MQTT5-4.7.1-2] [MQTT311-4.7.1-3]
            other if other.contains(['+', '#']) => return Err(NotAFilter::Wildcard),
            _ => {}
        }
    }
    if count > LEVELS_MAX { Err(NotAFilter::Levels) } else { Ok(kind) }
}

/// Whether a valid filter covers a valid topic.
pub fn matches(filter: &str, topic: &str) -> bool {
    // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// The first level, and the others if there are any.
pub(super) fn split_level(path: &str) -> (&str, Option<&str>) {
    let Some(end) = octets::find(b'/', path.as_bytes()) else { return (path, None) };
    let (level, rest) = path.split_at(end);
    (level, rest.get(1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    // [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.2-1] [MQTT5-4.7.3-4] [MQTT311-4.7.1-2] [MQTT311-4.7.1-3]
    // [MQTT311-4.7.2-1] [MQTT311-4.7.3-4]
    #[test]
    fn wildcards_mean_what_the_standard_says() {
        for (filter, topic, covered) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("a//b", "a//b", true),
            ("a/+/b", "a//b", true),
            ("Accounts", "ACCOUNTS", false),
        ] {
            assert_eq!(matches(filter, topic), covered, "{filter} {topic}");
        }
    }

    // [MQTT5-4.7.0-1] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.3-1] [MQTT5-4.7.3-2] [MQTT5-4.8.2-1]
    // [MQTT5-4.8.2-2] [MQTT311-4.7.1-1] [MQTT311-4.7.1-2] [MQTT311-4.7.1-3] [MQTT311-4.7.3-1]
    // [MQTT311-4.7.3-2]
    #[test]
    fn misplaced_wildcards_are_refused() {
        for filter in
            ["", "a#", "a/#/b", "a+", "+a/b", "#/", "##", "$share/g", "$share//a", "$share/+/a", "$share/g/"]
        {
            assert!(check_filter(filter).is_err(), "{filter}");
        }
        for filter in ["\0", "a\0/b", "+/\0", "$share/g/a\0"] {
            assert!(check_filter(filter).is_err(), "{filter}");
        }
        assert_eq!(check_filter("a/b"), Ok(FilterKind::Exact));
        assert_eq!(check_filter("+/a/#"), Ok(FilterKind::Wildcard));
        assert_eq!(check_filter("$share/g/a/#"), Ok(FilterKind::Shared));
        assert_eq!(check_filter("$shared/g"), Ok(FilterKind::Exact));
        assert_eq!((of_share("$share/g/a/#"), of_share("share/g/a")), (Some("a/#"), None));
        for topic in ["", "a/+", "#", "a\0", "a+", "+a/b", "a/#b", "a#/b"] {
            assert!(check_topic(topic).is_err(), "{topic}");
        }
        assert!(check_topic("/").is_ok());
    }

    #[test]
    fn depth_has_a_limit() {
        assert!(check_topic(&"/".repeat(LEVELS_MAX - 1)).is_ok());
        assert_eq!(check_topic(&"/".repeat(LEVELS_MAX)), Err(NotATopic::Levels));
        assert_eq!(check_filter(&"/".repeat(LEVELS_MAX)), Err(NotAFilter::Levels));
    }
}
