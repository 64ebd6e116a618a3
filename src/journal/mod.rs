//! What the service says of itself: to the journal under systemd, else to standard error.
//!
//! Every event carries its fields, and those of the spans around it, as fields: both print them behind
//! the message, and the journal keeps them apart too. An event that repeats too often is counted
//! instead, so that no peer can fill the disk with our words.

mod config;
mod event;
mod limiter;
mod sink;
mod writer;

pub use config::{Config, KEYS, Levels, ROOMS};

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use event::Layer;
use sink::Sink;
use writer::Writer;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// The process already has a subscriber.
    #[error("start the log: this process has one already")]
    Already,
    /// The kernel gives no thread.
    #[error("start the log's thread: {0}")]
    NoThread(#[from] io::Error),
}

/// The log. What was said is written where this ends, if somebody reads it then.
#[derive(Debug)]
pub struct Journal(());

impl Drop for Journal {
    fn drop(&mut self) {
        flush();
    }
}

/// Waits for a moment until all that was said is written, for who ends the process.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush(LAST_WORDS);
    }
}

/// Takes everything that this process says from now on.
///
/// # Errors
/// Where it was called before, or the kernel gives no thread.
pub fn start(levels: &Levels) -> Result<Journal, NotStarted> {
    let writer = Writer::start(Sink::here())?;
    let layer = Layer::new(writer.clone()).with_filter(targets(levels));
    let subscriber = Registry::default().with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| NotStarted::Already)?;
    // Libraries speak through `log`; what they may say is decided by the same filter.
    tracing_log::LogTracer::builder().init().map_err(|_| NotStarted::Already)?;
    WRITER.set(writer).map_err(|_| NotStarted::Already)?;
    Ok(Journal(()))
}

/// Levels by module. Libraries say at most what is a warning, unless their room was asked for.
fn targets(levels: &Levels) -> Targets {
    let mut targets = Targets::new().with_default(levels.level.min(LIBRARIES));
    for ours in OURS {
        targets = targets.with_target(*ours, levels.level);
    }
    targets = targets.with_target(UPLINK_LIBRARY, LevelFilter::OFF);
    for (room, level) in &levels.rooms {
        for module in modules(room) {
            let level = if module == UPLINK_LIBRARY && *level <= LevelFilter::INFO {
                LevelFilter::OFF
            } else {
                *level
            };
            targets = targets.with_target(module, level);
        }
    }
    targets
}

/// The modules and libraries that speak for a room.
fn modules(room: &str) -> Vec<String> {
    let room = room.replace('-', "_");
    let (ours, library) = match room.as_str() {
        "modbus" => (format!("adapter_{room}"), Some("tokio_modbus")),
        "serial" | "mqtt_sn" => (format!("adapter_{room}"), None),
        "bridge" => ("tidegate::bridge".to_owned(), Some(UPLINK_LIBRARY)),
        _ => (format!("tidegate::{room}"), None),
    };
    std::iter::once(ours).chain(library.map(str::to_owned)).collect()
}

/// Of this process.
static WRITER: OnceLock<Writer> = OnceLock::new();

/// How long the end waits until the last words are written.
const LAST_WORDS: Duration = Duration::from_secs(1);

const OURS: &[&str] = &["tidegate", "adapter_api", "adapter_modbus", "adapter_mqtt_sn", "adapter_serial"];
const LIBRARIES: LevelFilter = LevelFilter::WARN;
/// It warns of every message that upstream refuses, without its topic; the bridge says that itself, and
/// not for each. Only who debugs the bridge hears it.
const UPLINK_LIBRARY: &str = "rumqttc";

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn each_room_has_its_level_and_libraries_whisper() {
        let config = Config { level: "info,bridge=debug,modbus=trace,store=off".to_owned() };
        let targets = targets(&config.check().expect("levels"));
        assert!(targets.would_enable("tidegate::engine::turn", &Level::INFO));
        assert!(!targets.would_enable("tidegate::engine", &Level::DEBUG));
        assert!(targets.would_enable("tidegate::bridge::link", &Level::DEBUG));
        assert!(targets.would_enable("rumqttc::v5", &Level::DEBUG));
        assert!(targets.would_enable("adapter_modbus", &Level::TRACE));
        assert!(!targets.would_enable("tidegate::store", &Level::ERROR));
        assert!(!targets.would_enable("rustls", &Level::INFO));
        assert!(targets.would_enable("rustls", &Level::WARN));
        for quiet in ["debug", "info,bridge=info", "info"] {
            let config = Config { level: quiet.to_owned() };
            let targets = super::targets(&config.check().expect("levels"));
            assert!(!targets.would_enable("rumqttc::v5::state", &Level::ERROR), "{quiet}");
        }
    }
}
