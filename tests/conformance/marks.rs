//! The marks that name a statement: above tests, in golden packets, and beside the code that obeys.
//!
//! Only a mark above `#[test]`, or in the headline of a golden packet, shows anything; every mark must name
//! a statement that exists.

use std::collections::BTreeMap;

use crate::Tree;

/// What the sources name.
#[derive(Default)]
pub(crate) struct Marks {
    /// Tests by the statement that they show.
    pub(crate) tests: BTreeMap<String, Vec<String>>,
    /// Every statement that is named, and the first place.
    pub(crate) named: BTreeMap<String, String>,
    pub(crate) faults: Vec<String>,
}

impl Marks {
    pub(crate) fn of(tree: &Tree) -> Marks {
        let mut marks = Marks::default();
        for (path, text) in tree {
            for name in names(text) {
                marks.named.entry(name).or_insert_with(|| path.clone());
            }
            if path.ends_with(".rs") {
                let before = marks.tests.values().map(Vec::len).sum::<usize>();
                marks.read_tests(path, text);
                let after = marks.tests.values().map(Vec::len).sum::<usize>();
                if after > before && !is_declared(path, tree) {
                    marks.faults.push(format!("{path}: has marks, and nobody declares it as a module"));
                }
            } else {
                marks.read_golden(path, text);
            }
        }
        marks
    }

    fn read_tests(&mut self, path: &str, text: &str) {
        let mut above: Vec<String> = Vec::new();
        // Above its tests a file has marks where its code obeys.
        let mut among_tests = false;
        let mut lines = text.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            let marked = marks_alone(line);
            if !marked.is_empty() {
                above.extend(marked);
                continue;
            }
            if above.is_empty() {
                continue;
            }
            let named = std::mem::take(&mut above);
            let is_test = line.trim() == "#[test]" || line.trim().starts_with("#[tokio::test");
            among_tests |= is_test;
            let Some(name) = lines.peek().and_then(|(_, next)| function(next)).filter(|_| is_test) else {
                if among_tests {
                    self.faults.push(format!("{path}:{index}: a mark that stands above no #[test]"));
                }
                continue;
            };
            let inline = if line.starts_with(' ') { "tests::" } else { "" };
            let test = format!("{}::{inline}{name}", module(path));
            for clause in named {
                self.tests.entry(clause).or_default().push(test.clone());
            }
        }
    }

    fn read_golden(&mut self, path: &str, text: &str) {
        let blocks = text.split("\n\n").map(str::trim).filter(|block| !block.starts_with('#'));
        let file = path.rsplit('/').next().unwrap_or(path);
        for headline in blocks.filter_map(|block| block.lines().next()) {
            let (words, _) = headline.split_once(" [").unwrap_or((headline, ""));
            for clause in names(headline) {
                self.tests.entry(clause).or_default().push(format!("{file}: {words}"));
            }
        }
    }
}

/// The statements of a comment that is nothing but marks.
fn marks_alone(line: &str) -> Vec<String> {
    let Some(comment) = line.trim().strip_prefix("// [") else { return Vec::new() };
    let marks = comment.trim_end_matches(']').split("] [");
    marks.map(|mark| is_clause(mark).then(|| mark.to_owned())).collect::<Option<_>>().unwrap_or_default()
}

/// Every statement that a text names.
fn names(text: &str) -> Vec<String> {
    let inside = text.split('[').skip(1).filter_map(|part| part.split_once(']'));
    inside.map(|(mark, _)| mark).filter(|mark| is_clause(mark)).map(str::to_owned).collect()
}

/// Whether this is the number of a statement, and not that of a section.
fn is_clause(mark: &str) -> bool {
    let Some((version, number)) = mark.split_once('-') else { return false };
    let number: Vec<&str> = number.split('-').collect();
    let digits =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match version {
        "MQTT31" => number.len() == 1 && digits(number[0]),
        // A mark without its version names nothing, and is found as such.
        "MQTT311" | "MQTT5" | "MQTT" => number.len() == 2 && number.iter().all(|part| digits(part)),
        _ => false,
    }
}

fn function(line: &str) -> Option<&str> {
    line.trim().trim_start_matches("async ").strip_prefix("fn ")?.split('(').next()
}

/// As `cargo test` names it; of a test program its own name comes first.
fn module(path: &str) -> String {
    let inside = path.trim_start_matches("src/").trim_start_matches("tests/").trim_end_matches(".rs");
    inside.trim_end_matches("/mod").trim_end_matches("/main").replace('/', "::")
}

/// Whether a module above declares the file, so that it is compiled.
fn is_declared(path: &str, tree: &Tree) -> bool {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    if matches!(file, "main.rs" | "lib.rs") {
        return true;
    }
    if file == "mod.rs" {
        return is_declared(&format!("{folder}.rs"), tree);
    }
    let declared = format!("mod {};", file.trim_end_matches(".rs"));
    let parents = [
        format!("{folder}/mod.rs"),
        format!("{folder}/lib.rs"),
        format!("{folder}/main.rs"),
        format!("{folder}.rs"),
    ];
    let declares =
        |text: &String| text.lines().any(|line| line.trim_start_matches("pub ").trim_end() == declared);
    parents.iter().filter_map(|parent| tree.get(parent)).any(declares)
}
