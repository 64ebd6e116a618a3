//! The brokers that are measured, each started afresh and arranged for one load.
//!
//! tidegate runs as shipped, save for what the load cannot do without. Mosquitto is told the same, and to
//! hold nothing back.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::floor;
use super::patience::{STALL, STALL_OF_SAVERS};
use super::rows::{Load, Part, Row, Shape};
use super::wire::{Dial, Wire};
use crate::process::LEASH;
use crate::stand::{Certificates, Disk, Gateway, HANG, free_port, monotonic};

/// Who is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Debian's.
    Mosquitto,
    /// The same, saving its database after every change: as durable as it can be made.
    MosquittoSaving,
    Tidegate(PathBuf),
    /// What moving the bytes costs, see `floor`.
    Floor,
    /// Any other program that takes a port, in place of `{port}` or at the end.
    Beside(String, String),
}

/// A running broker.
pub(crate) struct Broker {
    pub(crate) port: u16,
    pub(crate) pid: u32,
    pub(crate) dial: Dial,
    /// How long it may say nothing.
    pub(crate) stall: Duration,
    /// A hand on its disk, where syncs are counted.
    pub(crate) disk: Option<Disk>,
    /// `None` in a test that is the broker itself.
    pub(crate) _process: Option<Process>,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It does not know how.
    Unable,
    Failed(String),
}

/// Ends with its handle.
pub(crate) enum Process {
    Gateway(Gateway),
    Other(Child),
}

/// Where brokers run, and what they show to clients.
pub(crate) struct Ground {
    folder: PathBuf,
    authority: PathBuf,
    certificate: (PathBuf, PathBuf),
}

impl Ground {
    /// In this folder, on the disk that is to be measured.
    pub(crate) fn new(folder: &Path) -> Ground {
        let certificates = Certificates::new(folder, "authority");
        let certificate = certificates.server("localhost");
        Ground { folder: folder.to_path_buf(), authority: certificates.ca(), certificate }
    }

    /// The last that the broker has said.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("broker/log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn dial(&self, part: Part) -> Dial {
        match part {
            Part::Tls => Dial::tls(&self.authority),
            Part::WebSocket => Dial::WebSocket,
            _ => Dial::Plain,
        }
    }
}

impl Contender {
    pub(crate) fn name(&self) -> &str {
        match self {
            Contender::Mosquitto => "mosquitto",
            Contender::MosquittoSaving => "mosquitto, saving",
            Contender::Tidegate(_) => "tidegate",
            Contender::Floor => "floor",
            Contender::Beside(name, _) => name,
        }
    }

    /// Whether its figures belong into this row.
    pub(crate) fn takes_part(&self, row: &Row) -> bool {
        match self {
            Contender::MosquittoSaving => row.part == Part::Acknowledged,
            Contender::Floor => matches!(row.part, Part::Tcp | Part::Latency) && floor::can(row.load),
            _ => true,
        }
    }

    fn stall(&self) -> Duration {
        if *self == Contender::MosquittoSaving { STALL_OF_SAVERS } else { STALL }
    }

    /// Starts it for this row, with nothing in its store.
    pub(crate) fn start(&self, row: &Row, ground: &Ground) -> Result<Broker, Missing> {
        let folder = ground.folder.join("broker");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let disk = matches!(row.load, Load::Acknowledged { .. }).then(|| Disk::within(&folder));
        let wrapper: Vec<String> = disk.iter().flat_map(Disk::wrapper).collect();
        let wrapper: Vec<&str> = LEASH.into_iter().chain(wrapper.iter().map(String::as_str)).collect();
        let (port, process) = match self {
            Contender::Tidegate(program) => {
                let configuration = tidegate(row, ground);
                let wrapper = [&wrapper[..], &WATCHED].concat();
                let gateway = Gateway::start_under(program, &folder, &configuration, &wrapper);
                let port = match row.part {
                    Part::Tls | Part::WebSocket => gateway.port_of("bench"),
                    _ => gateway.port(),
                };
                (port, Process::Gateway(gateway))
            }
            Contender::Mosquitto | Contender::MosquittoSaving => {
                let port = free_port();
                let file = folder.join("mosquitto.conf");
                fs::write(&file, mosquitto(self, row, ground, port)).unwrap();
                let program = "/usr/sbin/mosquitto";
                let program = if Path::new(program).exists() { program } else { "mosquitto" };
                let words = [program, "-c", file.to_str().unwrap()];
                let process = spawn(&[&wrapper[..], &words].concat(), &folder, port);
                // Debian builds some of its versions without WebSocket, which end at their start or just after.
                if row.part == Part::WebSocket
                    && (process.is_err() || Wire::connect(&Dial::WebSocket, port).is_err())
                {
                    return Err(Missing::Unable);
                }
                let process = process?;
                (port, process)
            }
            Contender::Floor => {
                let (port, program) = (free_port(), std::env::current_exe().unwrap());
                let port_word = port.to_string();
                let words = [program.to_str().unwrap(), floor::NAME, &port_word];
                (port, spawn(&[&wrapper[..], &words].concat(), &folder, port)?)
            }
            Contender::Beside(..) if matches!(row.part, Part::Tls | Part::WebSocket) => {
                return Err(Missing::Unable);
            }
            Contender::Beside(_, command) => {
                let port = free_port();
                let given = command.replace("{port}", &port.to_string());
                let command = if given == *command { format!("{command} {port}") } else { given };
                let words: Vec<&str> = wrapper.iter().copied().chain(command.split_whitespace()).collect();
                let process = spawn(&words, &folder, port)?;
                (port, process)
            }
        };
        let pid = process.pid();
        let (dial, stall) = (ground.dial(row.part), self.stall());
        Ok(Broker { port, pid, dial, stall, disk, _process: Some(process) })
    }
}

const LOG_LINES: usize = 5;
/// As systemd starts it, whose watchdog wants to hear of it (`systemd/tidegate.service`).
const WATCHED: [&str; 2] = ["env", "WATCHDOG_USEC=30000000"];

fn spawn(words: &[&str], folder: &Path, port: u16) -> Result<Process, Missing> {
    let log = folder.join("log");
    let output = fs::File::create(&log).unwrap();
    let child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let (process, start) = (Process::Other(child), monotonic());
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if has_ended(process.pid()) || start.elapsed() > HANG {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(Missing::Failed(format!("it does not start: {}", said.trim())));
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(process)
}

impl Broker {
    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        has_ended(self.pid)
    }
}

fn has_ended(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.is_empty() || state.contains(") Z ")
}

impl Process {
    fn pid(&self) -> u32 {
        match self {
            Process::Gateway(gateway) => gateway.pid(),
            Process::Other(child) => child.id(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Process::Other(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What stands behind the stand's own listener.
fn tidegate(row: &Row, ground: &Ground) -> String {
    let (certificate, key) = &ground.certificate;
    let mut text = String::new();
    match row.part {
        Part::Tls => {
            let _ = writeln!(
                text,
                "[[listener]]\nname = \"bench\"\nbind = \"127.0.0.1:0\"\ntls = {{ cert = {certificate:?}, key = {key:?} }}"
            );
        }
        Part::WebSocket => {
            text.push_str("[[listener]]\nname = \"bench\"\nbind = \"127.0.0.1:0\"\nprotocol = \"ws\"\n");
        }
        Part::Durable | Part::Acknowledged => {
            let _ = writeln!(
                text,
                "[limits]\nmax_queued_messages = {MAX_QUEUED_MESSAGES}\nmax_queued_bytes = \"512MB\""
            );
        }
        _ => {}
    }
    if matches!(row.load, Load::Stream(Shape::Filters(FILTERS_OF_DEFAULT_MEMORY..), _)) {
        let _ = writeln!(text, "[limits]\nmax_memory = \"{MEMORY_FOR_FILTERS}\"");
    }
    text
}

/// What tidegate keeps for a session that is away.
pub(crate) const MAX_QUEUED_MESSAGES: u64 = 1_000_000;
/// The limit of all memory refuses further ones somewhere above.
const FILTERS_OF_DEFAULT_MEMORY: usize = 50_000;
/// What it is where they are more.
pub(crate) const MEMORY_FOR_FILTERS: &str = "256MB";

fn mosquitto(contender: &Contender, row: &Row, ground: &Ground, port: u16) -> String {
    let (certificate, key) = (ground.certificate.0.display(), ground.certificate.1.display());
    // Started as root it would become a user that may not read the keys.
    let mut text = format!("user root\nlog_dest stdout\nlog_type error\nlistener {port} 127.0.0.1\n");
    match row.part {
        Part::Tls => _ = writeln!(text, "certfile {certificate}\nkeyfile {key}"),
        Part::WebSocket => text.push_str("protocol websockets\n"),
        _ => {}
    }
    text.push_str("allow_anonymous true\n");
    text.push_str(match row.load {
        Load::Stream(..) => "max_queued_messages 0\nmax_inflight_messages 0\npersistence false\n",
        Load::Latency => "set_tcp_nodelay true\npersistence false\n",
        Load::Durable => "max_queued_messages 0\npersistence true\n",
        Load::Acknowledged { .. } => "max_queued_messages 0\npersistence true\nset_tcp_nodelay true\n",
        Load::Idle | Load::Clients => "persistence false\n",
    });
    if matches!(row.load, Load::Durable | Load::Acknowledged { .. }) {
        let _ = writeln!(text, "persistence_location {}/", ground.folder.join("broker").display());
    }
    if *contender == Contender::MosquittoSaving {
        text.push_str("autosave_interval 1\nautosave_on_changes true\n");
    }
    text
}
