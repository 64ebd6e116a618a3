//! Logins by SCRAM-SHA-256, from `tidegate passwd --scram` to PUBACK, by a client of our own.
//!
//! The client's side of the exchange is written here from RFC 5802; nothing of the gateway's is used.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pbkdf2::hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use tidegate::codec::{
    Auth, ConnAck, Connect, Disconnect, Packet, Properties, Property, QoS, Reason, Version,
};

use crate::program;
use crate::stand::{Client, Gateway, Options, wait_for};

#[test]
fn a_user_comes_in_by_scram_and_the_same_user_by_password() {
    let (_folder, gateway) = gateway("");
    let mut client = login(&gateway, "anna", "ebb").expect("CONNACK");
    client.publish_acknowledged("a/out", "by SCRAM");
    for version in [Version::V31, Version::V311, Version::V5] {
        let options =
            Options { version, login: Some(("anna".into(), "ebb".into())), ..Options::new("by-password") };
        Client::connect(gateway.port(), &options).publish_acknowledged("a/out", "by password");
    }
    let engine = gateway.status()["engine"].clone();
    assert_eq!((&engine["scram_logins"], &engine["passwords_compared"]), (&1.into(), &1.into()));
}

#[test]
fn a_wrong_password_an_unknown_user_and_one_without_scram_fail_alike() {
    let (_folder, gateway) = gateway("");
    for (user, password) in [("anna", "flow"), ("nobody", "ebb"), ("bert", "flow")] {
        assert_eq!(login(&gateway, user, password).err(), Some(Reason::NotAuthorized), "{user}");
    }
    // What is asked of them looks alike, too, and does not change from one time to the next.
    let shapes = ["anna", "nobody", "bert"].map(|user| {
        let (_client, first) = begin(&gateway, user);
        let (_client, second) = begin(&gateway, user);
        assert_eq!(field(&first, "s="), field(&second, "s="), "{user}");
        assert_ne!(field(&first, "r="), field(&second, "r="), "{user}");
        (first.len(), field(&first, "s=").len(), field(&first, "i=").to_owned())
    });
    assert!(shapes.iter().all(|shape| *shape == shapes[0]), "{shapes:?}");
    assert_eq!(shapes[0].2, "100000");
}

#[test]
fn the_rules_see_the_user_whom_scram_has_shown() {
    let (_folder, gateway) = gateway("");
    let mut client = login(&gateway, "anna", "ebb").expect("CONNACK");
    for (topic, reason) in [("a/out", Reason::NoMatchingSubscribers), ("b/out", Reason::NotAuthorized)] {
        client.publish(topic, "x", QoS::AtLeastOnce);
        assert!(matches!(client.next(), Some(Packet::PubAck(ack)) if ack.reason == reason), "{topic}");
    }
}

#[test]
fn a_client_shows_again_who_it_is_and_is_let_go_when_it_cannot() {
    let (_folder, gateway) = gateway("");
    let mut client = login(&gateway, "anna", "ebb").expect("CONNACK");
    client.send(&auth(Reason::ReAuthenticate, FIRST.replace("USER", "anna")));
    let challenge = challenged(&mut client);
    client.publish_acknowledged("a/out", "meanwhile");
    let (last, signature) = answer("anna", "ebb", &challenge);
    client.send(&auth(Reason::ContinueAuthentication, last));
    let Some(Packet::Auth(done)) = client.next() else { panic!("AUTH") };
    assert_eq!((done.reason, data(&done.properties)), (Reason::Success, signature));

    client.send(&auth(Reason::ReAuthenticate, FIRST.replace("USER", "anna")));
    let challenge = challenged(&mut client);
    let (last, _) = answer("anna", "flow", &challenge);
    client.send(&auth(Reason::ContinueAuthentication, last));
    let told = client.next();
    let reason = |packet| matches!(packet, Packet::Disconnect(Disconnect { reason, .. }) if reason == Reason::NotAuthorized);
    assert!(told.clone().is_some_and(reason), "{told:?}");
    assert_eq!(client.next(), None);
}

#[test]
fn failures_of_both_ways_share_one_account_and_a_new_password_counts_soon() {
    let (folder, gateway) = gateway("[limits]\nmax_login_failures = \"2/h\"\n");
    assert!(login(&gateway, "anna", "ebb").is_ok());
    set_password(folder.path(), &["--scram", "-b"], "anna", "neap");
    // Who logs in has the file looked at; it counts a second later.
    assert!(login(&gateway, "anna", "ebb").is_ok());
    wait_for("the new password", || gateway.log().contains("the new passwords are in force").then_some(()));
    assert_eq!(login(&gateway, "anna", "ebb").err(), Some(Reason::NotAuthorized));
    assert!(login(&gateway, "anna", "neap").is_ok(), "who succeeds is not counted");
    let options = Options { login: Some(("anna".into(), "ebb".into())), ..Options::new("x") };
    assert!(Client::try_connect(gateway.port(), &options).is_err());
    assert_eq!(login(&gateway, "anna", "ebb").err(), Some(Reason::ConnectionRateExceeded));
    assert!(login(&gateway, "anna", "neap").is_ok(), "she has come in from here before");
}

/// A gateway that knows anna, by SCRAM as well, and bert, by his password alone.
fn gateway(more: &str) -> (tempfile::TempDir, Gateway) {
    let folder = tempfile::tempdir().unwrap();
    set_password(folder.path(), &["--scram", "-bc"], "anna", "ebb");
    set_password(folder.path(), &["-b"], "bert", "flow");
    let (passwords, rules) = (folder.path().join("passwd"), folder.path().join("acl"));
    fs::write(&rules, "user anna\ntopic write a/out\n").unwrap();
    let configuration = format!(
        "allow_anonymous = false\n[auth]\npassword_file = {passwords:?}\nacl_file = {rules:?}\n{more}"
    );
    let gateway = Gateway::start(program(), folder.path(), &configuration);
    (folder, gateway)
}

fn set_password(folder: &Path, how: &[&str], user: &str, password: &str) {
    let mut command = Command::new(program());
    command.arg("passwd").args(how).arg(folder.join("passwd")).args([user, password]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The whole exchange; `Err` has what CONNACK says.
fn login(gateway: &Gateway, user: &str, password: &str) -> Result<Client, Reason> {
    let (mut client, challenge) = begin(gateway, user);
    let (last, signature) = answer(user, password, &challenge);
    client.send(&auth(Reason::ContinueAuthentication, last));
    match client.next() {
        Some(Packet::ConnAck(ConnAck { reason: Reason::Success, properties, .. })) => {
            assert_eq!(properties.authentication_method().as_deref(), Some(METHOD));
            assert_eq!(data(&properties), signature, "the gateway has what it claims to have");
            Ok(client)
        }
        Some(Packet::ConnAck(refused)) => {
            assert_eq!(client.next(), None);
            Err(refused.reason)
        }
        other => panic!("{other:?} in place of CONNACK"),
    }
}

/// CONNECT, and what the gateway asks.
fn begin(gateway: &Gateway, user: &str) -> (Client, String) {
    let mut client = Client::open(gateway.port(), Version::V5);
    client.send(&Packet::Connect(Box::new(Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive: 0,
        client_id: "by-scram".into(),
        will: None,
        username: None,
        password: None,
        properties: by_scram(FIRST.replace("USER", user)),
    })));
    let challenge = challenged(&mut client);
    (client, challenge)
}

fn challenged(client: &mut Client) -> String {
    match client.next() {
        Some(Packet::Auth(auth)) if auth.reason == Reason::ContinueAuthentication => data(&auth.properties),
        other => panic!("{other:?} in place of AUTH"),
    }
}

fn auth(reason: Reason, data: String) -> Packet {
    Packet::Auth(Auth { reason, properties: by_scram(data) })
}

fn by_scram(data: String) -> Properties {
    Properties::from_list(&[
        Property::AuthenticationMethod(METHOD.into()),
        Property::AuthenticationData(Bytes::from(data)),
    ])
}

fn data(properties: &Properties) -> String {
    String::from_utf8(properties.authentication_data().unwrap_or_default().to_vec()).unwrap()
}

fn field<'a>(message: &'a str, name: &str) -> &'a str {
    message.split(',').find_map(|field| field.strip_prefix(name)).unwrap()
}

/// The client's last message, and what the server's must then be.
fn answer(user: &str, password: &str, challenge: &str) -> (String, String) {
    let nonce = field(challenge, "r=");
    assert!(nonce.starts_with("fyko+d2lbbFgONRv9qkxdawL") && nonce.len() > 40, "{nonce}");
    let salted = salted(password, field(challenge, "s="), field(challenge, "i=").parse().unwrap());
    let first = FIRST.replace("USER", user);
    let bare = first.strip_prefix("n,,").unwrap();
    let without_proof = format!("c=biws,r={nonce}");
    let said = format!("{bare},{challenge},{without_proof}");
    let client_key = hmac(&salted, b"Client Key");
    let signature = hmac(&Sha256::digest(&client_key), said.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
    let server = hmac(&hmac(&salted, b"Server Key"), said.as_bytes());
    (format!("{without_proof},p={}", STANDARD.encode(proof)), format!("v={}", STANDARD.encode(server)))
}

/// A hundred thousand rounds are slow in a build for tests: each is gone once.
fn salted(password: &str, salt: &str, iterations: u32) -> Vec<u8> {
    static KNOWN: Mutex<BTreeMap<(String, String), Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let hash = || {
        let salt = STANDARD.decode(salt).unwrap();
        pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &salt, iterations).to_vec()
    };
    known.entry((password.to_owned(), salt.to_owned())).or_insert_with(hash).clone()
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message).finalize().into_bytes().to_vec()
}

const METHOD: &str = "SCRAM-SHA-256";
const FIRST: &str = "n,,n=USER,r=fyko+d2lbbFgONRv9qkxdawL";
