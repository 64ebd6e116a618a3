//! SQLite's b-tree pages and records, read without SQLite.
//!
//! As much of the file format as salvage needs: cells of a page, children of an inner one, columns of a
//! record. Nothing is believed: what does not fit is left out, and what fits is for a checksum to vouch
//! for. Pages have no reserved space and texts are UTF-8, as in every database of ours. Pure.

use rusqlite::types::ValueRef;

/// A page's bytes.
pub(super) type Page = [u8; SIZE];

/// What a page says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rows of a table.
    Leaf,
    /// Children of a table's page.
    Inner,
    /// Rows of a table that has no row ids.
    KeyLeaf,
    /// Children of a page of such a table, and rows.
    KeyInner,
}

/// What stands in a cell beside the start of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell<'a> {
    /// Row id; 0 in a table that has none.
    pub(super) id: i64,
    /// Bytes of the whole record.
    pub(super) length: usize,
    /// Those that are in the page.
    pub(super) local: &'a [u8],
    /// The page in which it goes on; 0: it does not.
    pub(super) overflow: u32,
}

/// What a page is; `None` where it is none of a tree.
pub(super) fn kind(number: u32, page: &Page) -> Option<Kind> {
    match page.get(start(number))? {
        0x0d => Some(Kind::Leaf),
        0x05 => Some(Kind::Inner),
        0x0a => Some(Kind::KeyLeaf),
        0x02 => Some(Kind::KeyInner),
        _ => None,
    }
}

/// The records of a page.
pub(super) fn cells(number: u32, page: &Page, kind: Kind) -> impl Iterator<Item = Cell<'_>> {
    let skip = if kind == Kind::KeyInner { 4 } else { 0 };
    let places = if kind == Kind::Inner { Vec::new() } else { places(number, page, kind) };
    places.into_iter().filter_map(move |place| cell(page.get(place + skip..)?, kind))
}

/// The children of an inner page, each with the highest row id below it.
pub(super) fn children(number: u32, page: &Page, kind: Kind) -> Vec<(u32, i64)> {
    if !matches!(kind, Kind::Inner | Kind::KeyInner) {
        return Vec::new();
    }
    let child = |place: usize| {
        let child = number32(page.get(place..)?)?;
        let key = if kind == Kind::Inner { varint(page.get(place + 4..)?)?.0 } else { 0 };
        Some((child, key))
    };
    let mut found: Vec<(u32, i64)> = places(number, page, kind).into_iter().filter_map(child).collect();
    let last = page.get(start(number) + 8..).and_then(number32);
    found.extend(last.map(|last| (last, i64::MAX)));
    found
}

/// The columns of a record; `None` where they do not fill it exactly.
pub(super) fn columns(record: &[u8]) -> Option<Vec<ValueRef<'_>>> {
    let types = types(record, record.len())?;
    let (header, _) = varint(record)?;
    let mut rest = record.get(usize::try_from(header).ok()?..)?;
    let mut found = Vec::with_capacity(types.len());
    for serial in types {
        let (bytes, after) = rest.split_at_checked(width(serial)?)?;
        rest = after;
        found.push(match serial {
            0 => ValueRef::Null,
            1..=6 => ValueRef::Integer(integer(bytes)),
            8 | 9 => ValueRef::Integer(serial - 8),
            _ if serial >= 12 && serial % 2 == 0 => ValueRef::Blob(bytes),
            _ if serial >= 13 => ValueRef::Text(bytes),
            // The store writes no fractions.
            _ => return None,
        });
    }
    Some(found)
}

/// The serial types in the head of a record of so many bytes; `None` where they do not fill it exactly. The
/// head lies in the first page whenever the store wrote it.
pub(super) fn types(head: &[u8], length: usize) -> Option<Vec<i64>> {
    let (header, used) = varint(head)?;
    let header = usize::try_from(header).ok()?;
    let mut rest = head.get(used..header)?;
    let (mut found, mut total) = (Vec::new(), header);
    while !rest.is_empty() {
        let (serial, used) = varint(rest)?;
        total = total.checked_add(width(serial)?)?;
        found.push(serial);
        rest = rest.get(used..)?;
    }
    (total == length).then_some(found)
}

/// Bytes of a page that is not a page of a tree but goes on with a record, before its content.
pub(super) const LINK: usize = 4;

/// The first number of four bytes.
pub(super) fn number32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk::<4>()?))
}

/// Where the cells of a page begin.
fn places(number: u32, page: &Page, kind: Kind) -> Vec<usize> {
    let start = start(number);
    let count = page.get(start + 3..).and_then(number16).unwrap_or(0);
    let header = if matches!(kind, Kind::Inner | Kind::KeyInner) { 12 } else { 8 };
    let list = page.get(start + header..).unwrap_or_default();
    list.as_chunks::<2>().0.iter().take(count).map(|two| usize::from(u16::from_be_bytes(*two))).collect()
}

fn cell(bytes: &[u8], kind: Kind) -> Option<Cell<'_>> {
    let (length, used) = varint(bytes)?;
    let length = usize::try_from(length).ok()?;
    let bytes = bytes.get(used..)?;
    let (id, bytes) = match kind {
        Kind::Leaf => {
            let (id, used) = varint(bytes)?;
            (id, bytes.get(used..)?)
        }
        _ => (0, bytes),
    };
    let most = if kind == Kind::Leaf { SIZE - 35 } else { (SIZE - 12) * 64 / 255 - 23 };
    if length <= most {
        return Some(Cell { id, length, local: bytes.get(..length)?, overflow: 0 });
    }
    let least = (SIZE - 12) * 32 / 255 - 23;
    let even = least + (length - least) % (SIZE - LINK);
    let here = if even <= most { even } else { least };
    let (local, rest) = bytes.split_at_checked(here)?;
    Some(Cell { id, length, local, overflow: number32(rest)? })
}

/// The first page begins with the file's header.
fn start(number: u32) -> usize {
    if number == 1 { 100 } else { 0 }
}

fn number16(bytes: &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(*bytes.first_chunk::<2>()?)))
}

/// SQLite's number of one to nine bytes, highest bits first, and how many it took.
fn varint(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut value = 0u64;
    for (place, byte) in bytes.iter().take(9).enumerate() {
        if place == 8 {
            return Some(((value << 8 | u64::from(*byte)).cast_signed(), 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value.cast_signed(), place + 1));
        }
    }
    None
}

/// Bytes of a column.
fn width(serial: i64) -> Option<usize> {
    match serial {
        0 | 8 | 9 => Some(0),
        1..=4 => usize::try_from(serial).ok(),
        5 => Some(6),
        6 | 7 => Some(8),
        12.. => usize::try_from((serial - 12) / 2).ok(),
        _ => None,
    }
}

/// A signed number, highest byte first.
fn integer(bytes: &[u8]) -> i64 {
    let sign = bytes.first().map_or(0, |first| i64::from(first.cast_signed() >> 7));
    bytes.iter().fold(sign, |value, byte| value << 8 | i64::from(*byte))
}

/// Bytes of a page.
pub(super) const SIZE: usize = 4_096;
