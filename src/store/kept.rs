//! Sessions, routes and retained messages: the tables that are read whole at a start.
//!
//! Each row is one packed, sealed blob. Sessions and routes have a copy in `mirror`, which every commit
//! writes to anyway, so that one page is no end of a session. A row that is damaged in every place is left
//! out, with a warning: one damaged session or retained message must not keep the others from coming back.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use rusqlite::{Connection, params};

use super::audience::{pack_qos, unpack_qos};
use super::log::{RETAIN, UNCLOCKED, message_flags};
use super::pack::{Unpack, put_bytes, put_number, put_optional, seal, unseal};
use super::reader::{Kind, Reader, State};
use super::schema::{Fault, signed, state, unsigned};
use crate::codec::{Properties, RetainHandling, SubscriptionOptions};
use crate::record::{Message, Mount, ReaderId, SessionRecord, SessionWill, StoredSubscription};

/// Whether the configuration names a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does.
    Active,
    /// It did. Its numbers are kept, so that it goes on from there should it come back.
    Removed,
}

/// A route as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredRoute {
    pub(super) reader: ReaderId,
    pub(super) name: String,
    pub(super) standing: Standing,
}

/// What has a copy in `mirror`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Original {
    /// A session.
    Session,
    /// A route.
    Route,
}

/// Writes a route.
pub(super) fn put_route(
    connection: &Connection,
    reader: ReaderId,
    name: &str,
    standing: Standing,
) -> Result<(), Fault> {
    let mut blob = vec![u8::from(standing == Standing::Removed)];
    put_bytes(&mut blob, name.as_bytes());
    Ok(put_twice(connection, Original::Route, reader, &blob)?)
}

/// All routes, in the order of their making.
pub(super) fn routes(connection: &Connection) -> rusqlite::Result<Vec<StoredRoute>> {
    blobs(connection, Original::Route, EVERY, |reader, body| {
        let mut unpack = Unpack::new(body);
        let standing = if unpack.byte()? == 0 { Standing::Active } else { Standing::Removed };
        Some(StoredRoute { reader, name: unpack.text()?.into(), standing })
    })
}

/// A reader with its stored state; `None` where none is stored.
pub(super) fn reader(
    connection: &Connection,
    id: ReaderId,
    kind: Kind,
    name: String,
) -> Result<Option<Reader>, Fault> {
    let state = state(connection, id.0)?.and_then(|blob| State::unpack(&blob));
    Ok(state.map(|state| Reader::restored(kind, name, state)))
}

/// Writes a session.
pub(super) fn put_session(connection: &Connection, record: &SessionRecord) -> Result<(), Fault> {
    let mut blob = Vec::new();
    put_bytes(&mut blob, record.client_id.as_bytes());
    put_optional(&mut blob, record.user.as_deref().map(str::as_bytes));
    put_number(&mut blob, u64::from(record.expiry));
    put_number(&mut blob, record.ended.map_or(0, |ended| ended.saturating_add(1)));
    put_number(&mut blob, record.subscriptions.len() as u64);
    for subscription in &record.subscriptions {
        put_bytes(&mut blob, subscription.filter.as_bytes());
        blob.push(pack_options(subscription.options));
        put_number(&mut blob, subscription.identifier.map_or(0, u64::from));
    }
    blob.push(u8::from(record.will.is_some()));
    if let Some(will) = &record.will {
        blob.push(pack_qos(will.qos) | if will.retain { RETAIN } else { 0 });
        put_bytes(&mut blob, will.topic.as_bytes());
        put_bytes(&mut blob, &will.payload);
        put_bytes(&mut blob, will.properties.as_bytes());
    }
    match &record.mount {
        Mount::Unknown => {}
        Mount::None => put_optional(&mut blob, None),
        Mount::At(mount) => put_optional(&mut blob, Some(mount.as_bytes())),
    }
    Ok(put_twice(connection, Original::Session, record.reader, &blob)?)
}

/// Removes a session.
pub(super) fn remove_session(connection: &Connection, reader: ReaderId) -> Result<(), Fault> {
    connection.prepare_cached("DELETE FROM sessions WHERE reader = ?")?.execute([reader.0])?;
    let copy = Original::Session.key_of_copy(reader);
    connection.prepare_cached("DELETE FROM mirror WHERE reader = ?")?.execute([signed(copy)])?;
    Ok(())
}

/// All sessions.
pub(super) fn sessions(connection: &Connection) -> rusqlite::Result<Vec<SessionRecord>> {
    blobs(connection, Original::Session, EVERY, unpack_session)
}

/// One session.
pub(super) fn session(connection: &Connection, reader: ReaderId) -> rusqlite::Result<Option<SessionRecord>> {
    Ok(blobs(connection, Original::Session, (reader, reader), unpack_session)?.pop())
}

fn unpack_session(reader: ReaderId, body: &[u8]) -> Option<SessionRecord> {
    let mut unpack = Unpack::new(body);
    let client_id = text(unpack.bytes()?)?;
    let user = match unpack.optional()? {
        Some(user) => Some(text(user)?),
        None => None,
    };
    let expiry = unpack.number32()?;
    let ended = unpack.number()?.checked_sub(1);
    let mut subscriptions = Vec::new();
    for _ in 0..unpack.number()? {
        let filter = text(unpack.bytes()?)?;
        let options = unpack_options(unpack.byte()?)?;
        let identifier = Some(unpack.number32()?).filter(|identifier| *identifier > 0);
        subscriptions.push(StoredSubscription { filter, options, identifier });
    }
    let will = if unpack.byte()? == 0 { None } else { Some(unpack_will(&mut unpack)?) };
    let mount = unpack_mount(&mut unpack)?;
    Some(SessionRecord { reader, client_id, user, expiry, ended, subscriptions, will, mount })
}

/// Stands last since version 3; before, nothing did.
fn unpack_mount(unpack: &mut Unpack<'_>) -> Option<Mount> {
    if unpack.is_empty() {
        return Some(Mount::Unknown);
    }
    unpack.optional()?.map_or(Some(Mount::None), |mount| text(mount).map(Mount::At))
}

fn unpack_will(unpack: &mut Unpack<'_>) -> Option<SessionWill> {
    let flags = unpack.byte()?;
    Some(SessionWill {
        qos: unpack_qos(flags)?,
        retain: flags & RETAIN != 0,
        topic: text(unpack.bytes()?)?,
        payload: Bytes::copy_from_slice(unpack.bytes()?),
        properties: Properties::from_kept(Bytes::copy_from_slice(unpack.bytes()?)),
    })
}

fn pack_options(options: SubscriptionOptions) -> u8 {
    let handling = match options.retain_handling {
        RetainHandling::Send => 0,
        RetainHandling::SendIfNew => 1,
        RetainHandling::DoNotSend => 2,
    };
    pack_qos(options.qos)
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | handling << 4
}

fn unpack_options(bits: u8) -> Option<SubscriptionOptions> {
    let retain_handling = match bits >> 4 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return None,
    };
    Some(SubscriptionOptions {
        qos: unpack_qos(bits)?,
        no_local: bits & 4 != 0,
        retain_as_published: bits & 8 != 0,
        retain_handling,
    })
}

/// Forgets a topic's retained message.
pub(super) fn remove_retained(connection: &Connection, topic: &str) -> Result<(), Fault> {
    connection.prepare_cached("DELETE FROM retained WHERE topic = ?")?.execute([topic])?;
    Ok(())
}

/// Keeps a retained message.
pub(super) fn put_retained(connection: &Connection, message: &Message) -> Result<(), Fault> {
    let topic = &*message.topic;
    let mut blob = vec![message_flags(message)];
    put_number(&mut blob, message.received);
    put_number(&mut blob, message.expiry.map_or(0, |expiry| u64::from(expiry) + 1));
    put_bytes(&mut blob, message.properties.as_bytes());
    put_bytes(&mut blob, &message.payload);
    seal(&mut blob, topic_key(topic));
    connection.prepare_cached("REPLACE INTO retained VALUES (?, ?)")?.execute(params![topic, blob])?;
    Ok(())
}

/// All retained messages, in the order of their topics.
pub(super) fn retained(connection: &Connection) -> rusqlite::Result<Vec<Arc<Message>>> {
    let mut statement = connection.prepare("SELECT topic, data FROM retained")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let sound = || {
            let topic = row.get_ref(0).ok()?.as_str().ok()?;
            let body = unseal(row.get_ref(1).ok()?.as_blob().ok()?, topic_key(topic))?;
            unpack_retained(topic, body)
        };
        match sound() {
            Some(message) => found.push(Arc::new(message)),
            None => tracing::warn!("a retained message is damaged and left out"),
        }
    }
    Ok(found)
}

fn unpack_retained(topic: &str, body: &[u8]) -> Option<Message> {
    let mut unpack = Unpack::new(body);
    let flags = unpack.byte()?;
    Some(Message {
        topic: ByteString::from(topic),
        qos: unpack_qos(flags)?,
        retain: flags & RETAIN != 0,
        unclocked: flags & UNCLOCKED != 0,
        received: unpack.number()?,
        expiry: unpack.number()?.checked_sub(1).and_then(|expiry| u32::try_from(expiry).ok()),
        properties: Properties::from_kept(Bytes::copy_from_slice(unpack.bytes()?)),
        payload: Bytes::copy_from_slice(unpack.bytes()?),
    })
}

impl Original {
    fn table(self) -> &'static str {
        match self {
            Original::Session => "sessions",
            Original::Route => "routes",
        }
    }

    /// Beyond every reader's number, under which `mirror` has its state.
    fn key_of_copy(self, reader: ReaderId) -> u64 {
        let kind = match self {
            Original::Session => 1,
            Original::Route => 2,
        };
        kind << 32 | u64::from(reader.0)
    }
}

/// What a row of `mirror` is a copy of; `None` where it is a state.
pub(super) fn original(key: u64) -> Option<(Original, ReaderId)> {
    let reader = ReaderId(u32::try_from(key & u64::from(u32::MAX)).ok()?);
    [Original::Session, Original::Route]
        .into_iter()
        .find(|original| original.key_of_copy(reader) == key)
        .map(|original| (original, reader))
}

/// Writes a row and its copy.
pub(super) fn put_twice(
    connection: &Connection,
    original: Original,
    reader: ReaderId,
    body: &[u8],
) -> rusqlite::Result<()> {
    let copy = original.key_of_copy(reader);
    for (table, key) in [(original.table(), u64::from(reader.0)), ("mirror", copy)] {
        let mut blob = body.to_vec();
        seal(&mut blob, key);
        let sql = format!("REPLACE INTO {table} VALUES (?, ?)");
        connection.prepare_cached(&sql)?.execute(params![signed(key), blob])?;
    }
    Ok(())
}

/// Sealed rows of a table that is keyed by reader, from the one reader to the other, from whichever place is sound, in
/// the readers' order.
fn blobs<T>(
    connection: &Connection,
    original: Original,
    (from, to): (ReaderId, ReaderId),
    read: impl Fn(ReaderId, &[u8]) -> Option<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut found = BTreeMap::new();
    for (table, zero) in [(original.table(), 0), ("mirror", original.key_of_copy(ReaderId(0)))] {
        let (first, last) = (zero + u64::from(from.0), zero + u64::from(to.0));
        let sql = format!("SELECT reader, data FROM {table} WHERE reader BETWEEN ? AND ?");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![signed(first), signed(last)])?;
        while let Some(row) = rows.next()? {
            let key = unsigned(row.get(0)?);
            let reader = key.checked_sub(zero).and_then(|reader| u32::try_from(reader).ok()).map(ReaderId);
            // A damaged table may have one that SQLite was not asked for.
            let Some(reader) = reader.filter(|reader| (from..=to).contains(reader)) else {
                tracing::warn!(table, key, "a row is damaged");
                continue;
            };
            if found.get(&reader).is_some_and(Option::is_some) {
                continue;
            }
            let sound = || read(reader, unseal(row.get_ref(1).ok()?.as_blob().ok()?, key)?);
            let value = sound();
            if value.is_none() {
                tracing::warn!(table, reader = reader.0, "a row is damaged");
            }
            found.insert(reader, value);
        }
    }
    Ok(found.into_values().flatten().collect())
}

pub(super) fn topic_key(topic: &str) -> u64 {
    u64::from(crc32c::crc32c(topic.as_bytes()))
}

fn text(bytes: &[u8]) -> Option<ByteString> {
    std::str::from_utf8(bytes).ok().map(ByteString::from)
}

/// Of readers: all that there may be.
const EVERY: (ReaderId, ReaderId) = (ReaderId(0), ReaderId(u32::MAX));
