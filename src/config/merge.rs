//! Several files become one configuration, and one configuration the rooms' own values.
//!
//! Merging is figment's: a later file's key wins, lists of tables are joined. Two entries of one name are
//! refused, whether in one file or in two. Each room reads its part by serde and checks it itself; its
//! complaints are led back to their lines.

use std::collections::BTreeMap;

use adapter_api::schema::{Key, Kind, Problem};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::de::DeserializeOwned;

use super::place::Report;

/// Merges what the files hold, in their order.
pub(super) fn merge(files: Vec<Dict>) -> Result<Dict, String> {
    let all = files.into_iter().fold(Figment::new(), |all, file| all.admerge(File(file)));
    all.extract().map_err(|error: figment::Error| error.kind.to_string())
}

/// A walked file as figment takes it.
struct File(Dict);

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::named("configuration file")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

/// Complains of every two entries of one list that bear one name.
pub(super) fn refuse_twins(schema: &[Key], merged: &Dict, path: &str, report: &mut Report) {
    for key in schema {
        let here = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        match (key.kind, merged.get(key.name)) {
            (Kind::Table(keys), Some(Value::Dict(_, dict))) => refuse_twins(keys, dict, &here, report),
            (Kind::Tables(keys), Some(Value::Array(_, entries))) => {
                let mut seen: BTreeMap<&str, String> = BTreeMap::new();
                for (index, entry) in entries.iter().enumerate() {
                    let entry_path = format!("{here}[{index}]");
                    let Some(dict) = entry.as_dict() else { continue };
                    refuse_twins(keys, dict, &entry_path, report);
                    let Some(name) = dict.get("name").and_then(Value::as_str) else { continue };
                    if let Some(first) = seen.get(name) {
                        let place = report.place(&format!("{first}.name"));
                        let text = format!("the name \"{name}\" is taken: {place} has it already");
                        report.wrong(&format!("{entry_path}.name"), text);
                    } else {
                        seen.insert(name, entry_path);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Reads and checks the rooms' parts of the merged configuration.
pub(super) struct Reader<'a> {
    merged: &'a Dict,
    report: &'a mut Report,
}

impl<'a> Reader<'a> {
    /// Over this configuration.
    pub(super) fn new(merged: &'a Dict, report: &'a mut Report) -> Reader<'a> {
        Reader { merged, report }
    }

    /// One plain section; an absent one is read as an empty one.
    pub(super) fn section<R: DeserializeOwned, C>(
        &mut self,
        name: &str,
        check: impl FnOnce(&R) -> Result<C, Vec<Problem>>,
    ) -> Option<C> {
        let empty = Value::from(Dict::new());
        let value = self.merged.get(name).unwrap_or(&empty);
        self.read(name, value, check)
    }

    /// A section that is only there where it is given.
    pub(super) fn given<R: DeserializeOwned, C>(
        &mut self,
        name: &str,
        check: impl FnOnce(&R) -> Result<C, Vec<Problem>>,
    ) -> Option<C> {
        let value = self.merged.get(name)?;
        self.read(name, value, check)
    }

    /// Every entry of a list with its path; wrong ones are reported and left out.
    pub(super) fn list<R: DeserializeOwned, C>(
        &mut self,
        name: &str,
        check: impl Fn(&R) -> Result<C, Vec<Problem>>,
    ) -> Vec<(String, C)> {
        let entries = self.merged.get(name).and_then(Value::as_array).unwrap_or_default();
        let mut read = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("{name}[{index}]");
            read.extend(self.read(&path, entry, &check).map(|value| (path, value)));
        }
        read
    }

    /// Every entry of a list as it is written, wrong ones too, with its path.
    pub(super) fn written<R: DeserializeOwned>(&self, name: &str) -> Vec<(String, R)> {
        let entries = self.merged.get(name).and_then(Value::as_array).unwrap_or_default().iter().enumerate();
        entries
            .filter_map(|(index, entry)| Some((format!("{name}[{index}]"), entry.deserialize().ok()?)))
            .collect()
    }

    fn read<R: DeserializeOwned, C>(
        &mut self,
        path: &str,
        value: &Value,
        check: impl FnOnce(&R) -> Result<C, Vec<Problem>>,
    ) -> Option<C> {
        let blamed = self.report.is_blamed(path);
        match value.deserialize::<R>() {
            Ok(raw) => check(&raw).map_err(|problems| self.report.problems(path, problems)).ok(),
            // What the walk has complained of is why serde does not take it.
            Err(_) if blamed => None,
            Err(error) => {
                let below: String = error.path.iter().map(|step| format!(".{step}")).collect();
                self.report.wrong(&format!("{path}{below}"), error.kind.to_string());
                None
            }
        }
    }
}
