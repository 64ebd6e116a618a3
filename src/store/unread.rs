//! Places that the disk could not read, and when each is tried again.
//!
//! A place is a segment, or anything else of the file. Whoever needs nothing of it goes on, and who does waits,
//! longer each time. After about a minute nobody does any more: everything that can be read is salvaged round
//! it, or copied on where it lies in a file apart. Where the disk reads hardly anything it is the disk that is bad
//! and no place on it, and nothing is given up.

use std::collections::{BTreeMap, BTreeSet};

use super::commit::Database;
use super::image::Health;
use super::log::Doubt;
use super::patience::{Patience, Tries};
use super::salvage::Legible;
use super::schema::Fault;
use crate::record::Now;

/// By place.
#[derive(Debug, Default)]
pub(super) struct Unread {
    places: BTreeMap<u32, Tries>,
    /// Places whose last try has led to something that is not yet over.
    tried: BTreeSet<u32>,
}

impl Unread {
    /// Puts a place off that was tried in vain.
    pub(super) fn put_off(&mut self, place: u32, now: u64) -> Patience {
        let tries = self.places.entry(place).or_default();
        if tries.next() <= now {
            if now - tries.next() > QUIET_MILLIS {
                // It was read in between, by somebody who had no reason to say so.
                *tries = Tries::default();
            }
            if tries.is_new() {
                tell(place);
            }
            tries.count();
            tries.rest(now);
            self.tried.insert(place);
        }
        tries.patience()
    }

    /// What the last tries have led to is over: those places rest from now on. No other does: one that somebody
    /// meets more often than it rests would never be tried again.
    pub(super) fn rest(&mut self, now: u64) {
        for place in std::mem::take(&mut self.tried) {
            if let Some(tries) = self.places.get_mut(&place) {
                tries.rest(now);
            }
        }
    }

    /// Puts a place off that nobody needs, however often it was tried.
    pub(super) fn put_off_and_rest(&mut self, place: u32, now: u64) {
        self.put_off(place, now);
        self.rest(now);
    }

    /// Until when a segment is put off.
    pub(super) fn until(&self, id: u32) -> u64 {
        self.places.get(&id).map_or(0, Tries::next)
    }

    /// Segments that are put off.
    pub(super) fn resting(&self, now: u64) -> BTreeSet<u32> {
        let is_segment = |place: u32| place != ELSEWHERE && place != NEEDLESS;
        let resting = self.places.iter().filter(|(place, tries)| is_segment(**place) && tries.next() > now);
        resting.map(|(id, _)| *id).collect()
    }

    /// A place could be read, or was given up.
    pub(super) fn forget(&mut self, place: u32) {
        self.places.remove(&place);
    }

    /// The database is another.
    pub(super) fn clear(&mut self) {
        self.places.clear();
    }
}

impl Database {
    /// Notes a place that the disk does not read. Says whether it has had its time.
    pub(super) fn is_hopeless(&mut self, fault: &Fault, now: u64) -> bool {
        fault.unread().is_some_and(|place| self.unread.put_off(place, now) == Patience::None)
    }

    /// Goes on with everything but what the disk does not read; without the whole segment where there is no room
    /// for that.
    pub(super) fn go_round(&mut self, fault: &Fault, now: &Now) -> Result<(), Fault> {
        let place = fault.unread().unwrap_or(ELSEWHERE);
        self.unread.forget(place);
        let health = Health::of_store(&self.files);
        if health == Health::Lost {
            return self.go_back(now);
        }
        let is_apart = self.apart.iter().any(|apart| apart.segments.contains(&place));
        if is_apart || (matches!(place, ELSEWHERE | NEEDLESS) && health == Health::Whole) {
            return self.reopen(Patience::None, now);
        }
        let salvage = health == Health::Spotted
            && match place {
                // Of the second nobody needs anything: who asks has seen that there is room.
                ELSEWHERE | NEEDLESS => true,
                // Should even that fail, the next load gives it up.
                _ => {
                    self.suspects.insert(place, Doubt::Segment).is_none() && self.files.has_room_for_another()
                }
            };
        if !salvage {
            return self.go_back(now);
        }
        let legible = if place == ELSEWHERE { Legible::Not } else { Legible::AsFarAsItGoes };
        self.replace_damaged(Patience::None, now.wall, fault, legible)
    }
}

fn tell(place: u32) {
    if place == NEEDLESS {
        return tracing::error!("a part of the store that nobody needs cannot be freed: it is tried again");
    }
    let segment = (place != ELSEWHERE).then_some(place);
    tracing::error!(segment, "the disk cannot read a part of the store: who needs it waits");
}

/// No segment has that number: any other place of the file, which every commit may need.
pub(super) const ELSEWHERE: u32 = 0;

/// Nor that: what only the work beside the commits meets. It has a count of its own, or a commit that meets another
/// place once would be the last of many tries.
pub(super) const NEEDLESS: u32 = u32::MAX;

/// What is not tried in vain for so long is read again.
const QUIET_MILLIS: u64 = 60_000;
