//! `tidegate pub`: publishes messages and waits until the broker has taken them.
//!
//! At most a window of messages is under way, so a broker that is slow slows the input and not the memory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use adapter_api::clock::monotonic;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;

use super::super::Failure;
use super::link::{Happening, Incoming, Link, in_words};
use super::options::ClientArgs;
use crate::codec::{Ack, Packet, Properties, Publish, QoS, Reason};

/// `tidegate pub`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
#[group(id = "source", required = true, multiple = false, args = ["message", "file", "lines", "null", "stdin"])]
pub struct PubArgs {
    /// Who connects where.
    #[command(flatten)]
    pub client: ClientArgs,
    /// The topic
    #[arg(short = 't', long, required_unless_present = "url", conflicts_with = "url")]
    pub topic: Option<String>,
    /// The message
    #[arg(short = 'm', long)]
    pub message: Option<OsString>,
    /// The message is what this file holds
    #[arg(short = 'f', long)]
    pub file: Option<PathBuf>,
    /// A message for each line of standard input
    #[arg(short = 'l', long = "stdin-line")]
    pub lines: bool,
    /// A message without payload; with -r it deletes the retained one
    #[arg(short = 'n', long = "null-message")]
    pub null: bool,
    /// The message is all of standard input
    #[arg(short = 's', long = "stdin-file")]
    pub stdin: bool,
    /// The broker retains the message
    #[arg(short = 'r', long)]
    pub retain: bool,
    /// Publish so often
    #[arg(long, default_value_t = 1, conflicts_with = "lines", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// Seconds between two of them
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds)]
    pub repeat_delay: f64,
}

impl PubArgs {
    fn topic(&self) -> &str {
        self.topic.as_deref().or(self.client.url_topic()).unwrap_or_default()
    }
}

/// Publishes.
pub fn publish(args: &PubArgs) -> Result<(), Failure> {
    let topic = args.topic();
    if topic.is_empty() || topic.contains(['+', '#', '\0']) {
        return Err(Failure::Usage(format!("found topic {topic:?}, expected one without + and #")));
    }
    let connect = args.client.connect()?;
    let once = payload(args).map_err(Failure::Failed)?;
    let publish = || -> anyhow::Result<()> {
        let (link, answer) = Link::open(&args.client, connect)?;
        let window = answer.properties.receive_maximum().unwrap_or(u16::MAX).min(WINDOW);
        let mut publisher = Publisher { link, args, window, last_id: 0, under_way: BTreeMap::new() };
        match once {
            Some(payload) => publisher.repeated(&payload)?,
            None => publisher.lines()?,
        }
        publisher.finish()
    };
    match publish() {
        // As mosquitto_pub has it: the exit code is all that is told.
        Err(_) if args.client.quiet => Err(Failure::Silent),
        result => result.map_err(Failure::Failed),
    }
}

/// The payload where there is just one; `None` for lines.
fn payload(args: &PubArgs) -> anyhow::Result<Option<Bytes>> {
    if let Some(message) = &args.message {
        return Ok(Some(message.clone().into_vec().into()));
    }
    if let Some(file) = &args.file {
        let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        return Ok(Some(bytes.into()));
    }
    if args.stdin {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("read standard input")?;
        return Ok(Some(bytes.into()));
    }
    Ok(args.null.then(Bytes::new))
}

struct Publisher<'a> {
    link: Link,
    args: &'a PubArgs,
    /// Messages that may be under way at once.
    window: u16,
    last_id: u16,
    under_way: BTreeMap<u16, Awaited>,
}

/// What a message under way waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// PUBACK.
    Ack,
    /// PUBREC.
    Rec,
    /// PUBCOMP.
    Comp,
}

impl Publisher<'_> {
    fn repeated(&mut self, payload: &Bytes) -> anyhow::Result<()> {
        for count in 0..self.args.repeat {
            if count > 0 && self.args.repeat_delay > 0.0 {
                let deadline = monotonic() + Duration::from_secs_f64(self.args.repeat_delay);
                while let Some(incoming) = self.link.receive(Some(deadline))? {
                    self.take(incoming)?;
                }
            }
            self.make_room()?;
            self.publish(payload.clone())?;
        }
        Ok(())
    }

    /// Publishes lines of standard input as they come, at most a window of them under way.
    fn lines(&mut self) -> anyhow::Result<()> {
        let asker = ask_for_lines(self.link.teller.clone());
        loop {
            self.make_room()?;
            // The thread ends with the input, and has said so before.
            let _ = asker.send(());
            loop {
                match self.link.receive(None)? {
                    Some(Incoming::Line(line)) => {
                        self.publish(line.into())?;
                        break;
                    }
                    Some(Incoming::InputEnd) => return Ok(()),
                    Some(incoming) => self.take(incoming)?,
                    None => {}
                }
            }
        }
    }

    fn publish(&mut self, payload: Bytes) -> anyhow::Result<()> {
        let qos = self.args.client.qos;
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { self.free_id() };
        match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => self.under_way.insert(packet_id, Awaited::Ack),
            QoS::ExactlyOnce => self.under_way.insert(packet_id, Awaited::Rec),
        };
        self.link.send(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain: self.args.retain,
            topic: self.args.topic().into(),
            packet_id,
            properties: Properties::new(),
            payload,
        }))
    }

    fn free_id(&mut self) -> u16 {
        // The window is smaller than the number of ids.
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.under_way.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    fn make_room(&mut self) -> anyhow::Result<()> {
        while self.under_way.len() >= usize::from(self.window) {
            if let Some(incoming) = self.link.receive(None)? {
                self.take(incoming)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, incoming: Incoming) -> anyhow::Result<()> {
        let Incoming::Packet(packet) = incoming else { return Ok(()) };
        match packet {
            Packet::PubAck(ack) => self.step(&ack, Awaited::Ack, None),
            Packet::PubRec(ack) => {
                self.step(&ack, Awaited::Rec, Some(Awaited::Comp))?;
                let (packet_id, properties) = (ack.packet_id, Properties::new());
                self.link.send(&Packet::PubRel(Ack { packet_id, reason: Reason::Success, properties }))
            }
            Packet::PubComp(ack) => self.step(&ack, Awaited::Comp, None),
            // A session that was kept may bring messages of its subscriptions; they are not ours to take.
            Packet::Publish(_) => Ok(()),
            _ => bail!("publish: the broker sent a packet that has no place here"),
        }
    }

    fn step(&mut self, ack: &Ack, awaited: Awaited, next: Option<Awaited>) -> anyhow::Result<()> {
        if ack.reason.is_error() {
            bail!("publish to {}: {}", self.args.topic(), in_words(ack.reason));
        }
        if self.under_way.get(&ack.packet_id) != Some(&awaited) {
            // An acknowledgement of an earlier life of this session.
            return Ok(());
        }
        match next {
            Some(next) => self.under_way.insert(ack.packet_id, next),
            None => self.under_way.remove(&ack.packet_id),
        };
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        while !self.under_way.is_empty() {
            if let Some(incoming) = self.link.receive(None)? {
                self.take(incoming)?;
            }
        }
        self.link.close()
    }
}

/// Reads one line of standard input for each word that it gets.
fn ask_for_lines(told: SyncSender<Happening>) -> SyncSender<()> {
    let (asker, asked) = sync_channel(1);
    thread::spawn(move || read_lines(&asked, &told));
    asker
}

fn read_lines(asked: &Receiver<()>, told: &SyncSender<Happening>) {
    while asked.recv().is_ok() {
        let mut line = Vec::new();
        let read = std::io::stdin().lock().read_until(b'\n', &mut line);
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let happening = match read {
            Ok(length) if length > 0 => Happening::Line(line),
            _ => Happening::InputEnd,
        };
        let last = matches!(happening, Happening::InputEnd);
        if told.send(happening).is_err() || last {
            return;
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|seconds| (0.0..=1e6).contains(seconds)).ok_or("expected seconds".to_owned())
}

/// Messages under way at once, where the broker asks for no less.
const WINDOW: u16 = 20;
