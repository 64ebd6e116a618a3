//! What the operator wrote, read and checked.
//!
//! [`load`] reads file, folder and environment and gives either everything, checked, or every mistake
//! with its place. The keys are the rooms' own: each states them in a table and checks its values
//! itself; this room walks, merges and leads complaints back to their lines.

mod place;
mod source;
mod walk;
mod twice;
mod value;
mod similar;
mod merge;
mod environment;
mod relations;
mod rules;
pub mod schema;
pub mod gateway;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use gateway::Gateway;
pub use place::{Place, Refused, Wrong};
pub use source::{DEFAULT_FILE, Sources};

use crate::access::Rules;
use crate::auth;
use crate::bridge;
use crate::broker;
use crate::journal;
use crate::listener::{self, Listener};
use crate::store;
use figment::value::Dict;
use merge::Reader;
use place::Report;

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[[listener]]`.
    pub listeners: Vec<Listener>,
    /// `[auth]`.
    pub auth: auth::Config,
    /// What `[auth] acl_file` says, where it is given.
    pub rules: Option<Arc<Rules>>,
    /// `[limits]`.
    pub limits: broker::Limits,
    /// `[store]`.
    pub store: store::Checked,
    /// `[[bridge]]`.
    pub bridges: Vec<bridge::Checked>,
    /// `[[modbus]]`.
    pub modbus: Vec<adapter_modbus::Bus>,
    /// `[[serial]]`.
    pub serial: Vec<adapter_serial::Checked>,
    /// `[mqtt_sn]`, where it is given.
    pub mqtt_sn: Option<adapter_mqtt_sn::Checked>,
    /// `[log]`.
    pub log: journal::Levels,
    /// What is allowed and perhaps not meant.
    pub warnings: Vec<String>,
    /// Files that are named and cannot be used: the service starts without what needs them, and looks
    /// again.
    pub unready: Vec<Wrong>,
}

impl Loaded {
    /// Filters of the topics on which adapters take what is to be written to a device.
    pub fn set_topics(&self) -> Vec<String> {
        let modbus = self.modbus.iter().map(|bus| format!("modbus/{}/+/+/set", bus.name));
        let serial = self.serial.iter().map(|line| format!("{}/set", line.topic));
        modbus.chain(serial).collect()
    }
}

/// Reads the configuration: `file`, or the default one where none is named.
///
/// # Errors
/// Everything that is wrong, by place.
pub fn load(file: Option<&Path>) -> Result<Loaded, Refused> {
    let mut report = Report::default();
    let sources = Sources::gather(file, &mut report);
    check(&sources, report, rules::read)
}

/// Where the control socket of the service with this configuration stands. A configuration that is wrong
/// elsewhere still leads to it: the service may run on an older one.
///
/// # Errors
/// Where a file that was asked for is not there, or `[gateway]` itself is wrong.
pub fn run_dir(file: Option<&Path>) -> Result<PathBuf, Refused> {
    let mut report = Report::default();
    let sources = Sources::gather(file, &mut report);
    if file.is_some_and(|file| !file.exists()) {
        return Err(report.into_refused());
    }
    let Some(merged) = merged(&sources, &mut report) else { return Err(report.into_refused()) };
    let mut read = Reader::new(&merged, &mut report);
    let gateway = read.section("gateway", |raw: &gateway::Config| raw.check(&sources.surroundings));
    gateway.map(|gateway| gateway.run_dir).ok_or_else(|| report.into_refused())
}

/// Makes the configuration of what was read. Reads nothing itself.
///
/// # Errors
/// Everything that is wrong, by place.
pub fn from_sources(sources: &Sources) -> Result<Loaded, Refused> {
    check(sources, Report::default(), |_, _| None)
}

/// What is wrong with one text, whatever it holds: never panics. For fuzzing.
pub fn examine(text: &str) -> Vec<Wrong> {
    let files = vec![("fuzz.toml".into(), text.to_owned())];
    let refused = from_sources(&Sources { files, ..Sources::default() }).err();
    refused.map(|refused| refused.wrongs).unwrap_or_default()
}

/// Everything that was read, walked and merged.
fn merged(sources: &Sources, report: &mut Report) -> Option<Dict> {
    let mut counts = BTreeMap::new();
    let mut walk_file =
        |(name, text): &(_, String)| walk::walk(name, text, schema::ROOT, &mut counts, report);
    let files = sources.files.iter().map(&mut walk_file).collect();
    let merged = merge::merge(files).map_err(|error| report.broken(Place::Default, error));
    let mut merged = merged.ok()?;
    environment::apply(&sources.variables, schema::ROOT, &mut merged, report);
    merge::refuse_twins(schema::ROOT, &merged, "", report);
    Some(merged)
}

fn check(
    sources: &Sources,
    mut report: Report,
    read_rules: fn(&Path, &mut Report) -> Option<Rules>,
) -> Result<Loaded, Refused> {
    let merged = match merged(sources, &mut report) {
        Some(merged) if !report.torn => merged,
        _ => return Err(report.into_refused()),
    };
    let mut read = Reader::new(&merged, &mut report);
    let mut folders = None;
    let gateway = read.section("gateway", |raw: &gateway::Config| {
        folders = Some(raw.folders(&sources.surroundings));
        raw.check(&sources.surroundings)
    });
    let id = gateway.as_ref().map_or("gateway", |gateway| &gateway.id);
    let mut listeners = read.list("listener", listener::Config::check);
    let auth = read.section("auth", |raw: &auth::Config| Ok(raw.clone()));
    let limits = read.section("limits", broker::LimitsConfig::check);
    let store = read.section("store", store::Config::check);
    let bridges = read.list("bridge", |raw: &bridge::Config| raw.check(id));
    let modbus = read.list("modbus", adapter_modbus::Config::check);
    let serial = read.list("serial", adapter_serial::Config::check);
    let mqtt_sn = read.given("mqtt_sn", adapter_mqtt_sn::Config::check);
    let log = read.section("log", journal::Config::check);
    let (written_listeners, written_bridges) = (read.written("listener"), read.written("bridge"));
    if !merged.contains_key("listener") {
        let default =
            listener::Config::default().check().map_err(|problems| report.problems("listener", problems));
        listeners.extend(default.ok().map(|listener| ("listener".to_owned(), listener)));
    }
    folders.iter().for_each(|folders| relations::folders(folders, &mut report));
    relations::listeners(&listeners, &mut report);
    relations::certificates(&written_listeners, &mut report);
    relations::devices(&modbus, &serial, &mut report);
    relations::bridges(&bridges, &mut report);
    relations::secrets(&written_bridges, &mut report);
    relations::passwords(auth.as_ref(), &listeners, &mut report);
    relations::users(mqtt_sn.as_ref(), &mut report);
    let acl_file = auth.as_ref().and_then(|auth| auth.acl_file.as_deref());
    let rules = acl_file.and_then(|path| read_rules(path, &mut report)).map(Arc::new);
    relations::rules(rules.as_deref(), auth.as_ref(), &mut report);
    match (gateway, auth, limits, store, log) {
        (Some(gateway), Some(auth), Some(limits), Some(store), Some(log)) if report.is_clean() => {
            let mut loaded = Loaded {
                gateway,
                listeners: values(listeners),
                auth,
                rules,
                limits,
                store,
                bridges: values(bridges),
                modbus: values(modbus),
                serial: values(serial),
                mqtt_sn,
                log,
                unready: report.take_unready(),
                warnings: Vec::new(),
            };
            relations::commands(&loaded, &mut report);
            loaded.warnings = report.warnings;
            Ok(loaded)
        }
        _ => Err(report.into_refused()),
    }
}

fn values<C>(entries: Vec<(String, C)>) -> Vec<C> {
    entries.into_iter().map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod shipped;
