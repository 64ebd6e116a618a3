//! What must hold for any bytes that a peer sends.
//!
//! They are packets, a wait, or a fault, alike in any pieces; and what was read can be written, as long
//! as announced, and reads as the same again. The first byte chooses who reads, in which version and in
//! which pieces; the rest is the stream.

use bytes::Bytes;
use tidegate::codec::{Decoder, Malformed, Packet, PublishParts, Side, Version, encode, publish_size};

/// Panics where a promise of the decoder is broken.
pub(crate) fn run(data: &[u8]) {
    let Some((&choice, stream)) = data.split_first() else { return };
    let whole = decode(choice, stream, stream.len().max(1));
    let step = usize::from(choice >> 3) + 1;
    assert_eq!(decode(choice, stream, step), whole, "in pieces of {step}");

    let (packets, fault, version) = whole;
    assert!(fault.is_none_or(|fault| fault.reason().is_error()));
    let Some(version) = version else { return };
    let mut written = Vec::new();
    for packet in &packets {
        let start = written.len();
        encode(packet, version, &mut written).expect("what was read can be written");
        if let Packet::Publish(publish) = packet {
            assert_eq!(written.len() - start, publish_size(version, &PublishParts::from(publish)));
        }
    }
    assert!(written.len() <= stream.len(), "what is written is never longer than what was read");
    let (again, fault, _) = decode(choice, &written, written.len().max(1));
    assert_eq!((again, fault), (packets, None));
}

fn decode(choice: u8, stream: &[u8], step: usize) -> (Vec<Packet>, Option<Malformed>, Option<Version>) {
    let side = if choice & 1 == 0 { Side::Server } else { Side::Client };
    let mut decoder = Decoder::new(side, LIMIT);
    match (choice >> 1) & 3 {
        0 => {}
        1 => decoder.set_version(Version::V31),
        2 => decoder.set_version(Version::V311),
        _ => decoder.set_version(Version::V5),
    }
    let mut packets = Vec::new();
    for chunk in stream.chunks(step) {
        decoder.feed(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.decode() {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(fault) => return (packets, Some(fault), decoder.version()),
            }
        }
        assert!(decoder.held() <= LIMIT, "{} bytes held", decoder.held());
    }
    (packets, None, decoder.version())
}

/// Bytes of the largest packet.
const LIMIT: usize = 10_000;
