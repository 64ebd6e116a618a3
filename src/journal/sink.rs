//! Where events go: systemd's journal, or lines on standard error.
//!
//! Both read alike: room, message, fields. The journal keeps each field apart besides.
//!
//! A line that cannot be written is lost: the log never stops the service.

use std::fmt::{self, Write as _};
use std::io::{IsTerminal as _, Write as _};

use log::kv::{Key, Source, Value, VisitSource};
use systemd_journal_logger::{JournalLog, connected_to_journal};
use tracing::Level;

/// Where events go.
pub(super) enum Sink {
    /// The journal, with every field as a field.
    Journal(JournalLog),
    /// Lines on standard error.
    Lines(Style),
    /// Lines kept for a test.
    #[cfg(test)]
    Kept(std::sync::Arc<std::sync::Mutex<Vec<String>>>),
}

/// How a line is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Without colour.
    Plain,
    /// With a coloured level, for a terminal.
    Coloured,
    /// With a priority that systemd reads, where its journal takes no fields from us.
    Prioritised,
}

/// An event, ready to be written.
pub(super) struct Spoken {
    pub(super) level: Level,
    pub(super) target: String,
    pub(super) module: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, String)>,
    /// Milliseconds since 1970.
    pub(super) millis: u64,
}

impl Spoken {
    /// Bytes that it takes while it waits, about.
    pub(super) fn weight(&self) -> usize {
        let fields: usize =
            self.fields.iter().map(|(_, value)| size_of::<(&str, String)>() + value.len()).sum();
        size_of::<Spoken>() + self.target.len() + self.message.len() + fields
    }
}

impl Sink {
    /// The journal where systemd reads our standard error, else standard error itself.
    pub(super) fn here() -> Sink {
        if connected_to_journal() {
            return JournalLog::new().map_or(Sink::Lines(Style::Prioritised), Sink::Journal);
        }
        let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Sink::Lines(if coloured { Style::Coloured } else { Style::Plain })
    }

    #[cfg(test)]
    pub(super) fn kept(lines: std::sync::Arc<std::sync::Mutex<Vec<String>>>) -> Sink {
        Sink::Kept(lines)
    }

    pub(super) fn say(&self, spoken: &Spoken) {
        match self {
            Sink::Journal(journal) => send(journal, spoken),
            Sink::Lines(style) => {
                let _ = writeln!(std::io::stderr().lock(), "{}", line(spoken, *style));
            }
            #[cfg(test)]
            Sink::Kept(lines) => lines.lock().expect("nobody panicked").push(line(spoken, Style::Plain)),
        }
    }
}

fn send(journal: &JournalLog, spoken: &Spoken) {
    let pairs = Pairs(&spoken.fields);
    let text = text(spoken);
    let message = format_args!("{text}");
    let record = log::Record::builder()
        .level(match spoken.level {
            Level::ERROR => log::Level::Error,
            Level::WARN => log::Level::Warn,
            Level::INFO => log::Level::Info,
            Level::DEBUG => log::Level::Debug,
            Level::TRACE => log::Level::Trace,
        })
        .target(&spoken.target)
        .module_path(spoken.module.as_deref())
        .file(spoken.file.as_deref())
        .line(spoken.line)
        .key_values(&pairs)
        .args(message)
        .build();
    // Where the journal is gone there is nobody to tell.
    let _ = journal.journal_send(&record);
}

fn line(spoken: &Spoken, style: Style) -> String {
    let (time, level) = (Time(spoken.millis), spoken.level);
    let head = match style {
        Style::Plain => format!("{time} {level:5} "),
        Style::Coloured => format!("{time} {}{level:5}\x1b[0m ", colour(level)),
        Style::Prioritised => format!("<{}>", priority(level)),
    };
    head + &text(spoken)
}

/// What a person reads: the fields too, since `journalctl` shows no others unless it is asked to.
fn text(spoken: &Spoken) -> String {
    let room = spoken.target.trim_start_matches("tidegate::").trim_start_matches("adapter_");
    let room = room.split("::").next().unwrap_or(room);
    let mut text = format!("{room}: {}", Escaped(&spoken.message));
    for (name, value) in &spoken.fields {
        let bare =
            !value.is_empty() && value.chars().all(|letter| letter.is_ascii_graphic() && letter != '"');
        // Writing to a String does not fail.
        let _ = if bare { write!(text, " {name}={value}") } else { write!(text, " {name}={value:?}") };
    }
    text
}

fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG | Level::TRACE => "\x1b[2m",
    }
}

/// A message whose control characters cannot break the line or colour the terminal.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter.is_control() {
                true => write!(out, "{}", letter.escape_default())?,
                false => out.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// Milliseconds since 1970 as `2026-03-01T12:00:00.000Z`.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
        let (seconds, millis) = (rest / 1_000 % 60, rest % 1_000);
        // Counted from 1 March of year 0, a leap day is the last day of its year.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        write!(out, "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
    }
}

/// Our pairs as `log` hands them to the journal.
struct Pairs<'a>(&'a [(&'static str, String)]);

impl Source for Pairs<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), log::kv::Error> {
        self.0.iter().try_for_each(|(name, value)| {
            visitor.visit_pair(Key::from_str(name), Value::from(value.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil() {
        let check = |millis, expected: &str| assert_eq!(Time(millis).to_string(), expected);
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(1_709_251_199_999, "2024-02-29T23:59:59.999Z");
        check(1_771_234_567_123, "2026-02-16T09:36:07.123Z");
        check(4_102_444_799_000, "2099-12-31T23:59:59.000Z");
    }
}
