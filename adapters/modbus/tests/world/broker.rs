//! A host whose broker takes every reading and acknowledges it when the test looks.
//!
//! Nothing is delivered to anybody; what was reported last is kept for the test to read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use adapter_api::{Acknowledgement, FromPort, Health, Hello, Host, Port, ToPort};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

/// The host that a test gives to the adapter.
#[derive(Default)]
pub(crate) struct Broker {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    ends: Option<(mpsc::Receiver<FromPort>, mpsc::Sender<ToPort>)>,
    health: BTreeMap<String, Health>,
    hello: Option<Hello>,
}

/// One publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
}

impl Broker {
    pub(crate) fn new() -> Arc<Broker> {
        Arc::new(Broker::default())
    }

    /// All readings since the last call, each acknowledged.
    pub(crate) fn take(&self) -> Vec<Published> {
        let mut inner = self.inner.lock().expect("no test panics with it");
        let mut readings = Vec::new();
        let Some((receiver, sender)) = &mut inner.ends else { return readings };
        while let Ok(request) = receiver.try_recv() {
            if let FromPort::Publish { id, topic, payload, .. } = request {
                let _ = sender.try_send(ToPort::Published(Acknowledgement { id, result: Ok(()) }));
                readings.push(Published { topic, payload });
            }
        }
        readings
    }

    /// The next reading, waiting for it.
    pub(crate) async fn next(&self) -> Published {
        let request = std::future::poll_fn(|context| {
            let mut inner = self.inner.lock().expect("no test panics with it");
            match &mut inner.ends {
                Some((receiver, sender)) => receiver.poll_recv(context).map(|request| {
                    if let Some(FromPort::Publish { id, .. }) = &request {
                        let _ =
                            sender.try_send(ToPort::Published(Acknowledgement { id: *id, result: Ok(()) }));
                    }
                    request
                }),
                None => {
                    context.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
            }
        });
        match request.await {
            Some(FromPort::Publish { topic, payload, .. }) => Published { topic, payload },
            other => panic!("expected a reading, found {other:?}"),
        }
    }

    /// What was last reported for a path.
    pub(crate) fn health(&self, path: &str) -> Option<Health> {
        self.inner.lock().expect("no test panics with it").health.get(path).cloned()
    }

    /// A counter of what was last reported.
    pub(crate) fn counter(&self, path: &str, name: &str) -> u64 {
        let health = self.health(path).expect("it was reported");
        health.counters.get(name).and_then(Value::as_u64).expect("it is counted")
    }

    /// Who opened the last port.
    pub(crate) fn hello(&self) -> Option<Hello> {
        self.inner.lock().expect("no test panics with it").hello.clone()
    }
}

impl Host for Broker {
    fn open(&self, hello: Hello) -> Port {
        let (sender, from_port) = mpsc::channel(ROOM);
        let (to_port, receiver) = mpsc::channel(ROOM);
        to_port.try_send(ToPort::Connected { session_present: false }).expect("the channel is new");
        let mut inner = self.inner.lock().expect("no test panics with it");
        inner.ends = Some((from_port, to_port));
        inner.hello = Some(hello);
        Port { sender, receiver }
    }

    fn report(&self, path: &str, health: Health) {
        self.inner.lock().expect("no test panics with it").health.insert(path.to_owned(), health);
    }
}

/// More than a poll can publish.
const ROOM: usize = 8_192;
