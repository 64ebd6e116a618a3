//! The checksum of RTU frames: CRC-16 with polynomial 0xA001 (reflected), started with 0xFFFF.
//!
//! Nothing else. A frame with its checksum behind it, low byte first, sums to zero.

/// The checksum of `bytes`.
pub(super) fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |sum, byte| {
        (0..8)
            .fold(sum ^ u16::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xA001 } else { sum >> 1 })
    })
}

/// Whether the last two bytes are the checksum of those before them.
pub(super) fn is_whole(frame: &[u8]) -> bool {
    crc16(frame) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc16(b"123456789"), 0x4B37);
        assert!(is_whole(&[0x01, 0x03, 0x00, 0x00, 0x00, 0x01, 0x84, 0x0A]));
        assert!(!is_whole(&[0x01, 0x03, 0x00, 0x00, 0x00, 0x01, 0x84, 0x0B]));
    }
}
