//! One port's task: requests to the engine, answers to the adapter.
//!
//! A port may have so many requests unanswered; the next one waits. That and the port's credit bound what
//! the engine can have to say to it, so the queue outward, which is sized by both, has room for every
//! word that the engine may say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adapter_api::{FromPort, Hello, Port, Qos, ToPort};
use tokio::sync::mpsc;

use crate::engine::{EngineGone, Input, Inputs};

/// What stands between a [`Port`] and the engine.
pub(super) struct Relay {
    number: u64,
    hello: Hello,
    inputs: Inputs,
    requests: mpsc::Receiver<FromPort>,
    /// To the adapter.
    answers: mpsc::Sender<ToPort>,
    unanswered: usize,
    /// Whether the service stops.
    stopping: Arc<AtomicBool>,
}

impl Relay {
    /// A relay and the port that the adapter holds.
    pub(super) fn open(
        number: u64,
        hello: Hello,
        inputs: Inputs,
        stopping: Arc<AtomicBool>,
    ) -> (Relay, Port) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (answers, receiver) = mpsc::channel(words_at_once(&hello));
        let relay = Relay { number, hello, inputs, requests, answers, unanswered: 0, stopping };
        (relay, Port { sender, receiver })
    }

    /// Runs until the adapter drops its port or the engine closes it.
    pub(super) async fn run(mut self) {
        // Whoever is gone needs no more word of it: without the engine nobody can be told, and the
        // adapter sees that its port has ended.
        let _ = self.relay().await;
    }

    async fn relay(&mut self) -> Result<(), EngineGone> {
        let port = self.number;
        let (outward, mut words) = mpsc::channel(words_at_once(&self.hello));
        self.inputs.send(Input::PortOpened { port, hello: self.hello.clone(), outward }).await?;
        loop {
            tokio::select! {
                // Answers first: they make room for requests.
                biased;
                word = words.recv() => {
                    let Some(word) = word else { return Ok(()) };
                    self.unanswered -= usize::from(is_answer(&word));
                    if self.answers.send(word).await.is_err() {
                        return self.dropped(words).await;
                    }
                }
                request = self.requests.recv(), if self.unanswered < UNANSWERED_MAX => {
                    let Some(request) = request else { return self.dropped(words).await };
                    self.unanswered += usize::from(is_answered(&request));
                    self.inputs.send(Input::FromPort { port, request }).await?;
                }
            }
        }
    }

    /// The adapter has dropped its port.
    async fn dropped(&self, mut words: mpsc::Receiver<ToPort>) -> Result<(), EngineGone> {
        if !self.stopping.load(Ordering::Relaxed) {
            return self.inputs.send(Input::PortLost { port: self.number }).await;
        }
        // It ends like every client, with the engine.
        while words.recv().await.is_some() {}
        Ok(())
    }
}

/// Whether the engine owes a word for it.
fn is_answered(request: &FromPort) -> bool {
    match request {
        FromPort::Publish { qos, .. } => *qos != Qos::AtMostOnce,
        FromPort::Subscribe { .. } | FromPort::Unsubscribe { .. } | FromPort::Drain => true,
        FromPort::Acknowledge { .. } | FromPort::Grant(_) | FromPort::Close => false,
    }
}

/// Whether it is a word that was owed.
fn is_answer(word: &ToPort) -> bool {
    match word {
        ToPort::Published(_) | ToPort::Subscribed { .. } | ToPort::Unsubscribed { .. } | ToPort::Drained => {
            true
        }
        ToPort::Connected { .. } | ToPort::Message(_) | ToPort::Closed(_) => false,
    }
}

/// Messages under way, answers owed, and the first and the last word.
fn words_at_once(hello: &Hello) -> usize {
    usize::try_from(hello.credit).unwrap_or(CREDIT_MAX).min(CREDIT_MAX) + UNANSWERED_MAX + 2
}

/// Requests that wait for the task; beyond them the adapter waits.
const REQUESTS_MAX: usize = 64;

/// Requests that the engine has not answered; beyond them the adapter waits. Far below the 65,535 packet
/// ids of MQTT.
const UNANSWERED_MAX: usize = 1_024;

/// A port that grants more loses its queue's guarantee: it is closed when it does not keep up.
const CREDIT_MAX: usize = 65_535;
