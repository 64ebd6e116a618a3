//! The tasks of a house by their names, so that one that does not end is named.
//!
//! Who ends by himself is forgotten; who is left at the end is ended.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::timeout;

/// Adapters and bridges at work.
#[derive(Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: BTreeMap<Id, String>,
}

impl Tasks {
    /// Starts one.
    pub(super) fn start(&mut self, name: String, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until all have ended, and ends the others: these are their names.
    pub(super) async fn end(mut self, within: Duration) -> Vec<String> {
        let all = async {
            while let Some(ended) = self.set.join_next_with_id().await {
                // One that has panicked has ended, too, and its panic was told.
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                self.names.remove(&id);
            }
        };
        // Whoever is left stands among the names.
        let _ = timeout(within, all).await;
        self.names.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_end_is_named() {
        let mut tasks = Tasks::default();
        for name in ["bridge cloud", "modbus"] {
            tasks.start(name.to_owned(), async {});
        }
        tasks.start("bridge backup".to_owned(), std::future::pending());
        assert_eq!(tasks.end(Duration::from_millis(20)).await, ["bridge backup"]);
        assert_eq!(Tasks::default().end(Duration::ZERO).await, [""; 0]);
    }
}
