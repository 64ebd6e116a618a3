//! The test stand: a gateway as a real process, a cloud, a link that can be cut, and clients.
//!
//! Everything here runs outside the program under test and believes nothing that it says. Ports are
//! free ones, folders vanish, and every process is ended when its handle is dropped. Waiting is always
//! for an event, with a limit that only a hang reaches.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test program uses a part of the stand")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a stand that breaks should say where")]

mod certificates;
mod client;
mod cloud;
mod disk;
mod gateway;
mod memory;
mod mote;
mod proxy;
mod revoked;
mod volume;
mod wire;

pub use certificates::Certificates;
pub use client::{Client, Options};
pub use cloud::{Cloud, Security, free_port};
pub use disk::Disk;
pub use gateway::Gateway;
pub use memory::{MemoryWatch, figure_in};
pub use mote::{Mote, Said, flag, kind};
pub use proxy::{Link, Proxy};
pub use volume::Volume;
pub use wire::SerialWire;

use std::time::{Duration, Instant};

/// What no healthy step takes, on the slowest machine.
pub const HANG: Duration = Duration::from_secs(120);

/// [`HANG`], or less where a planted fault is expected to hang.
fn patience() -> Duration {
    let seconds = std::env::var("TIDEGATE_HANG_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(HANG, Duration::from_secs)
}

/// Asks until the answer is there; panics with `what` after [`HANG`].
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = monotonic();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < patience(), "waited in vain for {what}");
        // Between two looks the others get the processor.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The stand's own clock.
#[allow(clippy::disallowed_methods, reason = "the stand stands outside the house")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// A seed that is fresh each time and printed, or the one that `TIDEGATE_SEED` asks for.
pub fn seed() -> u64 {
    let seed = match std::env::var("TIDEGATE_SEED") {
        Ok(text) => text.parse().expect("TIDEGATE_SEED is a number"),
        Err(_) => getrandom::u64().expect("the kernel's random numbers"),
    };
    println!("seed {seed} (again with TIDEGATE_SEED={seed})");
    seed
}

/// Whether the full size is asked for.
pub fn proof() -> bool {
    std::env::var("TIDEGATE_SIZE").is_ok_and(|size| size == "proof")
}

/// A small random source that a seed replays.
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        // xorshift64*: good enough to choose where to cut.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % end
    }

    /// One of these.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// A UDP port that was free a moment ago.
pub fn free_udp_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
