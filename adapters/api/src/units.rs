//! Durations, sizes and rates as people write them: `30s`, `7d`, `512MB`, `100/s`.
//!
//! The only file that reads or prints them. Sizes are powers of 1,000 (`KB`, `MB`, `GB`, `TB`) or of 1,024
//! (`KiB`, `MiB`, `GiB`, `TiB`); durations are whole numbers of one unit; rates are so many a second, minute or hour.

use std::time::Duration;

/// Reads a duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
pub fn parse_duration(text: &str) -> Result<Duration, NotAUnit> {
    let (number, unit) = split(text).ok_or(NotAUnit::Duration)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(NotAUnit::Duration),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or(NotAUnit::Duration)
}

/// Reads a size in bytes: a whole number and one of `B`, `KB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB`, `TiB`.
pub fn parse_size(text: &str) -> Result<u64, NotAUnit> {
    let (number, unit) = split(text).ok_or(NotAUnit::Size)?;
    let factor = match unit {
        "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(NotAUnit::Size),
    };
    number.checked_mul(factor).ok_or(NotAUnit::Size)
}

/// So many in so long, and as many at once where they were saved up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many, at least one.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// Reads a rate: a whole number of at least 1, `/`, and one of `s`, `m`, `h`.
pub fn parse_rate(text: &str) -> Result<Rate, NotAUnit> {
    let (count, unit) = text.split_once('/').ok_or(NotAUnit::Rate)?;
    let per = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(NotAUnit::Rate),
    };
    let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    let count = count.parse().ok().filter(|count| digits && (1..=RATE_MAX).contains(count));
    count.map(|count| Rate { count, per: Duration::from_secs(per) }).ok_or(NotAUnit::Rate)
}

/// The most of a rate: more could not be told apart in microseconds.
const RATE_MAX: u32 = 1_000_000;

/// Prints a duration in the largest unit that is exact.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// Prints a size in the largest decimal unit that is exact.
pub fn show_size(bytes: u64) -> String {
    for (unit, size) in [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

/// The text is no duration, size or rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAUnit {
    /// Not a duration.
    #[error("a duration such as \"500ms\", \"30s\", \"15m\", \"12h\" or \"7d\"")]
    Duration,
    /// Not a size.
    #[error("a size such as \"64KB\", \"512MB\" or \"4GiB\"")]
    Size,
    /// Not a rate.
    #[error("a rate such as \"100/s\", \"30/m\" or \"10/h\", from 1 to 1000000")]
    Rate,
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_and_printed_alike() {
        for text in ["0ms", "20ms", "30s", "15m", "12h", "7d"] {
            assert_eq!(parse_duration(text).map(show_duration).as_deref(), Ok(text));
        }
        for text in ["0B", "300B", "64KB", "512MB", "4GB", "1TB", "1000TB"] {
            assert_eq!(parse_size(text).map(show_size).as_deref(), Ok(text));
        }
        assert_eq!(parse_size("4KiB"), Ok(4_096));
    }

    #[test]
    fn rates_are_read() {
        let rate = |count, seconds| Ok(Rate { count, per: Duration::from_secs(seconds) });
        assert_eq!(parse_rate("100/s"), rate(100, 1));
        assert_eq!(parse_rate("1/h"), rate(1, 3_600));
        for text in ["", "0/s", "+5/s", "5", "5/d", "/s", "-1/s", "1000001/s", "5 / s"] {
            assert_eq!(parse_rate(text), Err(NotAUnit::Rate), "{text}");
        }
    }

    #[test]
    fn what_is_no_unit_is_refused() {
        for text in ["", "5", "s", "-1s", "1.5s", "5 parsecs", "99999999999999999999d"] {
            assert_eq!(parse_duration(text), Err(NotAUnit::Duration), "{text}");
            assert_eq!(parse_size(text), Err(NotAUnit::Size), "{text}");
        }
    }
}
