//! Cuts a stream of bytes into lines.
//!
//! A line is what stands between two ends. Of an overlong line nothing comes out, neither its start nor its
//! tail; and what stands before the first end may be the tail of a line whose start was missed, so it comes
//! out only where the caller knows that it heard its start. Holds at most a line and its end.

/// Bytes in, lines out.
#[derive(Debug, Clone)]
pub struct LineFramer {
    /// What ends a line; not empty.
    end: Vec<u8>,
    /// Bytes of the longest line.
    max: usize,
    /// The line so far, or in a line that is skipped the last bytes that may begin its end. At most
    /// `max` and an end.
    held: Vec<u8>,
    state: State,
    counts: Counts,
}

/// How the stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first byte of a line.
    Whole,
    /// Perhaps within a line.
    Torn,
}

/// What became of lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Lines that came out.
    pub lines: u64,
    /// Lines without a byte, of which nothing comes out.
    pub empty: u64,
    /// Lines over the limit.
    pub overlong: u64,
    /// Lines whose start or end was missed.
    pub torn: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The bytes held are a line's from its start.
    Line,
    /// Everything up to the next end is skipped.
    Overlong,
    /// The same, since the line's start was missed.
    Torn,
}

impl LineFramer {
    /// A framer for lines of at most `max` bytes. An empty `end` is taken as a newline. Where the end is a
    /// newline alone, one carriage return before it belongs to it.
    pub fn new(end: &[u8], max: usize) -> LineFramer {
        let end = if end.is_empty() { b"\n".to_vec() } else { end.to_vec() };
        LineFramer { end, max, held: Vec::new(), state: State::Line, counts: Counts::default() }
    }

    /// The stream begins anew, as the device was opened; a line that was begun has no end.
    pub fn restart(&mut self, start: Start) {
        if self.state == State::Line && !self.held.is_empty() {
            self.counts.torn += 1;
        }
        // What a flood has taken is given back.
        self.held = Vec::new();
        self.state = match start {
            Start::Whole => State::Line,
            Start::Torn => State::Torn,
        };
    }

    /// Takes bytes in and hands each line that they complete to `line`.
    pub fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for &byte in bytes {
            self.held.push(byte);
            if self.held.ends_with(&self.end) {
                self.finish(&mut line);
            } else {
                self.bound();
            }
        }
    }

    /// What became of the lines so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn finish(&mut self, line: &mut impl FnMut(&[u8])) {
        match self.state {
            State::Overlong => self.counts.overlong += 1,
            State::Torn => self.counts.torn += 1,
            State::Line => {
                let content = self.held.strip_suffix(&*self.end).unwrap_or_default();
                let content = match &*self.end {
                    b"\n" => content.strip_suffix(b"\r").unwrap_or(content),
                    _ => content,
                };
                if content.is_empty() {
                    self.counts.empty += 1;
                } else if content.len() > self.max {
                    self.counts.overlong += 1;
                } else {
                    self.counts.lines += 1;
                    line(content);
                }
            }
        }
        self.held.clear();
        self.state = State::Line;
    }

    /// Holds no more than a line can have, or an end can begin with.
    fn bound(&mut self) {
        // The carriage return before a newline is not the line's.
        let end = self.end.len() + usize::from(*self.end == *b"\n");
        if self.state == State::Line && self.held.len() >= self.max + end {
            self.state = State::Overlong;
        }
        if self.state != State::Line {
            let keep = self.end.len() - 1;
            self.held.drain(..self.held.len().saturating_sub(keep));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(framer: &mut LineFramer, chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        for chunk in chunks {
            framer.feed(chunk, |line| lines.push(String::from_utf8_lossy(line).into_owned()));
            assert!(framer.held() <= framer.max + framer.end.len() + 1);
        }
        lines
    }

    /// The same stream at once and byte by byte.
    fn check(end: &[u8], max: usize, stream: &[u8], lines: &[&str], counts: [u64; 3]) {
        let single: Vec<_> = stream.chunks(1).collect();
        for chunks in [vec![stream], single] {
            let mut framer = LineFramer::new(end, max);
            assert_eq!(lines_of(&mut framer, &chunks), lines);
            let Counts { lines: came, empty, overlong, .. } = framer.counts();
            assert_eq!([came, empty, overlong], counts);
        }
    }

    #[test]
    fn lines_come_out_without_their_end() {
        check(b"\r\n", 10, b"one\r\ntwo\r\nthr", &["one", "two"], [2, 0, 0]);
        check(b";;;", 10, b"a;b;;c;;;;;;d;;;", &["a;b;;c", "d"], [2, 1, 0]);
    }

    #[test]
    fn a_newline_takes_a_carriage_return_with_it() {
        check(b"\n", 3, b"one\r\ntwo\nlong\n\r\n\n", &["one", "two"], [2, 2, 1]);
    }

    #[test]
    fn only_the_whole_end_ends_a_line() {
        check(b"\r\n", 10, b"a\rb\nc\r\r\n", &["a\rb\nc\r"], [1, 0, 0]);
    }

    #[test]
    fn a_line_of_the_greatest_length_comes_out_and_a_longer_one_not_in_part() {
        check(b"\r\n", 3, b"abc\r\nabcd\r\nabc\r\n", &["abc", "abc"], [2, 0, 1]);
        check(b"\r\n", 3, b"abcdefghijklmnop\r\nok\r\n", &["ok"], [1, 0, 1]);
        // An end that begins in what is skipped is still seen.
        check(b"\r\n", 3, b"abcdefg\r\r\nok\r\n", &["ok"], [1, 0, 1]);
        check(b"\n", 3, b"abc\r\rx\nok\n", &["ok"], [1, 0, 1]);
    }

    #[test]
    fn what_may_be_the_tail_of_a_line_is_skipped() {
        let mut framer = LineFramer::new(b"\n", 100);
        framer.restart(Start::Torn);
        assert_eq!(lines_of(&mut framer, &[b"3.4\n12.5\n"]), ["12.5"]);
        assert_eq!(framer.counts().torn, 1);
    }

    #[test]
    fn a_line_that_the_unplugging_cut_is_never_joined_with_the_next() {
        let mut framer = LineFramer::new(b"\n", 100);
        assert!(lines_of(&mut framer, &[b"12"]).is_empty());
        framer.restart(Start::Whole);
        assert_eq!(lines_of(&mut framer, &[b"3.4\n"]), ["3.4"]);
        assert_eq!(framer.counts().torn, 1);
    }

    #[test]
    fn a_flood_without_an_end_is_not_held() {
        let mut framer = LineFramer::new(b"\r\n", 16);
        assert!(lines_of(&mut framer, &[&[b'x'; 100_000]]).is_empty());
        assert_eq!(framer.held(), 1);
    }
}
