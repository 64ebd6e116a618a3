//! Expiry in the real store over restarts and jumps of every clock, and readings that are mended.
//!
//! The machine knows the true time; the store is given its clocks. A kill leaves a copy of the files.

use super::*;
use crate::record::machine::Clock;
use crate::record::{HEARTBEAT, OFF_MAX};

/// A machine and the store on it.
struct House {
    machine: Arc<Mutex<Machine>>,
    trial: Trial,
    last: u64,
}

impl House {
    fn new(clock: Clock) -> House {
        House::on(clock, Terms::default())
    }

    fn on(clock: Clock, terms: Terms) -> House {
        let machine = Arc::new(Mutex::new(Machine::new(WALL, clock)));
        let mut trial = Terms { machine: Some(machine.clone()), ..terms }.open();
        trial.commit(vec![session(CLIENT)]);
        House { machine, trial, last: 0 }
    }

    fn machine<T>(&self, turn: impl FnOnce(&mut Machine) -> T) -> T {
        turn(&mut self.machine.lock().unwrap())
    }

    /// Time passes, and the store is woken so that it sees it.
    fn pass(&self, millis: u64) {
        self.machine(|machine| machine.pass(millis));
        self.trial.status();
    }

    fn set_clock(&self) {
        self.machine(Machine::set_clock);
        self.pass(HEARTBEAT);
    }

    fn put(&mut self, expiry: Option<u32>, payload: &str, unclocked: bool) -> u64 {
        self.last += 1;
        let received = self.machine(|machine| machine.now().house);
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let message =
            Message { expiry, received, payload, unclocked, ..Message::clone(&message(0, "sensors/one")) };
        self.trial.commit(vec![Write::Message {
            seq: Seq(self.last),
            message: Arc::new(message),
            audience: Arc::new([want(self.trial.route()), want(CLIENT)]),
            retained: false,
            inward: None,
        }]);
        self.last
    }

    /// The power goes, and comes back later.
    fn switch_off(self, millis: u64, clock: Clock) -> House {
        let terms = self.killed();
        self.machine(|machine| machine.switch_off(millis, clock));
        House { trial: terms.open(), ..self }
    }

    /// The process is killed and starts again.
    fn restart(self) -> House {
        let terms = self.killed();
        House { trial: terms.open(), ..self }
    }

    fn killed(&self) -> Terms {
        Terms { machine: Some(self.machine.clone()), ..self.trial.killed() }
    }

    /// The order numbers and payloads of what the client still gets.
    fn rows(&self) -> Vec<(u64, String)> {
        let rows = self.trial.read(CLIENT, 0, 1_000).rows;
        let text = |row: &crate::record::Row| String::from_utf8(row.message.payload.to_vec()).unwrap();
        rows.iter().map(|row| (row.seq.0, text(row))).collect()
    }

    fn wanted(&self) -> Vec<u64> {
        self.rows().into_iter().map(|(seq, _)| seq).collect()
    }
}

const CLIENT: ReaderId = ReaderId(9);
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

#[test]
fn a_message_expires_at_its_time_over_restarts() {
    let mut house = House::new(Clock::Set);
    house.put(Some(3_600), "x", false);
    house.pass(HOUR / 2);
    let house = house.restart().switch_off(HOUR / 4, Clock::Set);
    assert_eq!(house.wanted(), [1]);
    house.pass(HOUR / 4 - 2_000);
    assert_eq!(house.wanted(), [1]);
    house.pass(3_000);
    assert!(house.wanted().is_empty());
    house.pass(2_000);
    let status = house.trial.assert_conserved();
    assert_eq!(status.readers[&CLIENT].expired, 1);
}

#[test]
fn a_route_s_age_limit_keeps_the_house_s_time() {
    let bounds = vec![("up", Bounds { max_age: Some(HOUR), ..Bounds::default() })];
    let mut house = House::on(Clock::Set, Terms { bounds: bounds.clone(), ..Terms::default() });
    house.put(None, "x", false);
    house.machine(|machine| machine.error = 2 * HOUR.cast_signed());
    house.trial.status();
    let terms = Terms { bounds, ..house.killed() };
    house.machine(|machine| machine.switch_off(HOUR / 2, Clock::Lost));
    let house = House { trial: terms.open(), ..house };
    let dropped = || {
        let status = house.trial.assert_conserved();
        status.readers[&house.trial.route()].expired
    };
    house.pass(HOUR / 4);
    assert_eq!(dropped(), 0, "a clock that is ahead or in 1970 makes nothing old");
    house.machine(Machine::set_clock);
    house.pass(HOUR / 4 - 60_000);
    assert_eq!(dropped(), 0, "three quarters of it and the half that it was off, but a minute");
    house.pass(120_000);
    assert_eq!(dropped(), 1);
}

#[test]
fn what_expires_while_the_power_is_off_is_not_delivered() {
    let mut house = House::new(Clock::Set);
    house.put(Some(3_600), "x", false);
    assert!(house.switch_off(HOUR, Clock::Set).wanted().is_empty());
}

#[test]
fn a_clock_of_1970_or_of_yesterday_expires_nothing_and_keeps_nothing_for_ever() {
    for clock in [Clock::Lost, Clock::Old] {
        let mut house = House::new(Clock::Set);
        house.put(Some(3_600), "x", false);
        let house = house.switch_off(DAY, clock);
        assert_eq!(house.wanted(), [1], "nobody knows how long it was off");
        house.pass(HOUR - 2_000);
        assert_eq!(house.wanted(), [1]);
        house.pass(3_000);
        assert!(house.wanted().is_empty());
    }
}

#[test]
fn once_the_clock_is_set_the_time_off_counts_for_what_came_before_it_alone() {
    let mut house = House::new(Clock::Set);
    house.put(Some(3_600), "before", false);
    let mut house = house.switch_off(DAY, Clock::Old);
    house.put(Some(3_600), "after", false);
    assert_eq!(house.wanted(), [1, 2]);
    house.set_clock();
    assert_eq!(house.wanted(), [2]);
    let house = house.restart();
    assert_eq!(house.wanted(), [2]);
    house.pass(HOUR - HEARTBEAT - 2_000);
    let house = house.restart();
    assert_eq!(house.wanted(), [2]);
    house.pass(3_000);
    assert!(house.wanted().is_empty());
}

#[test]
fn a_step_of_years_expires_nothing_and_keeps_nothing_for_ever() {
    for years in [10_i64, -10] {
        let mut house = House::new(Clock::Set);
        house.put(Some(3_600), "x", false);
        house.machine(|machine| machine.error = years * 366 * DAY.cast_signed());
        house.pass(HOUR / 2);
        let mut house = house.restart();
        assert_eq!(house.wanted(), [1]);
        house.put(Some(7_200), "y", false);
        // The clock is right again, and nobody can say how long the machine was off.
        let house = house.switch_off(60_000, Clock::Set);
        assert_eq!(house.wanted(), [1, 2]);
        house.pass(HOUR / 2);
        assert_eq!(house.wanted(), [2]);
    }
}

#[test]
fn a_time_off_of_years_is_not_believed() {
    let mut house = House::new(Clock::Set);
    house.put(Some(3_600), "x", false);
    let house = house.switch_off(OFF_MAX - 1_000, Clock::Set);
    assert!(house.wanted().is_empty());
    let mut house = House::new(Clock::Set);
    house.put(Some(3_600), "x", false);
    let house = house.switch_off(OFF_MAX + 60_000, Clock::Set);
    assert_eq!(house.wanted(), [1]);
}

#[test]
fn an_idle_house_does_not_forget_its_time() {
    let mut house = House::new(Clock::Set);
    house.put(Some(3_600), "x", false);
    for _ in 0..7 {
        house.pass(HEARTBEAT);
    }
    let house = house.switch_off(DAY, Clock::Lost);
    assert!(house.wanted().is_empty());
}

#[test]
fn a_start_takes_the_process_before_for_alive_until_the_time_would_have_been_written_again() {
    let mut house = House::new(Clock::Set);
    house.put(None, "x", false);
    let committed = house.machine(|machine| machine.now().house);
    house.pass(HEARTBEAT / 2);
    let killed = house.machine(|machine| machine.now().house);
    let house = house.switch_off(DAY, Clock::Set);
    let alive = house.trial.opened.restored.alive;
    assert!((killed..=committed + HEARTBEAT).contains(&alive), "{committed}, {killed}, {alive}");
}

#[test]
fn a_session_s_end_and_a_retained_message_follow_the_same_time() {
    let mut house = House::new(Clock::Set);
    let ended = house.machine(|machine| machine.now().house);
    let Write::Session(record) = session(CLIENT) else { panic!("a session") };
    let record = SessionRecord { ended: Some(ended), ..SessionRecord::clone(&record) };
    let retained = Message { received: ended, retain: true, ..Message::clone(&message(1, "state")) };
    let put = Write::Message {
        seq: Seq(1),
        message: Arc::new(retained),
        audience: Arc::new([]),
        retained: true,
        inward: None,
    };
    house.trial.commit(vec![Write::Session(Arc::new(record)), put]);
    house.pass(HOUR);
    let ages = |house: &House| {
        let now = house.machine(|machine| machine.now());
        let restored = &house.trial.opened.restored;
        let session = now.age(restored.sessions[0].record.ended.unwrap());
        assert_eq!(session, now.age(restored.retained[0].received));
        session / HOUR
    };
    let house = house.restart();
    assert_eq!(ages(&house), 1);
    let house = house.switch_off(DAY, Clock::Set);
    assert_eq!(ages(&house), 25);
    let house = house.switch_off(DAY, Clock::Lost);
    assert_eq!(ages(&house), 25);
    house.set_clock();
    assert_eq!(ages(&house), 49);
    assert_eq!(ages(&house.restart()), 49);
}

#[test]
fn readings_without_a_clock_are_mended_in_the_store_after_a_restart() {
    let mut house = House::new(Clock::Set);
    house = house.switch_off(DAY, Clock::Lost);
    let reading = |house: &House| {
        house.machine(|machine| {
            format!(r#"{{"v":1,"t":{},"q":"no-clock"}}"#, machine.believed() as f64 / 1_000.0)
        })
    };
    let truth = |house: &House| house.machine(|machine| machine.truth as f64 / 1_000.0);
    let lost = reading(&house);
    house.put(None, &lost, true);
    house = house.switch_off(DAY, Clock::Lost);
    house.pass(60_000);
    let (taken, text) = (truth(&house), reading(&house));
    house.put(None, &text, true);
    let foreign = text.clone();
    house.put(None, &foreign, false);
    assert_eq!(house.rows()[1].1, text, "as long as the clock is not set");
    house.set_clock();
    let house = house.restart();
    let rows: Vec<String> = house.rows().into_iter().map(|(_, payload)| payload).collect();
    let exact = |payload: &str| {
        let rest =
            payload.strip_prefix(r#"{"v":1,"t":"#).and_then(|rest| rest.strip_suffix(r#","q":"good"}"#));
        rest.map(|number| number.parse::<f64>().unwrap())
    };
    // Each start counts a millisecond.
    assert!((exact(&rows[1]).unwrap() - taken).abs() < 0.005, "{} at {taken}", rows[1]);
    assert_eq!(rows[2], foreign, "what is no reading of ours is nobody's to mend");
    // When the first one was taken nobody knows: after the first time off, and before the second or later.
    assert!(rows[0].ends_with(r#""q":"no-clock"}"#) && rows[0] != lost, "{}", rows[0]);
}

#[test]
fn a_disk_that_is_too_full_for_the_time_alone_costs_nothing_else() {
    let full = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let tight = full.clone();
    let gate: Gate = Box::new(move |stage| match stage {
        Stage::BeforeSync if tight.load(Ordering::SeqCst) => Err(std::io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    let machine = Arc::new(Mutex::new(Machine::new(WALL, Clock::Set)));
    let mut trial = Terms { machine: Some(machine.clone()), gate: Some(gate), ..Terms::default() }.open();
    let route = trial.route();
    trial.commit(vec![put(1, &[route])]);
    full.store(true, Ordering::SeqCst);
    machine.lock().unwrap().pass(HEARTBEAT);
    trial.status();
    trial.status();
    full.store(false, Ordering::SeqCst);
    trial.commit(vec![put(2, &[route])]);
    assert_eq!(trial.wanted(route), [1, 2]);
    trial.assert_conserved();
}
