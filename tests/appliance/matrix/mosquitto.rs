//! Debian's mosquitto_pub and mosquitto_sub through one cell of the matrix.
//!
//! A subscriber is a process that tells what it does (`-d`), so that a test knows when it has subscribed.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::{Cell, large};

/// Goes through all scenarios.
pub(super) fn run(cell: &Cell) -> Vec<String> {
    let mut done = Vec::new();
    let mut scenario = |name: &str, run: fn(&Cell)| {
        run(cell);
        done.push(name.to_owned());
    };
    scenario("login", login);
    scenario("pairs", pairs);
    scenario("retained", retained);
    scenario("will", will);
    scenario("kept", kept);
    if cell.version == "5" {
        scenario("properties", properties);
        scenario("identifier", identifier);
    }
    done
}

fn login(cell: &Cell) {
    let topic = format!("{}/login", cell.prefix);
    let output =
        command(cell, "mosquitto_pub", "wrong").args(["-q", "1", "-m", "x", "-t", &topic]).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
}

fn pairs(cell: &Cell) {
    let file = large(cell.folder).display().to_string();
    for subscribed in ["0", "1", "2"] {
        let filter = format!("{}/pairs/+/{subscribed}", cell.prefix);
        let mut subscriber = Subscriber::start(cell, &["-q", subscribed, "-t", &filter], "%t %q %r %l %p");
        for published in ["0", "1", "2"] {
            let topic = filter.replace('+', published);
            for (payload, text) in
                [(&["-n"][..], ""), (&["-m", "hello"], "hello"), (&["-f", &file], &"x".repeat(100_000))]
            {
                publish(cell, &[&["-q", published, "-t", &topic], payload].concat());
                let qos = published.min(subscribed);
                assert_eq!(subscriber.message(), format!("{topic} {qos} 0 {} {text}", text.len()));
            }
        }
    }
}

fn retained(cell: &Cell) {
    let topic = format!("{}/retained/a", cell.prefix);
    publish(cell, &["-r", "-q", "1", "-t", &topic, "-m", "kept"]);
    let filter = format!("{}/retained/#", cell.prefix);
    let mut late = Subscriber::start(cell, &["-q", "1", "-t", &filter], "%t %r %p");
    assert_eq!(late.message(), format!("{topic} 1 kept"));
    // And cleared: whoever comes later gets the next message first.
    publish(cell, &["-r", "-q", "1", "-t", &topic, "-n"]);
    assert_eq!(late.message(), format!("{topic} 0 "));
    let mut later = Subscriber::start(cell, &["-q", "1", "-t", &filter], "%t %r %p");
    publish(cell, &["-q", "1", "-t", &topic, "-m", "next"]);
    assert_eq!(later.message(), format!("{topic} 0 next"));
}

fn will(cell: &Cell) {
    let topic = format!("{}/will/x", cell.prefix);
    let mut watcher =
        Subscriber::start(cell, &["-q", "1", "-t", &format!("{}/will/+", cell.prefix)], "%t %p");
    let words = ["-t", "nothing", "--will-topic", &topic, "--will-payload", "gone", "--will-qos", "1"];
    drop(Subscriber::start(cell, &words, "%p"));
    assert_eq!(watcher.message(), format!("{topic} gone"));
}

fn kept(cell: &Cell) {
    let name = format!("keeper-{}", cell.prefix);
    let filter = format!("{}/kept/+", cell.prefix);
    let mut words = vec!["-i", &name, "-c", "-q", "2", "-t", &filter];
    if cell.version == "5" {
        words.extend(["-x", "3600"]);
    }
    let output = command(cell, "mosquitto_sub", "right").args(&words).arg("-E").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for number in ["1", "2", "3", "4", "5"] {
        for qos in ["1", "2"] {
            publish(cell, &["-q", qos, "-t", &filter.replace('+', qos), "-m", number]);
        }
    }
    let mut again = Subscriber::resume(cell, &words, "%q %p");
    let mut got: Vec<String> = (0..10).map(|_| again.message()).collect();
    // This client hands on QoS 2 at its PUBREL, so only what has one QoS is in order.
    got.sort_by_key(|line| line.as_bytes()[0]);
    assert_eq!(got, ["1 1", "1 2", "1 3", "1 4", "1 5", "2 1", "2 2", "2 3", "2 4", "2 5"]);
}

fn properties(cell: &Cell) {
    let topic = format!("{}/properties/x", cell.prefix);
    let mut subscriber = Subscriber::start(cell, &["-q", "1", "-t", &topic.replace("/x", "/+")], "%P %C %p");
    let carried =
        ["-D", "publish", "user-property", "field", "north", "-D", "publish", "content-type", "text/plain"];
    publish(cell, &[&["-q", "1", "-t", &topic, "-m", "p"], &carried[..]].concat());
    assert_eq!(subscriber.message(), "field:north text/plain p");
}

fn identifier(cell: &Cell) {
    let topic = format!("{}/identifier/x", cell.prefix);
    let words =
        ["-q", "1", "-t", &topic.replace("/x", "/+"), "-D", "subscribe", "subscription-identifier", "77"];
    let mut subscriber = Subscriber::start(cell, &words, "%S %p");
    publish(cell, &["-q", "1", "-t", &topic, "-m", "i"]);
    assert_eq!(subscriber.message(), "77 i");
}

fn command(cell: &Cell, program: &str, password: &str) -> Command {
    let version = format!("mqttv{}", cell.version.replace('.', ""));
    // Its words are read line by line, so it must not keep them until it has many.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program, "-h", "localhost", "-p", &cell.port.to_string(), "-V", &version]);
    command.args(["-u", "barn", "-P", password]);
    if !cell.authorities.is_empty() {
        command.args(["--cafile", &cell.authorities]);
    }
    command
}

fn publish(cell: &Cell, words: &[&str]) {
    let output = command(cell, "mosquitto_pub", "right").args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// A mosquitto_sub that has subscribed; killed when dropped.
struct Subscriber {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Subscriber {
    fn start(cell: &Cell, words: &[&str], format: &str) -> Subscriber {
        let mut subscriber = Subscriber::resume(cell, words, format);
        subscriber.line("Subscribed");
        subscriber
    }

    /// Without a wait: what was kept for it comes before it has subscribed again.
    fn resume(cell: &Cell, words: &[&str], format: &str) -> Subscriber {
        let mut command = command(cell, "mosquitto_sub", "right");
        command.args(words).args(["-d", "-W", "120", "-F", &format!("got {format}")]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Subscriber { child, said }
    }

    fn message(&mut self) -> String {
        self.line("got ")
    }

    /// What follows `start` on the next line that has it.
    fn line(&mut self, start: &str) -> String {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim_end_matches('\n').to_owned();
            }
            line.clear();
        }
        panic!("mosquitto_sub ended before it said {start:?}");
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
