//! Writes that follow each other in a file, gathered to be made as one.
//!
//! SQLite writes its log from front to back, of each page a head and then the page: two calls into the kernel
//! for each. Here they wait for each other until what is written must be in the file, or there is no more room.
//! Pure.

/// Writes that the file does not have yet. They leave no gap.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Where in the file they begin.
    at: i64,
    bytes: Vec<u8>,
    /// Where some of them began that could not be made, and have not been written again.
    lost: Option<i64>,
}

/// Whether a write was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It waits with the others.
    Yes,
    /// It is not the next one, or there is no room: the others have to be made first, or it alone.
    No,
}

impl Gathered {
    /// Takes a write if it goes on where the last one ended.
    pub(super) fn take(&mut self, at: i64, bytes: &[u8]) -> Taken {
        if self.bytes.len() + bytes.len() > BYTES_MAX || !(self.bytes.is_empty() || at == self.end()) {
            return Taken::No;
        }
        if self.bytes.is_empty() {
            self.at = at;
        }
        self.bytes.extend_from_slice(bytes);
        Taken::Yes
    }

    /// Whether one of so many bytes is of a write that waits.
    pub(super) fn has_any_of(&self, at: i64, count: i64) -> bool {
        !self.bytes.is_empty() && at < self.end() && self.at < at.saturating_add(count)
    }

    /// Makes all that wait as one. Where that fails they are forgotten, as SQLite forgets all that they are part of; it
    /// can go on only from where they began, so that no gap is left.
    pub(super) fn make<E>(&mut self, write: impl FnOnce(i64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let made = write(self.at, &self.bytes);
        self.bytes.clear();
        if made.is_err() {
            self.lost = Some(self.at.min(self.lost.unwrap_or(i64::MAX)));
        }
        made
    }

    /// Whether so many bytes can be written there: not behind what was lost.
    pub(super) fn may_write(&mut self, at: i64, count: usize) -> bool {
        let Some(lost) = self.lost else { return true };
        if at <= lost && lost - at < i64::try_from(count).unwrap_or(i64::MAX) {
            self.lost = None;
        }
        at <= lost
    }

    /// Whether none of these bytes was lost.
    pub(super) fn may_read(&self, at: i64, count: i64) -> bool {
        self.lost.is_none_or(|lost| at.saturating_add(count) <= lost)
    }

    fn end(&self) -> i64 {
        self.at.saturating_add(i64::try_from(self.bytes.len()).unwrap_or(i64::MAX))
    }
}

/// Beyond it they are made at once. SQLite's own layer takes 128 KB in one write.
const BYTES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_same_whether_writes_are_gathered_or_not() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |most: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % most
        };
        for _ in 0..50 {
            let (mut gathered, mut plain, mut file) = (Gathered::default(), Vec::new(), Vec::new());
            let (mut at, mut calls) = (0, 0);
            for number in 0..200_u8 {
                let size = if below(40) == 0 { 70_000 } else { [24, 4_096][usize::from(number % 2)] };
                let bytes = vec![number; size];
                if below(20) == 0 {
                    at = below(30_000);
                }
                put(&mut plain, at, &bytes);
                if gathered.take(at as i64, &bytes) == Taken::No {
                    gathered.make(|at, bytes| made(&mut file, &mut calls, at, bytes)).unwrap();
                    if gathered.take(at as i64, &bytes) == Taken::No {
                        made(&mut file, &mut calls, at as i64, &bytes).unwrap();
                    }
                }
                at += bytes.len();
                let (from, count) = (below(90_000), below(9_000));
                if !gathered.has_any_of(from as i64, count as i64) {
                    let read = |file: &[u8]| -> Vec<u8> {
                        // Beyond the end it reads as a hole.
                        (from..from + count).map(|at| file.get(at).copied().unwrap_or(0)).collect()
                    };
                    assert!(read(&file) == read(&plain), "what is read does not wait");
                }
            }
            gathered.make(|at, bytes| made(&mut file, &mut calls, at, bytes)).unwrap();
            assert!(file == plain && calls < 100, "{calls}");
        }
    }

    #[test]
    fn what_could_not_be_made_is_forgotten() {
        let mut gathered = Gathered::default();
        assert_eq!(gathered.take(4, b"ab"), Taken::Yes);
        assert_eq!(gathered.make(|_, _| Err(7)), Err(7));
        assert!(!gathered.has_any_of(0, 99));
        assert!(!gathered.may_write(6, 1) && !gathered.may_write(5, 9), "it would leave a gap");
        assert!(gathered.may_read(0, 4) && !gathered.may_read(0, 5) && !gathered.may_read(9, 1));
        assert!(
            gathered.may_write(1, 3) && !gathered.may_write(6, 1),
            "what is before it makes nothing good"
        );
        assert!(gathered.may_write(4, 2) && gathered.may_write(6, 1) && gathered.may_read(0, 99));
        assert_eq!(gathered.take(0, b"c"), Taken::Yes);
        assert_eq!(gathered.make(|at, bytes| Err((at, bytes.to_vec()))), Err((0, b"c".to_vec())));
    }

    fn made(file: &mut Vec<u8>, calls: &mut u32, at: i64, bytes: &[u8]) -> Result<(), ()> {
        *calls += 1;
        put(file, usize::try_from(at).unwrap(), bytes);
        Ok(())
    }

    fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
}
