//! The one place where the appliance reads the clock.
//!
//! Everything else is handed a [`Now`], so that a test can turn the time. The house's time is the
//! [`Timeline`]'s to say; here are the machine's clocks, and the signs by which the wall clock is known to be set.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use adapter_api::clock::{Wall, machine, monotonic};
use rustix::time::{ClockId, clock_gettime};

use crate::record::{Kept, Now, Reading, Timeline};

/// A clock that counts from its making.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    /// One for each store that the process opens, so that is leaked.
    house: &'static House,
}

/// What the copies of a clock share.
#[derive(Debug)]
struct House {
    signs: Signs,
    boot: u64,
    /// Milliseconds from the machine's start to the clock's.
    since_boot: u64,
    begun: Timeline,
    /// Once the store has said what it kept.
    resumed: OnceLock<Timeline>,
    /// Once the clock was found to be set after that.
    learned: OnceLock<Timeline>,
    /// When it is looked for signs again, monotonic.
    look_at: AtomicU64,
}

impl Clock {
    /// Starts counting.
    pub fn start() -> Clock {
        Clock::with_signs(Signs::of_system())
    }

    fn with_signs(signs: Signs) -> Clock {
        let since_boot = since_boot();
        let boot = fs::read_to_string(BOOT_ID).map_or(0, |id| boot_number(&id));
        let wall = machine();
        let set = wall.set && signs.say_set(wall.millis);
        let begun = Timeline::begin(&Reading { boot, since_boot, wall: wall.millis, set });
        let house = House {
            signs,
            boot,
            since_boot,
            begun,
            resumed: OnceLock::new(),
            learned: OnceLock::new(),
            look_at: AtomicU64::new(0),
        };
        Clock { start: monotonic(), house: Box::leak(Box::new(house)) }
    }

    /// Goes on with the house's time from what the store has kept of it; only the first time counts.
    pub fn resume(&self, kept: &Kept) {
        let (since_boot, wall) = (self.house.since_boot + self.mono(), machine());
        let set = wall.set && self.house.signs.say_set(wall.millis);
        let reading = Reading { boot: self.house.boot, since_boot, wall: wall.millis, set };
        let timeline = self.house.resumed.get_or_init(|| Timeline::resume(kept, &reading));
        if !timeline.is_set() {
            tracing::warn!(
                "the clock is not set yet: readings say so, and what the time off was is not known"
            );
        }
    }

    /// This moment.
    pub fn now(&self) -> Now {
        #[cfg(test)]
        if let Some(now) = TURNED.get() {
            return now;
        }
        let (mono, wall) = (self.mono(), machine());
        self.timeline(mono, wall).now(mono, self.house.since_boot + mono, wall.millis)
    }

    /// What time it is: the machine's where that is set, else what the house believes.
    pub fn wall(&self) -> Wall {
        let (mono, wall) = (self.mono(), machine());
        let timeline = self.timeline(mono, wall);
        match timeline.is_set() && wall.set {
            true => wall,
            false => Wall { millis: timeline.believed(self.house.since_boot + mono), set: false },
        }
    }

    fn mono(&self) -> u64 {
        let mono = monotonic().duration_since(self.start);
        u64::try_from(mono.as_millis()).unwrap_or(u64::MAX)
    }

    fn timeline(&self, mono: u64, wall: Wall) -> &Timeline {
        let house = self.house;
        if let Some(learned) = house.learned.get() {
            return learned;
        }
        let timeline = house.resumed.get().unwrap_or(&house.begun);
        if timeline.is_set() || house.resumed.get().is_none() || !wall.set {
            return timeline;
        }
        // Whoever comes first looks for all, as there are files to be read.
        let due = house.look_at.load(Ordering::Relaxed);
        let is_first = |due| {
            let next = mono + house.signs.look_every;
            house.look_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if mono < due || !is_first(due) || !house.signs.say_set(wall.millis) {
            return timeline;
        }
        tracing::info!("the clock is set");
        house.learned.get_or_init(|| timeline.learn(house.since_boot + mono, wall.millis))
    }
}

/// Where it shows whether the wall clock is set; a test has files of its own.
#[derive(Debug)]
struct Signs {
    /// There while systemd-timesyncd is at work.
    timesync: PathBuf,
    /// Seconds since 1970 by the clock that a battery keeps going; not there where the machine has none.
    battery: PathBuf,
    /// How often it is looked while there are none, in milliseconds.
    look_every: u64,
}

impl Signs {
    fn of_system() -> Signs {
        Signs { timesync: TIMESYNC.into(), battery: BATTERY.into(), look_every: LOOK_MILLIS }
    }

    /// Whether a wall clock that is not plainly wrong is set. Where timesyncd is to set it, it was not until that says
    /// so, save that a battery has kept it: what the machine begins with is the time at which it was switched off.
    fn say_set(&self, wall: u64) -> bool {
        if !self.timesync.exists() || self.timesync.join("synchronized").exists() {
            return true;
        }
        // A battery that is empty begins in 1970 and agrees with nothing.
        let seconds = fs::read_to_string(&self.battery).ok().and_then(|text| text.trim().parse::<u64>().ok());
        seconds.is_some_and(|seconds| seconds.abs_diff(wall / 1_000) <= BATTERY_SECONDS)
    }
}

/// Milliseconds since the machine's start.
fn since_boot() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let millis = time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000);
    u64::try_from(millis).unwrap_or(0)
}

/// The start's identity, cut to what tells starts apart; 0 where it says nothing.
fn boot_number(id: &str) -> u64 {
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

const LOOK_MILLIS: u64 = 1_000;

/// By so much the battery's clock may differ from the system's.
const BATTERY_SECONDS: u64 = 60;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const TIMESYNC: &str = "/run/systemd/timesync";
const BATTERY: &str = "/sys/class/rtc/rtc0/since_epoch";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Known;

    /// Files of a machine with timesyncd and, perhaps, a battery.
    fn signs(dir: &tempfile::TempDir) -> Signs {
        let signs = Signs {
            timesync: dir.path().join("timesync"),
            battery: dir.path().join("since_epoch"),
            look_every: 0,
        };
        fs::create_dir(&signs.timesync).unwrap();
        signs
    }

    #[test]
    fn a_clock_is_set_once_timesyncd_says_so_or_where_a_battery_has_kept_it() {
        let dir = tempfile::tempdir().unwrap();
        let signs = signs(&dir);
        let wall = 1_800_000_000_000;
        assert!(!signs.say_set(wall), "timesyncd is at work and has not set it");
        for (battery, set) in [("1800000030\n", true), ("1799999900", false), ("120", false), ("?", false)] {
            fs::write(&signs.battery, battery).unwrap();
            assert_eq!(signs.say_set(wall), set, "{battery}");
        }
        fs::write(signs.timesync.join("synchronized"), "").unwrap();
        assert!(signs.say_set(wall));
        fs::remove_dir_all(&signs.timesync).unwrap();
        assert!(signs.say_set(wall), "nobody is there to say so");
    }

    #[test]
    fn the_house_s_time_goes_on_from_what_was_kept_and_the_time_off_is_added_once_the_clock_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::with_signs(signs(&dir));
        let wall = machine().millis;
        // An hour off, as the wall clock will say.
        let (time, known) = (5_000_000, Known { time: 5_000_000, wall: wall - 3_600_000 });
        let kept = Kept { time, set: true, known: Some(known), ..Kept::default() };
        clock.resume(&kept);
        let now = clock.now();
        assert!(!now.span.set && now.age(time) < 60_000, "{now:?}");
        assert!(!clock.wall().set && clock.wall().millis.abs_diff(known.wall) < 60_000);
        fs::write(dir.path().join("timesync/synchronized"), "").unwrap();
        let now = clock.now();
        assert!(now.span.set && now.age(time).abs_diff(3_600_000) < 60_000, "{now:?}");
        assert!(clock.wall().set && clock.wall().millis.abs_diff(wall) < 60_000);
        assert_eq!(clock.now().span.mend, now.span.mend, "it is learned once");
    }

    #[test]
    fn starts_of_the_machine_are_told_apart() {
        let first = boot_number("66f3dd9b-c178-4adf-b9d4-edc40022adf3\n");
        assert_eq!(first, 0x66f3_dd9b_c178_4adf);
        assert_eq!(boot_number(""), 0);
        assert_ne!(Clock::start().house.boot, 0);
    }
}

#[cfg(test)]
thread_local! {
    /// What every clock of this thread shows, once a test has turned it.
    pub(crate) static TURNED: std::cell::Cell<Option<Now>> = const { std::cell::Cell::new(None) };
}
