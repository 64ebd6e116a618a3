//! An event with all its fields, collected from itself and the spans around it.
//!
//! The layer knows nothing of where it goes, and does not wait until it is there.

use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::limiter::{Limiter, Verdict};
use super::sink::Spoken;
use super::writer::Writer;

/// Collects events and hands them on.
pub(super) struct Layer {
    writer: Writer,
    limiter: Mutex<Limiter<(tracing::callsite::Identifier, String)>>,
}

impl Layer {
    pub(super) fn new(writer: Writer) -> Layer {
        Layer { writer, limiter: Mutex::new(Limiter::new()) }
    }

    /// How many like it were held back before; `None` where it is held back itself.
    fn judge(&self, event: &Event<'_>, target: &str, now: u64) -> Option<u64> {
        // Who asks for debug wants all of it.
        if *event.metadata().level() > Level::INFO {
            return Some(0);
        }
        let place = (event.metadata().callsite(), target.to_owned());
        match self.limiter.lock().unwrap_or_else(PoisonError::into_inner).judge(place, now) {
            Verdict::Say { held } => Some(held),
            Verdict::Hold => None,
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Layer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let normal = event.normalized_metadata();
        let metadata = normal.as_ref().unwrap_or_else(|| event.metadata());
        let now = adapter_api::clock::wall().millis;
        let Some(held) = self.judge(event, metadata.target(), now) else { return };
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.pairs.extend(of_span.pairs.iter().cloned());
            }
        }
        event.record(&mut fields);
        if held > 0 {
            fields.put("suppressed", held);
        }
        self.writer.say(Spoken {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            module: metadata.module_path().map(str::to_owned),
            file: metadata.file().map(str::to_owned),
            line: metadata.line(),
            message: fields.message,
            fields: fields.pairs,
            millis: now,
        });
    }
}

/// The fields of an event or span, printed.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, String)>,
}

impl Fields {
    fn put(&mut self, name: &'static str, value: impl fmt::Display) {
        // An inner span's or the event's own value stands for the outer one's.
        self.pairs.retain(|(known, _)| *known != name);
        self.pairs.push((name, value.to_string()));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            // How tracing-log carries what the normalized metadata says already.
            name if name.starts_with("log.") => {}
            name => self.put(name, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => {
                self.message.clear();
                // Writing to a String does not fail; a Debug that fails has said what it could.
                let _ = write!(self.message, "{value:?}");
            }
            name if name.starts_with("log.") => {}
            name => self.put(name, format_args!("{value:?}")),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !field.name().starts_with("log.") {
            self.put(field.name(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::journal::sink::Sink;

    /// The lines that come of what is said in `speak`, without their times.
    fn lines(speak: impl FnOnce()) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer::start(Sink::kept(lines.clone())).expect("a thread");
        let subscriber = Registry::default().with(Layer::new(writer.clone()));
        tracing::subscriber::with_default(subscriber, speak);
        writer.flush(Duration::MAX);
        let lines = lines.lock().expect("nobody panicked");
        lines.iter().filter_map(|line| line.split_once(' ')).map(|(_, rest)| rest.to_owned()).collect()
    }

    fn check(speak: impl FnOnce(), expected: &[&str]) {
        assert_eq!(lines(speak), expected);
    }

    #[test]
    fn fields_of_event_and_spans_follow_the_message() {
        check(
            || {
                let span = tracing::info_span!("link", bridge = "cloud", attempt = tracing::field::Empty);
                span.record("attempt", 3);
                let _inside = span.enter();
                tracing::warn!(target: "tidegate::bridge", reason = %"no route to host", "the link is lost");
            },
            &["WARN  bridge: the link is lost bridge=cloud attempt=3 reason=\"no route to host\""],
        );
    }

    #[test]
    fn the_inner_value_of_a_field_stands() {
        check(
            || {
                let span = tracing::info_span!("outer", unit = 1);
                let _inside = span.enter();
                tracing::info!(target: "adapter_modbus", unit = 2, "polled");
            },
            &["INFO  modbus: polled unit=2"],
        );
    }

    #[test]
    fn no_message_breaks_its_line() {
        check(
            || tracing::info!(target: "tidegate::engine", client = "a\nb\u{1b}[31m", "came\nin"),
            &["INFO  engine: came\\nin client=\"a\\nb\\u{1b}[31m\""],
        );
    }

    #[test]
    fn a_flood_from_one_place_is_cut() {
        let speak = || (0..1_000).for_each(|_| tracing::warn!("the same again"));
        assert!(lines(speak).len() < 100);
    }
}
