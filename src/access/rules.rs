//! The lines of an ACL file, in mosquitto's syntax.
//!
//! `topic [read|write|readwrite|deny] FILTER` before the first `user NAME` is for clients without a user
//! name, after it for that user; `pattern …` is for everybody, with `%u` and `%c` standing for the
//! client's user name and id. Every wrong line is reported, none is passed over.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;

use super::Access;
use super::granted::{Line, Rights, Scope, Section};
use super::names::{Names, asks_for_names};
use crate::router::filter::{FilterKind, check_filter};

/// All rules of a file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// For clients without a user name.
    nobody: Arc<Section>,
    users: BTreeMap<String, Arc<Section>>,
    /// As they are written; every client's.
    patterns: Arc<[Line]>,
    /// Whether some of them have a place for a name.
    asks_for_names: bool,
}

/// A line that says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// What was found, and what is to be written.
    pub text: String,
}

impl Rules {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub fn parse(text: &str) -> Result<Rules, Vec<Mistake>> {
        let mut reading = Reading::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(text) = reading.take(line) {
                reading.mistakes.push(Mistake { line: index + 1, text });
            }
        }
        let Reading { nobody, users, patterns, mistakes, .. } = reading;
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let users = users.into_iter().map(|(user, section)| (user, Arc::new(section))).collect();
        let asks_for_names = patterns.iter().any(|line| asks_for_names(&line.filter));
        Ok(Rules { nobody: Arc::new(nobody), users, patterns: patterns.into(), asks_for_names })
    }

    /// What a network client may do; no user name is one that was not checked.
    pub fn of_client(&self, user: Option<&ByteString>, client_id: &ByteString) -> Access {
        let own = match user {
            Some(user) => self.users.get(&**user).cloned().unwrap_or_default(),
            None => self.nobody.clone(),
        };
        let names = self.asks_for_names.then(|| Box::new(Names::new(user, client_id)));
        Access::new(own, self.patterns.clone(), names, Scope::Granted)
    }

    /// What an adapter or a bridge may do: its own configuration has said what it publishes, so these
    /// rules limit it only where they name it.
    pub fn of_adapter(&self, user: &ByteString, client_id: &ByteString) -> Access {
        match self.users.get(&**user) {
            Some(_) => self.of_client(Some(user), client_id),
            None => Access::new(Arc::default(), Arc::default(), None, Scope::Free),
        }
    }

    /// Whether some lines are for users by name.
    pub fn names_users(&self) -> bool {
        !self.users.is_empty()
    }
}

/// Counts only: a file may have many thousand lines.
impl fmt::Debug for Rules {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = out.debug_struct("Rules");
        shown
            .field("users", &self.users.len())
            .field("patterns", &self.patterns.len())
            .finish_non_exhaustive()
    }
}

/// A file half read.
#[derive(Default)]
struct Reading {
    nobody: Section,
    users: BTreeMap<String, Section>,
    patterns: Vec<Line>,
    /// Whose lines are being read.
    user: Option<String>,
    mistakes: Vec<Mistake>,
}

impl Reading {
    fn take(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = split_word(line);
        match word {
            "user" if rest.is_empty() => Err("names no user: write user NAME".to_owned()),
            "user" => {
                self.users.entry(rest.to_owned()).or_default();
                self.user = Some(rest.to_owned());
                Ok(())
            }
            "topic" => {
                let line = read_rule(word, rest)?;
                match &self.user {
                    Some(user) => self.users.entry(user.clone()).or_default().add(line),
                    None => self.nobody.add(line),
                }
                Ok(())
            }
            "pattern" => {
                self.patterns.push(read_rule(word, rest)?);
                Ok(())
            }
            other => Err(format!("found {other:?}: a line begins with user, topic, pattern or #")),
        }
    }
}

fn read_rule(word: &str, rest: &str) -> Result<Line, String> {
    let (first, behind) = split_word(rest);
    let (rights, filter) = match (first, behind) {
        ("read", _) => (Rights::READ, behind),
        ("write", _) => (Rights::WRITE, behind),
        ("readwrite", _) => (Rights::BOTH, behind),
        ("deny", _) => (Rights::DENY, behind),
        (_, "") => (Rights::BOTH, first),
        _ => {
            return Err(format!(
                "found {first:?}, expected read, write, readwrite or deny; for a topic with a space write {word} readwrite {rest}"
            ));
        }
    };
    if filter.is_empty() {
        return Err(format!("names no topic: write {word} {first} FILTER").replace("  ", " "));
    }
    match check_filter(filter) {
        Ok(FilterKind::Exact | FilterKind::Wildcard) => {
            Ok(Line { filter: filter.into(), rights: rights.of_line(filter) })
        }
        Ok(FilterKind::Shared) => {
            Err(format!("found {filter:?}: a rule is about topics, leave $share/NAME/ out"))
        }
        Err(_) => Err(format!(
            "found {filter:?}, expected a topic filter: + stands for a whole level, # for all that follow"
        )),
    }
}

/// The first word, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    match text.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line: user (`-` is none), client id, what it wants, and whether it may.
    fn check(rules: &str, cases: &[&str]) {
        let rules = Rules::parse(rules).expect("right");
        for case in cases {
            let words: Vec<&str> = case.split(' ').collect();
            let [user, client_id, wants, topic, expected] = words[..] else { panic!("{case}") };
            let user = Some(user).filter(|user| *user != "-").map(ByteString::from);
            let access = rules.of_client(user.as_ref(), &client_id.into());
            let may = match wants {
                "read" => access.may_read(topic),
                "write" => access.may_write(topic),
                "set" => access.may_set(topic),
                "subscribe" => access.may_subscribe(topic),
                other => panic!("{other}"),
            };
            assert_eq!(if may { "yes" } else { "no" }, expected, "{case}");
        }
    }

    #[test]
    fn lines_before_the_first_user_are_for_clients_without_a_name() {
        check(
            "# rules\n\ntopic read news/#\nuser anna\ntopic write tank/level\n topic  read  tank/+\t\n",
            &[
                "- c read news/a yes",
                "- c write news/a no",
                "- c read tank/level no",
                "anna c read news/a no",
                "anna c write tank/level yes",
                "anna c read tank/level yes",
                "anna c write tank/other no",
                "bert c read news/a no",
            ],
        );
    }

    #[test]
    fn a_topic_without_a_word_may_be_read_and_written() {
        check("user a\ntopic x/y\n", &["a c read x/y yes", "a c write x/y yes", "a c read x/z no"]);
    }

    #[test]
    fn users_may_be_named_twice_and_names_and_topics_may_hold_spaces() {
        let rules = Rules::parse("user the boss\ntopic read a b/c\nuser x\nuser the boss\ntopic write d\n");
        let access = rules.expect("right").of_client(Some(&"the boss".into()), &"c".into());
        assert!(access.may_read("a b/c") && access.may_write("d") && !access.may_write("a b/c"));
    }

    #[test]
    fn deny_wins_wherever_it_stands() {
        check(
            "pattern deny secret/#\npattern read %c/#\nuser a\ntopic readwrite #\ntopic deny x/1\ntopic x/1\n",
            &[
                "a c read x/2 yes",
                "a c read x/1 no",
                "a c write x/1 no",
                "a c write secret/x no",
                "a secret read secret/x no",
            ],
        );
    }

    #[test]
    fn patterns_hold_for_everybody_under_their_own_names() {
        check(
            "pattern read u/%u/#\npattern write c/%c\npattern readwrite pre-%u-%c-post/x\npattern read all/%x\n",
            &[
                "anna c1 read u/anna/x yes",
                "anna c1 read u/bert/x no",
                "- c1 read u//x no",
                "- c1 write c/c1 yes",
                "anna c1 write pre-anna-c1-post/x yes",
                "anna c1 write pre-anna-c2-post/x no",
                "anna c1 read all/%x yes",
                "%c c1 read u/c1/x no",
                "%c c1 read u/%c/x yes",
            ],
        );
    }

    #[test]
    fn a_name_cannot_widen_a_pattern() {
        let rules = "pattern read u/%u/x\npattern read %c/y\npattern deny u/%u/secret\n\
                     user +\ntopic read own\ntopic read u/#\nuser a/b\ntopic read u/#\nuser anna\ntopic read u/#\n";
        check(
            rules,
            &[
                "+ c read u/anna/x no",
                "+ c read own yes",
                "# c read u/anna/x no",
                "x/../anna c read u/x/../anna/x no",
                "a/b c read u/a/b/secret no",
                "a/b c read u/other no",
                "anna c read u/anna/secret no",
                "anna c read u/other yes",
                "- + read z/y no",
                "- # read z/y no",
                "- a/b read a/b/y no",
                "- $SYS read $SYS/y no",
            ],
        );
    }

    #[test]
    fn a_client_called_set_is_named_by_no_pattern() {
        let rules = "pattern readwrite scales/1/%c\npattern write valves/%c/set\n";
        check(
            rules,
            &["- set set scales/1/set no", "- set write scales/1/set yes", "- c set valves/c/set yes"],
        );
    }

    #[test]
    fn dollar_topics_need_a_line_that_names_them() {
        check("topic read #\n", &["- c read $SYS/broker/uptime no", "- c read a yes"]);
        check("topic read $SYS/#\n", &["- c read $SYS/broker/uptime yes", "- c read a no"]);
    }

    #[test]
    fn only_a_line_that_names_it_opens_a_set_topic() {
        check(
            "user broad\ntopic readwrite #\nuser all\ntopic write modbus/+/+/+/set\n\
             user one\ntopic write modbus/l/m/p/set\nuser stopped\ntopic write modbus/+/+/+/set\ntopic deny modbus/l/#\n\
             user reads\ntopic read modbus/l/m/p/set\n",
            &[
                "broad c write modbus/l/m/p/set yes",
                "broad c set modbus/l/m/p/set no",
                "all c set modbus/l/m/p/set yes",
                "one c set modbus/l/m/p/set yes",
                "one c set modbus/l/m/q/set no",
                "stopped c set modbus/l/m/p/set no",
                "reads c set modbus/l/m/p/set no",
            ],
        );
    }

    #[test]
    fn a_filter_that_can_bring_nothing_is_not_granted() {
        check(
            "user a\ntopic read a/+\ntopic deny a/x\nuser w\ntopic write #\nuser d\ntopic read #\ntopic deny b/#\n",
            &[
                "a c subscribe # yes",
                "a c subscribe a/x no",
                "a c subscribe a/y yes",
                "a c subscribe a/+ yes",
                "a c subscribe a/+/b no",
                "a c subscribe b/# no",
                "w c subscribe # no",
                "d c subscribe b/+ no",
                "d c subscribe b no",
                "d c subscribe +/x yes",
            ],
        );
    }

    #[test]
    fn an_adapter_is_limited_only_where_it_is_named() {
        let rules =
            Rules::parse("user bridge:cloud\ntopic write commands/#\npattern deny x/#\n").expect("right");
        let free = rules.of_adapter(&"modbus:line-1".into(), &"modbus:line-1".into());
        assert!(free.may_write("anything") && free.may_subscribe("#") && free.may_read("x/y"));
        assert!(!free.may_set("modbus/line-1/m/p/set"), "no line names it");
        let named = rules.of_adapter(&"bridge:cloud".into(), &"bridge:cloud".into());
        assert!(named.may_write("commands/x") && !named.may_write("other"));
    }

    #[test]
    fn every_wrong_line_is_named_with_its_cure() {
        let text = "topic raed a/b\ntopic read\ntopic\nuser\n\n# fine\ntopci read a\ntopic a/#/b\ntopic read $share/g/a\npattern\nuser x\ntopic ok\n";
        let mistakes = Rules::parse(text).expect_err("wrong");
        let lines: Vec<usize> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 7, 8, 9, 10]);
        let texts: Vec<&str> = mistakes.iter().map(|mistake| mistake.text.as_str()).collect();
        assert!(texts[0].contains("\"raed\", expected read, write, readwrite or deny"), "{}", texts[0]);
        assert_eq!(texts[1], "names no topic: write topic read FILTER");
        assert_eq!(texts[2], "names no topic: write topic FILTER");
        assert_eq!(texts[3], "names no user: write user NAME");
        assert!(texts[4].contains("begins with user, topic, pattern"), "{}", texts[4]);
    }
}
