//! Keeps messages on disk until their readers have them.
//!
//! One thread owns the database and commits in batches, so that one fsync serves many messages.
//! We assume: what SQLite has committed with `synchronous = FULL` survives loss of power; a write
//! leaves its neighbours alone; the disk may be full at any time and says so.

mod handle;

pub use handle::{Ask, Handle, Inbox, ReaderStatus, StoreStatus};
