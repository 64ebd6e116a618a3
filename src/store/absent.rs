//! The store in a house that has none: the disk did not let us open it.
//!
//! It commits nothing, so nothing that must be kept is acknowledged and the broker's own limit pauses
//! who publishes it; readers find nothing. Ends with [`super::Handle::close`].

use super::{Ask, Handle, OpenError, StoreStatus, open};
use crate::record::Rows;
use crate::store::room::{Files, Sizes};
use std::path::Path;
use std::thread;

/// A way to a store that keeps nothing.
///
/// # Errors
/// Where the kernel gives no thread.
pub fn absent() -> std::io::Result<(Handle, thread::JoinHandle<()>)> {
    let (handle, inbox) = Handle::channel();
    let serve = move || {
        loop {
            for ask in inbox.take(None) {
                match ask {
                    Ask::Read { reader, after, reply, .. } => {
                        reply(Rows { reader, rows: Vec::new(), through: after })
                    }
                    Ask::Status { reply } => reply(StoreStatus::default()),
                    Ask::Close => return,
                    // Never committed, and so never acknowledged.
                    Ask::Writes { .. } | Ask::Settle { .. } | Ask::Drop { .. } => {}
                }
            }
        }
    };
    let thread = thread::Builder::new().name("no-store".into()).spawn(serve)?;
    Ok((handle, thread))
}

/// Whether the data directory can be opened now; everything is closed again.
pub fn can_open(dir: &Path, config: &super::Checked) -> Result<(), OpenError> {
    let _lock = open::lock(dir)?;
    open::database(&Files::within(dir), &Sizes::of(config), 0).map(drop)
}
