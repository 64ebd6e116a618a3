//! One connection of `pub` or `sub` to a broker.
//!
//! Knows CONNECT, pings and the end; what passes in between is the command's. A thread reads the socket
//! into a bounded queue, so the broker waits when the command does.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use adapter_api::clock::monotonic;
use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;

use super::options::ClientArgs;
use super::stream::Stream;
use crate::codec::{
    ConnAck, Connect, Decoder, Disconnect, Packet, Properties, Reason, Side, Version, encode,
};

/// What comes in.
pub(super) enum Happening {
    /// Bytes of the broker.
    Bytes(Bytes),
    /// The broker's end of the connection, with the error where there was one.
    Hangup(Option<io::Error>),
    /// A line of standard input, without its end.
    Line(Vec<u8>),
    /// Standard input has ended.
    InputEnd,
}

/// What a command sees.
pub(super) enum Incoming {
    /// A packet.
    Packet(Packet),
    /// A line of standard input.
    Line(Vec<u8>),
    /// Standard input has ended.
    InputEnd,
}

/// A connection whose CONNACK has come.
pub(super) struct Link {
    stream: Stream,
    happenings: Receiver<Happening>,
    /// For another thread that has something to tell.
    pub(super) teller: SyncSender<Happening>,
    decoder: Decoder,
    version: Version,
    debug: bool,
    /// Zero where no pings are wished.
    keepalive: Duration,
    last_sent: Instant,
    ping_sent: Option<Instant>,
}

impl Link {
    /// Connects and waits for CONNACK.
    pub(super) fn open(args: &ClientArgs, connect: Connect) -> anyhow::Result<(Link, ConnAck)> {
        let (stream, place) = Stream::open(args)?;
        let (teller, happenings) = sync_channel(QUEUE);
        let reader = stream.try_clone().context("read from the broker")?;
        let told = teller.clone();
        // It ends with the connection, or when nobody listens any more.
        thread::spawn(move || read(reader, &told));
        let mut decoder = Decoder::new(Side::Client, PACKET_MAX);
        decoder.set_version(connect.version);
        let now = monotonic();
        let keepalive = Duration::from_secs(connect.keep_alive.into());
        let version = connect.version;
        let mut link = Link {
            stream,
            happenings,
            teller,
            decoder,
            version,
            debug: args.debug,
            keepalive,
            last_sent: now,
            ping_sent: None,
        };
        link.send(&Packet::Connect(Box::new(connect)))?;
        let answer =
            link.receive(Some(now + CONNACK_TIMEOUT)).with_context(|| format!("connect to {place}"))?;
        match answer {
            Some(Incoming::Packet(Packet::ConnAck(answer))) if !answer.reason.is_error() => {
                if let Some(seconds) = answer.properties.server_keep_alive() {
                    link.keepalive = Duration::from_secs(seconds.into());
                }
                Ok((link, answer))
            }
            Some(Incoming::Packet(Packet::ConnAck(answer))) => {
                bail!("connect to {place}: {}", in_words(answer.reason))
            }
            Some(_) => bail!("connect to {place}: the answer to CONNECT is another packet"),
            None => bail!("connect to {place}: no answer to CONNECT"),
        }
    }

    /// Sends a packet.
    pub(super) fn send(&mut self, packet: &Packet) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes).map_err(|error| anyhow!("send: {error}"))?;
        if self.debug {
            eprintln!("-> {}", name(packet));
        }
        self.stream.write_all(&bytes).context("send to the broker")?;
        self.last_sent = monotonic();
        Ok(())
    }

    /// What comes next; `None` at the deadline. Sends pings meanwhile.
    pub(super) fn receive(&mut self, deadline: Option<Instant>) -> anyhow::Result<Option<Incoming>> {
        loop {
            if let Some(packet) =
                self.decoder.decode().map_err(|error| anyhow!("read from the broker: {error}"))?
            {
                if self.debug {
                    eprintln!("<- {}", name(&packet));
                }
                match packet {
                    Packet::PingResp => self.ping_sent = None,
                    Packet::Disconnect(end) => {
                        bail!("go on: the broker ends the connection: {}", in_words(end.reason))
                    }
                    packet => return Ok(Some(Incoming::Packet(packet))),
                }
                continue;
            }
            let now = monotonic();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(None);
            }
            let due = self.ping_due(now)?;
            let until = [deadline, due].into_iter().flatten().min();
            let wait = until.map_or(LONG, |until| until.saturating_duration_since(now));
            match self.happenings.recv_timeout(wait) {
                Ok(Happening::Bytes(bytes)) => self.decoder.feed(bytes),
                Ok(Happening::Line(line)) => return Ok(Some(Incoming::Line(line))),
                Ok(Happening::InputEnd) => return Ok(Some(Incoming::InputEnd)),
                Ok(Happening::Hangup(Some(error))) => return Err(error).context("read from the broker"),
                Ok(Happening::Hangup(None)) => bail!("go on: the broker has closed the connection"),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("go on: the connection is gone"),
            }
        }
    }

    /// Sends a ping where one is due and says when the next thing is.
    fn ping_due(&mut self, now: Instant) -> anyhow::Result<Option<Instant>> {
        if self.keepalive.is_zero() {
            return Ok(None);
        }
        if let Some(sent) = self.ping_sent {
            let limit = sent + self.keepalive;
            anyhow::ensure!(now < limit, "go on: the broker does not answer pings");
            return Ok(Some(limit));
        }
        // Half of it, so that a slow link does not make the broker impatient.
        let due = self.last_sent + self.keepalive / 2;
        if now < due {
            return Ok(Some(due));
        }
        self.send(&Packet::PingReq)?;
        self.ping_sent = Some(now);
        Ok(Some(now + self.keepalive))
    }

    /// Says goodbye and waits until the broker has taken all of it.
    pub(super) fn close(mut self) -> anyhow::Result<()> {
        self.send(&Packet::Disconnect(Disconnect {
            reason: Reason::Success,
            properties: Properties::new(),
        }))?;
        self.stream.shutdown_write();
        // A socket that is closed with bytes unread may take back what was sent.
        let deadline = monotonic() + GOODBYE;
        while let Some(wait) = deadline.checked_duration_since(monotonic()) {
            match self.happenings.recv_timeout(wait) {
                Ok(Happening::Hangup(_)) | Err(_) => break,
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Wakes the reading thread, which then ends.
        self.stream.shutdown();
    }
}

fn read(mut stream: Stream, told: &SyncSender<Happening>) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let happening = match stream.read(&mut buffer) {
            Ok(0) => Happening::Hangup(None),
            Ok(length) => Happening::Bytes(Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Happening::Hangup(Some(error)),
        };
        let last = matches!(happening, Happening::Hangup(_));
        if told.send(happening).is_err() || last {
            return;
        }
    }
}

/// A reason code as words: `BadUserNameOrPassword` becomes `bad user name or password`.
pub(super) fn in_words(reason: Reason) -> String {
    let mut words = String::new();
    for letter in format!("{reason:?}").chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    format!("{} ({:#04x})", words.replace("qo s", "QoS"), reason.code())
}

fn name(packet: &Packet) -> String {
    match packet {
        Packet::Connect(connect) => format!("CONNECT {:?}", connect.client_id),
        Packet::ConnAck(answer) => format!("CONNACK {}", in_words(answer.reason)),
        Packet::Publish(publish) => format!(
            "PUBLISH {} q{} m{} {:?} ({} bytes)",
            if publish.retain { "r1" } else { "r0" },
            publish.qos as u8,
            publish.packet_id,
            publish.topic,
            publish.payload.len()
        ),
        Packet::PubAck(ack) => format!("PUBACK m{}", ack.packet_id),
        Packet::PubRec(ack) => format!("PUBREC m{}", ack.packet_id),
        Packet::PubRel(ack) => format!("PUBREL m{}", ack.packet_id),
        Packet::PubComp(ack) => format!("PUBCOMP m{}", ack.packet_id),
        Packet::Subscribe(subscribe) => format!("SUBSCRIBE m{}", subscribe.packet_id),
        Packet::SubAck(ack) => format!("SUBACK m{}", ack.packet_id),
        Packet::Unsubscribe(unsubscribe) => format!("UNSUBSCRIBE m{}", unsubscribe.packet_id),
        Packet::UnsubAck(ack) => format!("UNSUBACK m{}", ack.packet_id),
        Packet::PingReq => "PINGREQ".to_owned(),
        Packet::PingResp => "PINGRESP".to_owned(),
        Packet::Disconnect(end) => format!("DISCONNECT {}", in_words(end.reason)),
        Packet::Auth(_) => "AUTH".to_owned(),
    }
}

/// Chunks and lines that wait for the command; when full, reading waits.
const QUEUE: usize = 64;
const READ_BYTES: usize = 64 * 1_024;
/// The largest packet of the protocol.
pub(super) const PACKET_MAX: usize = 268_435_460;
const CONNACK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a broker may take to close after DISCONNECT.
const GOODBYE: Duration = Duration::from_secs(2);
/// A wait without an end, as far as anybody sees.
const LONG: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_in_words() {
        assert_eq!(in_words(Reason::BadUserNameOrPassword), "bad user name or password (0x86)");
        assert_eq!(in_words(Reason::QoSNotSupported), "QoS not supported (0x9b)");
    }
}
