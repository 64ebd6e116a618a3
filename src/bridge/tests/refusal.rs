//! Every reason for which there is no uplink is told for what it is, and nothing is sent before.
//!
//! Certificates, names, dates, passwords, silence: one script each.

use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::certificates::{Authority, Valid};
use super::host::House;
use super::shelf::{Leaves, Shelf, reading};
use super::upstream::{Play, Polite, Step, Upstream, connack};
use super::{PATIENCE, Running, config, pace, with_ca};
use crate::bridge::{Config, LinkState, Pace, Status, Supply, TlsConfig};
use crate::broker::tests::random::Random;
use crate::codec::{Connect, Reason};
use crate::record::ReaderId;

const READER: ReaderId = ReaderId(7);

/// Runs until there is trouble.
async fn trouble(config: &Config, pace: Pace) -> Status {
    let shelf = Shelf::new(Leaves::AtSettle, Default::default());
    shelf.put(READER, [reading("sensors/a", "x")]);
    let supplies = vec![Supply::Stored(READER)];
    let mut running = Running::start_at(config, supplies, shelf.handle.clone(), &House::new(), pace);
    let status = running.until("down", |status| status.next_attempt.is_some()).await;
    assert_eq!(status.state, LinkState::Down);
    running.stop().await;
    assert!(!shelf.is_empty(), "nothing was settled");
    status
}

/// Runs until the message has arrived.
async fn arrives(config: &Config) {
    let shelf = Shelf::new(Leaves::AtSettle, Default::default());
    shelf.put(READER, [reading("sensors/a", "x")]);
    let supplies = vec![Supply::Stored(READER)];
    let mut running = Running::start(config, supplies, shelf.handle.clone(), &House::new());
    running.until("arrived", |status| status.counts.acknowledged == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn tls_is_checked_and_each_fault_is_named() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "right");
    let stranger = Authority::new(folder.path(), "stranger");
    let identity = authority.issue("localhost", &Valid::Now);
    let upstream = Upstream::start_over(Polite, Some(identity.acceptor(None))).await;
    let url = format!("mqtts://localhost:{}", upstream.port);

    let wrong = trouble(&with_ca(config(&url, 5), &stranger.file), pace()).await;
    assert_eq!(wrong.trouble, Some("tls_unknown_authority"));
    let text = "cannot trust localhost: its certificate is from an unknown authority";
    assert_eq!(wrong.reason.as_deref(), Some(text));

    let other = with_ca(config(&format!("mqtts://127.0.0.1:{}", upstream.port), 5), &authority.file);
    assert_eq!(trouble(&other, pace()).await.trouble, Some("tls_wrong_name"));
    let mut named = with_ca(config(&url, 5), &authority.file);
    named.tls.as_mut().unwrap().server_name = Some("elsewhere.example".to_owned());
    assert_eq!(trouble(&named, pace()).await.trouble, Some("tls_wrong_name"));

    // The system's authorities do not know ours, if there are any at all.
    let system = trouble(&config(&url, 5), pace()).await.trouble;
    assert!(matches!(system, Some("tls_unknown_authority" | "file")), "{system:?}");
    assert_eq!(upstream.saw().bytes, 0, "nothing was sent to a peer that is not trusted");

    for (valid, word) in [(Valid::Before, "tls_expired"), (Valid::Later, "tls_not_yet_valid")] {
        let identity = authority.issue("localhost", &valid);
        let upstream = Upstream::start_over(Polite, Some(identity.acceptor(None))).await;
        let url = format!("mqtts://localhost:{}", upstream.port);
        assert_eq!(trouble(&with_ca(config(&url, 4), &authority.file), pace()).await.trouble, Some(word));
        assert_eq!(upstream.saw().bytes, 0);
    }

    for protocol in [4, 5] {
        arrives(&with_ca(config(&url, protocol), &authority.file)).await;
    }
    // The certificate's name counts, not the address that was dialled.
    let mut renamed = with_ca(config(&format!("mqtts://127.0.0.1:{}", upstream.port), 5), &authority.file);
    renamed.tls.as_mut().unwrap().server_name = Some("localhost".to_owned());
    arrives(&renamed).await;
}

#[tokio::test]
async fn our_own_certificate_is_shown_and_its_refusal_told() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "right");
    let server = authority.issue("localhost", &Valid::Now);
    let ours = authority.issue("barn-7", &Valid::Now);
    let upstream = Upstream::start_over(Polite, Some(server.acceptor(Some(&authority)))).await;
    let url = format!("mqtts://localhost:{}", upstream.port);
    let mut config = with_ca(config(&url, 5), &authority.file);
    let without = trouble(&config, pace()).await;
    // Over TLS 1.3 the refusal comes after the handshake, on the connection.
    assert_eq!(without.trouble, Some("tls"), "{without:?}");
    assert!(without.reason.as_deref().is_some_and(|reason| reason.contains("CertificateRequired")));
    config.tls = Some(TlsConfig {
        ca: Some(authority.file.clone()),
        cert: Some(ours.cert),
        key: Some(ours.key),
        server_name: None,
    });
    arrives(&config).await;
    config.tls.as_mut().unwrap().ca = Some(folder.path().join("missing.pem"));
    let missing = trouble(&config, pace()).await;
    assert_eq!(missing.trouble, Some("file"));
    assert!(missing.reason.is_some_and(|reason| reason.contains("missing.pem")));
}

/// Turns everybody away.
struct Doorman(Reason);

impl Play for Doorman {
    fn connect(&mut self, _number: usize, _connect: &Connect) -> Vec<Step> {
        vec![Step::Send(connack(false, self.0)), Step::Cut]
    }
}

#[tokio::test]
async fn a_login_that_upstream_refuses_is_told_and_nothing_is_sent() {
    let folder = TempDir::new().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    for (protocol, reason, word) in [
        (5, Reason::BadUserNameOrPassword, "bad_user_name_or_password"),
        (4, Reason::BadUserNameOrPassword, "bad_user_name_or_password"),
        (5, Reason::NotAuthorized, "not_authorized"),
        (4, Reason::NotAuthorized, "not_authorized"),
        (5, Reason::ServerBusy, "turned_away"),
    ] {
        let upstream = Upstream::start(Doorman(reason)).await;
        let mut config = config(&upstream.url(), protocol);
        config.username = Some("barn".to_owned());
        config.password_file = Some(password.clone());
        assert_eq!(trouble(&config, pace()).await.trouble, Some(word));
        let saw = upstream.saw();
        assert!(saw.publishes.is_empty());
        let connect = &saw.connects[0];
        assert_eq!(connect.username.as_deref(), Some("barn"));
        assert_eq!(connect.password.as_deref(), Some(&b"secret"[..]));
    }
}

#[tokio::test]
async fn a_network_that_fails_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("mqtt://127.0.0.1:{port}");
    let mut quick = pace();
    quick.connack = Duration::from_millis(50);
    quick.dial = Duration::from_millis(50);

    // It accepts and says nothing: not to CONNECT, nor to a TLS handshake.
    let silent = trouble(&config(&url, 5), quick.clone()).await;
    let text = "cannot log in: upstream did not answer CONNECT within 50ms";
    assert_eq!((silent.trouble, silent.reason.as_deref()), (Some("lost"), Some(text)));
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "right");
    let tls = with_ca(config(&format!("mqtts://127.0.0.1:{port}"), 5), &authority.file);
    assert_eq!(trouble(&tls, quick).await.trouble, Some("timeout"));

    drop(listener);
    let refused = trouble(&config(&url, 5), pace()).await;
    assert_eq!(refused.trouble, Some("refused"));
    assert_eq!(refused.reason, Some(format!("cannot reach 127.0.0.1:{port}: connection refused")));

    // A name of the reserved domain has no address, with or without a resolver.
    let unknown = trouble(&config("mqtt://upstream.invalid", 5), pace()).await;
    assert_eq!(unknown.trouble, Some("dns"), "{unknown:?}");
}

#[tokio::test]
async fn garbage_from_upstream_ends_the_connection_and_nothing_else() {
    let seed = getrandom::u64().unwrap();
    println!("seed {seed}");
    let mut dice = Random(seed);
    for protocol in [4, 5] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mqtt://{}", listener.local_addr().unwrap());
        let shelf = Shelf::new(Leaves::AtSettle, Default::default());
        shelf.put(READER, (0..10).map(|number| reading("sensors/a", format!("{number}"))));
        let supplies = vec![Supply::Stored(READER)];
        let running = Running::start(&config(&url, protocol), supplies, shelf.handle.clone(), &House::new());
        for round in 0..200 {
            let accepted = timeout(PATIENCE, listener.accept()).await;
            let (mut socket, _) =
                accepted.unwrap_or_else(|_| panic!("{:?}", *running.status.borrow())).unwrap();
            let mut connect = [0; 200];
            assert!(socket.read(&mut connect).await.unwrap() > 0);
            let welcome: &[u8] = if protocol == 5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
            // Every fourth upstream does not even begin well.
            if round % 4 > 0 {
                socket.write_all(welcome).await.unwrap();
            }
            let mut garbage: Vec<u8> =
                (0..dice.below(60)).map(|_| u8::try_from(dice.below(256)).unwrap()).collect();
            if garbage.len() > 2 && round % 2 == 0 {
                // A frame that is whole, with nonsense in it.
                garbage[1] = u8::try_from(garbage.len() - 2).unwrap();
            }
            // The bridge may have hung up already.
            let _ = socket.write_all(&garbage).await;
        }
        drop(listener);
        assert!(!running.task.is_finished());
        running.stop().await;
        // Some nonsense is a PUBACK for what was sent; all else is still there.
        let state = shelf.state();
        assert_eq!(state.rows[&READER].len() + state.settled.len() + state.dropped.len(), 10);
    }
}
