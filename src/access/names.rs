//! What `%u` and `%c` stand for in the patterns of one client.
//!
//! A pattern is matched as it is written and its names are looked up on the way: no client has a copy of it, and no
//! message costs an allocation.
//!
//! A name could widen a pattern by what it holds: `+` and `#` would be wildcards, `/` would lead into
//! somebody else's level, `$` at the start into the house's own topics. Whoever has such a name is granted
//! nothing by patterns that use it, and denied all that they might deny.

use bytestring::ByteString;

use super::granted::{Line, Rights};

/// The names of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    user: Name,
    client_id: Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    /// It has none.
    Absent,
    /// One that could widen a pattern.
    Harmful,
    Plain(ByteString),
}

/// What a level of a pattern is for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// A word, or a wildcard.
    Plain,
    /// It names what the client does not have.
    Unsaid,
    /// It names what could be anything.
    Anything,
}

impl Names {
    /// They share the bytes of what they are made of.
    pub(super) fn new(user: Option<&ByteString>, client_id: &ByteString) -> Names {
        let name = |name: &ByteString| {
            if is_harmless(name) { Name::Plain(name.clone()) } else { Name::Harmful }
        };
        Names { user: user.map_or(Name::Absent, name), client_id: name(client_id) }
    }

    /// Whether a pattern is about this topic.
    pub(super) fn fit(&self, line: &Line, topic: &str) -> bool {
        let (mut levels, mut words) = (line.filter.split('/'), topic.split('/'));
        // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
        let hidden = topic.starts_with('$');
        let mut first = true;
        loop {
            let (level, word) = (levels.next(), words.next());
            let anything = level.is_some_and(|level| self.level(level) == Level::Anything);
            match (level, word) {
                (Some("#" | "+"), _) if first && hidden => return false,
                (Some("#"), _) => return true,
                (Some("+"), Some(_)) => {}
                (Some(_), _) if anything => return line.rights.denies() && !(first && hidden),
                (Some(level), Some(word)) if self.spell(level, word) => {}
                (None, None) => return true,
                _ => return false,
            }
            first = false;
        }
    }

    /// The pattern with the names put in; `None` where it says nothing to this client.
    pub(super) fn put_into(&self, line: &Line) -> Option<Line> {
        let mut filter = String::with_capacity(line.filter.len());
        for level in line.filter.split('/') {
            match self.level(level) {
                Level::Plain => self.parts(level).for_each(|part| filter.push_str(part)),
                Level::Unsaid => return None,
                Level::Anything if line.rights.denies() => {
                    filter.push('#');
                    return Some(Line { filter: filter.into(), rights: Rights::DENY });
                }
                Level::Anything => return None,
            }
            filter.push('/');
        }
        filter.pop();
        Some(Line { filter: filter.into(), rights: line.rights })
    }

    fn level(&self, level: &str) -> Level {
        let found = marks(level).map(|mark| match self.marked(mark) {
            Some(Name::Absent) => Level::Unsaid,
            Some(Name::Harmful) => Level::Anything,
            Some(Name::Plain(_)) | None => Level::Plain,
        });
        let mut found = found;
        found.find(|level| *level != Level::Plain).unwrap_or(Level::Plain)
    }

    /// Whether a level says this word.
    fn spell(&self, level: &str, word: &str) -> bool {
        let mut left = Some(word);
        for part in self.parts(level) {
            left = left.and_then(|left| left.strip_prefix(part));
        }
        self.level(level) == Level::Plain && left == Some("")
    }

    /// A level piece by piece, with the names in their places.
    fn parts<'a>(&'a self, level: &'a str) -> impl Iterator<Item = &'a str> {
        let mut rest = level;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (before, marked) = rest.split_at(rest.find('%').unwrap_or(rest.len()));
            if !before.is_empty() {
                rest = marked;
                return Some(before);
            }
            if let Some(Name::Plain(name)) = self.marked(marked) {
                rest = marked.get(2..).unwrap_or_default();
                return Some(name);
            }
            let (sign, behind) = marked.split_at(1);
            rest = behind;
            Some(sign)
        })
    }

    /// The name that a text beginning with `%` asks for.
    fn marked(&self, text: &str) -> Option<&Name> {
        match text.as_bytes().get(1)? {
            b'u' => Some(&self.user),
            b'c' => Some(&self.client_id),
            _ => None,
        }
    }
}

/// Whether a pattern has a place for a name.
pub(super) fn asks_for_names(filter: &str) -> bool {
    marks(filter).any(|mark| mark.starts_with("%u") || mark.starts_with("%c"))
}

/// What begins with each `%`.
fn marks(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('%').filter_map(|(at, _)| text.get(at..))
}

fn is_harmless(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.contains(['+', '#', '/', '\0'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::router::filter::{check_filter, matches};

    fn line(filter: &str, rights: Rights) -> Line {
        Line { filter: filter.into(), rights }
    }

    #[test]
    fn a_pattern_that_denies_a_set_topic_denies_it_to_harmful_names_too() {
        let names = Names::new(None, &"a/b".into());
        let rights = Rights::DENY.of_line("valves/%c/set");
        assert!(names.fit(&line("valves/%c/set", rights), "valves/a/b/set"));
        assert!(!names.fit(&line("valves/%c/set", Rights::BOTH), "valves/a/b/set"));
    }

    #[test]
    fn names_are_not_copied() {
        let client_id = ByteString::from("a-client-id-that-is-longer-than-what-fits-inline");
        let Name::Plain(own) = Names::new(None, &client_id).client_id else { panic!("plain") };
        assert_eq!(own.as_ptr(), client_id.as_ptr());
    }

    proptest! {
        #[test]
        fn a_pattern_fits_as_if_the_names_were_put_into_it(
            levels in proptest::collection::vec("(%u|%c|%|x|u|[+]|ax%u|%c%u|%%c){1,1}", 1..4),
            ends in any::<bool>(),
            words in proptest::collection::vec("([$]x|a|x|u|ann|axann|c|cann|%c|%|%%c|)", 1..5),
            user in proptest::option::of("(ann|u|a/b|[+]|[$]x|%c)"),
            client_id in "(c|x|#|[$]x|%u)",
            deny in any::<bool>(),
        ) {
            let mut filter = levels.join("/");
            if ends {
                filter.push_str("/#");
            }
            prop_assume!(check_filter(&filter).is_ok());
            let line = line(&filter, if deny { Rights::DENY } else { Rights::BOTH });
            let names = Names::new(user.map(ByteString::from).as_ref(), &client_id.into());
            let put = names.put_into(&line).is_some_and(|put| matches(&put.filter, &words.join("/")));
            prop_assert_eq!(names.fit(&line, &words.join("/")), put, "{} {:?}", filter, names);
        }
    }
}
