//! The packets of `tests/golden`: bytes on one side, what they say or what is wrong with them on the
//! other.
//!
//! An entry is a headline (who reads it, in which version, what it is), its bytes, and a line that
//! starts with `=` (decodes to this and is written so), `~` (decodes to this, is written otherwise) or
//! `!` (is refused with this fault and reason code). Every entry is also fed byte by byte.

use bytes::Bytes;

use super::*;

const PACKETS: &str = include_str!("../../tests/golden/packets.txt");
const MALFORMED: &str = include_str!("../../tests/golden/malformed.txt");

#[test]
fn packets_mean_what_the_golden_files_say() {
    let entries = entries(PACKETS);
    assert!(entries.len() >= 60, "{} packets", entries.len());
    entries.iter().for_each(check);
}

#[test]
fn malformed_packets_are_refused_for_the_reason_that_the_golden_files_say() {
    let entries = entries(MALFORMED);
    assert!(entries.len() >= 60, "{} packets", entries.len());
    entries.iter().for_each(check);
}

#[test]
fn every_fault_has_a_golden_packet() {
    let told: Vec<_> = entries(MALFORMED).into_iter().map(|entry| entry.expected).collect();
    for fault in Malformed::ALL {
        assert!(told.contains(&refusal(*fault)), "no packet shows {fault:?}");
    }
}

struct Entry<'a> {
    headline: &'a str,
    side: Side,
    /// `None`: the decoder is new and waits for CONNECT.
    version: Option<Version>,
    bytes: Vec<u8>,
    mark: &'a str,
    expected: String,
}

fn entries(file: &str) -> Vec<Entry<'_>> {
    let blocks = file.split("\n\n").map(str::trim).filter(|block| !block.is_empty());
    blocks.filter(|block| !block.starts_with('#')).map(entry).collect()
}

fn entry(block: &str) -> Entry<'_> {
    let mut lines = block.lines();
    let headline = lines.next().unwrap();
    let mut words = headline.split([' ', ':']);
    let side = match words.next() {
        Some("server") => Side::Server,
        Some("client") => Side::Client,
        other => panic!("{other:?} reads nothing: {headline}"),
    };
    let version = match words.next() {
        Some("new") => None,
        Some("3.1") => Some(Version::V31),
        Some("3.1.1") => Some(Version::V311),
        Some("5") => Some(Version::V5),
        other => panic!("{other:?} is no version: {headline}"),
    };
    let (mark, expected) = lines.next_back().and_then(|last| last.split_once(' ')).unwrap();
    let bytes = lines.flat_map(str::split_whitespace);
    let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    Entry { headline, side, version, bytes, mark, expected: expected.to_owned() }
}

fn check(entry: &Entry<'_>) {
    for step in [entry.bytes.len(), 1, 3] {
        let mut decoder = Decoder::new(entry.side, 1_000);
        if let Some(version) = entry.version {
            decoder.set_version(version);
        }
        match decode_in_steps(&mut decoder, &entry.bytes, step) {
            Ok(packets) => {
                let told: Vec<_> = packets.iter().map(describe).collect();
                assert_eq!(told.join(" + "), entry.expected, "{} in steps of {step}", entry.headline);
                assert!(decoder.is_empty(), "{}", entry.headline);
                check_written(entry, &packets, decoder.version().unwrap());
            }
            Err(fault) => {
                assert_eq!(refusal(fault), entry.expected, "{} in steps of {step}", entry.headline);
                assert_eq!(entry.mark, "!", "{}", entry.headline);
            }
        }
    }
}

fn decode_in_steps(decoder: &mut Decoder, bytes: &[u8], step: usize) -> Result<Vec<Packet>, Malformed> {
    let mut packets = Vec::new();
    for chunk in bytes.chunks(step) {
        decoder.feed(Bytes::copy_from_slice(chunk));
        while let Some(packet) = decoder.decode()? {
            packets.push(packet);
        }
    }
    Ok(packets)
}

fn check_written(entry: &Entry<'_>, packets: &[Packet], version: Version) {
    let mut written = Vec::new();
    for packet in packets {
        encode(packet, version, &mut written).unwrap();
    }
    match entry.mark {
        "=" => assert_eq!(written, entry.bytes, "{}", entry.headline),
        "~" => assert_ne!(written, entry.bytes, "{}", entry.headline),
        other => panic!("{other} where packets came: {}", entry.headline),
    }
}

fn refusal(fault: Malformed) -> String {
    format!("{} {:#04x}", fault.name(), fault.reason().code())
}

/// One line that says all of a packet.
fn describe(packet: &Packet) -> String {
    match packet {
        Packet::Connect(packet) => describe_connect(packet),
        Packet::ConnAck(ConnAck { session_present, reason, properties }) => {
            let present = if *session_present { " session-present" } else { "" };
            format!("CONNACK {reason:?}{present}{}", block(properties))
        }
        Packet::Publish(publish) => describe_publish(publish),
        Packet::PubAck(ack) => describe_ack("PUBACK", ack),
        Packet::PubRec(ack) => describe_ack("PUBREC", ack),
        Packet::PubRel(ack) => describe_ack("PUBREL", ack),
        Packet::PubComp(ack) => describe_ack("PUBCOMP", ack),
        Packet::Subscribe(Subscribe { packet_id, properties, filters }) => {
            let filters: Vec<_> = filters.iter().map(describe_subscription).collect();
            format!("SUBSCRIBE {packet_id} {}{}", filters.join(" "), block(properties))
        }
        Packet::SubAck(SubAck { packet_id, properties, reasons }) => {
            format!("SUBACK {packet_id} {reasons:?}{}", block(properties))
        }
        Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }) => {
            let filters: Vec<_> = filters.iter().map(|filter| &**filter).collect();
            format!("UNSUBSCRIBE {packet_id} {}{}", filters.join(" "), block(properties))
        }
        Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }) => {
            format!("UNSUBACK {packet_id} {reasons:?}{}", block(properties))
        }
        Packet::PingReq => "PINGREQ".to_owned(),
        Packet::PingResp => "PINGRESP".to_owned(),
        Packet::Disconnect(Disconnect { reason, properties }) => {
            format!("DISCONNECT {reason:?}{}", block(properties))
        }
        Packet::Auth(Auth { reason, properties }) => format!("AUTH {reason:?}{}", block(properties)),
    }
}

fn describe_connect(packet: &Connect) -> String {
    let mut text = format!("CONNECT {:?} {:?}", packet.version, &*packet.client_id);
    text += if packet.clean_start { " clean" } else { " kept" };
    text += &format!(" keep-alive={}", packet.keep_alive);
    if let Some(name) = &packet.username {
        text += &format!(" user={:?}", &**name);
    }
    if let Some(password) = &packet.password {
        text += &format!(" password={:?}", String::from_utf8_lossy(password));
    }
    text += &block(&packet.properties);
    if let Some(will) = &packet.will {
        let retain = if will.retain { " retain" } else { "" };
        let payload = String::from_utf8_lossy(&will.payload);
        text += &format!(" will={:?} qos={}{retain} {payload:?}", &*will.topic, will.qos as u8);
        text += &block(&will.properties);
    }
    text
}

fn describe_publish(publish: &Publish) -> String {
    let dup = if publish.dup { " dup" } else { "" };
    let retain = if publish.retain { " retain" } else { "" };
    let payload = String::from_utf8_lossy(&publish.payload);
    format!(
        "PUBLISH {:?} qos={} id={}{dup}{retain} {payload:?}{}",
        &*publish.topic,
        publish.qos as u8,
        publish.packet_id,
        block(&publish.properties),
    )
}

fn describe_subscription(subscription: &Subscription) -> String {
    let options = subscription.options;
    let mut text = format!("{}:{}", subscription.filter, options.qos as u8);
    if options.no_local {
        text += ",no-local";
    }
    if options.retain_as_published {
        text += ",as-published";
    }
    if options.retain_handling != RetainHandling::Send {
        text += &format!(",{:?}", options.retain_handling);
    }
    text
}

fn describe_ack(name: &str, ack: &Ack) -> String {
    format!("{name} {} {:?}{}", ack.packet_id, ack.reason, block(&ack.properties))
}

fn block(properties: &Properties) -> String {
    if properties.is_empty() {
        return String::new();
    }
    format!(" {:?}", properties.iter().collect::<Vec<_>>())
}
