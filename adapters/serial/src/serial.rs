//! One line at work: reads the device, cuts lines, publishes readings.
//!
//! Everything that decides stands in pure files, the framer and the parser; here they are given bytes and
//! time. Trouble with the device or the broker never ends the line.

use std::sync::Arc;
use std::time::Duration;

use adapter_api::clock::wall;
use adapter_api::{Adapter, Host, Outbox, Running};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::checked::Checked;
use crate::framer::{LineFramer, Start};
use crate::line::{Event, Line};
use crate::reading::Parser;
use crate::reporter::Reporter;

/// A serial line as an adapter of the appliance.
#[derive(Debug)]
pub struct Serial {
    line: Checked,
}

/// The adapter for one line.
pub fn adapter(line: Checked) -> Box<dyn Adapter> {
    Box::new(Serial { line })
}

impl Adapter for Serial {
    fn name(&self) -> String {
        format!("serial:{}", self.line.name)
    }

    fn run(self: Box<Self>, host: Arc<dyn Host>, mut stop: watch::Receiver<bool>) -> Running {
        Box::pin(async move {
            let name = self.name();
            let mut running = Runner::new(self.line, &host, name);
            tokio::select! {
                biased;
                // Who can no longer say stop has stopped.
                _ = stop.wait_for(|stop| *stop) => {}
                () = running.run() => {}
            }
            running.end().await;
        })
    }
}

struct Runner {
    line: Line,
    /// Until the first byte: when the device was opened.
    opened: Option<Instant>,
    framer: LineFramer,
    parser: Parser,
    topic: Arc<str>,
    outbox: Outbox,
    reporter: Reporter,
}

impl Runner {
    fn new(line: Checked, host: &Arc<dyn Host>, name: String) -> Runner {
        Runner {
            framer: LineFramer::new(&line.end, line.max),
            reporter: Reporter::new(Arc::clone(host), &line.name),
            outbox: Outbox::new(Arc::clone(host), name),
            line: Line::new(&line),
            opened: None,
            topic: line.topic.into(),
            parser: line.parser,
        }
    }

    async fn run(&mut self) {
        loop {
            tokio::select! {
                biased;
                // A line never waits for the broker; the broker's words wait for a read at most.
                event = self.line.next() => self.take(event),
                () = self.outbox.step() => {}
                () = self.reporter.due() => self.report(),
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Opened => {
                self.opened = Some(Instant::now());
                self.framer.restart(Start::Torn);
                self.reporter.opened();
                self.report();
            }
            Event::Heard(count) => self.hear(count),
            Event::Lost(reason) => {
                self.reporter.lost(reason);
                self.report();
            }
        }
    }

    fn hear(&mut self, count: usize) {
        // The clock is read as soon as the bytes are there: the lines that they end are of this moment.
        let taken = wall();
        if self.opened.take().is_some_and(|opened| opened.elapsed() >= SILENCE) {
            self.framer.restart(Start::Whole);
        }
        let (framer, parser, topic) = (&mut self.framer, &self.parser, &self.topic);
        let (outbox, reporter) = (&mut self.outbox, &mut self.reporter);
        framer.feed(self.line.bytes(count), |line| match parser.payload(line, taken) {
            Ok(payload) => {
                outbox.put(topic, payload);
                reporter.line(None);
            }
            Err(fault) => reporter.line(Some(fault)),
        });
    }

    fn report(&mut self) {
        self.reporter.report(self.framer.counts(), self.outbox.counts());
    }

    async fn end(mut self) {
        self.outbox.leave().await;
        self.report();
    }
}

/// A device that was silent for so long after it was opened was not within a line: what it says next is a
/// line from its start, such as a scanner's first code. What comes sooner may be a line's tail.
const SILENCE: Duration = Duration::from_secs(1);
