//! What is wrong with one `[[bridge]]`, collected: each complaint says what was found and what was expected.
//!
//! Texts are turned into their values here where that may fail, so that every key complains alike.

use std::time::Duration;

use adapter_api::schema::Problem;
use adapter_api::units::{self, NotAUnit};

use super::mapping::{Filter, MappingError, Template, fill_gateway};
use crate::codec::QoS;

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, key: &str, text: &str) {
        self.0.push(Problem { key: key.to_owned(), text: text.to_owned() });
    }

    pub(super) fn none<T>(&mut self, key: &str, text: &str) -> Option<T> {
        self.add(key, text);
        None
    }

    pub(super) fn mapped<T>(&mut self, key: &str, found: &str, result: Result<T, MappingError>) -> Option<T> {
        result.map_err(|error| self.add(key, &format!("found {}, {error}", shortened(found)))).ok()
    }

    pub(super) fn duration(&mut self, key: &str, text: &str) -> Option<Duration> {
        self.measured(key, text, units::parse_duration(text))
    }

    pub(super) fn size(&mut self, key: &str, text: &str) -> Option<u64> {
        self.measured(key, text, units::parse_size(text))
    }

    fn measured<T>(&mut self, key: &str, text: &str, read: Result<T, NotAUnit>) -> Option<T> {
        read.map_err(|error| self.add(key, &format!("found \"{text}\", expected {error}"))).ok()
    }

    pub(super) fn seconds(&mut self, key: &str, duration: Duration) -> Option<u32> {
        match u32::try_from(duration.as_secs()) {
            Ok(seconds) if seconds > 0 && seconds < u32::MAX => Some(seconds),
            _ => self
                .none(key, &format!("found \"{}\", expected 1s to 49710d", units::show_duration(duration))),
        }
    }

    pub(super) fn qos(&mut self, key: &str, qos: u8) -> Option<QoS> {
        match qos {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => self.none(key, "found 2, expected 0 or 1: QoS 2 is not in this version"),
            _ => self.none(key, &format!("found {qos}, expected 0 or 1")),
        }
    }

    pub(super) fn route(
        &mut self,
        at: &impl Fn(&str) -> String,
        filter: &str,
        to: &str,
        gateway: &str,
    ) -> Option<(Filter, Template)> {
        let parsed = fill_gateway(filter, gateway).and_then(|filter| Filter::parse(&filter));
        let filter = self.mapped(&at("filter"), filter, parsed)?;
        let to = self.mapped(&at("to"), to, Template::parse(to, &filter, gateway))?;
        Some((filter, to))
    }
}

/// A found text in quotes; of a long one its beginning.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(FOUND_MAX) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// Characters of a found text that are told.
const FOUND_MAX: usize = 60;
