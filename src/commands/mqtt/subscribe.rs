//! `tidegate sub`: prints messages as they come.
//!
//! A message of QoS 1 or 2 is acknowledged after it was printed, so what was not seen comes again. Where
//! the connection is lost after it stood once, it is tried again, as a terminal left open for days needs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use adapter_api::clock::monotonic;
use anyhow::bail;
use clap::Args;

use super::super::{Failure, in_full};
use super::link::{Incoming, Link, in_words};
use super::options::ClientArgs;
use crate::codec::{
    Ack, Packet, Properties, Publish, QoS, Reason, RetainHandling, SubAck, Subscribe, Subscription,
    SubscriptionOptions,
};

/// `tidegate sub`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct SubArgs {
    /// Who connects where.
    #[command(flatten)]
    pub client: ClientArgs,
    /// A topic filter; may be given often
    #[arg(short = 't', long = "topic", value_name = "FILTER", required_unless_present = "url")]
    pub topics: Vec<String>,
    /// Print the topic before the payload
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// End after so many messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Fail after so many seconds
    #[arg(short = 'W', value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: Option<u64>,
    /// Print no retained messages of before
    #[arg(short = 'R', conflicts_with = "retained_only")]
    pub no_retained: bool,
    /// Print only retained messages of before, and end at the first other one
    #[arg(long)]
    pub retained_only: bool,
    /// Print no end of line behind a payload
    #[arg(short = 'N')]
    pub no_newline: bool,
    /// End when the broker has taken the subscriptions
    #[arg(short = 'E')]
    pub exit_at_once: bool,
}

impl SubArgs {
    /// Everything that is subscribed to.
    fn filters(&self) -> impl Iterator<Item = &str> {
        self.client.url_topic().into_iter().chain(self.topics.iter().map(String::as_str))
    }
}

/// Subscribes, and prints what comes.
pub fn subscribe(args: &SubArgs) -> Result<(), Failure> {
    args.client.connect()?;
    let deadline = args.timeout.map(|seconds| monotonic() + Duration::from_secs(seconds));
    let mut out = io::stdout().lock();
    let mut subscriber =
        Subscriber { args, out: &mut out, deadline, printed: 0, held: BTreeMap::new(), stands: false };
    match subscriber.run() {
        // As mosquitto_sub has it: the exit code is all that is told.
        Err(_) if args.client.quiet => Err(Failure::Silent),
        result => result.map_err(Failure::Failed),
    }
}

pub(super) struct Subscriber<'a> {
    pub(super) args: &'a SubArgs,
    pub(super) out: &'a mut dyn Write,
    pub(super) deadline: Option<Instant>,
    pub(super) printed: u64,
    /// Messages of QoS 2 that wait for their release.
    pub(super) held: BTreeMap<u16, Publish>,
    /// Whether the broker has taken the subscriptions of this connection.
    pub(super) stands: bool,
}

/// Why no more is read from one connection.
enum End {
    /// All is done.
    Done,
    /// The time is over.
    TimedOut,
    /// The connection is lost, or was refused.
    Lost(anyhow::Error),
    /// It makes no sense to try again.
    Hopeless(anyhow::Error),
}

impl Subscriber<'_> {
    pub(super) fn run(&mut self) -> anyhow::Result<()> {
        let mut pause = PAUSE_FIRST;
        let mut ever_stood = false;
        loop {
            self.stands = false;
            let end = self.session();
            ever_stood |= self.stands;
            match end {
                End::Done => return Ok(()),
                End::TimedOut => bail!("wait longer: {} messages came in time", self.printed),
                End::Hopeless(error) => return Err(error),
                // Who never came in has most likely typed something wrong.
                End::Lost(error) if !ever_stood => return Err(error),
                End::Lost(error) => {
                    if !self.args.client.quiet {
                        eprintln!("tidegate: cannot {}; trying again", in_full(&error));
                    }
                    pause = if self.stands { PAUSE_FIRST } else { (pause * 2).min(PAUSE_MAX) };
                    let left = self.deadline.map(|deadline| deadline.saturating_duration_since(monotonic()));
                    thread::sleep(left.map_or(pause, |left| left.min(pause)));
                }
            }
            if self.deadline.is_some_and(|deadline| deadline <= monotonic()) {
                bail!("wait longer: {} messages came in time", self.printed);
            }
        }
    }

    /// One connection from its beginning to its end.
    fn session(&mut self) -> End {
        let mut link = match self.enter() {
            Ok(link) => link,
            Err(error) => return End::Lost(error),
        };
        loop {
            let packet = match link.receive(self.deadline) {
                Ok(Some(Incoming::Packet(packet))) => packet,
                Ok(Some(_)) => continue,
                Ok(None) => return self.leave(link, End::TimedOut),
                Err(error) => return End::Lost(error),
            };
            match self.take(&mut link, packet) {
                Ok(true) => {}
                Ok(false) => return self.leave(link, End::Done),
                Err(end) => return end,
            }
        }
    }

    fn enter(&self) -> anyhow::Result<Link> {
        let connect = self.args.client.connect().map_err(|failure| anyhow::anyhow!("{failure}"))?;
        let (mut link, _) = Link::open(&self.args.client, connect)?;
        let options = SubscriptionOptions {
            qos: self.args.client.qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        let filters = self.args.filters().map(|filter| Subscription { filter: filter.into(), options });
        link.send(&Packet::Subscribe(Subscribe {
            packet_id: SUBSCRIBE_ID,
            properties: Properties::new(),
            filters: filters.collect(),
        }))?;
        Ok(link)
    }

    fn leave(&self, link: Link, end: End) -> End {
        // What was to be done is done; a broker that cannot be told makes no difference.
        let _ = link.close();
        end
    }

    /// Takes one packet; false when all is done.
    fn take(&mut self, link: &mut Link, packet: Packet) -> Result<bool, End> {
        let answer = |packet_id| Ack { packet_id, reason: Reason::Success, properties: Properties::new() };
        match packet {
            Packet::SubAck(ack) => self.take_suback(&ack),
            Packet::Publish(publish) => {
                let id = publish.packet_id;
                let reply = match publish.qos {
                    QoS::AtMostOnce => None,
                    QoS::AtLeastOnce => Some(Packet::PubAck(answer(id))),
                    QoS::ExactlyOnce => {
                        self.held.insert(id, publish.clone());
                        link.send(&Packet::PubRec(answer(id))).map_err(End::Lost)?;
                        return Ok(true);
                    }
                };
                let more = self.print(&publish)?;
                if let Some(reply) = reply {
                    link.send(&reply).map_err(End::Lost)?;
                }
                Ok(more)
            }
            Packet::PubRel(release) => {
                let more = match self.held.remove(&release.packet_id) {
                    Some(publish) => self.print(&publish)?,
                    None => true,
                };
                link.send(&Packet::PubComp(answer(release.packet_id))).map_err(End::Lost)?;
                Ok(more)
            }
            _ => Err(End::Hopeless(anyhow::anyhow!(
                "subscribe: the broker sent a packet that has no place here"
            ))),
        }
    }

    fn take_suback(&mut self, ack: &SubAck) -> Result<bool, End> {
        for (filter, reason) in self.args.filters().zip(&ack.reasons) {
            if reason.is_error() {
                return Err(End::Hopeless(anyhow::anyhow!("subscribe to {filter}: {}", in_words(*reason))));
            }
        }
        self.stands = true;
        Ok(!self.args.exit_at_once)
    }

    /// Prints a message; false when it was the last one that is wanted.
    fn print(&mut self, publish: &Publish) -> Result<bool, End> {
        if publish.retain && self.args.no_retained {
            return Ok(true);
        }
        // The retained ones come first.
        if !publish.retain && self.args.retained_only {
            return Ok(false);
        }
        match self.write(publish) {
            Ok(()) => {}
            // Who reads our output has enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) => return Err(End::Hopeless(anyhow::Error::new(error).context("print a message"))),
        }
        self.printed += 1;
        Ok(self.args.count != Some(self.printed))
    }

    fn write(&mut self, publish: &Publish) -> io::Result<()> {
        let out = &mut *self.out;
        if self.args.verbose {
            write!(out, "{} ", publish.topic)?;
        }
        out.write_all(&publish.payload)?;
        if !self.args.no_newline {
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}

const SUBSCRIBE_ID: u16 = 1;
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
