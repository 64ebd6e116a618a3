//! SQLite's write-ahead log as it lies on the disk, read without SQLite.
//!
//! SQLite replays a log up to the first frame that is not sound and says nothing of what lies behind.
//! Behind a loss of power that is right: what was not synced was never acknowledged. A flipped bit is
//! another matter, and can be told: a transaction is only begun behind one that was synced, so where a
//! sound frame continues a commit beyond the broken place, that commit was durable. Each frame's
//! checksum starts from the one before it as that is stored, so that frames behind a broken one can
//! still be vouched for. What cannot be told from a loss of power is damage in the last transaction, nor in
//! the commit before it where that frame's first words lie in another sector than the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::btree::{SIZE, number32};
use super::disk::Reading;
use super::progress::Progress;
use super::room::PAGE;

/// What a log holds.
#[derive(Debug, Default)]
pub(super) struct Wal {
    /// Where the newest sound version of each page lies in the file.
    pub(super) pages: BTreeMap<u32, u64>,
    /// Pages whose newest version is broken: an older one, if there is one, is out of date.
    pub(super) stale: BTreeSet<u32>,
    /// Pages of the database after the last commit; `None` where the log holds none.
    pub(super) size: Option<u32>,
    /// The highest page of a commit behind that one of which the end is broken: it said how many there are then.
    pub(super) beyond: u32,
    /// Frames that were durable and that SQLite would not replay, or only in part; 0 in a sound log.
    pub(super) behind: usize,
    /// Frames that the disk does not read.
    pub(super) unread: u64,
}

/// A frame, judged.
#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    page: u32,
    /// Pages of the database, in the last frame of a transaction; 0 in every other.
    commit: u32,
    /// It is of the log's present use, and no leftover.
    present: bool,
    /// Its checksum continues the one before it as that is stored.
    sound: bool,
}

type Sums = (u32, u32);

impl Wal {
    /// Reads a log of so many bytes.
    pub(super) fn read(file: &dyn Reading, bytes: u64) -> io::Result<Wal> {
        Wal::scan(file, bytes, Err)
    }

    /// The same where the disk does not read all of it: such frames are broken ones.
    pub(super) fn read_round(file: &dyn Reading, bytes: u64, progress: &Progress) -> Wal {
        let go_on = |_| {
            // It may have taken the disk long to give up.
            progress.step();
            Ok(())
        };
        Wal::scan(file, bytes, go_on).unwrap_or_default()
    }

    fn scan(
        file: &dyn Reading,
        bytes: u64,
        judge_error: impl Fn(io::Error) -> io::Result<()>,
    ) -> io::Result<Wal> {
        let count = usize::try_from(bytes.saturating_sub(HEADER) / FRAME).unwrap_or(0);
        if count == 0 {
            return Ok(Wal::default());
        }
        let mut header = [0; HEADER_BYTES];
        file.read_at(0, &mut header).map(drop).or_else(&judge_error)?;
        let is_sound = is_header(&header);
        let (mut salts_known, mut unread) = (is_sound, 0);
        let mut before = (number(&header, 24), number(&header, 28));
        let mut salts = (number(&header, 16), number(&header, 20));
        let mut frames = Vec::with_capacity(count);
        let mut bytes = vec![0; FRAME_BYTES];
        for place in 0..count {
            let read = match file.read_at(HEADER + place as u64 * FRAME, &mut bytes) {
                Ok(read) => read,
                Err(error) => {
                    judge_error(error)?;
                    unread += 1;
                    frames.push(Frame::default());
                    continue;
                }
            };
            if (read as u64) < FRAME {
                break;
            }
            if !salts_known {
                salts = (number(&bytes, 8), number(&bytes, 12));
                salts_known = true;
            }
            let mut frame = judge(&bytes, salts, before);
            if !frame.sound && is_split(place) {
                frame.commit = 0;
            }
            before = (number(&bytes, 16), number(&bytes, 20));
            frames.push(frame);
        }
        Ok(Wal { unread, ..Wal::of(&frames, is_sound, unread) })
    }

    fn of(frames: &[Frame], is_sound: bool, unread: u64) -> Wal {
        let unbroken = match is_sound {
            true => frames.iter().take_while(|frame| frame.present && frame.sound).count(),
            false => 0,
        };
        let last_commit = |frames: &[Frame]| frames.iter().rposition(|frame| frame.commit > 0);
        let replayed = last_commit(frames.get(..unbroken).unwrap_or_default()).map_or(0, |last| last + 1);
        let is_continued = |place: usize| {
            let next = frames.get(place + 1);
            next.is_some_and(|next| next.present && next.sound && !is_padding(frames.get(place), next))
        };
        let commits = |frame: &Frame| frame.present && frame.commit > 0;
        // What cannot be read was no torn end: whatever is sound behind it counts.
        let is_damaged = unread > 0
            || (unbroken..frames.len())
                .any(|place| frames.get(place).is_some_and(commits) && is_continued(place));
        let sound_commit = |frame: &Frame| commits(frame) && frame.sound;
        let durable = match is_damaged {
            true => (0..frames.len())
                .rev()
                .find(|place| {
                    let frame = frames.get(*place);
                    frame.is_some_and(sound_commit) || (frame.is_some_and(commits) && is_continued(*place))
                })
                .map_or(0, |last| last + 1),
            false => replayed,
        };
        let mut wal = Wal { behind: durable - replayed.min(durable), ..Wal::default() };
        for (place, frame) in frames.iter().take(durable).enumerate() {
            if frame.present && frame.sound {
                wal.pages.insert(frame.page, HEADER + place as u64 * FRAME + FRAME - PAGE);
                wal.stale.remove(&frame.page);
                (wal.size, wal.beyond) = match frame.commit {
                    0 => (wal.size, wal.beyond.max(frame.page)),
                    pages => (Some(pages), 0),
                };
            } else {
                wal.stale.insert(frame.page);
            }
        }
        wal
    }
}

/// Whether the page and the commit of a frame lie in another sector than the rest: a loss of power may have left
/// those of an older log before it.
fn is_split(place: usize) -> bool {
    (HEADER + place as u64 * FRAME + 8).is_multiple_of(SECTOR)
}

/// Whether a frame only fills up the sector behind a commit: a copy of it.
fn is_padding(commit: Option<&Frame>, next: &Frame) -> bool {
    commit.is_some_and(|commit| (commit.page, commit.commit) == (next.page, next.commit))
}

fn is_header(header: &[u8]) -> bool {
    let sums = header.get(..24).map(|summed| checksum(summed, (0, 0)));
    number(header, 0) == MAGIC | u32::from(cfg!(target_endian = "big"))
        && number(header, 4) == VERSION
        && u64::from(number(header, 8)) == PAGE
        && sums == Some((number(header, 24), number(header, 28)))
}

fn judge(bytes: &[u8], salts: (u32, u32), before: Sums) -> Frame {
    let sums = checksum(bytes.get(..8).unwrap_or_default(), before);
    let sums = checksum(bytes.get(24..).unwrap_or_default(), sums);
    Frame {
        page: number(bytes, 0),
        commit: number(bytes, 4),
        present: salts == (number(bytes, 8), number(bytes, 12)),
        sound: sums == (number(bytes, 16), number(bytes, 20)) && number(bytes, 0) > 0,
    }
}

/// SQLite's checksum of a log, over words of this machine's order.
fn checksum(bytes: &[u8], (mut one, mut two): Sums) -> Sums {
    for pair in bytes.as_chunks::<8>().0 {
        let [a, b, c, d, e, f, g, h] = *pair;
        one = one.wrapping_add(u32::from_ne_bytes([a, b, c, d])).wrapping_add(two);
        two = two.wrapping_add(u32::from_ne_bytes([e, f, g, h])).wrapping_add(one);
    }
    (one, two)
}

/// The number at a place; 0 beyond the end.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(number32).unwrap_or(0)
}

/// Bytes before the first frame.
const HEADER_BYTES: usize = 32;
const HEADER: u64 = HEADER_BYTES as u64;

/// Bytes of a frame: a header and a page.
const FRAME_BYTES: usize = 24 + SIZE;
const FRAME: u64 = FRAME_BYTES as u64;

/// What a disk writes whole, at least.
const SECTOR: u64 = 512;

/// How a log begins, but for the lowest bit, which says in which order its words are.
const MAGIC: u32 = 0x377f_0682;

/// The one version of the format.
const VERSION: u32 = 3_007_000;
