//! The thread that writes what is said: whoever says something is never kept by him who reads it.
//!
//! A journal that stands still, or a pipe that nobody empties, makes a write wait for as long as it likes. So
//! what is said waits in a queue, bounded in bytes; beyond it lines are lost, and the next that is written
//! says how many.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::Level;

use super::sink::{Sink, Spoken};

/// Takes what is said; its copies are one.
#[derive(Clone)]
pub(super) struct Writer(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    said: Condvar,
    idle: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Spoken>,
    /// Of those.
    bytes: usize,
    /// Lines that found no room since one was written.
    lost: u64,
    /// One is being written.
    writing: bool,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the kernel gives none.
    pub(super) fn start(sink: Sink) -> io::Result<Writer> {
        let shared = Arc::new(Shared { queue: Mutex::default(), said: Condvar::new(), idle: Condvar::new() });
        let theirs = shared.clone();
        thread::Builder::new().name("journal".into()).stack_size(STACK).spawn(move || theirs.write(&sink))?;
        Ok(Writer(shared))
    }

    /// Has it written as soon as it can be, or counts it as lost.
    pub(super) fn say(&self, spoken: Spoken) {
        let mut queue = self.0.lock();
        if queue.bytes + spoken.weight() > QUEUE_BYTES_MAX && !queue.waiting.is_empty() {
            queue.lost += 1;
            return;
        }
        queue.push(spoken);
        self.0.said.notify_one();
    }

    /// Waits until all that was said is written, so long at most.
    pub(super) fn flush(&self, most: Duration) {
        let busy = |queue: &mut Queue| queue.writing || !queue.waiting.is_empty();
        // Who has waited in vain has nobody to tell.
        drop(self.0.idle.wait_timeout_while(self.0.lock(), most, busy));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, sink: &Sink) {
        let mut queue = self.lock();
        loop {
            let Some(spoken) = queue.pop() else {
                self.idle.notify_all();
                queue = self.said.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.writing = true;
            drop(queue);
            sink.say(&spoken);
            queue = self.lock();
            queue.writing = false;
            if queue.lost > 0 {
                let lost = lost_lines(queue.lost, spoken.millis);
                queue.lost = 0;
                queue.push(lost);
            }
        }
    }
}

impl Queue {
    fn push(&mut self, spoken: Spoken) {
        self.bytes += spoken.weight();
        self.waiting.push_back(spoken);
    }

    fn pop(&mut self) -> Option<Spoken> {
        let spoken = self.waiting.pop_front()?;
        self.bytes -= spoken.weight();
        Some(spoken)
    }
}

/// What is said of lines that were lost.
fn lost_lines(lost: u64, millis: u64) -> Spoken {
    Spoken {
        level: Level::WARN,
        target: "tidegate::journal".into(),
        module: None,
        file: None,
        line: None,
        message: "lines of this log are lost, since nobody took them".into(),
        fields: vec![("lines", lost.to_string())],
        millis,
    }
}

/// What may wait to be written: some thousand lines.
const QUEUE_BYTES_MAX: usize = 256 << 10;

/// The thread formats a line, and no more.
const STACK: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> Spoken {
        Spoken { message: format!("line {number}"), ..lost_lines(0, 0) }
    }

    #[test]
    fn a_reader_who_stands_still_keeps_nobody_and_is_told_what_he_missed() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer::start(Sink::kept(lines.clone())).unwrap();
        let many = 2 * QUEUE_BYTES_MAX / line(0).weight();
        let stalled = lines.lock().unwrap();
        for number in 0..many {
            writer.say(line(number));
        }
        writer.flush(Duration::ZERO);
        drop(stalled);
        writer.flush(Duration::MAX);
        writer.say(line(many));
        writer.flush(Duration::MAX);
        let lines = lines.lock().unwrap();
        let written = lines.iter().filter(|line| line.contains(" line ")).count() as u64;
        let lost = lines.iter().filter_map(|line| line.rsplit_once("nobody took them lines="));
        let lost: u64 = lost.map(|(_, count)| count.parse::<u64>().unwrap()).sum();
        assert_eq!(written + lost, many as u64 + 1);
        assert!(written > 100 && lost > 100, "{written} written, {lost} lost");
        assert!(lines.last().unwrap().contains(&format!("line {many} ")), "{:?}", lines.last());
    }
}
