//! How fast datagrams may come: from each address, and of clients that nobody has seen before.
//!
//! A peer that is quicker is not heard, and counted. Addresses are remembered only while they have spoken
//! lately; a flood from more of them than are remembered is not heard either, whoever is behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Peer;
use crate::Checked;

/// What peers have used up of what they may say.
#[derive(Debug, Default)]
pub(super) struct Pace {
    peers: BTreeMap<Peer, Bucket>,
    /// When addresses that have been quiet were last forgotten.
    swept: Duration,
    newcomers: Bucket,
}

/// A bucket that fills by itself: all that it holds is when it will be full.
#[derive(Debug, Default, Clone, Copy)]
struct Bucket {
    full_at: Duration,
}

impl Pace {
    /// Whether a datagram from there is heard.
    pub(super) fn hears(&mut self, from: &Peer, now: Duration, settings: &Checked) -> bool {
        let burst = settings.max_rate.saturating_mul(BURST_SECONDS);
        if let Some(bucket) = self.peers.get_mut(from) {
            return bucket.take(per_second(settings.max_rate), burst, now);
        }
        if self.peers.len() >= PEERS_MAX && now >= self.swept + SWEEP_EVERY {
            self.swept = now;
            self.peers.retain(|_, bucket| bucket.full_at > now);
        }
        if self.peers.len() >= PEERS_MAX {
            return false;
        }
        self.peers.entry(from.clone()).or_default().take(per_second(settings.max_rate), burst, now)
    }

    /// Whether one more client that is not known may connect: a whole fleet at once, and then as many
    /// within a minute.
    pub(super) fn admits_newcomer(&mut self, now: Duration, settings: &Checked) -> bool {
        let fleet = u32::try_from(settings.max_clients).unwrap_or(u32::MAX).max(FLEET_MIN);
        self.newcomers.take(NEWCOMERS_WITHIN / fleet, fleet, now)
    }
}

impl Bucket {
    fn take(&mut self, every: Duration, burst: u32, now: Duration) -> bool {
        let full_at = self.full_at.max(now) + every;
        let may = full_at <= now + every.saturating_mul(burst);
        if may {
            self.full_at = full_at;
        }
        may
    }
}

fn per_second(rate: u32) -> Duration {
    Duration::from_secs(1) / rate.max(1)
}

/// What a peer that was quiet may say at once, in seconds of its rate.
const BURST_SECONDS: u32 = 2;

/// Addresses that are remembered. Beyond: others are not heard until some of these are quiet.
const PEERS_MAX: usize = 4_096;

/// So that a flood from many addresses does not cost a walk over all of them for each datagram.
const SWEEP_EVERY: Duration = Duration::from_millis(20);

/// The smallest fleet.
const FLEET_MIN: u32 = 64;

const NEWCOMERS_WITHIN: Duration = Duration::from_secs(60);
