//! What an acknowledgement that means "kept" costs in time, beside mosquitto with a save per change.
//!
//! Messages of 100 bytes at QoS 1 for a session that is away; each is acknowledged once it is on disk.
//! Both programs run in turns, under the disk as it is and with syncs that take 20 ms, as an SD card's
//! do. Mosquitto saves its whole database for a change, and acknowledges without waiting for that.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidegate::codec::QoS;

use crate::process::{median, quantile};
use crate::publisher::{self, Task, Until};
use crate::stand::{Client, Disk, Gateway, HANG, Options, free_port, monotonic, proof};

const CARD: Duration = Duration::from_millis(20);

/// One run's figures.
struct Figures {
    a_second: f64,
    half: f64,
    most: f64,
    syncs: f64,
}

/// Every mix on both, medians of the rounds.
pub(crate) fn run(program: &Path) {
    let (rounds, span) = if proof() { (3, 3_000) } else { (1, 500) };
    println!("acknowledged QoS 1 messages a second, milliseconds to the acknowledgement, syncs a second");
    println!(
        "{:<34} {:>9} {:>7} {:>7} {:>6}   {:>9} {:>7} {:>7} {:>6}",
        "", "tidegate", "p50", "p99", "syncs", "mosquitto", "p50", "p99", "syncs"
    );
    for (disk, delay) in [("disk as it is", Duration::ZERO), ("20 ms a sync", CARD)] {
        for publishers in [1, 10, 100] {
            for window in [1, 20] {
                let task = Task { publishers, window, until: Until::Elapsed(Duration::from_millis(span)) };
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                for _ in 0..rounds {
                    ours.push(tidegate(program, delay, task));
                    theirs.push(mosquitto(delay, task));
                }
                let name = format!("{disk}, {publishers} with {window} under way");
                println!("{name:<34} {}   {}", line(&ours), line(&theirs));
            }
        }
    }
}

fn line(rounds: &[Figures]) -> String {
    let middle = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
    format!(
        "{:>9.0} {:>7.2} {:>7.2} {:>6.0}",
        middle(|run| run.a_second),
        middle(|run| run.half),
        middle(|run| run.most),
        middle(|run| run.syncs)
    )
}

fn tidegate(program: &Path, delay: Duration, task: Task) -> Figures {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::within(folder.path());
    let wrapper = disk.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let limits = "[limits]\nmax_queued_messages = 100000000\nmax_queued_bytes = \"10GB\"\n[store]\nflash_budget = \"none\"\n";
    let gateway = Gateway::start_under(program, folder.path(), limits, &wrapper);
    measure(gateway.port(), &disk, delay, task)
}

fn mosquitto(delay: Duration, task: Task) -> Figures {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::within(folder.path());
    let broker = Mosquitto::start(folder.path(), &disk);
    measure(broker.port, &disk, delay, task)
}

fn measure(port: u16, disk: &Disk, delay: Duration, task: Task) -> Figures {
    let mut absent = Client::connect(port, &Options::kept("absent"));
    absent.subscribe("durable/#", QoS::AtLeastOnce);
    absent.disconnect();
    disk.slow_down(delay);
    let before = disk.syncs();
    let seen = publisher::run(port, "durable", task);
    let took = seen.took.as_secs_f64();
    let syncs = disk.syncs() - before;
    // Whatever still waits for the disk need not wait long.
    disk.slow_down(Duration::ZERO);
    Figures {
        a_second: seen.acknowledged as f64 / took,
        half: median(seen.latencies.clone()),
        most: quantile(seen.latencies, 99),
        syncs: syncs as f64 / took,
    }
}

/// Debian's mosquitto, as durable as it can be made.
struct Mosquitto {
    child: Child,
    port: u16,
}

impl Mosquitto {
    fn start(folder: &Path, disk: &Disk) -> Mosquitto {
        let port = free_port();
        let configuration = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n\
             autosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\nmax_inflight_messages 100\n",
            folder.display()
        );
        let path = folder.join("mosquitto.conf");
        fs::write(&path, configuration).unwrap();
        let wrapper = disk.wrapper();
        let program =
            if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
        let child = Command::new(&wrapper[0])
            .args(&wrapper[1..])
            .arg(program)
            .arg("-c")
            .arg(path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed by tests/setup");
        let (mosquitto, start) = (Mosquitto { child, port }, monotonic());
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < HANG, "mosquitto does not start");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        mosquitto
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
