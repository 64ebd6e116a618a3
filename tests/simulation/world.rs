//! Everything in one thread: the gateway's parts, its clients, upstream, the disk and the clock.
//!
//! The broker, the store down to SQLite, and the bridge are the real ones. What lies between them here is
//! what threads and queues are in the product: batches that come later than they were sent, in their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::books::{Books, Doubt, Order};
use super::cloud::{Cloud, Mood};
use super::course::{Course, Kind, Step};
use super::promises::Promises;
use crate::bridge;
use crate::broker::tests::client::{Client, Habits};
use crate::broker::tests::random::Random;
use crate::broker::{Broker, Config, ConnectionId, Event, LimitsConfig, Passwords, Route};
use crate::clock::TURNED;
use crate::record::machine::{Clock, Machine};
use crate::record::{Message, Now, ReaderId, Rows, Ticket};
use crate::store::{Ask, Gate, Handle, Progress, Scale, Stage, Stepped, Surroundings};

/// The world of one run.
pub(super) struct World {
    pub(super) course: Course,
    seed: u64,
    /// The dice of the step under way.
    pub(super) random: Random,
    pub(super) now: Now,
    pub(super) clients: Vec<Client>,
    pub(super) books: Books,
    pub(super) cloud: Cloud,
    pub(super) promises: Promises,
    folder: tempfile::TempDir,
    pub(super) outside: Arc<Outside>,
    pub(super) process: Option<Process>,
    /// The connection on which the bridge publishes, and its packet ids that are not answered.
    pub(super) port: ConnectionId,
    pub(super) commands: BTreeMap<u16, bridge::Arrived>,
    pub(super) last_command: u16,
    trace: Option<Vec<String>>,
    pub(super) tally: Tally,
}

/// What the parts of the gateway have in common, and what dies with it.
pub(super) struct Process {
    pub(super) broker: Broker,
    pub(super) store: Stepped,
    pub(super) handle: Handle,
    pub(super) bridge: bridge::Stepped,
    pub(super) routes: Vec<ReaderId>,
    /// What the store was asked and has not served.
    pub(super) asks: VecDeque<Ask>,
    /// Whose rows are being read.
    pub(super) reading: BTreeSet<ReaderId>,
    /// When it last waited after a failure.
    pub(super) failed_at: Option<u64>,
}

/// What the store's side of the world shares with its closures.
pub(super) struct Outside {
    machine: Mutex<Machine>,
    pub(super) tickets: Mutex<Vec<Ticket>>,
    pub(super) rows: Mutex<VecDeque<Rows>>,
    plan: Mutex<VecDeque<Plan>>,
}

impl Outside {
    fn new() -> Outside {
        let machine = Mutex::new(Machine::new(WALL, Clock::Set));
        Outside { machine, tickets: Mutex::default(), rows: Mutex::default(), plan: Mutex::default() }
    }

    /// Monotonic time goes on over restarts, so that the books can tell what waits.
    fn now(&self) -> Now {
        let machine = lock(&self.machine);
        Now { mono: machine.truth - WALL, ..machine.now() }
    }
}

/// What happens at the next sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    FailBefore(std::io::ErrorKind),
    FailAfter,
    CutBefore,
    CutAfter,
}

/// The power went in the middle of a commit.
pub(super) struct Darkness(pub(super) Doubt);

/// What a run has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) cuts: u64,
    pub(super) acknowledged: u64,
    pub(super) forwarded: u64,
    pub(super) repeats: u64,
    /// Rows that a full store gave away.
    pub(super) full: u64,
    /// Rows that ran out of time.
    pub(super) expired: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Tally) {
        self.cuts += other.cuts;
        self.acknowledged += other.acknowledged;
        self.forwarded += other.forwarded;
        self.repeats += other.repeats;
        self.full += other.full;
        self.expired += other.expired;
    }
}

impl World {
    pub(super) fn new(seed: u64, traced: bool) -> World {
        let mut random = Random(seed);
        let course = Course::of(&mut random);
        let clients = (0..CLIENTS).map(|slot| {
            let habits = Habits {
                topics: &["t/0", "t/1", "t/2", "s/0", "s/1", "r/0", "r/1"],
                also: [Some("r/+"), Some("w/+"), None][slot as usize % 3],
                will: slot % 2 == 0,
                expires: course.expires,
            };
            Client::new(slot, course.group_qos, &mut random).with(habits)
        });
        let clients = clients.collect();
        let mut world = World {
            course,
            seed,
            random: Random(0),
            now: Now::default(),
            clients,
            books: Books::default(),
            cloud: Cloud::default(),
            promises: Promises::default(),
            folder: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder"),
            outside: Arc::new(Outside::new()),
            process: None,
            port: ConnectionId { slot: CLIENTS, generation: 0 },
            commands: BTreeMap::new(),
            last_command: 0,
            trace: traced.then(Vec::new),
            tally: Tally::default(),
        };
        world.look_at_clocks();
        world.start(Doubt::None);
        world.open_port();
        world
    }

    pub(super) fn trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    pub(super) fn step(&mut self, step: Step) {
        self.note(|| format!("-- {step}"));
        self.random = Random(step.dice);
        bridge::RANDOM.set(Some(step.dice));
        let slot = self.random.below(CLIENTS as usize);
        match step.kind {
            Kind::Publish => self.publish(slot),
            Kind::Answer => self.answer(slot),
            Kind::Come => self.come(slot),
            Kind::Go => self.go(slot),
            Kind::Deaf => self.clients[slot].deaf = true,
            Kind::Store => {
                let some = self.random.below(8) + 1;
                self.serve(some);
            }
            Kind::Tell => self.tell(),
            Kind::Wait => self.wait(),
            Kind::Jump => self.jump(),
            Kind::Link => {
                let most = self.random.below(6);
                self.turn_link(most);
            }
            Kind::Pass => {
                let most = self.random.below(5) + 1;
                self.pass_on(most);
            }
            Kind::Cloud => {
                let most = self.random.below(4) + 1;
                self.answer_from_above(most, Mood::Any);
            }
            Kind::Reach => self.reach(),
            Kind::Break => self.break_uplink(),
            Kind::Forget if !self.process().bridge.is_connected() => self.cloud.forget(),
            Kind::Forget => {}
            Kind::Command => self.cloud.command(),
            Kind::Field => self.publish_commands(),
            Kind::Fail => self.plan_failure(),
            Kind::Cut => self.cut(),
            Kind::Close => self.close(),
        }
    }

    /// The reader of a route.
    pub(super) fn route(&self, route: usize) -> ReaderId {
        self.process.as_ref().expect("the gateway runs between two steps").routes[route]
    }

    pub(super) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the gateway runs between two steps")
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    /// Something was done to the machine's clocks.
    fn turn_clocks(&mut self, turn: impl FnOnce(&mut Machine)) {
        turn(&mut lock(&self.outside.machine));
        self.look_at_clocks();
    }

    fn look_at_clocks(&mut self) {
        self.now = self.outside.now();
        self.books.truth = lock(&self.outside.machine).truth;
        TURNED.set(Some(self.now));
    }

    pub(super) fn pass_time(&mut self, millis: u64) {
        self.turn_clocks(|machine| machine.pass(millis));
        if self.process().broker.deadline().is_some_and(|deadline| deadline <= self.now.mono) {
            self.handle(vec![Event::Tick]);
        }
    }

    fn wait(&mut self) {
        let millis = [1, 5, 20, 20, 300, 1_000][self.random.below(6)];
        self.pass_time(millis);
    }

    /// The wall clock goes anywhere, to 1970 too, or is set rightly.
    fn jump(&mut self) {
        let wall = match self.random.below(4) {
            0 => Some(self.random.below(1_000_000) as u64),
            1 => Some(self.now.wall.saturating_sub(self.random.below(86_400_000) as u64)),
            2 => Some(self.now.wall + self.random.below(3_600_000) as u64),
            _ => None,
        };
        self.turn_clocks(|machine| match wall {
            Some(wall) => machine.error = wall.cast_signed() - machine.truth.cast_signed(),
            None => machine.set_clock(),
        });
    }

    /// The machine is off for a while, and its clock may not go on meanwhile.
    fn switch_off(&mut self) {
        let off = [200, 200, 1_500, 60_000][self.random.below(4)];
        let clock = [Clock::Set, Clock::Set, Clock::Lost, Clock::Old][self.random.below(4)];
        self.note(|| format!("off for {off} ms, its clock is {clock:?}"));
        self.turn_clocks(|machine| machine.switch_off(off, clock));
    }

    fn start(&mut self, doubt: Doubt) {
        let outside = &self.outside;
        let surroundings = Surroundings {
            resume: Box::new({
                let outside = outside.clone();
                move |kept| {
                    lock(&outside.machine).start(kept);
                    TURNED.set(Some(outside.now()));
                }
            }),
            clock: Box::new({
                let outside = outside.clone();
                move || outside.now()
            }),
            on_commit: Box::new({
                let outside = outside.clone();
                move |ticket| lock(&outside.tickets).push(ticket)
            }),
            // Nobody refuses here: what is full drops its oldest.
            on_full: Box::new(|_| ()),
            progress: Progress::default(),
            gate: Some(gate(outside.clone())),
        };
        let scale = Scale {
            segment_rows: self.course.segment_rows,
            copy_below: 4,
            max_size: self.course.max_size,
            commit_messages: self.course.commit_messages,
        };
        let names = ["up".to_owned(), "two".to_owned()];
        let (mut store, handle, restored, routes) =
            Stepped::open(self.folder.path(), scale, &names, surroundings);
        self.look_at_clocks();
        let lines = store.lines();
        self.books.restart(&restored, &lines, doubt);
        let new: Vec<ReaderId> =
            routes.iter().copied().filter(|route| !self.books.disk.readers.contains_key(route)).collect();
        assert_eq!(store.waiting(), new.len(), "a start orders only what is new");
        for route in new {
            let order = Order::Route(route);
            self.books.on_end(&order);
            self.books.enter(order, self.now.mono);
        }
        let config = broker_config(&self.course, &routes);
        let mut broker = Broker::new(config, self.seed, restored, self.now);
        broker.tighten(4, self.course.most_uncommitted);
        let bridge = bridge::Stepped::new(&bridge_config(self.course.window), &routes, handle.clone());
        self.process = Some(Process {
            broker,
            store,
            handle,
            bridge,
            routes,
            asks: VecDeque::new(),
            reading: BTreeSet::new(),
            failed_at: None,
        });
    }

    /// The power goes.
    fn cut(&mut self) {
        match self.random.below(3) {
            0 => self.die(Doubt::None),
            1 => lock(&self.outside.plan).push_back(Plan::CutBefore),
            _ => lock(&self.outside.plan).push_back(Plan::CutAfter),
        }
    }

    pub(super) fn die(&mut self, doubt: Doubt) {
        self.note(|| format!("the power goes: {doubt:?}"));
        self.tally.cuts += 1;
        // A broker that is gone says nothing; what it had sent may have been lost on the way.
        self.process = None;
        lock(&self.outside.tickets).clear();
        lock(&self.outside.rows).clear();
        lock(&self.outside.plan).clear();
        self.cloud.lost();
        for client in &mut self.clients {
            client.go();
        }
        let before = std::mem::take(&mut self.books.view);
        self.switch_off();
        self.start(doubt);
        self.on_restart(&before);
        self.open_port();
    }

    /// The service stops in good order.
    fn close(&mut self) {
        lock(&self.outside.plan).clear();
        self.handle(vec![Event::Stop]);
        self.serve(usize::MAX);
        self.lose_uplink();
        self.gather();
        self.serve(usize::MAX);
        let Some(process) = self.process.take() else { return };
        let left = process.store.close();
        assert_eq!(left, 0, "a store that closes in good order commits everything");
        let pending = self.books.pending();
        self.books.commit(pending);
        self.tally.cuts += 1;
        self.process = None;
        lock(&self.outside.tickets).clear();
        lock(&self.outside.rows).clear();
        for client in &mut self.clients {
            client.go();
        }
        let before = std::mem::take(&mut self.books.view);
        self.turn_clocks(|machine| machine.pass(200));
        self.start(Doubt::None);
        self.on_restart(&before);
        self.open_port();
    }

    fn plan_failure(&mut self) {
        if !self.course.fails {
            return;
        }
        let plan = match self.random.below(4) {
            // A second one in a row would drop rows before the batch is carried out.
            0 => vec![Plan::FailBefore(std::io::ErrorKind::StorageFull)],
            1 => vec![Plan::FailAfter],
            more => vec![Plan::FailBefore(std::io::ErrorKind::Other); more * 2],
        };
        let mut planned = lock(&self.outside.plan);
        if planned.is_empty() {
            planned.extend(plan);
        }
    }

    pub(super) fn is_idle(&mut self) -> bool {
        let idle = self.books.pending() == 0
            && self.cloud.is_idle()
            && self.commands.is_empty()
            && lock(&self.outside.tickets).is_empty()
            && lock(&self.outside.rows).is_empty();
        let process = self.process();
        idle && process.asks.is_empty() && process.bridge.is_idle()
    }

    pub(super) fn settle_down(&mut self) {
        lock(&self.outside.plan).clear();
        self.course.fails = false;
    }
}

fn gate(outside: Arc<Outside>) -> Gate {
    Box::new(move |stage| {
        let mut plan = lock(&outside.plan);
        let planned = plan.front().copied();
        let due = match planned {
            Some(Plan::FailBefore(_) | Plan::CutBefore) => stage == Stage::BeforeSync,
            Some(Plan::FailAfter | Plan::CutAfter) => stage == Stage::AfterSync,
            None => false,
        };
        if !due {
            return Ok(());
        }
        plan.pop_front();
        drop(plan);
        match planned {
            Some(Plan::FailBefore(kind)) => Err(kind.into()),
            Some(Plan::CutBefore) => resume_unwind(Box::new(Darkness(Doubt::None))),
            Some(Plan::CutAfter) => resume_unwind(Box::new(Darkness(Doubt::Commit))),
            _ => Err(std::io::ErrorKind::Other.into()),
        }
    })
}

fn broker_config(course: &Course, routes: &[ReaderId]) -> Config {
    let mut limits = LimitsConfig::default().check().expect("the defaults are valid");
    limits.max_queued_messages = course.most_queued;
    limits.max_inflight = 8;
    let filters = ["t/#", "+/0"];
    let route = |(reader, filter): (&ReaderId, &str)| Route {
        reader: *reader,
        filter: filter.into(),
        store: true,
        name: filter.into(),
    };
    Config {
        limits,
        gateway: "sim".into(),
        routes: routes.iter().zip(filters).map(route).collect(),
        passwords: Passwords::Absent,
        rules: None,
        set_topics: Vec::new(),
        refusals: Default::default(),
    }
}

fn bridge_config(window: u16) -> bridge::Config {
    let forward = |filter: &str, to: &str| bridge::ForwardConfig {
        filter: filter.into(),
        to: to.into(),
        ..bridge::ForwardConfig::default()
    };
    bridge::Config {
        name: "cloud".into(),
        urls: vec!["mqtt://127.0.0.1:1".into()],
        window,
        forward: vec![forward("t/#", "up/{topic}"), forward("+/0", "two/{topic}")],
        receive: vec![bridge::ReceiveConfig { filter: "down/+".into(), to: "t/{1}".into(), qos: 1 }],
        ..bridge::Config::default()
    }
}

pub(super) fn payload_of(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many clients there are; the port's slot comes after them.
pub(super) const CLIENTS: u32 = 6;

/// The wall clock at the start, in milliseconds.
const WALL: u64 = 1_800_000_000_000;
