//! What the operator types.
//!
//! Wrong configurations are refused with every mistake and its line, a stop is clean, and a second
//! instance does not touch the first one's data.

use std::process::{Command, Output, Stdio};

use crate::program;
use crate::stand::{Client, Gateway, Options};
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

#[test]
fn a_stop_is_clean_and_a_start_after_it_finds_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(program(), folder.path(), "");
    let mut absent = Client::connect(gateway.port(), &Options::kept("absent"));
    absent.subscribe("stop/#", QoS::AtLeastOnce);
    absent.disconnect();
    Client::connect(gateway.port(), &Options::new("publisher")).publish_acknowledged("stop/x", "kept");
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.log());
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
