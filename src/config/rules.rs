//! The ACL file, whose mistakes are the configuration's.
//!
//! A rule that cannot be read might have denied something, so with a wrong file nothing starts.

use std::path::Path;
use std::sync::Arc;

use super::place::{Place, Report};
use super::source;
use crate::access::Rules;

/// Reads the file; every wrong line is reported at its place.
pub(super) fn read(path: &Path, report: &mut Report) -> Option<Rules> {
    let file: Arc<str> = path.display().to_string().into();
    let text = match source::read(path) {
        Ok(text) => text,
        Err((line, text)) => {
            let place = line.map_or(Place::File(file.clone()), |line| Place::Line(file, line));
            report.wrong_source(place, text);
            return None;
        }
    };
    let mistakes = match Rules::parse(&text) {
        Ok(rules) => return Some(rules),
        Err(mistakes) => mistakes,
    };
    for mistake in mistakes {
        report.wrong_source(Place::Line(file.clone(), mistake.line), mistake.text);
    }
    None
}
