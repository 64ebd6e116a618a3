//! What upstream was asked to keep for us, on disk: the filters of our subscriptions.
//!
//! A kept session at upstream outlives our configuration: a receive route that is taken out would be
//! served on, and nobody here would know what to end. So the filters are written down before they are
//! asked for, and struck out when upstream has ended them. A lost note costs a subscription that stays.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::Checked;

/// One bridge's notes.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    path: PathBuf,
    /// Whose session it is.
    session: (String, String),
    /// What is configured.
    configured: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
struct Page {
    upstream: String,
    client_id: String,
    filters: BTreeSet<String>,
}

impl Notes {
    /// Of this bridge, in this folder.
    pub(super) fn new(folder: &Path, bridge: &Checked) -> Notes {
        Notes {
            path: folder.join(format!("bridge-{}.json", bridge.name)),
            session: (bridge.url.to_string(), bridge.client_id.clone()),
            configured: bridge.receives.iter().map(|receive| receive.filter.to_string()).collect(),
        }
    }

    /// Adds what is configured, and says what else stands there. Writes a file: for a helper thread.
    pub(super) fn begin(&self) -> io::Result<BTreeSet<String>> {
        let known = self.read();
        if !known.is_superset(&self.configured) {
            self.write(&known | &self.configured)?;
        }
        Ok(&known - &self.configured)
    }

    /// Leaves what is configured. Writes a file: for a helper thread.
    pub(super) fn settle(&self) -> io::Result<()> {
        self.write(self.configured.clone())
    }

    /// Nothing where there is no page, or one of another session.
    fn read(&self) -> BTreeSet<String> {
        let text = fs::read(&self.path).unwrap_or_default();
        let page = serde_json::from_slice::<Page>(&text).ok();
        let own = page.filter(|page| (&page.upstream, &page.client_id) == (&self.session.0, &self.session.1));
        own.map(|page| page.filters).unwrap_or_default()
    }

    fn write(&self, filters: BTreeSet<String>) -> io::Result<()> {
        let (upstream, client_id) = self.session.clone();
        let text = serde_json::to_vec(&Page { upstream, client_id, filters })?;
        // A crash leaves the old page or the new one.
        let beside = self.path.with_extension("json.new");
        fs::write(&beside, text)?;
        fs::rename(beside, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::{Config, ReceiveConfig};

    #[test]
    fn what_is_not_configured_any_more_is_known_until_it_is_settled() {
        let folder = tempfile::tempdir().unwrap();
        let notes = |filters: &[&str], client_id: &str| {
            let receive =
                |filter: &&str| ReceiveConfig { filter: (*filter).to_owned(), ..Default::default() };
            let config = Config {
                name: "cloud".to_owned(),
                urls: vec!["mqtt://192.0.2.1".to_owned()],
                client_id: client_id.to_owned(),
                receive: filters.iter().map(receive).collect(),
                ..Config::default()
            };
            Notes::new(folder.path(), &config.check("barn-7").unwrap())
        };
        let stale = |notes: &Notes| notes.begin().unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(stale(&notes(&["a", "b/#"], "x")), [""; 0]);
        let second = notes(&["a", "c"], "x");
        assert_eq!(stale(&second), ["b/#"]);
        // Upstream was not reached: it is still there.
        assert_eq!(stale(&notes(&["c"], "x")), ["a", "b/#"]);
        second.settle().unwrap();
        assert_eq!(stale(&notes(&["c"], "x")), ["a"]);
        assert_eq!(stale(&notes(&[], "another")), [""; 0], "that is another session");
        assert!(
            Notes::new(&folder.path().join("nowhere"), &{
                let receive = vec![ReceiveConfig { filter: "a".to_owned(), ..Default::default() }];
                let urls = vec!["mqtt://192.0.2.1".to_owned()];
                let name = "cloud".to_owned();
                Config { name, urls, receive, ..Config::default() }.check("barn-7").unwrap()
            })
            .begin()
            .is_err()
        );
    }
}
