//! A local broker of the test: takes what is published, and answers when the test lets it.
//!
//! It never answers by itself, so that the order of answers is the test's.

use std::sync::{Arc, Mutex, MutexGuard};

use adapter_api::{Acknowledgement, FromPort, Health, Hello, Host, Port, Qos, Refusal, ToPort};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// The house that the bridge runs in.
#[derive(Clone)]
pub(super) struct House(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// Whether publishes are answered.
    commits: watch::Sender<bool>,
    /// Whether there is no room for any.
    full: watch::Sender<bool>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) hellos: Vec<Hello>,
    pub(super) published: Vec<(String, String, Qos)>,
    /// The properties of each.
    pub(super) properties: Vec<Bytes>,
    pub(super) reports: Vec<(String, Health)>,
    /// Topics that may not be published to.
    pub(super) denied: Vec<String>,
    /// Payloads of what was taken, in order.
    pub(super) taken: Vec<String>,
    /// So many of the next there is no room for.
    pub(super) refuse: usize,
    /// Publishes that there was no room for.
    pub(super) turned_down: usize,
}

impl House {
    pub(super) fn new() -> House {
        House(Arc::new(Inner {
            state: Mutex::default(),
            changed: watch::channel(0).0,
            commits: watch::channel(true).0,
            full: watch::channel(false).0,
        }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Whether commits succeed from now on; while not, nothing is answered.
    pub(super) fn let_commit(&self, commits: bool) {
        self.0.commits.send_replace(commits);
    }

    /// Whether there is room for nothing from now on.
    pub(super) fn fill(&self, full: bool) {
        self.0.full.send_replace(full);
    }

    /// Whether this one is among those that there is no room for.
    fn refuses_one(&self) -> bool {
        let mut state = self.state();
        let refuses = state.refuse > 0;
        state.refuse = state.refuse.saturating_sub(1);
        refuses
    }

    pub(super) async fn until(&self, what: &str, mut is_so: impl FnMut(&State) -> bool) {
        let mut changed = self.0.changed.subscribe();
        let so = changed.wait_for(|_| is_so(&self.state()));
        if timeout(super::PATIENCE, so).await.is_err() {
            panic!("not {what}: {:?}", self.state().published);
        }
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.changed.send_modify(|changes| *changes += 1);
    }
}

impl Host for House {
    fn open(&self, hello: Hello) -> Port {
        let (sender, mut requests) = mpsc::channel(4);
        let (answers, receiver) = mpsc::channel(64);
        let house = self.clone();
        house.note(|state| state.hellos.push(hello));
        tokio::spawn(async move {
            answers.send(ToPort::Connected { session_present: false }).await.unwrap();
            let mut commits = house.0.commits.subscribe();
            while let Some(request) = requests.recv().await {
                let FromPort::Publish { id, topic, payload, qos, properties, .. } = request else { continue };
                house.note(|state| state.properties.push(properties));
                let denied = house.state().denied.contains(&topic);
                let payload = String::from_utf8(payload.to_vec()).unwrap();
                house.note(|state| state.published.push((topic, payload.clone(), qos)));
                commits.wait_for(|commits| *commits).await.unwrap();
                let result = if denied {
                    Err(Refusal::NotAuthorized)
                } else if *house.0.full.borrow() || house.refuses_one() {
                    house.note(|state| state.turned_down += 1);
                    Err(Refusal::QuotaExceeded)
                } else {
                    house.note(|state| state.taken.push(payload));
                    Ok(())
                };
                if qos != Qos::AtMostOnce
                    && answers.send(ToPort::Published(Acknowledgement { id, result })).await.is_err()
                {
                    return;
                }
            }
        });
        Port { sender, receiver }
    }

    fn report(&self, path: &str, health: Health) {
        self.note(|state| state.reports.push((path.to_owned(), health)));
    }
}
