//! The page: one table a version, one row a statement.
//!
//! What is shown, what is missing and what is obeyed with a reserve is said in each row, and counted above.

use std::fmt::Write;

use crate::clauses::{Binds, Clause, Exception, Exceptions, List};
use crate::marks::Marks;

/// `docs/conformance.md`.
pub(crate) fn page(lists: &[List], marks: &Marks, exceptions: &Exceptions) -> String {
    let mut page = HEAD.to_owned();
    page += "\n| version | statements | bind a server | shown | missing | bind clients alone | of these checked |\n";
    page += "|---|---|---|---|---|---|---|\n";
    for list in lists {
        let _ = writeln!(page, "{}", sums(list, marks, exceptions));
    }
    for list in lists {
        let _ = writeln!(page, "\n## {}\n", title(&list.prefix));
        page += "| statement | binds | what it asks | shown by | state |\n|---|---|---|---|---|\n";
        for clause in &list.clauses {
            let _ = writeln!(page, "{}", row(clause, marks, exceptions));
        }
    }
    page
}

fn sums(list: &List, marks: &Marks, exceptions: &Exceptions) -> String {
    let count =
        |wanted: &dyn Fn(&Clause) -> bool| list.clauses.iter().filter(|clause| wanted(clause)).count();
    let shown = |clause: &Clause| marks.tests.contains_key(&clause.name);
    let client = |clause: &Clause| clause.binds == Binds::Client;
    let missing = |clause: &Clause| matches!(exceptions.of.get(&clause.name), Some(Exception::Missing(_)));
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |",
        title(&list.prefix),
        list.clauses.len(),
        count(&|clause| !client(clause)),
        count(&|clause| !client(clause) && shown(clause)),
        count(&missing),
        count(&client),
        count(&|clause| client(clause) && shown(clause)),
    )
}

fn row(clause: &Clause, marks: &Marks, exceptions: &Exceptions) -> String {
    let tests = marks.tests.get(&clause.name);
    let state = match (exceptions.of.get(&clause.name), clause.binds, tests) {
        (Some(Exception::Missing(feature)), ..) => format!("missing: {feature}"),
        (Some(Exception::Deviates(why)), ..) => format!("shown, save: {why}"),
        (None, Binds::Client, None) => "the client's".to_owned(),
        (None, Binds::Client, Some(_)) => "the client's, checked".to_owned(),
        (None, _, Some(_)) => "shown".to_owned(),
        (None, _, None) => "not shown".to_owned(),
    };
    let tests: Vec<String> =
        tests.into_iter().flatten().map(|test| format!("`{}`", test.replace('|', "\\|"))).collect();
    let (name, binds, words) = (&clause.name, clause.binds.name(), &clause.words);
    format!("| {name} | {binds} | {words} | {} | {state} |", tests.join("<br>"))
}

fn title(prefix: &str) -> &'static str {
    match prefix {
        "MQTT31" => "MQTT 3.1",
        "MQTT311" => "MQTT 3.1.1",
        _ => "MQTT 5.0",
    }
}

const HEAD: &str = "\
# Conformance

Every numbered statement of the MQTT standards (appendix B of each), what it asks in a few words, and the test that
fails when it is broken. MQTT 3.1 has no numbers; what deployed clients rely on is numbered here. This page is written
by `TIDEGATE_CONFORMANCE=write cargo test --test conformance` from the lists in `tests/conformance/` and from the marks
that the tests carry; `make test` runs all of them, and fails where this page is out of date, where a statement that
binds a server has no test, and where a mark names no statement.

*shown*: a test of `make test` shows it. *missing*: its feature is not built, and nothing is claimed. *the client's*: it
binds clients alone; *checked*: a client that breaks it is found out. Tests are named as `cargo test` names them;
`packets.txt` and `malformed.txt` hold packets byte by byte and are run by `codec::golden`.
";
