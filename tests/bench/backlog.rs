//! A long backlog: what it costs in memory, at the start, and while it drains.
//!
//! Messages of 100 bytes for a route whose cloud takes none. Then the gateway is stopped and started in
//! turns with one that has 10,000 queued, and of each 10,000 are drained. Before a start is timed the
//! kernel is made to forget the file; before a drain it has read it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tidegate::codec::{Connect, Packet, Properties, Version, encode};

use crate::process::{LEASH, median};
use crate::publisher::{self, Task};
use crate::stand::{Gateway, HANG, monotonic, proof};
use crate::upstream::{Drain, Upstream};

const PUBLISHERS: usize = 4;
/// What is drained of either backlog in one round; all that there is of the short one.
const SHORT: u64 = 10_000;
/// Resident memory above the empty gateway's.
const MEMORY_MAX_KB: u64 = 20_000;

/// Fills, starts, drains; panics where a bound is not kept.
pub(crate) fn run(program: &Path) {
    let (messages, rounds) = if proof() { (10_000_000, 15) } else { (100_000, 2) };
    let folder = tempfile::tempdir().unwrap();
    // The full one takes minutes to fill: it is kept until all bounds are seen to hold, so that a second run
    // goes on with it.
    let kept = if proof() { PathBuf::from("target/backlog") } else { folder.path().join("long") };
    fs::create_dir_all(&kept).unwrap();
    let mut long = Site::fill(program, &fs::canonicalize(&kept).unwrap(), messages);
    println!(
        "measured: {messages} queued: {} MB of files, {} KB resident above empty, {} KB at most",
        long.files() / 1_000_000,
        long.gateway.resident().saturating_sub(long.empty),
        long.gateway.most_resident().saturating_sub(long.empty),
    );
    assert!(long.gateway.resident() <= long.empty + MEMORY_MAX_KB, "memory grows with the backlog");

    let mut short = Site::fill(program, &folder.path().join("short"), 0);
    let (slow, fast) = (long.start_cold(), short.start_cold());
    println!("measured: start to the first CONNACK: {slow:?}, empty {fast:?}");
    assert!(!proof() || slow <= Duration::from_secs(1), "a start depends on the backlog");
    let resident = long.gateway.resident();
    println!("measured: {} KB resident above empty after a start", resident.saturating_sub(long.empty));
    assert!(resident <= long.empty + MEMORY_MAX_KB, "a start takes memory for the backlog");

    let (mut ratios, mut speeds) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        short.add(SHORT);
        let (short, long) = (short.drain(SHORT), long.drain(SHORT));
        ratios.push(long.cost / short.cost);
        speeds.push(long.a_second / short.a_second);
        println!(
            "measured: 10,000 drained of the backlog: {:.0} a second, {:.1} us of the processor each; of 10,000: {:.0} a second, {:.1} us",
            long.a_second, long.cost, short.a_second, short.cost
        );
    }
    let (cost, speed) = (median(ratios), median(speeds));
    println!(
        "measured: a drain of the backlog costs {cost:.3} times that of 10,000, at {speed:.3} times the speed"
    );
    assert!(!proof() || cost <= 1.1, "a drain costs more with the backlog");
    assert!(!proof() || speed >= 0.8, "a drain slows down with the backlog");
    long.drain_all(messages);
    drop(long);
    fs::remove_dir_all(kept).unwrap();
}

/// A gateway with its cloud.
struct Site {
    gateway: Gateway,
    upstream: Upstream,
    /// KB resident before the first message.
    empty: u64,
    added: u64,
    folder: PathBuf,
}

impl Site {
    fn fill(program: &Path, folder: &Path, messages: u64) -> Site {
        let upstream = Upstream::start();
        let configuration = format!(
            "[[listener]]\nname = \"door\"\nbind = \"unix:{}\"\n[store]\nmax_size = \"4GB\"\nmin_free_disk = \"0B\"\nflash_budget = \"none\"\n\
             [[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:{}\"]\n\
             [[bridge.forward]]\nfilter = \"sensors/#\"\nto = \"{{topic}}\"\nqos = 1\n",
            folder.join("door").display(),
            upstream.port,
        );
        let empty = empty(program, &configuration);
        let gateway = Gateway::start_under(program, folder, &configuration, &LEASH);
        let mut site = Site { gateway, upstream, empty, added: 0, folder: folder.into() };
        let filled = folder.join("filled");
        if !filled.exists() {
            site.add(messages);
            fs::write(filled, "").unwrap();
        }
        site
    }

    /// Publishes so many more.
    fn add(&mut self, messages: u64) {
        let each = messages / PUBLISHERS as u64;
        if each == 0 {
            return;
        }
        self.upstream.allow(0);
        self.added += 1;
        let task = Task { publishers: PUBLISHERS, window: 500, each };
        let took = publisher::run(self.gateway.port(), &format!("sensors/{}", self.added), task);
        println!("{messages} queued at {:.0} a second", messages as f64 / took.as_secs_f64());
        self.gateway.until("the backlog", |status| {
            status["routes"][0]["queued"].as_u64().is_some_and(|queued| queued >= messages)
        });
    }

    fn files(&self) -> u64 {
        ["tidegate.db", "tidegate.db-wal"].map(|name| self.file(name)).iter().sum()
    }

    fn file(&self, name: &str) -> u64 {
        fs::metadata(self.folder.join("data").join(name)).map_or(0, |file| file.len())
    }

    /// Stops it, has the kernel forget its files, and starts it: until a client is let in.
    fn start_cold(&mut self) -> Duration {
        assert!(self.gateway.stop().success());
        self.forget();
        let door = self.folder.join("door");
        let start = monotonic();
        let first = std::thread::spawn(move || first_connack(&door).duration_since(start));
        self.gateway.start_again();
        first.join().unwrap()
    }

    /// Has the kernel forget what it holds of the database.
    fn forget(&self) {
        let file = format!("if={}", self.folder.join("data/tidegate.db").display());
        let dd = Command::new("dd").args([&file, "iflag=nocache", "count=0", "status=none"]).status();
        assert!(dd.unwrap().success());
    }

    /// Starts it with a cloud that takes so many.
    fn drain(&mut self, messages: u64) -> Drain {
        assert!(self.gateway.stop().success());
        // The program is measured, not how much the kernel has kept of which file.
        let mut file = fs::File::open(self.folder.join("data/tidegate.db")).unwrap();
        std::io::copy(&mut file, &mut std::io::sink()).unwrap();
        // The waits between attempts grow while it is shut, so it must be open from the start.
        self.upstream.allow_once_watched(messages);
        self.gateway.start_again();
        self.upstream.watch(self.gateway.pid());
        self.upstream.wait()
    }

    /// All that is left: every message, in order, and none that is not accounted for.
    fn drain_all(&mut self, messages: u64) {
        assert!(self.gateway.stop().success());
        self.upstream.allow(u64::MAX);
        let start = monotonic();
        self.gateway.start_again();
        let queued = |status: &serde_json::Value| status["routes"][0]["queued"].as_u64().unwrap();
        let first = queued(&self.gateway.status());
        let mut left = first;
        while left > 0 {
            left = queued(&self.gateway.until("some of the backlog", |status| queued(status) < left));
        }
        let a_second = first as f64 / start.elapsed().as_secs_f64();
        let route = self.gateway.route("sensors");
        assert_eq!(route["received"], messages, "{route}");
        assert_eq!(route["delivered"], messages, "{route}");
        // None was missing on the way, so the last of each topic tells of all.
        assert_eq!(self.upstream.ends(), vec![messages / PUBLISHERS as u64; PUBLISHERS]);
        println!("measured: {messages} of {messages} drained in order, {a_second:.0} a second");
    }
}

/// KB resident of a gateway that has nothing queued.
fn empty(program: &Path, configuration: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start_under(program, folder.path(), configuration, &LEASH);
    // What a first start allocates once, and a later one does not, is not the backlog's.
    assert!(gateway.stop().success());
    gateway.start_again();
    gateway.resident()
}

/// When a client was let in.
fn first_connack(door: &Path) -> Instant {
    let connect = Connect {
        version: Version::V311,
        clean_start: true,
        keep_alive: 0,
        client_id: "first".into(),
        will: None,
        username: None,
        password: None,
        properties: Properties::new(),
    };
    let mut bytes = Vec::new();
    encode(&Packet::Connect(Box::new(connect)), Version::V311, &mut bytes).unwrap();
    let start = monotonic();
    loop {
        let asked = UnixStream::connect(door).and_then(|mut socket| {
            let mut answer = [0; 4];
            socket.write_all(&bytes)?;
            socket.read_exact(&mut answer)?;
            Ok(answer)
        });
        if asked.is_ok_and(|answer| answer == [0x20, 2, 0, 0]) {
            return monotonic();
        }
        assert!(start.elapsed() < HANG, "nobody is let in");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
