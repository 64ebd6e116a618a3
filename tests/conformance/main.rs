//! The conformance table: every numbered statement of the standards, and the test that shows it.
//!
//! Holds the lists of statements beside this file against the marks that tests carry
//! (`// [MQTT5-3.1.0-2]` above `#[test]`, the same in the headline of a golden packet), and
//! `docs/conformance.md` against both. `TIDEGATE_CONFORMANCE=write cargo test --test conformance` writes
//! that page anew. A test that is named here and fails, fails `make test`.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that breaks should say where")]

mod clauses;
mod marks;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clauses::{Binds, Clause, Exception, Exceptions, List};
use marks::Marks;

/// Path from the repository's top, and text.
type Tree = BTreeMap<String, String>;

#[test]
fn every_statement_has_the_test_that_shows_it() {
    let tree = read_tree();
    let lists = lists();
    let exceptions = exceptions();
    let marks = Marks::of(&tree);
    let mut findings = marks.faults.clone();
    findings.extend(lists.iter().flat_map(|list| list.faults.clone()));
    findings.extend(exceptions.faults.clone());
    findings.extend(unknown(&lists, &marks, &exceptions));
    findings.extend(unshown(&lists, &marks, &exceptions));
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn the_page_says_what_the_tests_show() {
    let page = table::page(&lists(), &Marks::of(&read_tree()), &exceptions());
    let path = top().join(PAGE);
    if std::env::var_os("TIDEGATE_CONFORMANCE").is_some_and(|value| value == "write") {
        fs::write(&path, page).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(page.lines()).find(|(old, new)| old != new);
    assert!(committed == page, "{PAGE} is to be written anew (TIDEGATE_CONFORMANCE=write): {differs:?}");
}

#[test]
fn a_mark_without_a_statement_is_found() {
    let found = findings("// [MQTT5-9.9.9-1] [MQTT5-1.1.1-1]\n#[test]\nfn x() {}\n", "");
    assert_eq!(found, ["[MQTT5-9.9.9-1]: no statement has this number (src/a.rs)"]);
    // In code too, where a rule is obeyed.
    let code = "// [MQTT5-1.1.1-1]\n#[test]\nfn x() {}\nfn y() {} // [MQTT5-9.9.9-2]\n";
    assert_eq!(findings(code, ""), ["[MQTT5-9.9.9-2]: no statement has this number (src/a.rs)"]);
    // The version belongs to the number.
    let code = code.replace("MQTT5-9.9.9-2", "MQTT-1.1.1-1");
    assert_eq!(findings(&code, ""), ["[MQTT-1.1.1-1]: no statement has this number (src/a.rs)"]);
}

#[test]
fn a_statement_without_a_test_is_found() {
    assert_eq!(
        findings("#[test]\nfn x() {}\n", ""),
        ["[MQTT5-1.1.1-1]: binds a server, and no test shows it"]
    );
    assert!(findings("// [MQTT5-1.1.1-1]\n#[test]\nfn x() {}\n", "").is_empty());
}

#[test]
fn a_mark_that_stands_above_no_test_is_found() {
    let shown = "// [MQTT5-1.1.1-1]\n#[test]\nfn x() {}\n";
    let found = findings(&format!("{shown}// [MQTT5-1.1.1-1]\nfn y() {{}}\n"), "");
    assert_eq!(found, ["src/a.rs:4: a mark that stands above no #[test]"]);
}

#[test]
fn a_file_that_nobody_compiles_shows_nothing() {
    let mut tree = small("");
    tree.insert("src/attic.rs".into(), "// [MQTT5-1.1.1-1]\n#[test]\nfn x() {}\n".into());
    assert_eq!(Marks::of(&tree).faults, ["src/attic.rs: has marks, and nobody declares it as a module"]);
}

#[test]
fn what_is_missing_is_counted_and_leaves_the_list_once_it_is_shown() {
    let missing = "# missing: 1\n\n[MQTT5-1.1.1-1] missing: a feature\n";
    assert!(findings("", missing).is_empty());
    let shown = findings("// [MQTT5-1.1.1-1]\n#[test]\nfn x() {}\n", missing);
    assert_eq!(shown, ["[MQTT5-1.1.1-1]: is listed as missing, and a test shows it"]);
    let miscounted = findings("", &missing.replace(": 1", ": 2"));
    assert_eq!(miscounted, ["exceptions.txt: says 2 missing and lists 1"]);
}

#[test]
fn a_list_that_is_short_or_says_a_number_twice_is_found() {
    let list = List::read("MQTT5", "# statements: 3\n\n1.1.1-1 server a\n1.1.1-1 both b\n");
    assert_eq!(list.faults, ["MQTT5: 1.1.1-1 stands twice", "MQTT5: says 3 statements and lists 2"]);
    assert_eq!(List::read("MQTT5", "# statements: 1\n\n1.1.1-1 nobody a\n").faults.len(), 2);
}

#[test]
fn the_page_names_each_statement_with_its_test() {
    let lists = [List::read("MQTT5", "# statements: 2\n\n1.1.1-1 server be kind\n1.1.1-2 client be good\n")];
    let tree = small("// [MQTT5-1.1.1-1]\n#[test]\nfn kind() {}\n");
    let page = table::page(&lists, &Marks::of(&tree), &Exceptions::read("# missing: 0\n"));
    assert!(page.contains("| MQTT5-1.1.1-1 | server | be kind | `a::kind` | shown |"), "{page}");
    assert!(page.contains("| MQTT5-1.1.1-2 | client | be good |  | the client's |"), "{page}");
}

/// What is wrong with one file, where [MQTT5-1.1.1-1] alone is asked.
fn findings(code: &str, exceptions: &str) -> Vec<String> {
    let lists = [List::read("MQTT5", "# statements: 1\n\n1.1.1-1 server be kind\n")];
    let exceptions = Exceptions::read(if exceptions.is_empty() { "# missing: 0\n" } else { exceptions });
    let marks = Marks::of(&small(code));
    let mut found = marks.faults.clone();
    found.extend(exceptions.faults.clone());
    found.extend(unknown(&lists, &marks, &exceptions));
    found.extend(unshown(&lists, &marks, &exceptions));
    found
}

/// A tree of one file.
fn small(code: &str) -> Tree {
    Tree::from([("src/lib.rs".to_owned(), "mod a;\n".to_owned()), ("src/a.rs".to_owned(), code.to_owned())])
}

/// Marks and exceptions for statements that no list has.
fn unknown(lists: &[List], marks: &Marks, exceptions: &Exceptions) -> Vec<String> {
    let known = |name: &str| lists.iter().any(|list| list.clauses.iter().any(|clause| clause.name == name));
    let mut found: Vec<String> = marks
        .named
        .iter()
        .filter(|(name, _)| !known(name))
        .map(|(name, place)| format!("[{name}]: no statement has this number ({place})"))
        .collect();
    found.extend(
        exceptions
            .of
            .keys()
            .filter(|name| !known(name))
            .map(|name| format!("[{name}]: no statement has this number (exceptions.txt)")),
    );
    found
}

/// Statements that bind a server and that no test shows, and exceptions that are none.
fn unshown(lists: &[List], marks: &Marks, exceptions: &Exceptions) -> Vec<String> {
    let clauses = lists.iter().flat_map(|list| &list.clauses);
    clauses.filter_map(|clause| fault_of(clause, marks, exceptions)).collect()
}

fn fault_of(clause: &Clause, marks: &Marks, exceptions: &Exceptions) -> Option<String> {
    let shown = marks.tests.contains_key(&clause.name);
    let what = match (exceptions.of.get(&clause.name), clause.binds) {
        (Some(Exception::Missing(_)), _) if shown => "is listed as missing, and a test shows it",
        (Some(Exception::Missing(_)), Binds::Client) => "is listed as missing, and binds clients alone",
        (Some(Exception::Missing(_)), _) => return None,
        (_, Binds::Server | Binds::Both) if !shown => "binds a server, and no test shows it",
        _ => return None,
    };
    Some(format!("[{}]: {what}", clause.name))
}

fn lists() -> Vec<List> {
    VERSIONS.iter().map(|(prefix, file)| List::read(prefix, &read(file))).collect()
}

fn exceptions() -> Exceptions {
    Exceptions::read(&read("exceptions.txt"))
}

fn read(file: &str) -> String {
    fs::read_to_string(top().join("tests/conformance").join(file)).unwrap()
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read_tree() -> Tree {
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        walk(&top().join(folder), &mut files);
    }
    let relative = |path: &PathBuf| path.strip_prefix(top()).unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let is_golden = folder.ends_with("tests/golden");
        if path.is_dir() {
            // This program's own examples of marks are none.
            if !path.ends_with("tests/conformance") && !path.ends_with("fuzz/target") {
                walk(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") || is_golden {
            files.push(path);
        }
    }
}

const PAGE: &str = "docs/conformance.md";

/// How marks of a version start, and its list.
const VERSIONS: [(&str, &str); 3] =
    [("MQTT31", "mqtt-3.1.txt"), ("MQTT311", "mqtt-3.1.1.txt"), ("MQTT5", "mqtt-5.0.txt")];
