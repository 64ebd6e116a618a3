//! Where the configuration comes from: the file, the folder beside it, the environment.
//!
//! Everything that is read from outside is read here, before anything is made of it; what cannot be
//! read is reported like any other mistake.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::gateway::Surroundings;
use super::place::{Place, Report};

/// What the configuration is made of.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Names and texts of the files, in the order in which they count.
    pub files: Vec<(Arc<str>, String)>,
    /// The environment, as far as it is meant for us.
    pub variables: Vec<(String, String)>,
    /// What fills in for keys that are not given.
    pub surroundings: Surroundings,
}

/// The file where nothing else is said.
pub const DEFAULT_FILE: &str = "/etc/tidegate/tidegate.toml";

impl Sources {
    /// Reads the file and `conf.d/*.toml` beside it, and takes the environment. A file that was asked for
    /// must be there; the default one need not.
    pub(super) fn gather(file: Option<&Path>, report: &mut Report) -> Sources {
        let mut sources = Sources { surroundings: Surroundings::look(), ..Sources::default() };
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        match (fs::metadata(path), file) {
            (Err(error), None) if error.kind() == ErrorKind::NotFound => {
                report.warnings.push(format!("{DEFAULT_FILE} is not there, so everything is at its default"));
            }
            _ => sources.add(path, report),
        }
        let folder = path.parent().unwrap_or(Path::new("")).join("conf.d");
        for path in toml_files(&folder, report) {
            sources.add(&path, report);
        }
        // What is not UTF-8 cannot be a setting of ours by its name; by its value it is refused below.
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            if !name.starts_with("TIDEGATE_") {
                continue;
            }
            match value.into_string() {
                Ok(value) => sources.variables.push((name, value)),
                Err(_) => {
                    report.wrong_source(Place::Variable(name), "found bytes that are no UTF-8, expected text")
                }
            }
        }
        sources.variables.sort();
        sources
    }

    fn add(&mut self, path: &Path, report: &mut Report) {
        let name: Arc<str> = path.display().to_string().into();
        match read(path) {
            Ok(text) => self.files.push((name, text)),
            Err((line, text)) => {
                let place = line.map_or(Place::File(name.clone()), |line| Place::Line(name, line));
                report.broken(place, text);
            }
        }
    }
}

fn toml_files(folder: &Path, report: &mut Report) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let place = Place::File(folder.display().to_string().into());
            report.broken(place, format!("cannot list the folder: {error}"));
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    paths
}

/// The text of a file, or why not, and at which line.
pub(super) fn read(path: &Path) -> Result<String, (Option<usize>, String)> {
    let mut bytes = Vec::new();
    let open = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    open.map_err(|error| (None, format!("cannot read the file: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_MAX {
        return Err((None, format!("is larger than {FILE_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        (Some(line), "found bytes that are no UTF-8, expected text".to_owned())
    })
}

/// Bytes of one file: a gateway with ten thousand points fits in it.
const FILE_MAX: u64 = 4 << 20;
