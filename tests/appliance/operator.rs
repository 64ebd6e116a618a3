//! What the operator types.
//!
//! Wrong configurations are refused with every mistake and its line, a stop is clean, and a second
//! instance does not touch the first one's data.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::program;
use crate::stand::{Client, Gateway, Options, wait_for};
use tidegate::codec::QoS;

#[test]
fn five_mistakes_are_all_told_with_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    std::fs::write(
        &file,
        "[gateway]\nid = 7\n\n[store]\ncommit_intervall = \"20ms\"\nmax_size = \"much\"\n\n[[listener]]\nbind = \"nowhere\"\n\n[limits]\nmax_keepalive = true\n",
    )
    .unwrap();
    let output = Command::new(program()).arg("check").arg("--config").arg(&file).output().unwrap();
    let said = both(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for line in [2, 5, 6, 9, 12] {
        assert!(said.contains(&format!("tidegate.toml:{line}")), "line {line} is not in:\n{said}");
    }
    assert!(said.contains("commit_interval"), "a near name is offered:\n{said}");
    println!("measured:\n{said}");
}

#[test]
fn who_hears_no_more_ends_a_command_and_a_full_disk_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    std::fs::write(&file, "[gateway]\nid = \"barn-7\"\n").unwrap();
    let check = |out: Stdio| {
        let mut command = Command::new(program());
        command.arg("check").arg("--config").arg(&file).stdout(out).stderr(Stdio::piped()).output().unwrap()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = check(writer.into());
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = check(full.into());
    assert_eq!(output.status.code(), Some(1));
    assert!(both(&output).contains("cannot write to standard output: No space left"), "{}", both(&output));
}

/// A service that is told to hang up and to end while somebody else holds its configuration, which it is sent
/// then; how it ended, and what it said.
fn told_to_end_before(configuration: impl FnOnce(&Path) -> Option<String>) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let mut service = Command::new(program());
    service.args(["run", "--config"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
    let service = service.stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    // This waits until the service opens it, too.
    let mut pipe = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    for signal in ["-HUP", "-TERM"] {
        assert!(Command::new("kill").args([signal, &service.id().to_string()]).status().unwrap().success());
    }
    // Otherwise the pipe is held until the service has ended.
    if let Some(text) = configuration(folder.path()) {
        pipe.write_all(text.as_bytes()).unwrap();
        drop(pipe);
    }
    service.wait_with_output().unwrap()
}

#[test]
fn signals_are_heard_before_the_configuration_is_read() {
    let output = told_to_end_before(|folder| {
        let (data, run) = (folder.join("data"), folder.join("run"));
        Some(format!(
            "[gateway]\ndata_dir = {data:?}\nrun_dir = {run:?}\n[[listener]]\nbind = \"127.0.0.1:0\"\n"
        ))
    });
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = told_to_end_before(|_| None);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("told to end at the start"), "{said}");
}

#[test]
fn a_stop_is_clean_and_a_start_after_it_finds_everything() {
    let folder = tempfile::tempdir().unwrap();
    let bridge = "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:9\"]\n[[bridge.receive]]\nfilter = \"c/#\"\n";
    let mut gateway = Gateway::start(program(), folder.path(), bridge);
    wait_for("the bridge's way in", || gateway.log().contains("client_id=bridge:cloud").then_some(()));
    let mut absent = Client::connect(gateway.port(), &Options::kept("absent"));
    absent.subscribe("stop/#", QoS::AtLeastOnce);
    absent.disconnect();
    Client::connect(gateway.port(), &Options::new("publisher")).publish_acknowledged("stop/x", "kept");
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.log());
    let log = gateway.log();
    assert!(!log.contains("without DISCONNECT client_id=bridge:cloud"), "its own part is not lost: {log}");
    gateway.start_again();
    assert_eq!(&Client::connect(gateway.port(), &Options::kept("absent")).message().payload[..], b"kept");
}

#[test]
fn a_second_instance_leaves_the_first_ones_data_alone() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), "");
    let output = Command::new(program())
        .args(["run", "--config"])
        .arg(folder.path().join("tidegate.toml"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    assert!(both(&output).contains("another"), "{}", both(&output));
    Client::connect(gateway.port(), &Options::new("publisher"))
        .publish_acknowledged("x", "the first serves on");
}

#[test]
fn what_a_route_that_was_taken_out_still_had_stays_counted() {
    let folder = tempfile::tempdir().unwrap();
    let bridge = |filter: &str| {
        format!(
            "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:1\"]\n\
             [[bridge.forward]]\nfilter = \"{filter}\"\n\
             [[bridge.forward]]\nfilter = \"live/#\"\nstore = false\n"
        )
    };
    let mut gateway = Gateway::start(program(), folder.path(), &bridge("old/#"));
    let mut publisher = Client::connect(gateway.port(), &Options::new("publisher"));
    (0..3).for_each(|_| publisher.publish_acknowledged("old/x", "x"));
    gateway.stop();
    let gone = serde_json::json!([{
        "name": "cloud:old/#", "received": 3, "delivered": 0, "queued": 0, "expired": 0, "dropped": {"purged": 3}
    }]);
    let mut gateway = Gateway::start(program(), folder.path(), &bridge("new/#"));
    gateway.until("the last line of the former route", |status| status["routes_gone"] == gone);
    gateway.kill();
    gateway.start_again();
    gateway.until("the same after a kill", |status| status["routes_gone"] == gone);
    let output = Command::new(program())
        .args(["status", "--run-dir"])
        .arg(folder.path().join("run"))
        .output()
        .unwrap();
    assert!(both(&output).contains("dropped 3 (purged 3)"), "{}", both(&output));

    // $SYS says so too, and of a route that keeps nothing on disk.
    let mut reader = Client::connect(gateway.port(), &Options::new("reader"));
    reader.publish_acknowledged("live/x", "x");
    reader.subscribe("$SYS/broker/store/#", QoS::AtMostOnce);
    let mut expected = std::collections::BTreeMap::from([
        ("$SYS/broker/store/routes_gone/cloud:old%2F%23/dropped/purged", "3"),
        ("$SYS/broker/store/routes/cloud:live%2F%23/received", "1"),
    ]);
    while !expected.is_empty() {
        let message = reader.message();
        if let Some(figure) = expected.remove(&*message.topic) {
            assert_eq!(&message.payload[..], figure.as_bytes(), "{}", message.topic);
        }
    }
}

#[test]
fn our_own_pub_and_sub_speak_as_mosquittos_do() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), "");
    let port = gateway.port().to_string();
    let tidegate = |words: &[&str]| {
        let output = Command::new(program()).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", both(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    tidegate(&["pub", "-p", &port, "-t", "own/a", "-m", "kept", "-r", "-q", "1"]);
    assert_eq!(tidegate(&["sub", "-p", &port, "-t", "own/#", "-v", "-C", "1", "-W", "60"]), "own/a kept\n");
}

#[test]
fn garbage_and_half_packets_end_one_connection_and_no_other() {
    use std::io::{Read, Write};
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), "");
    let mut healthy = Client::connect(gateway.port(), &Options::new("healthy"));
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x10, 0xFF, 0xFF, 0xFF, 0xFF], &[0xF0; 100], &[0x30, 0x02, 0, 0]]
    {
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", gateway.port())).unwrap();
        socket.write_all(garbage).unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
    }
    healthy.publish_acknowledged("x", "still served");
}

#[test]
fn a_log_that_nobody_reads_keeps_nobody_waiting() {
    use std::io::Read;
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("unread");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Both ends, so that opening it waits for nobody.
    let mut unread = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let wrapper = ["sh", "-c", "exec \"$@\" 2>\"$0\"", pipe.to_str().unwrap()];
    rustix::pipe::fcntl_setpipe_size(&unread, PIPE_BYTES).unwrap();
    let mut gateway = Gateway::start_under(program(), folder.path(), "", &wrapper);
    for number in 0..50 {
        drop(Client::connect(gateway.port(), &Options::new(&format!("{}-{number}", "x".repeat(200)))));
    }
    Client::connect(gateway.port(), &Options::new("healthy")).publish_acknowledged("x", "still served");
    assert_eq!(gateway.stop().code(), Some(0));
    let taken = unread.read(&mut [0; 2 * PIPE_BYTES]).unwrap();
    assert!(taken > PIPE_BYTES / 2, "{taken} bytes: the log found room");
}

/// A page, the least that a pipe may have.
const PIPE_BYTES: usize = 4_096;

fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
