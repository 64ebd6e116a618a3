//! What local clients feel of a store in trouble: the time of a QoS 0 message from one to another.
//!
//! One message at a time, quiet and under a trouble in turns: a sync that takes 5 s, a backlog that
//! drains, a file that shrinks, a disk that is full. Meanwhile others publish what must be kept. The processors are
//! kept awake: one that sleeps takes ten times as long to wake as a message takes to pass.

use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tidegate::codec::{Packet, QoS};

use crate::process::{LEASH, median, quantile};
use crate::publisher::{self, Task, payload};
use crate::stand::{Client, Disk, Gateway, Options, monotonic, proof};
use crate::upstream::Upstream;

/// The field never feels it: p99 at most so many times its quiet value.
const RATIO_MAX: f64 = 2.0;
/// Whoever else uses the machine may make one of the two slower.
const TRIES: u32 = 3;
const STALL: Duration = Duration::from_secs(5);
const SPANS: u64 = 20;
const PUBLISHERS: u64 = 10;
const WINDOW: u64 = 20;

/// Every trouble; panics at the whole size where one is felt.
pub(crate) fn run(program: &Path) {
    let (rounds, exchanges) = if proof() { (5, 20_000) } else { (1, 2_000) };
    let _awake = proof().then(Awake::begin);
    for trouble in [Trouble::Stall, Trouble::Full, Trouble::Drain, Trouble::Reclaim] {
        let mut tries = 0..TRIES;
        let is_unfelt = tries.any(|_| {
            let (mut quiet, mut troubled) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                let mut scene = Scene::new(program, trouble);
                quiet.extend(scene.exchange(exchanges));
                troubled.extend(scene.trouble(trouble, exchanges));
            }
            let (quiet, troubled) = (median(quiet), median(troubled));
            let ratio = troubled / quiet;
            println!(
                "measured: {trouble:?}: local p99 {troubled:.3} ms, quiet {quiet:.3} ms: {ratio:.2} times that"
            );
            !proof() || ratio <= RATIO_MAX
        });
        assert!(is_unfelt, "the field feels it");
    }
}

/// What goes on meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// A sync takes 5 s, and publishers wait for it.
    Stall,
    /// The disk is full, and publishers wait for room.
    Full,
    /// A backlog goes upstream.
    Drain,
    /// The file has many unused pages, and gives them back.
    Reclaim,
}

/// Keeps every processor busy with what gives way to anything else.
struct Awake(Vec<Child>);

impl Awake {
    fn begin() -> Awake {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let idle = ["chrt", "--idle", "0", "sh", "-c", "while :; do :; done"];
        let words: Vec<&str> = LEASH.into_iter().chain(idle).collect();
        let spin = |_| Command::new(words[0]).args(&words[1..]).spawn().expect("chrt of util-linux");
        Awake((0..processors).map(spin).collect())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().and_then(|()| child.wait()).expect("it is there");
        }
    }
}

struct Scene {
    gateway: Gateway,
    upstream: Upstream,
    disk: Disk,
    from: Client,
    to: Client,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new(program: &Path, trouble: Trouble) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let (disk, upstream) = (Disk::within(folder.path()), Upstream::start());
        let wrapper = disk.wrapper();
        let wrapper: Vec<&str> = LEASH.into_iter().chain(wrapper.iter().map(String::as_str)).collect();
        let configuration = format!(
            "[store]\nmin_free_disk = \"0B\"\n[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:{}\"]\n\
             [[bridge.forward]]\nfilter = \"sensors/#\"\nto = \"{{topic}}\"\nqos = 1\n",
            upstream.port
        );
        let mut gateway = Gateway::start_under(program, folder.path(), &configuration, &wrapper);
        if matches!(trouble, Trouble::Drain | Trouble::Reclaim) {
            let each = if proof() { 50_000 } else { 10_000 };
            let task = Task { publishers: 4, window: 500, each };
            publisher::run(gateway.port(), "sensors", task);
            gateway.until("the backlog", |status| status["routes"][0]["queued"] == 4 * each);
            assert!(gateway.stop().success());
            gateway.start_again();
        }
        let mut to = Client::connect(gateway.port(), &Options::new("to"));
        to.subscribe("local", QoS::AtMostOnce);
        let from = Client::connect(gateway.port(), &Options::new("from"));
        Scene { gateway, upstream, disk, from, to, _folder: folder }
    }

    /// So many messages from one to the other, in spans: in each, 99 of a hundred took at most so many
    /// milliseconds.
    fn exchange(&mut self, count: u64) -> Vec<f64> {
        let mut spans = Vec::new();
        for _ in 0..SPANS {
            spans.push(quantile((0..count / SPANS).map(|number| self.one(number)).collect(), 99));
        }
        spans
    }

    fn one(&mut self, number: u64) -> f64 {
        let start = monotonic();
        self.from.publish("local", payload(number), QoS::AtMostOnce);
        let Some(Packet::Publish(publish)) = self.to.next() else { panic!("a message") };
        assert_eq!(publisher::number(&publish.payload), number);
        start.elapsed().as_secs_f64() * 1e3
    }

    /// The same under a trouble.
    fn trouble(&mut self, trouble: Trouble, count: u64) -> Vec<f64> {
        match trouble {
            Trouble::Stall => {
                self.disk.slow_down(STALL);
                let figures = self.beside_publishers(count);
                self.disk.slow_down(Duration::ZERO);
                figures
            }
            Trouble::Full => {
                self.disk.fill();
                let figures = self.beside_publishers(count);
                self.disk.empty();
                figures
            }
            Trouble::Drain => {
                self.upstream.allow(u64::MAX);
                self.gateway.until("the drain", |status| status["routes"][0]["delivered"] != 0);
                let figures = self.exchange(count);
                let queued = self.gateway.route("sensors")["queued"].as_u64().unwrap();
                assert!(queued > 0 || !proof(), "it has drained before the end");
                figures
            }
            Trouble::Reclaim => {
                self.upstream.allow(u64::MAX);
                self.gateway.until("an empty queue", |status| status["routes"][0]["queued"] == 0);
                self.exchange(count)
            }
        }
    }

    /// While publishers of what must be kept wait for the disk.
    fn beside_publishers(&mut self, count: u64) -> Vec<f64> {
        let (port, ends) = (self.gateway.port(), AtomicBool::new(false));
        thread::scope(|scope| {
            for number in 0..PUBLISHERS {
                let ends = &ends;
                scope.spawn(move || wait_for_the_disk(port, number, ends));
            }
            // What they do until they wait is no trouble, but traffic.
            self.gateway.until("publishers that wait", |status| {
                status["broker"]["uncommitted"].as_u64().is_some_and(|waiting| waiting >= PUBLISHERS * WINDOW)
            });
            let figures = self.exchange(count);
            ends.store(true, Ordering::SeqCst);
            figures
        })
    }
}

/// Keeps its window full until it is told to end.
fn wait_for_the_disk(port: u16, number: u64, ends: &AtomicBool) {
    let mut client = Client::connect(port, &Options::new(&format!("kept-{number}")));
    let topic = format!("sensors/{number}");
    let mut under_way = 0;
    while !ends.load(Ordering::SeqCst) {
        while under_way < WINDOW {
            client.publish(&topic, payload(0), QoS::AtLeastOnce);
            under_way += 1;
        }
        if let Ok(Some(Packet::PubAck(_))) = client.next_within(Duration::from_millis(100)) {
            under_way -= 1;
        }
    }
}
