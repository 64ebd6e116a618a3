//! What must hold for any bytes on a serial line, for fuzzing and for the plain test over its corpus.
//!
//! The first two bytes choose end and longest line, the rest is the stream.

use adapter_api::clock::Wall;

use crate::framer::LineFramer;
use crate::reading::Parser;

/// Panics where a promise of the framer or the parser is broken.
pub fn lines(data: &[u8]) {
    let [choice, max, stream @ ..] = data else { return };
    let end: &[u8] = match choice % 4 {
        0 => b"\n",
        1 => b"\r\n",
        2 => b"\r",
        _ => b"aab",
    };
    let max = usize::from(*max) + 1;
    let whole = cut(end, max, stream, stream.len().max(1));
    for step in [1, 3, usize::from(choice / 4) + 1] {
        assert_eq!(cut(end, max, stream, step), whole, "in pieces of {step}");
    }
    let taken = Wall { millis: 1_771_234_567_123, set: true };
    for line in &whole {
        assert!(!line.is_empty() && line.len() <= max, "{} bytes", line.len());
        if let Ok(payload) = Parser::Text.payload(line, taken) {
            let json: Result<serde_json::Value, _> = serde_json::from_slice(&payload);
            assert!(json.is_ok_and(|json| json.is_object()), "a reading is valid JSON");
        }
    }
}

fn cut(end: &[u8], max: usize, stream: &[u8], step: usize) -> Vec<Vec<u8>> {
    let mut framer = LineFramer::new(end, max);
    let mut lines = Vec::new();
    for chunk in stream.chunks(step) {
        framer.feed(chunk, |line| lines.push(line.to_vec()));
        assert!(framer.held() <= max + end.len() + 1, "{} bytes held", framer.held());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_keep_the_promises() {
        // Few different bytes, so that ends are met often.
        let letters = b"\r\nab1.,\x00\xFFq";
        let mut state = 1_u64;
        for _ in 0..2_000 {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            };
            let length = next();
            let mut data = vec![next(), next() % 40];
            data.extend((0..length).map(|_| letters[usize::from(next()) % letters.len()]));
            lines(&data);
        }
    }
}
