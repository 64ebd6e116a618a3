//! Killed hundreds of times under a steady load, and now and then while the disk is full.
//!
//! Publishers of two versions offer 2,000 messages a second together, for a route whose link opens and shuts and for
//! kept sessions that come and go. The gateway is killed with -9 at a random moment and started again, a tenth of
//! the times on a full disk. After every start the route's line adds up and agrees with what
//! publishers were told; at the end all that was acknowledged has arrived, in order, and nothing that was refused.

mod arrivals;
mod publisher;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::optimised;
use crate::stand::{
    Cloud, Dice, Disk, Gateway, Link, Proxy, Security, Volume, monotonic, proof, seed, wait_for,
};
use arrivals::{Arrivals, Collector, Session};
use publisher::{Pace, Publisher, TOPICS, Told};

/// What is killed how often.
struct Plan {
    cycles: usize,
    /// Of these, with the disk full.
    full: usize,
    /// The longest that something goes on within one life.
    span: Duration,
}

/// A disk, and what `[store]` says of it.
#[derive(Clone, Copy)]
struct Ground {
    megabytes: u64,
    /// Bytes that each message has more than its own.
    weight: u64,
    store: &'static str,
    /// With so many bytes free it is full, for the store.
    full: &'static [u64],
    promise: Promise,
}

/// What holds on a full disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// Who publishes is refused, and everything stays.
    AllStays,
    /// The oldest go, and are counted.
    AllIsCounted,
}

/// Full to the last byte.
const BARE: Ground = Ground {
    megabytes: 64,
    weight: 0,
    store: "min_free_disk = \"0B\"\nwhen_full = \"refuse\"\n",
    full: &[0],
    promise: Promise::AllStays,
};

/// Full some way before, as shipped.
const ROOMY: Ground = Ground {
    megabytes: 288,
    weight: 0,
    store: "when_full = \"refuse\"\n",
    full: &[0, 24_576 * 4_096],
    promise: Promise::AllStays,
};

/// Full to the last byte, of large messages, in a store that lets the oldest go.
const YIELDING: Ground = Ground {
    megabytes: 24,
    weight: 1_500,
    store: "min_free_disk = \"0B\"\nmax_size = \"12MB\"\n",
    full: &[0],
    promise: Promise::AllIsCounted,
};

#[test]
fn nothing_acknowledged_is_lost_over_kills_under_a_steady_load_and_on_a_full_disk() {
    let plan = match proof() {
        true => Plan { cycles: 250, full: 25, span: Duration::from_millis(1_000) },
        false => Plan { cycles: 10, full: 2, span: Duration::from_millis(300) },
    };
    pass(&plan, BARE, 7);
    pass(&plan, ROOMY, seed());
}

#[test]
fn what_gives_way_over_kills_on_a_full_disk_is_counted() {
    let plan = match proof() {
        true => Plan { cycles: 50, full: 25, span: Duration::from_millis(1_000) },
        false => Plan { cycles: 4, full: 2, span: Duration::from_millis(300) },
    };
    pass(&plan, YIELDING, seed());
}

fn pass(plan: &Plan, ground: Ground, seed: u64) {
    let mut world = World::new(ground, seed);
    for is_full in plan.shuffled(&mut world.dice) {
        world.cycle(plan, is_full);
    }
    world.come_to_rest();
    world.check();
    println!("measured: seed {seed}: {} kills, {} on a full disk; {world}", plan.cycles, plan.full);
}

/// Everybody, and the gateway between them.
struct World {
    gateway: Gateway,
    disk: Disk,
    volume: Volume,
    ground: Ground,
    uplink: Proxy,
    collector: Collector,
    publishers: Vec<Publisher>,
    sessions: Vec<Session>,
    dice: Dice,
    /// Where the disk is full, how many bytes are free.
    full: Option<u64>,
    /// Messages that waited for the cloud or for a session at the last start.
    waiting: u64,
    /// Ends of the link, each of which may repeat something.
    ends: u64,
    steady: Steady,
    /// What gave way.
    dropped: u64,
    _cloud: Cloud,
    _folder: tempfile::TempDir,
}

/// What was done in lives in which the disk was never full.
#[derive(Default)]
struct Steady {
    sent: u64,
    acknowledged: u64,
    time: Duration,
}

/// What publishers were told, all together.
struct Sum {
    sent: u64,
    acknowledged: u64,
    unanswered: u64,
}

/// What the gateway says of who wants messages.
struct Line {
    received: u64,
    delivered: u64,
    queued: u64,
    /// For whatever reason nobody gets them.
    ended: u64,
}

/// What happens in one life of the gateway, in this order.
struct Course {
    /// The disk is full, for so long; then it is not any more.
    relief: Option<Duration>,
    /// Nothing in particular.
    quiet: Duration,
    /// The link becomes so, or is cut.
    link: Option<Option<Link>>,
    /// The disk becomes full.
    fill: Option<Fill>,
    /// From there to the kill.
    rest: Duration,
    /// For how long each session is there.
    stays: Vec<Duration>,
}

/// How the disk becomes full.
#[derive(Clone, Copy)]
struct Fill {
    left: u64,
    /// Whether what the store gives up is taken as well.
    is_greedy: bool,
    /// Whether the store is waited for to have noticed it.
    is_noticed: bool,
}

/// Where the gateway is, for who comes back to it.
struct Door {
    port: AtomicU16,
    is_shut: AtomicBool,
}

/// A gateway that is killed at the end of its life, also where the test fails.
struct Doomed<'a> {
    gateway: &'a mut Gateway,
    door: &'a Door,
}

impl Plan {
    /// Which of the cycles are with the disk full.
    fn shuffled(&self, dice: &mut Dice) -> Vec<bool> {
        let mut cycles: Vec<bool> = (0..self.cycles).map(|cycle| cycle < self.full).collect();
        for place in (1..cycles.len()).rev() {
            cycles.swap(place, usize::try_from(dice.below(place as u64 + 1)).unwrap());
        }
        cycles
    }
}

impl World {
    fn new(ground: Ground, seed: u64) -> World {
        let folder = tempfile::tempdir().unwrap();
        let cloud = Cloud::start(folder.path(), &Security::Plain);
        let collector = Collector::start(cloud.inside);
        let uplink = Proxy::start(cloud.port, Link::Open);
        let disk = Disk::within(folder.path());
        let home = folder.path().join("gateway");
        let volume = Volume::mount(&home.join("data"), ground.megabytes);
        let wrapper: Vec<String> = volume.wrapper().into_iter().chain(disk.wrapper()).collect();
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let configuration = format!(
            "[limits]\nmax_queued_messages = 1000000\nmax_queued_bytes = \"500MB\"\n\
             [store]\n{}\
             [[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:{}\"]\nwindow = {WINDOW}\nkeepalive = \"5s\"\n\
             [[bridge.forward]]\nfilter = \"sensors/#\"\nto = \"sites/{{gateway}}/{{topic}}\"\nqos = 1\n",
            ground.store, uplink.port
        );
        let gateway = Gateway::start_under(optimised(), &home, &configuration, &wrapper);
        World {
            sessions: Session::all(gateway.port()),
            gateway,
            disk,
            volume,
            ground,
            uplink,
            collector,
            publishers: Publisher::all(ground.weight),
            dice: Dice::new(seed),
            full: None,
            waiting: 0,
            ends: 0,
            steady: Steady::default(),
            dropped: 0,
            _cloud: cloud,
            _folder: folder,
        }
    }

    /// A life, its end, and the start of the next.
    fn cycle(&mut self, plan: &Plan, is_full: bool) {
        let course = self.draw(plan, is_full);
        self.disk.slow_down(Duration::from_millis(self.dice.one(&[0, 0, 1, 3, 5])));
        let (before, began) = (self.sum(), monotonic());
        let pace = Pace::new();
        let ended = self.live(&course.stays, &|_| pace.grants(), |life| life.take(&course));
        if course.relief.is_none() && course.fill.is_none() {
            let after = self.sum();
            self.steady.sent += after.sent - before.sent;
            self.steady.acknowledged += after.acknowledged - before.acknowledged;
            self.steady.time += ended - began;
        }
        self.full = course.fill.map(|fill| fill.left);
        if let Some(left) = self.full {
            // However much the store gave up: it starts on a full disk.
            self.volume.fill(left);
            assert!(self.volume.free() <= left, "{} bytes are free", self.volume.free());
        }
        self.ends += 2;
        // What was left hanging in a silent link ends with its gateway.
        self.uplink.set(Link::Closed);
        self.uplink.set(self.dice.one(&[Link::Open, Link::Open, Link::Open, Link::Closed, Link::Silent]));
        self.gateway.start_again();
        self.assert_line();
        if self.waiting > BEHIND {
            self.uplink.set(Link::Closed);
            self.uplink.set(Link::Open);
        }
    }

    fn draw(&mut self, plan: &Plan, is_full: bool) -> Course {
        let dice = &mut self.dice;
        let within = |dice: &mut Dice, span: Duration| {
            Duration::from_micros(dice.below(u64::try_from(span.as_micros()).unwrap()))
        };
        let link = match dice.below(9) {
            0 => Some(Some(Link::Open)),
            1 => Some(Some(Link::Closed)),
            2 => Some(Some(Link::Silent)),
            3 => Some(None),
            _ => None,
        };
        let fill = Fill {
            left: dice.one(self.ground.full),
            is_greedy: dice.one(&[true, false]),
            // Where something gives way there is nothing to notice.
            is_noticed: dice.one(&[true, false]) && self.ground.promise == Promise::AllStays,
        };
        // Now and then two ends with the disk full all the time between.
        let is_relieved = self.full.is_some() && !(is_full && dice.one(&[true, false]));
        let (relief, quiet) = (within(dice, plan.span), plan.span / 2 + within(dice, plan.span));
        let quiet = if self.full.is_some() && !is_relieved { Duration::ZERO } else { quiet };
        let stays = self.sessions.iter().map(|_| match dice.below(4) {
            0 => Duration::ZERO,
            1 => within(dice, plan.span),
            _ => Duration::MAX,
        });
        let mut course = Course {
            relief: is_relieved.then_some(relief),
            link,
            fill: is_full.then_some(fill),
            stays: stays.collect(),
            rest: if is_full { within(dice, plan.span / 2) } else { Duration::ZERO },
            quiet,
        };
        if is_full && self.ground.promise == Promise::AllIsCounted {
            // Nobody takes anything, until something has to give way.
            course.link = Some(Some(Link::Closed));
            course.stays.fill(Duration::ZERO);
            course.rest += plan.span * 2;
        }
        if self.waiting > BEHIND {
            course.stays.fill(Duration::MAX);
            course.link = None;
        }
        course
    }

    /// Everybody comes, something happens, and the gateway is killed while they are at it. Says when.
    fn live(
        &mut self,
        stays: &[Duration],
        grants: &(impl Fn(usize) -> bool + Sync),
        act: impl FnOnce(&Life),
    ) -> Instant {
        let door = Door { port: AtomicU16::new(self.gateway.port()), is_shut: AtomicBool::new(false) };
        let told: Vec<Arc<Told>> = self.publishers.iter().map(|publisher| publisher.told.clone()).collect();
        let (publishers, sessions) = (&mut self.publishers, &self.sessions);
        let (door, collector) = (&door, &self.collector);
        thread::scope(|scope| {
            let doomed = Doomed { gateway: &mut self.gateway, door };
            for (place, publisher) in publishers.iter_mut().enumerate() {
                scope.spawn(move || publisher.live(door, || grants(place)));
            }
            for (session, stay) in sessions.iter().zip(stays) {
                scope.spawn(move || session.live(door, *stay));
            }
            let (gateway, volume, uplink) = (&*doomed.gateway, &self.volume, &self.uplink);
            act(&Life { gateway, door, volume, uplink, told: &told, sessions, collector });
            monotonic()
        })
    }

    /// What is under way arrives.
    fn come_to_rest(&mut self) {
        if self.full.take().is_some() {
            self.volume.empty();
        }
        self.uplink.set(Link::Closed);
        self.uplink.set(Link::Open);
        let (is_time, stays) = (AtomicBool::new(false), vec![Duration::MAX; self.sessions.len()]);
        let ends: Vec<u64> = self.publishers.iter().map(|publisher| publisher.told.sent() + TOPICS).collect();
        let told: Vec<Arc<Told>> = self.publishers.iter().map(|publisher| publisher.told.clone()).collect();
        let grants = |place: usize| is_time.load(Ordering::SeqCst) && told[place].sent() < ends[place];
        self.live(&stays, &grants, |life| {
            life.until("an answer to everything", || life.told.iter().all(|told| told.rests()));
            life.gateway.until("an empty queue and room", |status| {
                status["routes"][0]["queued"] == 0 && status["store"]["full"] == false
            });
            // What was published before on the same topic has come by then, or never will.
            is_time.store(true, Ordering::SeqCst);
            let is_last = |(told, end): (&Arc<Told>, &u64)| told.sent() == *end && told.rests();
            life.until("an answer to the last messages", || told.iter().zip(&ends).all(is_last));
            let last = |arrivals: &Arrivals| arrivals.has_last(&ends, TOPICS);
            life.until("the last messages in the cloud", || last(&life.collector.arrivals()));
            for session in life.sessions {
                life.until("the last messages at a session", || last(&session.arrivals()));
            }
            life.gateway.until("an empty queue", |status| status["routes"][0]["queued"] == 0);
        });
        self.ends += 1;
        self.gateway.start_again();
        self.assert_line();
    }

    fn check(&mut self) {
        let status = self.gateway.status();
        let (route, store) = (Line::of(&status["routes"][0]), &status["store"]);
        let sessions = Line::of(&store["sessions"]);
        self.collector.arrivals().assert_complete("the cloud", &self.publishers, route.ended);
        for session in &self.sessions {
            session.arrivals().assert_complete(session.name(), &self.publishers, sessions.ended);
        }
        let copies = self.collector.arrivals().copies;
        assert_eq!(route.queued, 0, "{status}");
        assert!(copies >= route.delivered, "{copies} copies came: {status}");
        let allowed = route.delivered + self.ends * (WINDOW + 1_000);
        assert!(copies <= allowed, "{copies} copies came, {allowed} are allowed: {status}");
        assert_eq!((&store["trouble"], &store["full"]), (&Value::Null, &Value::Bool(false)), "{status}");
        assert_eq!(store["put_aside"], 0, "{status}");
        self.dropped = route.ended;
        assert!(self.gateway.stop().success());
    }

    /// The lines add up, and say what publishers were told.
    fn assert_line(&mut self) {
        let (publishers, promise) = (&self.publishers, self.ground.promise);
        self.collector.arrivals().assert_in_order("the cloud", publishers, promise);
        for session in &self.sessions {
            session.arrivals().assert_in_order(session.name(), publishers, promise);
        }
        let status = self.gateway.status();
        let (route, sessions) = (Line::of(&status["routes"][0]), Line::of(&status["store"]["sessions"]));
        for line in [&route, &sessions] {
            let sum = line.delivered + line.queued + line.ended;
            assert_eq!(line.received, sum, "a line does not add up: {status}");
            let stays = self.ground.promise == Promise::AllStays;
            assert!(!stays || line.ended == 0, "something was dropped: {status}");
        }
        let each = self.sessions.len() as u64;
        assert_eq!(
            sessions.received,
            route.received * each,
            "every session wants what the route does: {status}"
        );
        let Sum { acknowledged, unanswered, .. } = self.sum();
        assert!(
            (acknowledged..=acknowledged + unanswered).contains(&route.received),
            "{acknowledged} acknowledged messages and {unanswered} unanswered ones, {} kept: {status}",
            route.received
        );
        self.waiting = route.queued.max(sessions.queued / each);
    }

    fn sum(&self) -> Sum {
        let sum = |count: fn(&Told) -> &AtomicU64| {
            self.publishers.iter().map(|publisher| count(&publisher.told).load(Ordering::SeqCst)).sum()
        };
        Sum {
            sent: sum(|told| &told.sent),
            acknowledged: sum(|told| &told.acknowledged),
            unanswered: sum(|told| &told.unanswered),
        }
    }
}

impl Line {
    fn of(counts: &Value) -> Line {
        let number = |name: &str| counts[name].as_u64().unwrap_or_else(|| panic!("{name} in {counts}"));
        let dropped = counts["dropped"].as_object().expect("counts by reason").values();
        let dropped: u64 = dropped.map(|count| count.as_u64().unwrap()).sum();
        Line {
            received: number("received"),
            delivered: number("delivered"),
            queued: number("queued"),
            ended: number("expired") + dropped,
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum { acknowledged, unanswered, .. } = self.sum();
        let Steady { sent, acknowledged: steady, time } = &self.steady;
        let rate = |count: &u64| u128::from(*count) * 1_000 / time.as_millis().max(1);
        let (rates, seconds, tenths) =
            ((rate(sent), rate(steady)), time.as_secs(), time.subsec_millis() / 100);
        let refused: usize = self.publishers.iter().map(|publisher| publisher.refused.len()).sum();
        let arrivals = self.collector.arrivals();
        write!(
            formatter,
            "{} messages/s sent and {} acknowledged over {seconds}.{tenths} s of lives without a full disk; {acknowledged} \
             acknowledged in all, {unanswered} unanswered at an end, {refused} refused, {} dropped, {} missing; {} arrived, {} copies",
            rates.0,
            rates.1,
            self.dropped,
            arrivals.missing(&self.publishers),
            arrivals.distinct(),
            arrivals.copies
        )
    }
}

/// What one sees of a life from the side.
struct Life<'a> {
    gateway: &'a Gateway,
    door: &'a Door,
    volume: &'a Volume,
    uplink: &'a Proxy,
    told: &'a [Arc<Told>],
    sessions: &'a [Session],
    collector: &'a Collector,
}

impl Life<'_> {
    fn take(&self, course: &Course) {
        if let Some(relief) = course.relief {
            self.pass(relief);
            self.volume.empty();
            let before: Vec<u64> = self.told.iter().map(|told| told.acknowledged()).collect();
            self.until("everybody to be acknowledged again", || {
                self.told.iter().zip(&before).all(|(told, before)| told.acknowledged() > *before)
            });
        }
        self.pass(course.quiet);
        match course.link {
            Some(Some(link)) => self.uplink.set(link),
            Some(None) => self.uplink.cut(),
            None => {}
        }
        if let Some(fill) = course.fill {
            self.fill(fill, course.rest);
        }
    }

    fn fill(&self, fill: Fill, rest: Duration) {
        self.volume.fill(fill.left);
        if fill.is_noticed {
            self.gateway.until("a store that notices the full disk", |status| {
                if fill.is_greedy {
                    self.volume.fill(fill.left);
                }
                status["store"]["full"] == true || !status["store"]["trouble"].is_null()
            });
        }
        let began = monotonic();
        while began.elapsed() < rest {
            if fill.is_greedy {
                self.volume.fill(fill.left);
            }
            self.pass(LOOK.min(rest));
        }
    }

    fn pass(&self, time: Duration) {
        let began = monotonic();
        while let Some(left) = time.checked_sub(began.elapsed()) {
            thread::park_timeout(left.min(LOOK));
        }
    }

    /// Waits for something, while the gateway's house may start anew and be elsewhere then.
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        wait_for(what, || {
            self.door.port.store(self.gateway.port_of("lan"), Ordering::SeqCst);
            is_so().then_some(())
        });
    }
}

impl Door {
    fn port(&self) -> u16 {
        self.port.load(Ordering::SeqCst)
    }

    fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::SeqCst)
    }
}

impl Drop for Doomed<'_> {
    fn drop(&mut self) {
        self.door.is_shut.store(true, Ordering::SeqCst);
        self.gateway.kill();
    }
}

/// Sent upward and not yet acknowledged.
const WINDOW: u64 = 100;

/// Beyond so many messages that wait everybody takes what he can.
const BEHIND: u64 = 20_000;

/// How often one looks what there is to do.
const LOOK: Duration = Duration::from_millis(10);
