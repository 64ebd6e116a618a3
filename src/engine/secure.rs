//! The engine behind TLS, over real sockets: what a client sees, and what it cannot do to others.
//!
//! Certificates are of the tests' own authorities; nothing is believed that the engine does not count.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use adapter_api::units::Rate;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::crypto::ring;
use rustls::{
    ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion,
};

use super::intake::CONNECTION_BYTES_MAX;
use super::testing::{Client, PATIENCE, Running, StoreMode, broker, connect, small_broker};
use crate::broker::{Passwords, Trust};
use crate::codec::{Packet, QoS, Reason, Version};
use crate::listener::testing::{Authority, Bearer, Identified, Secure, secure_listener};
use crate::listener::{Listener, TlsConfig};

const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// An engine with a plain listener and one with TLS, and the files of its certificate.
struct Stand {
    running: Running,
    folder: tempfile::TempDir,
    authority: Authority,
    server: Identified,
}

impl Stand {
    /// `arrange` says who may come in where no certificate decides it.
    fn start(arrange: impl FnOnce(&Authority, &mut TlsConfig, &mut super::Parts) -> Trust) -> Stand {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let server = authority.issue("server", &["localhost"], 1);
        let running = Running::start(StoreMode::Prompt, |parts| {
            let mut tls = server.tls();
            let trust = arrange(&authority, &mut tls, parts);
            parts.listeners.push(Listener { trust, ..secure_listener(tls) });
        });
        Stand { running, folder, authority, server }
    }

    fn plain() -> Stand {
        Stand::start(|_, _, _| Trust::Anonymous)
    }

    /// One that lets in who has a certificate, by its common name and without a password, and knows that
    /// number 66 is revoked.
    fn with_clients() -> Stand {
        Stand::start(|authority, tls, parts| {
            tls.client_ca = Some(authority.file.clone());
            tls.crl = Some(authority.revoke(&[66], 2999));
            tls.identity = Some("cn".to_owned());
            parts.broker = broker(&parts.clock, Passwords::File, Vec::new());
            Trust::Password
        })
    }

    fn secure(&self) -> SocketAddr {
        self.running.address_of(1)
    }

    fn nobody(&self) -> Bearer<'_> {
        Bearer::nobody(&self.authority.file)
    }

    fn client(&self, bearer: &Bearer<'_>, client_id: &str) -> Client<Secure> {
        let mut client = Client::over(bearer.dial(self.secure()), Version::V5);
        client.greet(client_id);
        client
    }
}

/// Whether the engine ends the connection without a word of MQTT.
fn is_turned_away(mut stream: Secure) -> bool {
    let mut bytes = Vec::new();
    super::testing::encode_to(&connect(Version::V5, "x"), &mut bytes);
    // In TLS 1.3 a client has done its part before the server looks at its certificate.
    let _ = stream.write_all(&bytes);
    let _ = stream.flush();
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("neither let in nor turned away"),
        Err(_) => true,
    }
}

#[test]
fn messages_of_any_size_pass_in_both_versions_of_tls() {
    let stand = Stand::plain();
    for versions in [TLS12, TLS13] {
        let bearer = Bearer { versions, ..stand.nobody() };
        let mut subscriber = stand.client(&bearer, "sub");
        subscriber.subscribe("t", QoS::AtMostOnce);
        let mut publisher = stand.client(&bearer, "pub");
        for size in [0, 1, 16_384, 16_385, 200_000] {
            publisher.publish("t", &vec![7; size], QoS::AtMostOnce);
            assert_eq!(subscriber.message().payload.len(), size);
        }
        let mut plain = Client::connect(stand.running.address, Version::V311, "plain");
        plain.publish("t", b"from outside", QoS::AtMostOnce);
        assert_eq!(&*subscriber.message().payload, b"from outside");
    }
    assert_eq!(stand.running.handshakes("done"), 4);
}

#[test]
fn what_comes_with_the_end_of_the_handshake_is_not_forgotten() {
    let stand = Stand::plain();
    let mut bytes = Vec::new();
    super::testing::encode_to(&connect(Version::V5, "hasty"), &mut bytes);
    super::testing::encode_to(&Packet::PingReq, &mut bytes);
    let mut stream = stand.nobody().dial(stand.secure());
    // rustls keeps it, and sends it behind the Finished of the handshake.
    stream.conn.writer().write_all(&bytes).unwrap();
    let mut client = Client::over(stream, Version::V5);
    assert!(matches!(client.next(), Packet::ConnAck(ack) if ack.reason == Reason::Success));
    assert_eq!(client.next(), Packet::PingResp);
}

#[test]
fn more_than_a_turn_takes_is_taken_from_tls_in_the_turns_after() {
    let stand = Stand::plain();
    let mut client = stand.client(&stand.nobody(), "flood");
    let pings = client.bytes(&Packet::PingReq).repeat(5_000);
    client.send_bytes(&pings);
    for _ in 0..5_000 {
        assert_eq!(client.next(), Packet::PingResp);
    }
    client.disconnect();
    stand.running.until(|status| status["engine"]["sockets"] == 0);
}

#[test]
fn half_a_record_counts_as_memory() {
    let stand = Stand::plain();
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let mut stream = stand.client(&stand.nobody(), &number.to_string()).into_stream();
            stream.conn.writer().write_all(&[0x30; 16_000]).unwrap();
            let mut record = Vec::new();
            stream.conn.write_tls(&mut record).unwrap();
            stream.sock.write_all(&record[..record.len() - 100]).unwrap();
            stream
        })
        .collect();
    stand.running.until(|status| status["broker"]["memory"].as_u64() > Some(64_000));
    drop(clients);
    stand.running.until(|status| status["engine"]["sockets"] == 0);
}

#[test]
fn handshakes_under_way_count_as_memory() {
    let stand = Stand::plain();
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(stand.secure()).unwrap()).collect();
    stand.running.until(|status| status["broker"]["memory"].as_u64() > Some(500_000));
    drop(silent);
    stand.running.until(|status| status["broker"]["memory"].as_u64() < Some(100_000));
}

#[test]
fn what_tls_keeps_for_idle_clients_counts_and_has_a_share_of_the_memory() {
    let stand = Stand::start(|_, _, parts| {
        parts.broker = small_broker(&parts.clock, 1_000_000);
        Trust::Anonymous
    });
    let mut idle = vec![stand.client(&stand.nobody(), "first")];
    let refused = loop {
        let mut client = Client::over(stand.nobody().dial(stand.secure()), Version::V5);
        client.send(&connect(Version::V5, &idle.len().to_string()));
        let Packet::ConnAck(ack) = client.next() else { panic!("CONNACK first") };
        if ack.reason != Reason::Success || idle.len() == 150 {
            break ack.reason;
        }
        idle.push(client);
    };
    assert_eq!(refused, Reason::QuotaExceeded);
    // What they take is told in steps of 64 KB, and a handshake may have been under way.
    assert!((93..=105).contains(&idle.len()), "three quarters: {}", idle.len());
    // Who is there stays, and whoever comes in place of himself comes in.
    idle.iter_mut().for_each(Client::ping);
    stand.client(&stand.nobody(), "first").ping();
    drop(idle);
    stand.running.until(|status| status["broker"]["memory"].as_u64() < Some(100_000));
    stand.client(&stand.nobody(), "late").ping();
}

/// Records that hold nothing: what one client sends is taken in bounded pieces, and others in between.
#[test]
fn records_that_hold_nothing_hold_up_nobody() {
    let stand = Stand::plain();
    let mut bystander = Client::connect(stand.running.address, Version::V5, "bystander");
    let (mut wire, records) = hollow(stand.nobody().dial(stand.secure()), 100_000);
    let sent = records.len() as u64;
    let before = stand.running.count("turns");
    let sender = std::thread::spawn(move || wire.write_all(&records).map(|()| wire));
    stand.running.until(|status| {
        bystander.ping();
        status["engine"]["bytes_in"].as_u64() >= Some(sent)
    });
    let turns = stand.running.count("turns") - before;
    assert!(turns >= sent / (CONNECTION_BYTES_MAX as u64 + 4_096), "{turns} turns for {sent} bytes");
    drop(sender.join().unwrap());
}

/// The stream after its handshake, and so many records for it that hold nothing.
fn hollow(mut client: Secure, count: u64) -> (TcpStream, Vec<u8>) {
    client.conn.complete_io(&mut client.sock).unwrap();
    let (first, secrets) = client.conn.dangerous_extract_secrets().unwrap().tx;
    let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("what rustls likes best") };
    let SupportedCipherSuite::Tls13(suite) = ring::cipher_suite::TLS13_AES_256_GCM_SHA384 else { panic!() };
    let mut encrypter = suite.aead_alg.encrypter(key, iv);
    let mut sealed = Vec::new();
    for number in first..first + count {
        let (typ, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
        let nothing = OutboundPlainMessage { typ, version, payload: OutboundChunks::Single(&[]) };
        sealed.extend(encrypter.encrypt(nothing, number).unwrap().encode());
    }
    (client.sock, sealed)
}

#[test]
fn a_slow_reader_behind_tls_gets_all_of_what_waits_for_it() {
    let stand = Stand::start(|_, _, parts| {
        parts.limits.max_send_buffer = 64 << 20;
        Trust::Anonymous
    });
    let mut slow = stand.client(&stand.nobody(), "slow");
    slow.subscribe("t", QoS::AtMostOnce);
    let mut publisher = Client::connect(stand.running.address, Version::V311, "pub");
    for number in 0..200_u32 {
        publisher.publish("t", &number.to_be_bytes().repeat(25_000), QoS::AtMostOnce);
    }
    publisher.ping();
    for number in 0..200_u32 {
        let message = slow.message();
        assert_eq!((message.payload.len(), &message.payload[99_996..]), (100_000, &number.to_be_bytes()[..]));
    }
    slow.ping();
}

#[test]
fn a_certificate_lets_in_without_a_password_and_nothing_else_does() {
    let stand = Stand::with_clients();
    let anna = stand.authority.issue("anna", &[], 7);
    let foreign = Authority::new(stand.folder.path(), "foreign");
    let forged = foreign.issue("forged", &[], 7);
    for versions in [TLS12, TLS13] {
        let bearer = Bearer { versions, ..stand.nobody() };
        stand.client(&Bearer { identity: Some(&anna), ..bearer }, "anna").ping();
        let bearer = Bearer { versions, ..stand.nobody() };
        assert!(is_turned_away(bearer.dial(stand.secure())), "without a certificate");
        let bearer = Bearer { identity: Some(&forged), ..bearer };
        assert!(is_turned_away(bearer.dial(stand.secure())), "of another authority");
    }
    stand.running.until(|status| status["handshakes"]["failed"] == 4);
    assert_eq!(stand.running.handshakes("revoked"), 0);
}

#[test]
fn a_revoked_certificate_is_refused_and_counted() {
    let stand = Stand::with_clients();
    let lost = stand.authority.issue("lost", &[], 66);
    let bearer = Bearer { identity: Some(&lost), ..stand.nobody() };
    assert!(is_turned_away(bearer.dial(stand.secure())));
    stand.running.until(|status| status["handshakes"]["revoked"] == 1);
}

#[test]
fn a_certificate_revoked_later_is_refused_from_then_on() {
    let stand = Stand::with_clients();
    let anna = stand.authority.issue("anna", &[], 7);
    let bearer = Bearer { identity: Some(&anna), ..stand.nobody() };
    let mut before = stand.client(&bearer, "anna");
    stand.authority.revoke(&[66, 7], 2999);
    assert!(is_turned_away(bearer.dial(stand.secure())));
    before.ping();
}

#[test]
fn a_certificate_that_names_nobody_lets_nobody_in() {
    let stand = Stand::with_clients();
    let nameless = stand.authority.issue("", &["somebody"], 8);
    let bearer = Bearer { identity: Some(&nameless), ..stand.nobody() };
    assert!(is_turned_away(bearer.dial(stand.secure())));
    stand.running.until(|status| status["handshakes"]["failed"] == 1);
}

#[test]
fn a_certificate_with_a_name_of_the_house_lets_nobody_in() {
    let stand = Stand::with_clients();
    for (number, name) in ["tidegate", "tidegate:x", "bridge:cloud", "modbus:line"].into_iter().enumerate() {
        let named = stand.authority.issue(name, &[], 10);
        assert!(is_turned_away(Bearer { identity: Some(&named), ..stand.nobody() }.dial(stand.secure())));
        // Counted before the peer sees its end.
        assert_eq!(stand.running.handshakes("failed"), number as u64 + 1, "{name}");
    }
    let named = stand.authority.issue("bridges", &[], 10);
    stand.client(&Bearer { identity: Some(&named), ..stand.nobody() }, "bridges").ping();
}

#[test]
fn who_may_come_without_a_certificate_needs_a_password_where_the_listener_wants_one() {
    for (trust, expected) in [(Trust::Password, Reason::NotAuthorized), (Trust::Anonymous, Reason::Success)] {
        let stand = Stand::start(|authority, tls, parts| {
            tls.client_ca = Some(authority.file.clone());
            tls.require_client_cert = Some(false);
            tls.identity = Some("san".to_owned());
            parts.broker = broker(&parts.clock, Passwords::File, Vec::new());
            trust
        });
        let named = stand.authority.issue("by another name", &["pump.example"], 9);
        stand.client(&Bearer { identity: Some(&named), ..stand.nobody() }, "named").ping();
        let mut nameless = Client::over(stand.nobody().dial(stand.secure()), Version::V5);
        nameless.send(&connect(Version::V5, "nameless"));
        assert!(matches!(nameless.next(), Packet::ConnAck(ack) if ack.reason == expected), "{expected:?}");
    }
}

#[test]
fn renewed_certificates_are_used_at_once_and_nobody_is_dropped() {
    let stand = Stand::plain();
    let mut before = stand.client(&stand.nobody(), "before");
    before.subscribe("t", QoS::AtLeastOnce);
    let second = Authority::new(stand.folder.path(), "second");
    stand.server.become_like(&second.issue("renewed", &["localhost"], 2));
    let mut after = stand.client(&Bearer::nobody(&second.file), "after");
    after.publish("t", b"through both", QoS::AtMostOnce);
    assert_eq!(&*before.message().payload, b"through both");
    before.publish("t", b"and back", QoS::AtMostOnce);
    assert_eq!(&*before.message().payload, b"and back");
}

#[test]
fn a_broken_renewal_changes_nothing_and_is_told() {
    let stand = Stand::plain();
    let other = stand.authority.issue("other", &["localhost"], 3);
    std::fs::rename(&other.key, &stand.server.key).unwrap();
    stand.client(&stand.nobody(), "still").ping();
    let told = stand.running.status()["listeners"][1]["error"].as_str().unwrap().to_owned();
    assert!(told.contains("server.key") && told.contains("server.crt"), "{told}");
    std::fs::rename(&other.cert, &stand.server.cert).unwrap();
    stand.client(&stand.nobody(), "again").ping();
    assert!(stand.running.status()["listeners"][1]["error"].is_null());
}

#[test]
fn a_broken_pair_does_not_hold_up_the_list_of_the_revoked() {
    let stand = Stand::with_clients();
    let (anna, bert) = (stand.authority.issue("anna", &[], 7), stand.authority.issue("bert", &[], 8));
    std::fs::rename(stand.authority.issue("other", &[], 3).key, &stand.server.key).unwrap();
    stand.client(&Bearer { identity: Some(&anna), ..stand.nobody() }, "anna").ping();
    stand.authority.revoke(&[66, 7], 2999);
    assert!(is_turned_away(Bearer { identity: Some(&anna), ..stand.nobody() }.dial(stand.secure())));
    stand.client(&Bearer { identity: Some(&bert), ..stand.nobody() }, "bert").ping();
    assert_eq!(stand.running.handshakes("revoked"), 1);
}

#[test]
fn what_is_no_tls_ends_the_connection_and_is_counted() {
    let stand = Stand::plain();
    let mut plain = Client::open(stand.secure(), Version::V311);
    plain.send(&connect(Version::V311, "plain"));
    let mut rest = Vec::new();
    // An alert of TLS, then the end.
    let _ = plain.stream().read_to_end(&mut rest);
    assert_eq!(rest.first().copied().unwrap_or(21), 21);
    stand.running.until(|status| status["handshakes"]["failed"] == 1);
    // The other way round.
    assert!(is_turned_away(stand.nobody().dial(stand.running.address)));
    stand.running.until(|status| status["engine"]["malformed"] == 1);
    assert_eq!(stand.running.handshakes("under_way"), 0);
}

#[test]
fn a_crowd_that_never_finishes_its_handshake_locks_nobody_out() {
    let most = 8;
    let stand = Stand::start(|_, _, parts| {
        parts.limits.handshakes.under_way = most;
        Trust::Anonymous
    });
    let mut bystander = Client::connect(stand.running.address, Version::V5, "bystander");
    let mut secured = stand.client(&stand.nobody(), "secured");
    let mut hello = Vec::new();
    stand.nobody().dial(stand.secure()).conn.write_tls(&mut hello).unwrap();
    let mut crowd = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(stand.secure()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Some say nothing, some a part of what they should, some all of it and then nothing.
        stream.write_all(&hello[..[0, 1, hello.len() / 2, hello.len()][number % 4]]).unwrap();
        crowd.push(stream);
        if number % 20 == 0 {
            bystander.ping();
            secured.ping();
            stand.client(&stand.nobody(), "newcomer").disconnect();
        }
    }
    stand.running.until(|status| {
        let handshakes = &status["handshakes"];
        handshakes["crowded_out"].as_u64() >= Some(200 - most as u64)
            && handshakes["under_way"].as_u64() <= Some(most as u64)
    });
    // Who was crowded out sees the end of his connection.
    let mut rest = Vec::new();
    let _ = crowd.swap_remove(0).read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn silent_handshakes_take_no_place_of_clients_neither_at_their_door_nor_in_the_house() {
    let stand = Stand::start(|_, _, parts| {
        parts.limits.max_connections = 0;
        parts.limits.handshakes.under_way = 200;
        Trust::Anonymous
    });
    // More than the house has room for, and those who are refused politely.
    let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(stand.secure()).unwrap()).collect();
    stand.running.until(|status| status["handshakes"]["under_way"] == 100);
    Client::connect(stand.running.address, Version::V5, "plain").ping();
    stand.client(&stand.nobody(), "secured").ping();
    assert_eq!(stand.running.count("over_max_connections"), 0);
    drop(crowd);
}

#[test]
fn a_door_has_no_more_clients_than_it_may_though_more_shake_hands() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let server = authority.issue("server", &["localhost"], 1);
    let running = Running::start(StoreMode::Prompt, |parts| {
        parts.listeners.push(Listener { max_connections: Some(1), ..secure_listener(server.tls()) });
    });
    let silent: Vec<_> = (0..3).map(|_| TcpStream::connect(running.address_of(1)).unwrap()).collect();
    running.until(|status| status["handshakes"]["under_way"] == 3);
    let bearer = Bearer::nobody(&authority.file);
    let mut first = Client::over(bearer.dial(running.address_of(1)), Version::V5);
    first.greet("first");
    assert!(is_turned_away(bearer.dial(running.address_of(1))), "the place is taken");
    first.ping();
    drop(silent);
}

#[test]
fn who_shakes_hands_counts_for_his_address_until_he_fails() {
    let stand = Stand::start(|_, _, parts| {
        parts.limits.max_connections_per_address = 2;
        Trust::Anonymous
    });
    let mut silent: Vec<_> = (0..2).map(|_| TcpStream::connect(stand.secure()).unwrap()).collect();
    stand.running.until(|status| status["handshakes"]["under_way"] == 2);
    assert!(is_turned_away(stand.nobody().dial(stand.secure())), "before any handshake");
    assert_eq!((stand.running.handshakes("done"), stand.running.count("over_address_connections")), (0, 1));
    silent.pop();
    stand.running.until(|status| status["handshakes"]["failed"] == 1);
    let mut client = stand.client(&stand.nobody(), "in his place");
    client.ping();
    assert!(is_turned_away(stand.nobody().dial(stand.secure())), "the place is taken");
    client.disconnect();
    stand.running.until(|status| status["engine"]["sockets"] == 0);
    stand.client(&stand.nobody(), "after him").ping();
}

#[test]
fn handshakes_come_no_faster_than_an_address_may() {
    let stand = Stand::start(|_, _, parts| {
        parts.limits.max_connect_rate = Some(Rate { count: 2, per: Duration::from_secs(86_400) });
        Trust::Anonymous
    });
    for client_id in ["first", "second"] {
        stand.client(&stand.nobody(), client_id).ping();
    }
    assert!(is_turned_away(stand.nobody().dial(stand.secure())));
    assert_eq!((stand.running.handshakes("done"), stand.running.count("over_connect_rate")), (2, 1));
}

#[test]
fn one_address_has_so_many_handshakes_under_way() {
    let stand = Stand::start(|_, _, parts| {
        parts.limits.handshakes.per_address = 4;
        Trust::Anonymous
    });
    let crowd: Vec<_> = (0..20).map(|_| TcpStream::connect(stand.secure()).unwrap()).collect();
    stand.running.until(|status| status["handshakes"]["crowded_out"] == 16);
    assert_eq!(stand.running.handshakes("under_way"), 4);
    let mut other = Client::over(stand.nobody().over(from([127, 0, 0, 2], stand.secure())), Version::V5);
    other.greet("other");
    assert_eq!((stand.running.handshakes("under_way"), stand.running.handshakes("crowded_out")), (4, 16));
    drop(crowd);
}

#[test]
fn a_crowd_from_one_address_does_not_push_out_a_slow_client_of_another() {
    let stand = Stand::start(|_, _, parts| {
        parts.limits.handshakes.under_way = 8;
        Trust::Anonymous
    });
    let mut slow = stand.nobody().over(from([127, 0, 0, 2], stand.secure()));
    let mut hello = Vec::new();
    slow.conn.write_tls(&mut hello).unwrap();
    let (first, rest) = hello.split_at(hello.len() / 2);
    slow.sock.write_all(first).unwrap();
    stand.running.until(|status| status["handshakes"]["under_way"] == 1);
    // Some say nothing, some all that is asked of them before the signature.
    let crowd: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(stand.secure()).unwrap();
            stream.write_all(if number % 2 == 0 { &hello } else { &[] }).unwrap();
            stream
        })
        .collect();
    stand.running.until(|status| status["handshakes"]["crowded_out"] == 193);
    slow.sock.write_all(rest).unwrap();
    let mut slow = Client::over(slow, Version::V5);
    slow.greet("slow");
    assert_eq!((stand.running.handshakes("done"), stand.running.handshakes("crowded_out")), (1, 193));
    drop(crowd);
}

/// A stream to this address from another of this machine.
fn from(own: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((own, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

#[test]
fn a_handshake_that_is_longer_than_any_should_be_is_ended() {
    let stand = Stand::plain();
    let mut endless = TcpStream::connect(stand.secure()).unwrap();
    // A first word of 60,000 bytes, in records of 1,000.
    let mut word = vec![1, 0, 0xEA, 0x60];
    word.resize(40_000, 0);
    let records = word.chunks(1_000).flat_map(|piece| [&[0x16, 3, 1, 0x03, 0xE8], piece].concat());
    let records: Vec<u8> = records.collect();
    // It is ended before all of it is taken.
    let _ = endless.write_all(&records);
    stand.running.until(|status| status["handshakes"]["failed"] == 1);
    assert_eq!(stand.running.handshakes("timed_out"), 0);
}

#[test]
fn a_handshake_that_takes_too_long_is_ended() {
    let stand = Stand::start(|_, _, parts| {
        parts.limits.handshakes.within = Duration::from_millis(20);
        Trust::Anonymous
    });
    let mut silent = TcpStream::connect(stand.secure()).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    assert_eq!((stand.running.handshakes("timed_out"), stand.running.handshakes("under_way")), (1, 0));
}

#[test]
fn a_flood_of_handshakes_takes_no_turns_of_the_engine() {
    let stand = Stand::plain();
    let mut bystander = Client::connect(stand.running.address, Version::V5, "bystander");
    bystander.ping();
    let mut hello = Vec::new();
    stand.nobody().dial(stand.secure()).conn.write_tls(&mut hello).unwrap();
    stand.running.until(|status| status["handshakes"]["under_way"] == 0);
    let before = stand.running.status()["engine"].clone();
    // Each makes the helper sign, and the engine only accept.
    let crowd: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(stand.secure()).unwrap();
            stream.write_all(&hello).unwrap();
            stream
        })
        .collect();
    stand.running.until(|status| status["handshakes"]["under_way"] == 100);
    bystander.ping();
    let after = stand.running.status()["engine"].clone();
    let grown = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    assert_eq!(grown("bytes_in"), 2, "a PINGREQ: nothing of a handshake passes the engine");
    assert_eq!((grown("accepted"), after["sockets"].as_u64()), (0, Some(1)));
    drop(crowd);
    stand.running.until(|status| status["handshakes"]["under_way"] == 0);
}

#[test]
fn stopping_ends_handshakes_and_says_goodbye_within_tls() {
    let mut stand = Stand::plain();
    let mut client = stand.client(&stand.nobody(), "client");
    let mut halfway = TcpStream::connect(stand.secure()).unwrap();
    halfway.set_read_timeout(Some(PATIENCE)).unwrap();
    stand.running.until(|status| status["handshakes"]["under_way"] == 1);
    stand.running.stop();
    assert!(matches!(client.next(), Packet::Disconnect(end) if end.reason == Reason::ServerShuttingDown));
    assert_eq!(client.maybe_next(), None, "ended by close_notify, which rustls would miss otherwise");
    assert!(matches!(halfway.read(&mut [0; 1]), Ok(0) | Err(_)));
}
