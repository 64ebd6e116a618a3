//! One value against the kind that its key takes.
//!
//! The file and the environment come through the same gate, so a rule holds for both. What was found is
//! quoted in the complaint, save where the key's name says that it is a secret.

use adapter_api::schema::Kind;
use adapter_api::units::{parse_duration, parse_rate, parse_size, show_duration, show_size};
use figment::value::Value;

use super::similar::suggestion;

/// A plain value as it was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found<'a> {
    /// A text.
    Text(&'a str),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// true or false.
    Boolean(bool),
    /// A table, a list, a date: by its name.
    Other(&'static str),
}

/// The value for the merged configuration, or what was found and what was expected.
pub(super) fn check(kind: Kind, key: &str, found: Found<'_>) -> Result<Value, String> {
    let fits = match (kind, found) {
        (Kind::Text, Found::Text(text)) => Ok(Value::from(text)),
        (Kind::Path, Found::Text(text)) if !text.is_empty() && !text.contains('\0') => Ok(Value::from(text)),
        (Kind::Choice(words), Found::Text(text)) if words.contains(&text) => Ok(Value::from(text)),
        (Kind::Choice(words), Found::Text(text)) => {
            Err(expected(kind) + &suggestion(text, words.iter().copied()))
        }
        (Kind::Boolean, Found::Boolean(value)) => Ok(Value::from(value)),
        (Kind::Integer(low, high), Found::Integer(value)) if (low..=high).contains(&value) => {
            Ok(Value::from(value))
        }
        (Kind::Number, Found::Integer(value)) => Ok(Value::from(value)),
        (Kind::Number, Found::Float(value)) if value.is_finite() => Ok(Value::from(value)),
        (Kind::DurationOr(word) | Kind::SizeOr(word) | Kind::RateOr(word), Found::Text(text))
            if text == word =>
        {
            Ok(Value::from(text))
        }
        (Kind::RateOr(word), Found::Text(text)) => {
            let rate = parse_rate(text).map_err(|unit| format!("{unit}, or \"{word}\""));
            rate.map(|_| Value::from(text))
        }
        (Kind::Duration(..) | Kind::DurationOr(_) | Kind::Size(..) | Kind::SizeOr(_), Found::Text(text)) => {
            measured(kind, text).map(|()| Value::from(text))
        }
        _ => Err(expected(kind)),
    };
    fits.map_err(|expected| format!("found {}, expected {expected}", quote(key, found)))
}

/// Whether a text of this unit lies within its bounds.
fn measured(kind: Kind, text: &str) -> Result<(), String> {
    let value = match kind {
        Kind::Duration(..) | Kind::DurationOr(_) => {
            parse_duration(text).map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
        }
        _ => parse_size(text),
    };
    match (value, kind) {
        (Err(unit), Kind::DurationOr(word) | Kind::SizeOr(word)) => Err(format!("{unit} or \"{word}\"")),
        (Err(unit), _) => Err(unit.to_string()),
        (Ok(value), Kind::Duration(low, high) | Kind::Size(low, high)) if value < low || value > high => {
            Err(expected(kind))
        }
        (Ok(_), _) => Ok(()),
    }
}

/// What a kind takes, in words.
pub(super) fn expected(kind: Kind) -> String {
    match kind {
        Kind::Text => "a text".to_owned(),
        Kind::Path => "the path of a file".to_owned(),
        Kind::Choice(words) => {
            let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            quoted.join(" or ")
        }
        Kind::Boolean => "true or false".to_owned(),
        Kind::Integer(i64::MIN, i64::MAX) => "a whole number".to_owned(),
        Kind::Integer(low, i64::MAX) => format!("a whole number of at least {low}"),
        Kind::Integer(low, high) => format!("a whole number from {low} to {high}"),
        Kind::Number => "a number".to_owned(),
        Kind::Duration(0, u64::MAX) => "a duration such as \"30s\"".to_owned(),
        Kind::Duration(low, u64::MAX) => format!("a duration of at least \"{}\"", millis(low)),
        Kind::Duration(low, high) => format!("a duration from \"{}\" to \"{}\"", millis(low), millis(high)),
        Kind::DurationOr(word) => format!("a duration such as \"30s\", or \"{word}\""),
        Kind::Size(0, u64::MAX) => "a size such as \"64KB\"".to_owned(),
        Kind::Size(low, u64::MAX) => format!("a size of at least \"{}\"", show_size(low)),
        Kind::Size(low, high) => format!("a size from \"{}\" to \"{}\"", show_size(low), show_size(high)),
        Kind::SizeOr(word) => format!("a size such as \"64KB\", or \"{word}\""),
        Kind::RateOr(word) => format!("a rate such as \"100/s\", or \"{word}\""),
        Kind::Texts => "a list of texts".to_owned(),
        Kind::Table(_) | Kind::Map => "a table".to_owned(),
        Kind::Tables(_) => "a list of tables, each under its name in double brackets".to_owned(),
        Kind::NotYet => "nothing: it is not in this version".to_owned(),
    }
}

/// What was found, for a complaint; never a secret.
pub(super) fn quote(key: &str, found: Found<'_>) -> String {
    if is_secret(key) && !matches!(found, Found::Other(_)) {
        return "a value (not shown)".to_owned();
    }
    match found {
        Found::Text(text) if text.chars().count() > QUOTED_MAX => {
            let start: String = text.chars().take(QUOTED_MAX).collect();
            format!("{start:?}…")
        }
        Found::Text(text) => format!("{text:?}"),
        Found::Integer(value) => value.to_string(),
        Found::Float(value) => value.to_string(),
        Found::Boolean(value) => value.to_string(),
        Found::Other(name) => name.to_owned(),
    }
}

/// Whether a key holds a secret rather than the way to one.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let secret = ["password", "passphrase", "secret", "token", "psk"];
    secret.iter().any(|word| key.contains(word)) && !key.ends_with("_file")
}

fn millis(value: u64) -> String {
    show_duration(std::time::Duration::from_millis(value))
}

/// Characters of a found text that are quoted.
const QUOTED_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_quoted() {
        let complaint = check(Kind::Text, "password", Found::Integer(1234)).expect_err("not a text");
        assert!(!complaint.contains("1234"), "{complaint}");
        assert_eq!(quote("password_file", Found::Text("/etc/x")), "\"/etc/x\"");
    }

    #[test]
    fn bounds_are_part_of_what_is_expected() {
        let complaint = check(Kind::Duration(1_000, 60_000), "every", Found::Text("1d"));
        assert_eq!(complaint, Err("found \"1d\", expected a duration from \"1s\" to \"1m\"".to_owned()));
        let complaint = check(Kind::SizeOr("none"), "flash_budget", Found::Text("20"));
        assert!(complaint.is_err_and(|text| text.contains("or \"none\"")));
        assert!(check(Kind::SizeOr("none"), "flash_budget", Found::Text("none")).is_ok());
        assert!(check(Kind::Number, "scale", Found::Float(f64::NAN)).is_err());
    }
}
