//! Which request goes out next on a bus: earliest deadline first, and the dead cannot stall the living.
//!
//! Pure: the time, since a start of the caller's, is an argument. Each request is due once a period and has until the next one; missed
//! periods are skipped and counted, never made up for. A device that was silent three times running is
//! dead: it is probed with one request at a time, ever more rarely, in gaps where nobody else waits, or
//! where there are none, on at most one fiftieth of the bus's time for all the dead together.

use std::time::Duration;

/// The requests of one bus, and how its devices do.
#[derive(Debug)]
pub struct Schedule {
    jobs: Vec<Job>,
    devices: Vec<Device>,
    /// How long a probe of a dead device keeps the bus busy.
    probe_cost: Duration,
    /// When a probe may next take time that somebody else wants.
    budget_from: Duration,
    missed: u64,
}

/// One request.
#[derive(Debug)]
struct Job {
    device: usize,
    every: Duration,
    due: Duration,
}

#[derive(Debug)]
struct Device {
    /// Silent polls in a row, up to [`DEAD_AFTER`].
    silent: u32,
    /// Where it is dead: when it may be probed, and how long it waits after the next silence.
    dead: Option<Dead>,
    /// It must not be asked before this.
    held: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Dead {
    probe_at: Duration,
    pause: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Send this request.
    Send(usize),
    /// Nothing before then.
    Wait(Duration),
}

/// How a poll ended, as far as the device's life goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered in time, with values or an exception: it lives.
    Answered,
    /// It did not.
    Silent,
}

/// Whether a device answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is asked as configured.
    Alive,
    /// It is probed now and then.
    Dead,
}

impl Schedule {
    /// A schedule of requests, each given by its device and its period; all are due at once. There is at
    /// least one request. A probe of a dead device takes up to `probe_cost` of the bus's time.
    pub fn new(jobs: &[(usize, Duration)], probe_cost: Duration, now: Duration) -> Schedule {
        let devices = jobs.iter().map(|(device, _)| device + 1).max().unwrap_or(0);
        Schedule {
            jobs: jobs
                .iter()
                .map(|(device, every)| Job { device: *device, every: *every, due: now })
                .collect(),
            devices: (0..devices).map(|_| Device { silent: 0, dead: None, held: None }).collect(),
            probe_cost,
            budget_from: now,
            missed: 0,
        }
    }

    /// What to do at `now`.
    pub fn next(&self, now: Duration) -> Next {
        let probe = self.probe(now);
        if let Some((job, _)) = probe.filter(|_| self.budget_from <= now) {
            return Next::Send(job);
        }
        let living = self.living().min_by_key(|(_, job)| (self.ready_at(job) > now, job.due + job.every));
        if let Some((index, _)) = living.filter(|(_, job)| self.ready_at(job) <= now) {
            return Next::Send(index);
        }
        match probe {
            Some((job, _)) if self.is_gap(now) => Next::Send(job),
            _ => Next::Wait(self.wake(now)),
        }
    }

    /// The request `job`, sent at `sent`, has ended so.
    pub fn done(&mut self, job: usize, outcome: Outcome, sent: Duration, now: Duration) {
        let took_others_time = self.budget_from <= sent && !self.is_gap(sent);
        let Some(job) = self.jobs.get_mut(job) else { return };
        let Some(device) = self.devices.get_mut(job.device) else { return };
        if device.dead.is_some() && took_others_time {
            self.budget_from = now + now.saturating_sub(sent) * (BUDGET - 1);
        }
        let missed = job.go_on(now);
        if device.dead.is_none() {
            self.missed += missed;
        }
        match outcome {
            Outcome::Answered => (device.silent, device.dead) = (0, None),
            Outcome::Silent => device.was_silent(self.probe_cost, now),
        }
    }

    /// The device must not be asked before `until`.
    pub fn hold(&mut self, device: usize, until: Option<Duration>) {
        if let Some(device) = self.devices.get_mut(device) {
            device.held = until;
        }
    }

    /// The line is open anew: what was dead may have been the line, so the dead are probed at once.
    pub fn opened(&mut self, now: Duration) {
        for dead in self.devices.iter_mut().filter_map(|device| device.dead.as_mut()) {
            dead.probe_at = now;
        }
    }

    /// Whether the device answers.
    pub fn life(&self, device: usize) -> Life {
        match self.devices.get(device) {
            Some(Device { dead: Some(_), .. }) => Life::Dead,
            _ => Life::Alive,
        }
    }

    /// How many polls of living devices were left out because the bus had no time for them.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The requests of devices that live.
    fn living(&self) -> impl Iterator<Item = (usize, &Job)> {
        self.jobs.iter().enumerate().filter(|(_, job)| self.dead(job).is_none())
    }

    /// The request with which a dead device may be probed now, and the device.
    fn probe(&self, now: Duration) -> Option<(usize, usize)> {
        let probes = self.jobs.iter().enumerate().filter_map(|(index, job)| {
            let dead = self.dead(job)?;
            let ready = dead.probe_at.max(self.held(job).unwrap_or(dead.probe_at));
            (ready <= now).then_some((dead.probe_at, job.due, index, job.device))
        });
        probes.min().map(|(_, _, index, device)| (index, device))
    }

    /// Whether a probe would be over before anybody living waits.
    fn is_gap(&self, now: Duration) -> bool {
        self.living().all(|(_, job)| self.ready_at(job) >= now + self.probe_cost)
    }

    /// When something may have to be done.
    fn wake(&self, now: Duration) -> Duration {
        let times = self.jobs.iter().map(|job| match self.dead(job) {
            None => self.ready_at(job),
            Some(dead) => {
                let ready = dead.probe_at.max(self.held(job).unwrap_or(dead.probe_at));
                if ready <= now { self.budget_from } else { ready }
            }
        });
        // With nothing to do, a long sleep serves as well as any other.
        times.min().unwrap_or(now + PAUSE_MAX).max(now + Duration::from_millis(1))
    }

    fn ready_at(&self, job: &Job) -> Duration {
        self.held(job).map_or(job.due, |held| job.due.max(held))
    }

    fn held(&self, job: &Job) -> Option<Duration> {
        self.devices.get(job.device).and_then(|device| device.held)
    }

    fn dead(&self, job: &Job) -> Option<Dead> {
        self.devices.get(job.device).and_then(|device| device.dead)
    }
}

impl Job {
    /// Moves to the next period, or to the one that runs at `now`, and says how many were left out between.
    fn go_on(&mut self, now: Duration) -> u64 {
        let late = now.saturating_sub(self.due);
        let every = self.every.max(Duration::from_millis(1));
        let periods = u32::try_from(late.as_nanos() / every.as_nanos()).unwrap_or(u32::MAX);
        match every.checked_mul(periods.max(1)).and_then(|span| self.due.checked_add(span)) {
            Some(due) => self.due = due,
            None => self.due = now + every,
        }
        u64::from(periods.saturating_sub(1))
    }
}

impl Device {
    fn was_silent(&mut self, cost: Duration, now: Duration) {
        self.silent = (self.silent + 1).min(DEAD_AFTER);
        if self.silent < DEAD_AFTER {
            return;
        }
        let pause = self.dead.map_or(cost * 2, |dead| dead.pause);
        self.dead = Some(Dead { probe_at: now + pause, pause: (pause * 2).min(PAUSE_MAX) });
    }
}

/// Silent polls in a row that make a device dead.
const DEAD_AFTER: u32 = 3;

/// A dead device is probed at least this often, where the bus has time.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Probes that others wait for take one part of so many of the bus's time.
const BUDGET: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a bus for some seconds where an answer takes `answer` ms and silence 500 ms; returns how often
    /// each request was sent.
    fn run(jobs: &[(usize, u64)], dead: &[usize], answer: u64, seconds: u64) -> (Vec<u64>, Schedule) {
        let start = Duration::ZERO;
        let jobs: Vec<(usize, Duration)> =
            jobs.iter().map(|(device, every)| (*device, Duration::from_millis(*every))).collect();
        let mut schedule = Schedule::new(&jobs, Duration::from_millis(500), start);
        let (mut now, mut sent) = (start, vec![0; jobs.len()]);
        while now < start + Duration::from_secs(seconds) {
            match schedule.next(now) {
                Next::Wait(until) => {
                    assert!(until > now, "waiting takes time");
                    now = until;
                }
                Next::Send(job) => {
                    sent[job] += 1;
                    let begin = now;
                    let silent = dead.contains(&jobs[job].0);
                    now += Duration::from_millis(if silent { 500 } else { answer });
                    let outcome = if silent { Outcome::Silent } else { Outcome::Answered };
                    schedule.done(job, outcome, begin, now);
                }
            }
        }
        (sent, schedule)
    }

    #[test]
    fn each_request_goes_out_once_a_period() {
        let (sent, schedule) = run(&[(0, 1_000), (0, 250), (1, 10_000)], &[], 20, 60);
        assert_eq!(sent, [60, 240, 6]);
        assert_eq!(schedule.missed(), 0);
    }

    #[test]
    fn an_overloaded_bus_skips_and_counts_and_starves_nobody() {
        let (sent, schedule) = run(&[(0, 100), (0, 100), (1, 100), (1, 1_000)], &[], 50, 60);
        assert!(sent.iter().all(|count| *count >= 55), "{sent:?}");
        assert!(sent.iter().sum::<u64>() >= 1_195, "the bus is always busy: {sent:?}");
        let wished = 3 * 600 + 60;
        let done: u64 = sent.iter().sum();
        assert!(schedule.missed().abs_diff(wished - done) <= 8, "{} of {}", schedule.missed(), wished - done);
    }

    #[test]
    fn a_dead_device_does_not_stall_the_living() {
        let jobs = [(0, 100), (1, 100), (1, 100), (1, 1_000)];
        let (sent, schedule) = run(&jobs, &[1], 50, 300);
        assert_eq!(schedule.life(1), Life::Dead);
        let probes: u64 = sent[1..].iter().sum();
        assert!(sent[0] >= 3_000 * 96 / 100, "{sent:?}");
        assert!((8..=15).contains(&probes), "probed, within a fiftieth of the time: {sent:?}");
    }

    #[test]
    fn many_dead_devices_together_keep_the_budget() {
        let mut jobs = vec![(0, 100)];
        jobs.extend((1..30).map(|device| (device, 1_000)));
        let dead: Vec<usize> = (1..30).collect();
        let (sent, _) = run(&jobs, &dead, 50, 1_200);
        let stalled: u64 = sent[1..].iter().sum::<u64>() * 500;
        let dying = 29 * 3 * 500;
        assert!(stalled - dying <= 1_200_000 / 50 + 500, "{stalled} ms");
        assert!(sent[1..].iter().all(|count| *count >= 4), "each is probed: {sent:?}");
    }

    #[test]
    fn the_dead_are_probed_freely_where_nobody_waits() {
        let (sent, _) = run(&[(0, 1_000), (1, 1_000)], &[1], 20, 600);
        assert_eq!(sent[0], 600);
        assert!((10..=30).contains(&sent[1]), "{sent:?}");
    }

    #[test]
    fn a_device_lives_again_with_its_first_answer() {
        let start = Duration::ZERO;
        let second = Duration::from_secs(1);
        let mut schedule = Schedule::new(&[(0, second), (0, second)], second, start);
        for n in 0..3 {
            schedule.done(0, Outcome::Silent, start + second * n, start + second * (n + 1));
        }
        assert_eq!(schedule.life(0), Life::Dead);
        let now = start + second * 3;
        assert_eq!(schedule.next(now), Next::Wait(now + second * 2));
        schedule.done(1, Outcome::Answered, now, now);
        assert_eq!(schedule.life(0), Life::Alive);
        assert_eq!(schedule.next(now + second), Next::Send(0));
    }

    #[test]
    fn a_line_that_was_opened_anew_is_a_reason_to_probe() {
        let start = Duration::ZERO;
        let second = Duration::from_secs(1);
        let mut schedule = Schedule::new(&[(0, second)], second, start);
        for n in 0..6 {
            schedule.done(0, Outcome::Silent, start + second * n, start + second * (n + 1));
        }
        let now = start + second * 6;
        assert!(matches!(schedule.next(now), Next::Wait(until) if until > now + second));
        schedule.opened(now);
        assert_eq!(schedule.next(now), Next::Send(0));
    }

    #[test]
    fn a_device_that_is_held_is_not_asked_and_others_are() {
        let start = Duration::ZERO;
        let second = Duration::from_secs(1);
        let mut schedule = Schedule::new(&[(0, second), (1, second * 2)], second, start);
        schedule.hold(0, Some(start + second));
        assert_eq!(schedule.next(start), Next::Send(1));
        schedule.done(1, Outcome::Answered, start, start);
        assert_eq!(schedule.next(start), Next::Wait(start + second));
        schedule.hold(0, None);
        assert_eq!(schedule.next(start), Next::Send(0));
    }
}
