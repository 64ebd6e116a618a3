//! When the open batch is committed.
//!
//! Pure: what waits, what was written and the time are arguments, and the answer is now, later or not
//! at all. A commit is due at the first of: `commit_interval` since the oldest message that somebody
//! waits for; `commit_messages` or `commit_bytes` waiting; a hurry. What nobody waits for rides along,
//! or goes by itself after a second or a thousand, and at once where something is full. While the flash budget
//! runs ahead of the clock, a hurry counts for nothing and the interval stretches. Where a sync is slow, a hurry
//! is held for a moment, until as many are back as the last commit has set free: else the first of them would
//! make the others wait for two.

use std::time::Duration;

use super::Checked;

/// The open batch, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Waiting {
    /// When the oldest prompt write came.
    pub(super) prompt_since: Option<u64>,
    /// Prompt writes.
    pub(super) prompt: u64,
    /// Bytes of messages.
    pub(super) bytes: u64,
    /// When the oldest lazy write came.
    pub(super) lazy_since: Option<u64>,
    /// Lazy writes.
    pub(super) lazy: u64,
    /// Whether every client that awaits an acknowledgement looks stuck.
    pub(super) hurry: bool,
    /// Whether something is full and what waits makes room.
    pub(super) press: bool,
}

/// Bytes written to flash in the current day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    /// Bytes since the day began.
    pub(super) bytes: u64,
    /// Milliseconds since the day began.
    pub(super) elapsed: u64,
}

/// The last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Last {
    /// How many prompt writes it held.
    pub(super) prompt: u64,
    /// When it ended, and how many milliseconds it took.
    pub(super) ended: u64,
    pub(super) took: u64,
}

/// When to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// At once.
    Now,
    /// At this moment, in milliseconds of the monotonic clock.
    At(u64),
    /// Nothing waits.
    Never,
}

/// When the batch is due.
pub(super) fn due(config: &Checked, waiting: &Waiting, spent: Spent, last: Last, now: u64) -> Due {
    let stretched = stretch(config, spent);
    let interval = stretched.unwrap_or(config.commit_interval);
    let full = waiting.prompt >= u64::from(config.commit_messages) || waiting.bytes >= config.commit_bytes;
    if waiting.prompt > 0 && full || waiting.lazy >= LAZY_MAX || waiting.press {
        return Due::Now;
    }
    let hurried = waiting.hurry && waiting.prompt > 0 && stretched.is_none();
    let hurry = hurried.then(|| last.held_until(waiting.prompt));
    let prompt = waiting.prompt_since.map(|since| since.saturating_add(millis(interval)));
    let lazy = waiting.lazy_since.map(|since| since.saturating_add(LAZY_MILLIS));
    match [hurry, prompt, lazy].into_iter().flatten().min() {
        None => Due::Never,
        Some(at) if at <= now => Due::Now,
        Some(at) => Due::At(at),
    }
}

impl Last {
    /// Until when a hurry is held: a quarter of what a commit takes, unless as many wait as it has set free.
    fn held_until(self, prompt: u64) -> u64 {
        if prompt >= self.prompt { 0 } else { self.ended.saturating_add(self.took / 4) }
    }
}

/// The interval while the day's budget runs ahead of the clock; `None` while it does not. A little ahead
/// stretches a little, a quarter ahead stretches all the way.
fn stretch(config: &Checked, spent: Spent) -> Option<Duration> {
    let budget = config.flash_budget?;
    let elapsed = spent.elapsed.clamp(GRACE_MILLIS, DAY_MILLIS);
    let allowed = u128::from(budget) * u128::from(elapsed) / u128::from(DAY_MILLIS);
    let ahead = u128::from(spent.bytes).checked_sub(allowed).filter(|ahead| *ahead > 0)?;
    let quarter = (allowed / 4).max(1);
    let span = config.commit_interval_max.saturating_sub(config.commit_interval).as_millis();
    let more = span * ahead.min(quarter) / quarter;
    Some(config.commit_interval + Duration::from_millis(u64::try_from(more).unwrap_or(u64::MAX)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A day of the flash budget, counted from the start of the process.
pub(super) const DAY_MILLIS: u64 = 86_400_000;

/// The share of the first half hour may be spent at once: a start is a burst.
const GRACE_MILLIS: u64 = 1_800_000;

/// Lazy writes wait at most so long: a crash repeats what it takes.
const LAZY_MILLIS: u64 = 1_000;

/// And at most so many of them.
pub(super) const LAZY_MAX: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Config;

    fn check(waiting: Waiting, spent: u64, now: u64, expected: Due) {
        let config = Config::default().check().unwrap();
        let spent = Spent { bytes: spent, elapsed: now };
        assert_eq!(due(&config, &waiting, spent, Last::default(), now), expected, "{waiting:?}");
    }

    fn prompt(since: u64, prompt: u64) -> Waiting {
        Waiting { prompt_since: Some(since), prompt, ..Waiting::default() }
    }

    #[test]
    fn an_empty_batch_is_never_due() {
        check(Waiting::default(), 0, 5, Due::Never);
        check(Waiting { hurry: true, ..Waiting::default() }, 0, 5, Due::Never);
    }

    #[test]
    fn a_message_waits_for_company_at_most_the_interval() {
        check(prompt(100, 1), 0, 100, Due::At(120));
        check(prompt(100, 63), 0, 119, Due::At(120));
        check(prompt(100, 1), 0, 120, Due::Now);
    }

    #[test]
    fn messages_or_bytes_or_a_hurry_make_it_due() {
        check(prompt(100, 64), 0, 100, Due::Now);
        check(Waiting { bytes: 64_000, ..prompt(100, 1) }, 0, 100, Due::Now);
        check(Waiting { hurry: true, ..prompt(100, 1) }, 0, 100, Due::Now);
    }

    #[test]
    fn where_a_sync_is_slow_a_hurry_waits_for_those_that_it_has_set_free() {
        let config = Config::default().check().unwrap();
        let hurried = |prompt_writes| Waiting { hurry: true, ..prompt(101, prompt_writes) };
        let check = |waiting, took, now, expected| {
            let last = Last { prompt: 10, ended: 100, took };
            assert_eq!(due(&config, &waiting, Spent::default(), last, now), expected, "{waiting:?} {took}");
        };
        check(hurried(1), 20, 101, Due::At(105));
        check(hurried(9), 20, 104, Due::At(105));
        check(hurried(9), 20, 105, Due::Now);
        check(hurried(10), 20, 101, Due::Now);
        check(hurried(1), 3, 101, Due::Now);
        check(hurried(1), 400, 101, Due::At(121));
        check(prompt(101, 1), 400, 121, Due::Now);
    }

    #[test]
    fn what_nobody_waits_for_goes_after_a_second_or_a_thousand() {
        let lazy = Waiting { lazy_since: Some(100), lazy: 1, ..Waiting::default() };
        check(lazy, 0, 100, Due::At(1_100));
        check(Waiting { hurry: true, ..lazy }, 0, 100, Due::At(1_100));
        check(lazy, 0, 1_100, Due::Now);
        check(Waiting { lazy: 1_000, ..lazy }, 0, 100, Due::Now);
        check(Waiting { prompt_since: Some(150), prompt: 1, ..lazy }, 0, 150, Due::At(170));
    }

    #[test]
    fn a_budget_ahead_of_the_clock_turns_hurry_off_and_stretches() {
        let hurried = Waiting { hurry: true, ..prompt(100, 1) };
        check(hurried, 20_000_000_000, 100, Due::At(1_100));
        let share = 20_000_000_000 / 48;
        check(hurried, share, 100, Due::Now);
        check(hurried, share + share / 8, 100, Due::At(100 + 20 + 490));
        check(Waiting { prompt: 64, ..hurried }, 20_000_000_000, 100, Due::Now);
    }

    #[test]
    fn without_a_budget_nothing_stretches() {
        let config = Config { flash_budget: "none".into(), ..Config::default() }.check().unwrap();
        let spent = Spent { bytes: u64::MAX, elapsed: 1 };
        assert_eq!(due(&config, &prompt(0, 1), spent, Last::default(), 0), Due::At(20));
    }
}
