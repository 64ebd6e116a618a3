//! The drawing of the house, held against the code.
//!
//! Reads the table in `src/lib.rs` and fails on an arrow, an impure call, a header, a size or a word
//! that the house rules do not allow. Each rule is a function from sources to findings, and each is
//! shown here to find a planted fault.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that breaks should say where")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Path from the repository's top, and text.
type Tree = BTreeMap<String, String>;

struct Room {
    pure: bool,
    uses: Vec<String>,
}

#[test]
fn the_house_is_as_drawn() {
    let tree = read_tree();
    assert!(tree.len() > 40, "found only {} files", tree.len());
    let findings = findings(&tree);
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn a_wrong_arrow_is_found() {
    planted("src/session/mod.rs", "use crate::store::Handle;\n", "`session` may not use `store`");
}

#[test]
fn a_room_that_is_not_drawn_is_found() {
    let mut tree = read_tree();
    tree.insert("src/attic.rs".into(), format!("{HEADER}fn x() {{}}\n"));
    expect(&tree, "src/attic.rs: room `attic` is not in the table");
}

#[test]
fn an_impure_call_is_found() {
    for call in
        ["std::time::Instant::now()", "std::fs::read(path)", "tokio::spawn(x)", "std::env::var(\"X\")"]
    {
        planted("src/router/mod.rs", &format!("fn planted() {{ {call}; }}\n"), "is pure but names");
    }
    for file in PURE_FILES {
        planted(file, "fn planted() { std::thread::yield_now(); }\n", "is pure but names");
    }
}

#[test]
fn a_file_without_a_header_is_found() {
    let mut tree = read_tree();
    tree.insert("src/store/attic.rs".into(), "fn x() {}\n".into());
    expect(&tree, "src/store/attic.rs: opens with a header of 0 lines");
}

#[test]
fn unsafe_code_is_found() {
    planted("src/engine/mod.rs", "fn planted() { unsafe { x() } }\n", "unsafe code");
}

#[test]
fn an_overlong_file_is_found() {
    planted("src/engine/mod.rs", &"fn x() {}\n".repeat(FILE_LINES_MAX), "lines before its tests");
}

#[test]
fn a_sleeping_or_ignored_test_is_found() {
    planted(
        "src/engine/mod.rs",
        "#[cfg(test)] mod t { fn x() { std::thread::sleep(d); } }\n",
        "sleeps in a test",
    );
    planted("src/engine/mod.rs", "#[ignore]\n", "a test that never runs");
}

fn findings(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    let rooms = rooms(&tree["src/lib.rs"]);
    for (path, text) in tree {
        if path.ends_with(".rs") {
            if !is_test(path, tree) {
                arrows(path, text, &rooms, &mut found);
                purity(path, text, &rooms, &mut found);
                size(path, text, &mut found);
            }
            header(path, text, &mut found);
            words(path, text, &mut found);
        }
    }
    for file in PURE_FILES {
        if !tree.contains_key(*file) {
            found.push(format!("{file}: is gone, but listed as pure in tests/tidy.rs"));
        }
    }
    found
}

/// Whether a file holds tests alone: its parent declares it, or a folder above it, for tests.
fn is_test(path: &str, tree: &Tree) -> bool {
    if path.contains("tests/") {
        return true;
    }
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let name = file.trim_end_matches(".rs");
    if name == "mod" {
        return is_test(folder, tree);
    }
    let declared = format!("#[cfg(test)]\nmod {name};");
    let parents = [format!("{folder}/mod.rs"), format!("{folder}/lib.rs"), format!("{folder}.rs")];
    parents.iter().filter_map(|parent| tree.get(parent)).any(|text| text.contains(&declared))
        || (folder.contains('/') && is_test(folder, tree))
}

/// The table of rooms: `| name | kind | may use |`.
fn rooms(lib: &str) -> BTreeMap<String, Room> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! |"));
    let cells = rows.map(|row| row.trim_end_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .filter(|cells| cells.len() == 3 && (cells[1] == "pure" || cells[1] == "io"))
        .map(|cells| {
            let uses = cells[2].split_whitespace().map(String::from).collect();
            (cells[0].to_string(), Room { pure: cells[1] == "pure", uses })
        })
        .collect()
}

/// The room of a file under `src/`; the top files `lib.rs` and `main.rs` have none.
fn room_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    if inside == "lib.rs" || inside == "main.rs" {
        return None;
    }
    Some(inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"))
}

fn arrows(path: &str, text: &str, rooms: &BTreeMap<String, Room>, found: &mut Vec<String>) {
    let Some(name) = room_of(path) else { return };
    let Some(room) = rooms.get(name) else {
        found.push(format!("{path}: room `{name}` is not in the table of src/lib.rs"));
        return;
    };
    for target in named_rooms(before_tests(text)) {
        if target != name && rooms.contains_key(&target) && !room.uses.contains(&target) {
            found.push(format!("{path}: `{name}` may not use `{target}`"));
        }
    }
}

/// What follows `crate::` in the code, groups included.
fn named_rooms(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let list =
            rest.strip_prefix('{').and_then(|inner| inner.split_once('}')).map_or(rest, |(list, _)| list);
        let grouped = rest.starts_with('{');
        for part in list.split(',').take(if grouped { usize::MAX } else { 1 }) {
            let name: String = part.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            names.push(name);
        }
    }
    names
}

fn purity(path: &str, text: &str, rooms: &BTreeMap<String, Room>, found: &mut Vec<String>) {
    let pure_room = room_of(path).and_then(|name| rooms.get(name)).is_some_and(|room| room.pure);
    if !pure_room && !PURE_FILES.contains(&path) {
        return;
    }
    for line in before_tests(text).lines().filter(|line| !line.trim_start().starts_with("//")) {
        for word in IMPURE.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{path}: is pure but names `{word}`"));
        }
    }
}

fn header(path: &str, text: &str, found: &mut Vec<String>) {
    let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
    let long_table = path == "src/lib.rs";
    if lines < 2 || (lines > HEADER_LINES_MAX && !long_table) {
        found.push(format!("{path}: opens with a header of {lines} lines, not 2 to {HEADER_LINES_MAX}"));
    }
}

fn size(path: &str, text: &str, found: &mut Vec<String>) {
    let lines = before_tests(text).lines().count();
    if lines > FILE_LINES_MAX && !path.starts_with("tests/") && !LONG_TABLES.contains(&path) {
        found.push(format!("{path}: has {lines} lines before its tests, more than {FILE_LINES_MAX}"));
    }
}

fn words(path: &str, text: &str, found: &mut Vec<String>) {
    if path == "tests/tidy.rs" {
        return;
    }
    let mut say = |what: String| found.push(format!("{path}: {what}"));
    let code = |line: &&str| !line.trim_start().starts_with("//");
    let unsafe_word = |line: &str| line.contains("unsafe ") && !line.contains("unsafe_code");
    if text.lines().filter(code).any(unsafe_word) && !UNSAFE_FILES.contains(&path) {
        say("unsafe code, in a file that is not listed for it".into());
    }
    if text.contains("#[ignore") {
        say("a test that never runs".into());
    }
    for word in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("] {
        if text.contains(word) {
            say(format!("unfinished: `{word}`"));
        }
    }
    let tests = if path.starts_with("tests/") || path.contains("/tests/") {
        text
    } else {
        &text[before_tests(text).len()..]
    };
    // Where tokio's clock is paused, a sleep takes no time.
    let sleeps = tests.contains("time::sleep(") && !tests.contains("start_paused");
    if tests.contains("thread::sleep(") || sleeps {
        say("sleeps in a test".into());
    }
    for word in ["unbounded_channel(", "mpsc::unbounded(", "flume::unbounded("] {
        if text.contains(word) {
            say(format!("a queue without a limit: `{word}`"));
        }
    }
    let folder = path.split('/').rev().nth(usize::from(path.ends_with("mod.rs"))).unwrap_or(path);
    if BAD_NAMES.contains(&folder.trim_end_matches(".rs")) {
        say("a name that says nothing".into());
    }
}

/// The code above the file's tests.
fn before_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]").map_or(text, |at| &text[..at])
}

fn planted(path: &str, code: &str, finding: &str) {
    let mut tree = read_tree();
    let text = tree.get(path).unwrap_or_else(|| panic!("{path} is gone")).clone();
    let (before, tests) = text.split_at(before_tests(&text).len());
    tree.insert(path.into(), format!("{before}\n{code}{tests}"));
    expect(&tree, finding);
}

fn expect(tree: &Tree, finding: &str) {
    let findings = findings(tree);
    assert!(findings.iter().any(|f| f.contains(finding)), "{finding:?} is not among {findings:#?}");
}

fn read_tree() -> Tree {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "adapters", "tests"] {
        walk(&top.join(folder), &mut files);
    }
    let relative =
        |path: &PathBuf| path.strip_prefix(top).expect("below the top").to_string_lossy().into_owned();
    files.iter().map(|path| (relative(path), fs::read_to_string(path).expect("readable"))).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != "corpus" && name != "artifacts" {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

const HEADER: &str = "//! A file.\n//!\n//! With a header.\n\n";
const HEADER_LINES_MAX: usize = 10;
const FILE_LINES_MAX: usize = 600;

/// Pure files in io rooms and in adapters.
const PURE_FILES: &[&str] = &[
    "adapters/api/src/reading.rs",
    "adapters/modbus/src/checked.rs",
    "adapters/modbus/src/config.rs",
    "adapters/modbus/src/guard/crc.rs",
    "adapters/modbus/src/guard/mod.rs",
    "adapters/modbus/src/guard/rtu.rs",
    "adapters/modbus/src/guard/tcp.rs",
    "adapters/modbus/src/plan.rs",
    "adapters/modbus/src/reading.rs",
    "adapters/modbus/src/register.rs",
    "adapters/modbus/src/schedule.rs",
    "adapters/modbus/src/value.rs",
    "adapters/mqtt-sn/src/codec/decode.rs",
    "adapters/mqtt-sn/src/codec/encode.rs",
    "adapters/mqtt-sn/src/codec/message.rs",
    "adapters/mqtt-sn/src/codec/mod.rs",
    "adapters/mqtt-sn/src/config.rs",
    "adapters/mqtt-sn/src/fuzz.rs",
    "adapters/mqtt-sn/src/gateway/client.rs",
    "adapters/mqtt-sn/src/gateway/clients.rs",
    "adapters/mqtt-sn/src/gateway/counters.rs",
    "adapters/mqtt-sn/src/gateway/inward.rs",
    "adapters/mqtt-sn/src/gateway/mod.rs",
    "adapters/mqtt-sn/src/gateway/outward.rs",
    "adapters/mqtt-sn/src/gateway/pace.rs",
    "adapters/mqtt-sn/src/gateway/strangers.rs",
    "adapters/mqtt-sn/src/gateway/topics.rs",
    "adapters/serial/src/checked.rs",
    "adapters/serial/src/config.rs",
    "adapters/serial/src/framer.rs",
    "adapters/serial/src/reading.rs",
    "src/auth/failures.rs",
    "src/auth/memory.rs",
    "src/auth/scram.rs",
    "src/bridge/backoff.rs",
    "src/bridge/intake.rs",
    "src/bridge/link.rs",
    "src/bridge/mapping.rs",
    "src/bridge/shape.rs",
    "src/bridge/url.rs",
    "src/listener/guests.rs",
    "src/store/pace.rs",
    "src/store/pack.rs",
    "src/store/runs.rs",
];

/// Files that may hold unsafe code, each with its reason beside the code.
const UNSAFE_FILES: &[&str] =
    &["src/service/footprint.rs", "src/store/layer.rs", "src/store/tests/disk/layer.rs"];

/// Declarative tables that may be longer than a file should be, each with its reason.
const LONG_TABLES: &[&str] = &[];

const BAD_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "types", "manager"];

const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::io",
    "tokio::",
    "mio::",
    "rusqlite",
    "getrandom",
    "rand::",
    "tracing::",
    "println!",
    "RandomState",
    "std::collections::HashMap",
    "std::collections::HashSet",
];
