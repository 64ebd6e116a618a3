//! Where the packets end in the stream of MQTT that leaves, so that no two share a frame.
//!
//! A frame may hold anything [MQTT5-6.0.0-2] [MQTT311-6.0.0-2], but there are clients that look at one packet
//! of it and at the next only once more comes. Reads nothing but fixed headers, which are our own.

/// How far the stream has come within a packet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Packets {
    /// What of the packet that was begun no frame has announced.
    left: usize,
}

impl Packets {
    /// How many of these bytes the next frame takes: of one packet, `most` at most.
    pub(super) fn next_frame(&mut self, bytes: &[u8], most: usize) -> usize {
        if self.left == 0 {
            self.left = size(bytes);
        }
        let count = self.left.min(bytes.len()).min(most);
        self.left -= count;
        count
    }
}

/// The size of the packet that these bytes begin with; all of them where that is not known yet.
fn size(bytes: &[u8]) -> usize {
    let mut length = 0;
    for (place, byte) in bytes.iter().skip(1).take(LENGTH_BYTES).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return 2 + place + length;
        }
    }
    bytes.len()
}

/// Of the remaining length, at most.
const LENGTH_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_ends_where_its_packet_ends_or_is_full() {
        let long = [&[0x30, 0xAC, 0x02][..], &[0; 300]].concat();
        let stream = [&[0xD0, 0][..], &[0x40, 2, 0, 1], &long, &[0xD0, 0]].concat();
        let (mut packets, mut rest, mut frames) = (Packets::default(), &stream[..], Vec::new());
        while !rest.is_empty() {
            let count = packets.next_frame(rest, 200);
            frames.push(count);
            rest = &rest[count..];
        }
        assert_eq!(frames, [2, 4, 200, 103, 2]);
    }

    #[test]
    fn a_packet_that_comes_in_pieces_is_one() {
        let mut packets = Packets::default();
        assert_eq!(packets.next_frame(&[0x30, 5, 1, 2], 100), 4);
        assert_eq!(packets.next_frame(&[3, 4, 5, 0xD0, 0], 100), 3);
        assert_eq!(packets.next_frame(&[0xD0, 0], 100), 2);
    }
}
