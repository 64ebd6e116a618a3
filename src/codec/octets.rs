//! Bytes of a text, eight at once in a register: topics are short, and every PUBLISH has one.
//!
//! The first of eight is the lowest of the register on every processor. What tells a zero may tell one more above it
//! that is none, and never one below: whether there is one, and where the first is, is exact.

/// Where the byte stands first.
#[inline]
pub(crate) fn find(byte: u8, text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks();
    for (place, word) in words.iter().enumerate() {
        let found = zeros(u64::from_le_bytes(*word) ^ (EACH * u64::from(byte)));
        if found != 0 {
            return Some(place * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let place = rest.iter().position(|other| *other == byte)?;
    Some(words.len() * 8 + place)
}

/// Whether a byte is there that may not stand in a topic name: a wildcard, or zero.
#[inline]
pub(crate) fn is_no_topic_name(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks();
    let found = words.iter().fold(0, |found, word| found | odd_bytes(*word));
    // Some of the last eight may have been looked at.
    let last = match text.last_chunk() {
        Some(_) if rest.is_empty() => 0,
        Some(last) => odd_bytes(*last),
        None => rest.iter().fold(0, |found, byte| found | u64::from(matches!(byte, 0 | b'+' | b'#'))),
    };
    found | last != 0
}

/// Not 0 where one of the bytes is a wildcard or zero.
#[inline]
fn odd_bytes(bytes: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(bytes);
    // The two wildcards are one but for this bit.
    let wildcard = (word | (EACH * u64::from(b'+' ^ b'#'))) ^ (EACH * u64::from(b'+' | b'#'));
    zeros(word) | zeros(wildcard)
}

/// Not 0 where one of the bytes is; the lowest bit that is set is of the lowest of those.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(EACH) & !word & (EACH << 7)
}

/// One in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of every length with a byte of every value at every place.
    fn texts() -> impl Iterator<Item = Vec<u8>> {
        let places = (0..28_usize).flat_map(|length| (0..length).map(move |place| (length, place)));
        places.flat_map(|(length, place)| {
            let of = move |byte, other| {
                let mut text = vec![other; length];
                text[place] = byte;
                text
            };
            (0..=255).flat_map(move |byte| [b'a', 0x80, 0xFF, 1].map(|other| of(byte, other)))
        })
    }

    #[test]
    fn a_byte_that_no_topic_name_has_is_found_wherever_it_stands() {
        assert!(!is_no_topic_name(b""));
        for text in texts() {
            let expected = text.iter().any(|byte| matches!(byte, 0 | b'+' | b'#'));
            assert_eq!(is_no_topic_name(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_byte_is_found_where_it_stands_first() {
        for mut text in texts() {
            for byte in [b'/', 0, 0xFF, b'a'] {
                assert_eq!(
                    find(byte, &text),
                    text.iter().position(|other| *other == byte),
                    "{byte} in {text:?}"
                );
            }
            text.reverse();
            text.insert(0, b'/');
            assert_eq!(find(b'/', &text), Some(0));
        }
    }
}
