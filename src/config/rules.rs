//! The ACL file, whose mistakes are the configuration's.
//!
//! A rule that cannot be read might have denied something, so with a wrong file nothing starts.

use std::path::Path;
use std::sync::Arc;

use super::place::{Place, Report};
use super::source;
use crate::access::Rules;

/// Reads the file; every wrong line is reported at its place, and where there is none to read, where it is
/// named.
pub(super) fn read(path: &Path, report: &mut Report) -> Option<Rules> {
    let file: Arc<str> = path.display().to_string().into();
    let text = match source::read(path) {
        Ok(text) => text,
        Err((line, text)) => {
            match line {
                Some(line) => report.wrong_source(Place::Line(file, line), text),
                None => report.wrong("auth.acl_file", format!("{file}: {text}")),
            }
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
