//! What is to leave on one connection, and the buffers for it.
//!
//! An outbox owns a buffer only while something is in it: a client that nobody writes to costs none. A
//! buffer that was emptied goes back to the pool, which is small; large ones are given back at once.

use std::io::{self, Write};

/// Bytes on their way to one peer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// The first so many have left.
    sent: usize,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing is left.
    All,
    /// As much has left as was to leave.
    Part,
    /// The peer takes no more for now.
    Blocked,
    /// The peer is gone.
    Gone,
}

impl Outbox {
    /// Bytes that have not left.
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Bytes of memory that it has.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Forgets what has not left.
    pub(super) fn discard(&mut self) {
        *self = Outbox::default();
    }

    /// Where to append.
    pub(super) fn buffer(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        &mut self.bytes
    }

    /// Writes until all has left, or `most` and what its last write took beside, or the peer takes no more.
    /// Adds to `written` what has left.
    pub(super) fn flush(
        &mut self,
        stream: &mut impl Write,
        pool: &mut Pool,
        most: usize,
        written: &mut u64,
    ) -> Flushed {
        let mut left = most;
        loop {
            let waiting = self.bytes.get(self.sent..).unwrap_or_default();
            if waiting.is_empty() {
                pool.give_back(std::mem::take(&mut self.bytes));
                self.sent = 0;
                match stream.flush() {
                    Ok(()) => return Flushed::All,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                    Err(_) => return Flushed::Gone,
                }
            }
            if left == 0 {
                self.close_gap();
                return Flushed::Part;
            }
            match stream.write(waiting) {
                Ok(0) => return Flushed::Gone,
                Ok(count) => {
                    self.sent += count;
                    left = left.saturating_sub(count);
                    *written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.close_gap();
                    return Flushed::Blocked;
                }
                Err(_) => return Flushed::Gone,
            }
        }
    }

    /// Moves what waits to the front where more than half of the buffer has left, so that the cost of
    /// moving stays below that of sending.
    fn close_gap(&mut self) {
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// Emptied buffers that wait for their next use.
#[derive(Debug, Default)]
pub(super) struct Pool {
    buffers: Vec<Vec<u8>>,
    /// Capacities together.
    bytes: usize,
}

impl Pool {
    fn take(&mut self) -> Vec<u8> {
        match self.buffers.pop() {
            Some(buffer) => {
                self.bytes -= buffer.capacity();
                buffer
            }
            None => Vec::with_capacity(BUFFER_BYTES_MIN),
        }
    }

    fn give_back(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0 && capacity <= BUFFER_BYTES_MAX && self.bytes + capacity <= POOL_BYTES_MAX {
            buffer.clear();
            self.bytes += capacity;
            self.buffers.push(buffer);
        }
    }
}

/// What a new buffer starts with: an acknowledgement or a small message.
const BUFFER_BYTES_MIN: usize = 256;

/// A buffer that has grown beyond this is freed, not kept.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// What all kept buffers may have together; beyond it they are freed.
const POOL_BYTES_MAX: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that takes so many bytes at each call, then none.
    struct Peer {
        takes: Vec<usize>,
        got: Vec<u8>,
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.takes.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = self.takes.remove(0).min(bytes.len());
            self.got.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_leave_in_order_however_little_the_peer_takes() {
        let (mut outbox, mut pool, mut written) = (Outbox::default(), Pool::default(), 0);
        let mut peer = Peer { takes: vec![3, 5], got: Vec::new() };
        outbox.buffer(&mut pool).extend_from_slice(b"ebb and flow");
        assert_eq!(outbox.flush(&mut peer, &mut pool, usize::MAX, &mut written), Flushed::Blocked);
        assert_eq!((outbox.waiting(), written), (4, 8));
        outbox.buffer(&mut pool).extend_from_slice(b" again");
        peer.takes = vec![100];
        assert_eq!(outbox.flush(&mut peer, &mut pool, usize::MAX, &mut written), Flushed::All);
        assert_eq!((peer.got.as_slice(), written), (&b"ebb and flow again"[..], 18));
    }

    #[test]
    fn an_empty_outbox_holds_no_buffer_and_the_pool_is_small() {
        let (mut outbox, mut pool, mut written) = (Outbox::default(), Pool::default(), 0);
        for size in [10, BUFFER_BYTES_MAX + 1] {
            outbox.buffer(&mut pool).resize(size, 0);
            assert_eq!(outbox.flush(&mut io::sink(), &mut pool, usize::MAX, &mut written), Flushed::All);
            assert_eq!(outbox.bytes.capacity(), 0);
        }
        let mut many: Vec<Outbox> = (0..100_000).map(|_| Outbox::default()).collect();
        for outbox in &mut many {
            outbox.buffer(&mut pool).push(0);
        }
        for outbox in &mut many {
            outbox.flush(&mut io::sink(), &mut pool, usize::MAX, &mut written);
        }
        assert!(pool.bytes <= POOL_BYTES_MAX);
        assert_eq!(pool.bytes, pool.buffers.iter().map(Vec::capacity).sum::<usize>());
    }
}
