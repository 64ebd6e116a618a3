//! The ACL file, read again while the service runs.
//!
//! The first reading is the configuration's: with a wrong file nothing starts. Here a wrong one changes
//! nothing, and is told with every line that is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::AuthError;
use super::watched::{Moment, Watched};
use crate::access::Rules;

/// An ACL file on disk, and the rules that were last read from it.
#[derive(Debug)]
pub struct RulesFile {
    file: Watched,
    rules: Arc<Rules>,
}

impl RulesFile {
    /// A file from which these rules were read.
    pub fn at(path: impl Into<PathBuf>, rules: Arc<Rules>) -> RulesFile {
        RulesFile { file: Watched::at(path), rules }
    }

    /// Reads the file if it has changed and been left alone for a second; `None` where the rules are those
    /// of before.
    ///
    /// # Errors
    /// Once for each trouble; the rules of before stay in force.
    pub fn refresh(&mut self, now: &Moment) -> Result<Option<Arc<Rules>>, AuthError> {
        let fresh = self.file.refresh(now, parse)?.filter(|rules| *rules != *self.rules);
        Ok(fresh.map(|rules| {
            self.rules = Arc::new(rules);
            self.rules.clone()
        }))
    }

    /// Whether it has changed and is to be looked at again in a second.
    pub fn is_settling(&self) -> bool {
        self.file.is_settling()
    }
}

fn parse(path: &Path, text: &str) -> Result<Rules, AuthError> {
    Rules::parse(text).map_err(|mistakes| {
        let lines: Vec<String> =
            mistakes.iter().map(|mistake| format!("line {}: {}", mistake.line, mistake.text)).collect();
        AuthError::WrongRules { path: path.to_owned(), mistakes: lines.join("; ") }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn other_rules_are_news_and_wrong_ones_are_told_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acl");
        fs::write(&path, "topic read a\n").unwrap();
        let mut file = RulesFile::at(&path, Arc::new(Rules::parse("topic read a\n").unwrap()));
        let mut now = Moment::default();
        let mut refresh = || {
            now.mono += 1_000;
            file.refresh(&now)
        };
        assert_eq!(refresh().unwrap(), None, "the same rules");
        fs::write(&path, "topic read b\n").unwrap();
        assert_eq!(refresh().unwrap(), None, "somebody may be writing it");
        assert!(refresh().unwrap().unwrap().of_client(None, &"x".into()).may_read("b"));
        fs::write(&path, "topic read c\ntopics d\n").unwrap();
        assert_eq!(refresh().unwrap(), None);
        let told = refresh().unwrap_err().to_string();
        assert!(told.contains("acl") && told.contains("line 2: "), "{told}");
        assert_eq!(refresh().unwrap(), None);
    }
}
