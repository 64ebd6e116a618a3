//! What the operator wrote, read and checked.
//!
//! [`load`] reads file, folder and environment and gives either everything, checked, or every mistake
//! with its place. The keys are the rooms' own: each states them in a table and checks its values
//! itself; this room walks, merges and leads complaints back to their lines.

mod place;
mod source;
mod walk;
mod value;
mod similar;
mod merge;
mod environment;
pub mod schema;
pub mod gateway;
mod pending;

use std::collections::BTreeMap;
use std::path::Path;

pub use gateway::Gateway;
pub use place::{Place, Wrong};
pub use source::{DEFAULT_FILE, Sources};

use crate::journal;
use merge::Reader;
use place::Report;

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[[listener]]`.
    pub listeners: Vec<pending::Pending>,
    /// `[auth]`.
    pub auth: pending::Pending,
    /// `[limits]`.
    pub limits: pending::Pending,
    /// `[store]`.
    pub store: pending::Pending,
    /// `[[bridge]]`.
    pub bridges: Vec<pending::Pending>,
    /// `[[modbus]]`.
    pub modbus: Vec<pending::Pending>,
    /// `[[serial]]`.
    pub serial: Vec<pending::Pending>,
    /// `[mqtt_sn]`, where it is given.
    pub mqtt_sn: Option<pending::Pending>,
    /// `[log]`.
    pub log: journal::Levels,
    /// What is allowed and perhaps not meant.
    pub warnings: Vec<String>,
}

/// Reads the configuration: `file`, or the default one where none is named.
///
/// # Errors
/// Everything that is wrong, by place.
pub fn load(file: Option<&Path>) -> Result<Loaded, Vec<Wrong>> {
    let mut report = Report::default();
    let sources = Sources::gather(file, &mut report);
    check(&sources, report)
}

/// Makes the configuration of what was read. Reads nothing itself.
///
/// # Errors
/// Everything that is wrong, by place.
pub fn from_sources(sources: &Sources) -> Result<Loaded, Vec<Wrong>> {
    check(sources, Report::default())
}

/// What is wrong with one text, whatever it holds: never panics. For fuzzing.
pub fn examine(text: &str) -> Vec<Wrong> {
    let files = vec![("fuzz.toml".into(), text.to_owned())];
    from_sources(&Sources { files, ..Sources::default() }).err().unwrap_or_default()
}

fn check(sources: &Sources, mut report: Report) -> Result<Loaded, Vec<Wrong>> {
    let mut counts = BTreeMap::new();
    let mut walk_file =
        |(name, text): &(_, String)| walk::walk(name, text, schema::ROOT, &mut counts, &mut report);
    let files = sources.files.iter().map(&mut walk_file).collect();
    let mut merged = match merge::merge(files) {
        Ok(merged) => merged,
        Err(error) => {
            report.wrong_source(Place::Default, error.kind.to_string());
            return Err(report.into_wrongs());
        }
    };
    environment::apply(&sources.variables, schema::ROOT, &mut merged, &mut report);
    merge::refuse_twins(schema::ROOT, &merged, "", &mut report);
    if report.torn {
        return Err(report.into_wrongs());
    }
    let mut read = Reader::new(&merged, &mut report);
    let gateway = read.section("gateway", |raw: &gateway::Config| raw.check(&sources.surroundings));
    let listeners = read.list("listener", pending::accept);
    let auth = read.section("auth", pending::accept);
    let limits = read.section("limits", pending::accept);
    let store = read.section("store", pending::accept);
    let bridges = read.list("bridge", pending::accept);
    let modbus = read.list("modbus", pending::accept);
    let serial = read.list("serial", pending::accept);
    let mqtt_sn = read.given("mqtt_sn", pending::accept);
    let log = read.section("log", journal::Config::check);
    match (gateway, auth, limits, store, log) {
        (Some(gateway), Some(auth), Some(limits), Some(store), Some(log)) if report.is_clean() => {
            Ok(Loaded {
                gateway,
                listeners,
                auth,
                limits,
                store,
                bridges,
                modbus,
                serial,
                mqtt_sn,
                log,
                warnings: report.warnings,
            })
        }
        _ => Err(report.into_wrongs()),
    }
}

#[cfg(test)]
mod tests;
