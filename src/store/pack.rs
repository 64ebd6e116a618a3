//! Small values packed into blobs, and unpacked again.
//!
//! Numbers are written as LEB128, texts and byte strings behind their length. Unpacking never panics
//! and never believes a length: what does not fit is `None`, which the caller takes as damage.

use bytes::BufMut;

/// Appends a number: seven bits a byte, lowest first.
pub(super) fn put_number(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(low_seven(value) | 0x80);
        value >>= 7;
    }
    out.put_u8(low_seven(value));
}

/// Appends a byte string behind its length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a text that may be absent.
pub(super) fn put_optional(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            put_bytes(out, text);
        }
    }
}

/// Appends a CRC-32C over `key` and everything in `out`.
pub(super) fn seal(out: &mut Vec<u8>, key: u64) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&key.to_le_bytes()), out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// What was sealed under `key`; `None` where the checksum does not hold.
pub(super) fn unseal(blob: &[u8], key: u64) -> Option<&[u8]> {
    let (body, crc) = blob.split_last_chunk::<4>()?;
    let found = crc32c::crc32c_append(crc32c::crc32c(&key.to_le_bytes()), body);
    (found == u32::from_le_bytes(*crc)).then_some(body)
}

/// Reads packed values from the front.
pub(super) struct Unpack<'a> {
    rest: &'a [u8],
}

impl<'a> Unpack<'a> {
    /// Starts at the front.
    pub(super) fn new(rest: &'a [u8]) -> Unpack<'a> {
        Unpack { rest }
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// A number.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A number that fits 32 bits.
    pub(super) fn number32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    /// A number that fits 16 bits.
    pub(super) fn number16(&mut self) -> Option<u16> {
        u16::try_from(self.number()?).ok()
    }

    /// A byte string behind its length.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    /// A text behind its length.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// A text that may be absent.
    pub(super) fn optional(&mut self) -> Option<Option<&'a [u8]>> {
        match self.byte()? {
            0 => Some(None),
            1 => Some(Some(self.bytes()?)),
            _ => None,
        }
    }
}

fn low_seven(value: u64) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits fit a byte")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let mut out = Vec::new();
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            put_number(&mut out, value);
        }
        put_bytes(&mut out, b"text");
        put_optional(&mut out, None);
        put_optional(&mut out, Some(b""));
        let mut unpack = Unpack::new(&out);
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(unpack.number(), Some(value));
        }
        assert_eq!(unpack.text(), Some("text"));
        assert_eq!(unpack.optional(), Some(None));
        assert_eq!(unpack.optional(), Some(Some(&b""[..])));
        assert!(unpack.is_empty());
        assert_eq!(unpack.byte(), None);
    }

    #[test]
    fn a_flipped_bit_or_another_key_breaks_the_seal() {
        let mut out = b"counters".to_vec();
        seal(&mut out, 7);
        assert_eq!(unseal(&out, 7), Some(&b"counters"[..]));
        assert_eq!(unseal(&out, 8), None);
        for bit in 0..out.len() * 8 {
            let mut damaged = out.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&damaged, 7), None, "bit {bit}");
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_damage() {
        assert_eq!(Unpack::new(&[200, 1, 0]).bytes(), None);
        assert_eq!(Unpack::new(&[0xff; 12]).number(), None);
    }
}
