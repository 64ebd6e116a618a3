//! `[gateway]`: who this gateway is and where it keeps its things.
//!
//! What is not given comes from the surroundings, which are an argument, so that a test chooses them.

use std::path::{Path, PathBuf};

use adapter_api::schema::{Key, Kind, Problem};
use serde::Deserialize;

/// The section as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `{gateway}` in topics and client ids; the host name where it is not given.
    pub id: Option<String>,
    /// Where the store keeps its database.
    pub data_dir: String,
    /// Where the control socket stands.
    pub run_dir: Option<String>,
}

/// The keys of `[gateway]`.
pub const KEYS: &[Key] = &[
    Key::optional("id", Kind::Text),
    Key::optional("data_dir", Kind::Text),
    Key::optional("run_dir", Kind::Text),
];

/// What the surroundings say where the file is silent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// The host's name.
    pub host_name: Option<String>,
    /// systemd's `$RUNTIME_DIRECTORY`.
    pub runtime_directory: Option<PathBuf>,
    /// Whether `/run/tidegate` is a directory.
    pub has_run_directory: bool,
}

/// The section, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Fits as a level of a topic.
    pub id: String,
    /// Where the store keeps its database.
    pub data_dir: PathBuf,
    /// Where the control socket stands.
    pub run_dir: PathBuf,
}

impl Default for Config {
    fn default() -> Config {
        Config { id: None, data_dir: "/var/lib/tidegate".to_owned(), run_dir: None }
    }
}

impl Config {
    /// Checks the values and fills in what the surroundings say.
    pub fn check(&self, around: &Surroundings) -> Result<Gateway, Vec<Problem>> {
        let mut problems = Vec::new();
        let id = match (&self.id, &around.host_name) {
            (Some(id), _) => id.clone(),
            (None, Some(name)) if is_topic_level(name) => name.clone(),
            (None, _) => "tidegate".to_owned(),
        };
        if !is_topic_level(&id) {
            let text = format!(
                "found {id:?}, expected 1 to {ID_MAX} letters that fit into one level of a topic, without \"/\", \"+\", \"#\" and \"$\" at the start"
            );
            problems.push(Problem { key: "id".to_owned(), text });
        }
        for (key, path) in [("data_dir", Some(&self.data_dir)), ("run_dir", self.run_dir.as_ref())] {
            if path.is_some_and(|path| path.is_empty() || path.contains('\0')) {
                problems.push(Problem {
                    key: key.to_owned(),
                    text: "found no path, expected a folder".to_owned(),
                });
            }
        }
        let [data_dir, run_dir] = self.folders(around);
        if problems.is_empty() { Ok(Gateway { id, data_dir, run_dir }) } else { Err(problems) }
    }

    /// `data_dir` and `run_dir`, whatever is wrong with them.
    pub(super) fn folders(&self, around: &Surroundings) -> [PathBuf; 2] {
        let data_dir = PathBuf::from(&self.data_dir);
        let run_dir = self.run_dir.as_ref().map(PathBuf::from).unwrap_or_else(|| run_dir(&data_dir, around));
        [data_dir, run_dir]
    }
}

impl Surroundings {
    /// Looks around.
    pub fn look() -> Surroundings {
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        // systemd may give several, parted by colons; the first is ours.
        let given = std::env::var("RUNTIME_DIRECTORY").ok();
        let first = given.as_deref().and_then(|list| list.split(':').next()).filter(|path| !path.is_empty());
        Surroundings {
            host_name: host_name.map(|name| name.trim().to_owned()),
            runtime_directory: first.map(PathBuf::from),
            has_run_directory: Path::new(RUN_DIRECTORY).is_dir(),
        }
    }
}

fn run_dir(data_dir: &Path, around: &Surroundings) -> PathBuf {
    match &around.runtime_directory {
        Some(directory) => directory.clone(),
        None if around.has_run_directory => PathBuf::from(RUN_DIRECTORY),
        None => data_dir.join("run"),
    }
}

fn is_topic_level(id: &str) -> bool {
    let length = id.chars().count();
    (1..=ID_MAX).contains(&length)
        && !id.starts_with('$')
        && !id.chars().any(|letter| matches!(letter, '/' | '+' | '#') || letter.is_control())
}

const RUN_DIRECTORY: &str = "/run/tidegate";

/// Letters of a gateway's id.
const ID_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_does_not_say_comes_from_the_surroundings() {
        let mut around = Surroundings { host_name: Some("barn-7".to_owned()), ..Surroundings::default() };
        let check = |around: &Surroundings| Config::default().check(around).expect("defaults are right");
        assert_eq!(check(&around).id, "barn-7");
        assert_eq!(check(&around).run_dir, Path::new("/var/lib/tidegate/run"));
        around.has_run_directory = true;
        assert_eq!(check(&around).run_dir, Path::new("/run/tidegate"));
        around.runtime_directory = Some(PathBuf::from("/run/other"));
        assert_eq!(check(&around).run_dir, Path::new("/run/other"));
    }

    #[test]
    fn an_id_that_is_no_topic_level_is_refused() {
        for id in ["", "a/b", "a+", "#", "$x", "a\n", &"x".repeat(65)] {
            let config = Config { id: Some(id.to_owned()), ..Config::default() };
            assert!(config.check(&Surroundings::default()).is_err(), "{id}");
        }
    }
}
