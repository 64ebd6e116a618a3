//! Which topics a route takes, and which topics they become on the other side. Pure.
//!
//! A [`Filter`] is an MQTT topic filter that also says what its wildcards stood for; a [`Template`]
//! builds the new topic from that. Both are checked when they are made, so that no message can meet a
//! template that asks for a wildcard which its filter does not have.

use std::fmt;

/// A topic filter that captures what its wildcards match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    text: String,
    pub(super) levels: Vec<Level>,
}

/// One level of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Level {
    Exact(String),
    One,
    /// The last, and none or more of a topic.
    Rest,
}

/// What the wildcards of a filter stood for, in their order. `None` is a `#` that matched no level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Captures<'a>(Vec<Option<&'a str>>);

/// How the new topic is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub(super) pieces: Vec<Piece>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Topic,
    /// Index into the captures.
    Wildcard(usize),
}

impl Filter {
    /// Reads a filter. Shared subscriptions (`$share/…`) are no route's filter.
    pub fn parse(text: &str) -> Result<Filter, MappingError> {
        if text.is_empty() || text.len() > TOPIC_BYTES_MAX || text.contains('\0') {
            return Err(MappingError::Filter);
        }
        if text.starts_with("$share/") {
            return Err(MappingError::Shared);
        }
        let mut levels = Vec::new();
        let mut parts = text.split('/').peekable();
        while let Some(part) = parts.next() {
            levels.push(match part {
                "+" => Level::One,
                // [MQTT311-4.7.1-2] the last level, or the filter is not valid.
                "#" if parts.peek().is_none() => Level::Rest,
                // [MQTT311-4.7.1-3] a wildcard fills its whole level.
                exact if !exact.contains(['+', '#']) => Level::Exact(exact.to_owned()),
                _ => return Err(MappingError::Filter),
            });
        }
        Ok(Filter { text: text.to_owned(), levels })
    }

    /// The filter as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How many wildcards it has.
    fn wildcards(&self) -> usize {
        self.levels.iter().filter(|level| !matches!(level, Level::Exact(_))).count()
    }

    /// Whether it takes the topic, and what its wildcards stood for.
    pub(super) fn captures<'a>(&self, topic: &'a str) -> Option<Captures<'a>> {
        // [MQTT311-4.7.2-1] a leading wildcard does not reach topics of the server itself.
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Exact(_))) {
            return None;
        }
        let mut found = Vec::new();
        let mut rest = Some(topic);
        for level in &self.levels {
            if matches!(level, Level::Rest) {
                found.push(rest);
                return Some(Captures(found));
            }
            let text = rest?;
            let (part, after) = match text.split_once('/') {
                Some((part, after)) => (part, Some(after)),
                None => (text, None),
            };
            match level {
                Level::Exact(exact) if exact != part => return None,
                Level::One => found.push(Some(part)),
                Level::Exact(_) | Level::Rest => {}
            }
            rest = after;
        }
        rest.is_none().then_some(Captures(found))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Template {
    /// Reads a template for messages that `filter` takes. `{gateway}` is filled in now; `{topic}`, `{1}`,
    /// `{2}` … are filled in for each message.
    pub fn parse(text: &str, filter: &Filter, gateway: &str) -> Result<Template, MappingError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, tail) = rest.split_at_checked(open).ok_or(MappingError::Braces)?;
            push_text(&mut pieces, before)?;
            let (name, after) =
                tail.strip_prefix('{').and_then(|tail| tail.split_once('}')).ok_or(MappingError::Braces)?;
            match name {
                "gateway" => push_text(&mut pieces, gateway)?,
                "topic" => pieces.push(Piece::Topic),
                number => pieces.push(wildcard(number, filter)?),
            }
            rest = after;
        }
        push_text(&mut pieces, rest)?;
        if pieces.is_empty() {
            return Err(MappingError::Empty);
        }
        Ok(Template { pieces })
    }

    /// The topic that a message of this topic gets; `None` where it would be no topic at all (empty, or
    /// longer than MQTT allows).
    pub(super) fn render(&self, topic: &str, captures: &Captures<'_>) -> Option<String> {
        let mut made = String::with_capacity(topic.len() + 32);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => made.push_str(text),
                Piece::Topic => made.push_str(topic),
                Piece::Wildcard(index) => match captures.0.get(*index)? {
                    Some(part) => made.push_str(part),
                    // `a/#` also takes `a`: then the slash before the wildcard goes with it.
                    None => {
                        if made.ends_with('/') {
                            made.pop();
                        }
                    }
                },
            }
        }
        (!made.is_empty() && made.len() <= TOPIC_BYTES_MAX).then_some(made)
    }
}

/// Fills `{gateway}` into a plain text, such as a client id or a status topic.
pub(super) fn fill_gateway(text: &str, gateway: &str) -> Result<String, MappingError> {
    let filled = text.replace("{gateway}", gateway);
    if filled.contains(['{', '}']) { Err(MappingError::OnlyGateway) } else { Ok(filled) }
}

/// Whether a text is a topic name that may be published to.
pub(super) fn is_topic(text: &str) -> bool {
    !text.is_empty() && text.len() <= TOPIC_BYTES_MAX && !text.contains(['+', '#', '\0'])
}

/// Whether a topic of upstream is one here too: the local broker ends whoever names one of more levels.
pub(super) fn is_local_topic(text: &str) -> bool {
    is_topic(text) && text.split('/').count() <= LEVELS_MAX
}

/// Levels of a topic in the local broker.
const LEVELS_MAX: usize = 128;

/// Why a filter or a template is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Not a topic filter.
    #[error("expected a topic filter such as \"sensors/#\" or \"+/state\"")]
    Filter,
    /// A shared subscription.
    #[error("expected a filter of its own: a shared subscription is not in this version")]
    Shared,
    /// A brace without its other.
    #[error("expected {{gateway}}, {{topic}} or the number of a wildcard in its braces")]
    Braces,
    /// A number beyond the filter's wildcards, or no number.
    #[error(
        "of which {{{found}}} is unknown, expected {{gateway}}, {{topic}} or a number: the filter has {wildcards} wildcards"
    )]
    Unknown {
        /// Between the braces.
        found: String,
        /// Of the filter.
        wildcards: usize,
    },
    /// Wildcards or NUL in the text of a template.
    #[error("expected a topic without + and #")]
    Wildcard,
    /// Nothing there.
    #[error("expected a topic")]
    Empty,
    /// Something else than `{gateway}` where only that is known.
    #[error("expected nothing but {{gateway}} in braces here")]
    OnlyGateway,
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) -> Result<(), MappingError> {
    if text.contains(['+', '#', '\0']) {
        return Err(MappingError::Wildcard);
    }
    match pieces.last_mut() {
        Some(Piece::Text(before)) => before.push_str(text),
        _ if text.is_empty() => {}
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
    Ok(())
}

fn wildcard(number: &str, filter: &Filter) -> Result<Piece, MappingError> {
    let wildcards = filter.wildcards();
    match number.parse::<usize>() {
        Ok(number) if (1..=wildcards).contains(&number) => Ok(Piece::Wildcard(number - 1)),
        _ => Err(MappingError::Unknown { found: number.to_owned(), wildcards }),
    }
}

/// What a length prefix of two bytes can hold.
const TOPIC_BYTES_MAX: usize = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    /// The topic that `topic` becomes on a route, `-` where the filter does not take it.
    fn map(filter: &str, to: &str, topic: &str) -> String {
        let filter = Filter::parse(filter).unwrap();
        let template = Template::parse(to, &filter, "barn-7").unwrap();
        match filter.captures(topic) {
            Some(captures) => template.render(topic, &captures).unwrap_or_else(|| "!".into()),
            None => "-".into(),
        }
    }

    #[test]
    fn a_topic_is_built_from_gateway_topic_and_wildcards() {
        for (filter, to, topic, expected) in [
            ("sensors/#", "sites/{gateway}/{topic}", "sensors/a/b", "sites/barn-7/sensors/a/b"),
            ("sensors/#", "x/{1}", "sensors/a/b", "x/a/b"),
            ("sensors/#", "x/{1}", "sensors", "x"),
            ("sensors/#", "x/{1}", "sensors/", "x/"),
            ("+/state/+", "{2}/{1}", "a/state/b", "b/a"),
            ("+/state/#", "{2}/of/{1}", "a/state/b/c", "b/c/of/a"),
            ("plain", "other", "plain", "other"),
            ("a/+", "{1}", "a/", "!"),
            ("sites/x/commands/#", "commands/{1}", "sites/x/commands/go/on", "commands/go/on"),
        ] {
            assert_eq!(map(filter, to, topic), expected, "{filter} {to} {topic}");
        }
    }

    #[test]
    fn a_filter_takes_what_the_standard_says() {
        for (filter, topic, taken) in [
            ("#", "a/b", true),
            ("#", "$SYS/a", false),
            ("+/a", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),
            ("a/+/c", "a//c", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("a/#", "a", true),
            ("a/#", "ab", false),
            ("+", "/a", false),
            ("/+", "/a", true),
            ("+/+", "/a", true),
            ("a", "a/", false),
        ] {
            assert_eq!(Filter::parse(filter).unwrap().captures(topic).is_some(), taken, "{filter} {topic}");
        }
    }

    #[test]
    fn wrong_filters_and_templates_are_refused_before_any_message() {
        for filter in ["", "a#", "a/#/b", "a+/b", "#/a", "\0"] {
            assert_eq!(Filter::parse(filter), Err(MappingError::Filter), "{filter:?}");
        }
        assert_eq!(Filter::parse("$share/g/a"), Err(MappingError::Shared));
        let filter = Filter::parse("a/+/#").unwrap();
        for (to, error) in [
            ("x/{3}", MappingError::Unknown { found: "3".into(), wildcards: 2 }),
            ("x/{0}", MappingError::Unknown { found: "0".into(), wildcards: 2 }),
            ("x/{site}", MappingError::Unknown { found: "site".into(), wildcards: 2 }),
            ("x/{1", MappingError::Braces),
            ("x/1}", MappingError::Braces),
            ("x/#", MappingError::Wildcard),
            ("x/+/{1}", MappingError::Wildcard),
            ("", MappingError::Empty),
        ] {
            assert_eq!(Template::parse(to, &filter, "g"), Err(error), "{to}");
        }
    }
}
