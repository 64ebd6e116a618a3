//! MQTT-SN sensors at the real program, over raw UDP.
//!
//! Messages go both ways between sensors and MQTT clients; what a sensor was told is kept survives a kill
//! and reaches the cloud; datagrams that are no messages disturb nobody and are counted.

use serde_json::{Value, json};
use tidegate::codec::QoS;

use crate::program;
use crate::stand::{
    Client, Cloud, Dice, Gateway, Link, Mote, Options, Proxy, Said, Security, flag, kind, seed,
};

const MQTT_SN: &str =
    "[mqtt_sn]\nbind = \"127.0.0.1:0\"\nallow_qos_minus_1 = true\npredefined = { 7 = \"sensors/simple\" }\n";

#[test]
fn messages_go_both_ways_between_sensors_and_mqtt_clients() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), MQTT_SN);
    let mut client = Client::connect(gateway.port(), &Options::new("dashboard"));
    client.subscribe("sensors/#", QoS::AtLeastOnce);
    let mut mote = connected(&gateway);
    let soil = mote.register("sensors/soil");
    mote.publish(0, soil, "at QoS 0");
    got(&mut client, "sensors/soil", "at QoS 0", QoS::AtMostOnce);
    mote.publish_acknowledged(soil, "at QoS 1");
    got(&mut client, "sensors/soil", "at QoS 1", QoS::AtLeastOnce);
    let mut nobody = Mote::new(&address(&gateway));
    nobody.publish(flag::QOS_MINUS_1 | flag::PREDEFINED, [0, 7], "without a connection");
    got(&mut client, "sensors/simple", "without a connection", QoS::AtMostOnce);
    mote.publish(flag::QOS_1, [0, 99], "to an id that nobody gave");
    assert_eq!(mote.expect(kind::PUBACK)[4], 2, "invalid topic id");

    assert_ne!(mote.subscribe("commands/pump"), [0, 0]);
    assert_eq!(mote.subscribe("valves/+"), [0, 0], "a wildcard has no id");
    client.publish_acknowledged("commands/pump", "on");
    assert_eq!(mote.message(), said("commands/pump", "on"));
    for (valve, payload) in [("valves/1", "open"), ("valves/2", "shut"), ("valves/1", "shut")] {
        client.publish_acknowledged(valve, payload);
        assert_eq!(mote.message(), said(valve, payload), "registered before its first message");
    }

    mote.ping();
    mote.disconnect(None);
    mote.send(kind::PINGREQ, &[]);
    assert_eq!(mote.expect(kind::DISCONNECT), [0_u8; 0], "it is not connected any more");
    let told = counters(&gateway, |told| told["clients"] == 0 && told["received"] != 0);
    assert_eq!((&told["published"], &told["delivered"]), (&json!(3), &json!(4)), "{told}");
}

#[test]
fn what_a_sensor_was_told_is_kept_survives_kill_9_and_reaches_the_cloud() {
    const MESSAGES: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(folder.path(), &Security::Plain);
    let mut inside = Client::connect(cloud.inside, &Options::kept("collector"));
    inside.subscribe("sites/#", QoS::AtLeastOnce);
    let uplink = Proxy::start(cloud.port, Link::Closed);
    let mut gateway = Gateway::start(
        program(),
        &folder.path().join("gateway"),
        &format!(
            "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:{}\"]\n\
             [[bridge.forward]]\nfilter = \"sensors/#\"\nto = \"sites/{{gateway}}/{{topic}}\"\nqos = 1\n{MQTT_SN}",
            uplink.port
        ),
    );
    let mut mote = connected(&gateway);
    let soil = mote.register("sensors/soil");
    for number in 0..MESSAGES {
        mote.publish_acknowledged(soil, &number.to_string());
    }
    gateway.kill();
    gateway.start_again();
    let route = gateway.route("sensors");
    assert_eq!((&route["received"], &route["queued"]), (&json!(MESSAGES), &json!(MESSAGES)), "{route}");

    uplink.set(Link::Open);
    for number in 0..MESSAGES {
        got(&mut inside, "sites/barn-7/sensors/soil", &number.to_string(), QoS::AtLeastOnce);
    }
    gateway.until("an empty queue", |status| status["routes"][0]["queued"] == 0);
    let route = gateway.route("sensors");
    assert_eq!((&route["received"], &route["delivered"]), (&json!(MESSAGES), &json!(MESSAGES)), "{route}");
    println!("measured: {MESSAGES} of {MESSAGES} after kill -9: {route}");
}

#[test]
fn a_sensor_that_sleeps_gets_what_was_said_meanwhile_when_it_wakes_up() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), MQTT_SN);
    let mut client = Client::connect(gateway.port(), &Options::new("dashboard"));
    for (client_id, flags) in [("kept", 0), ("clean", flag::CLEAN)] {
        let mut mote = Mote::new(&address(&gateway));
        mote.connect(client_id, flags);
        mote.subscribe("commands/+");
        mote.disconnect(Some(600));
        assert_eq!(mote.wake(client_id), [], "nothing was said");
        // More than the gateway takes from the broker at once, so that it must ask whether all is there.
        for wakes in 0..2 {
            let texts: Vec<String> = (0..50).map(|number| format!("{wakes}-{number}")).collect();
            texts.iter().for_each(|text| client.publish_acknowledged("commands/pump", text.clone()));
            let expected: Vec<Said> = texts.iter().map(|text| said("commands/pump", text)).collect();
            assert_eq!(mote.wake(client_id), expected, "{client_id}");
        }
        client.publish_acknowledged("commands/pump", "once more");
        mote.connect(client_id, flags);
        match flags {
            flag::CLEAN => mote.ping(),
            _ => assert_eq!(mote.message().payload, "once more"),
        }
        mote.disconnect(None);
    }
    let told = counters(&gateway, |told| told["clients"] == 0 && told["delivered"] == 201);
    assert_eq!((&told["sleeping"], &told["lost"]), (&json!(0), &json!(0)), "{told}");
}

#[test]
fn datagrams_that_are_no_messages_are_counted_and_disturb_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(program(), folder.path(), MQTT_SN);
    let mut mote = connected(&gateway);
    let before = counters(&gateway, |told| told["clients"] == 1);
    let stranger = Mote::new(&address(&gateway));
    let malformed: [&[u8]; 8] = [
        &[2],
        &[1, 0, 4],
        &[0, 0],
        &[9, 0x0C, 0, 0, 1],
        &[3, 0x0C, 0x20],
        &[1, 0xFF, 0xFF, 0x0C],
        &[4, 0x16, 0xFF, 0xFE],
        &[5, 0x18, 0, 0, 0],
    ];
    malformed.iter().for_each(|octets| stranger.send_octets(octets));
    malformed.iter().for_each(|octets| mote.send_octets(octets));
    let told = counters(&gateway, |told| told["ignored_malformed"].as_u64() >= Some(16));
    let came = |told: &Value| told["received"].as_u64().unwrap();
    assert_eq!(came(&told) - came(&before), 16, "{told}");

    // Noise of every length, each beginning like a message of a client.
    let mut dice = Dice::new(seed());
    for _ in 0..500 {
        let length = usize::try_from(2 + dice.below(30)).unwrap();
        let mut octets: Vec<u8> = (0..length).map(|_| u8::try_from(dice.below(256)).unwrap()).collect();
        octets[0] = u8::try_from(length).unwrap();
        stranger.send_octets(&octets);
        // One that is answered after each, so that none is lost in the socket's buffer.
        mote.ping();
    }
    let soil = mote.register("sensors/soil");
    mote.publish_acknowledged(soil, "still served");
    Client::connect(gateway.port(), &Options::new("publisher")).publish_acknowledged("x", "still served");
    println!("measured: {}", counters(&gateway, |told| came(told) >= came(&before) + 16 + 1_000));
}

/// A mote c1 with a clean session.
fn connected(gateway: &Gateway) -> Mote {
    let mut mote = Mote::new(&address(gateway));
    mote.connect("c1", flag::CLEAN);
    mote
}

fn address(gateway: &Gateway) -> String {
    counters(gateway, |told| told["address"].is_string())["address"].as_str().unwrap().to_owned()
}

/// What the gateway has counted, once it fulfils something.
fn counters(gateway: &Gateway, fulfils: impl Fn(&Value) -> bool) -> Value {
    let told = |status: &Value| status["adapters"]["mqtt-sn"]["counters"].clone();
    told(&gateway.until("the counters of MQTT-SN", |status| fulfils(&told(status))))
}

fn got(client: &mut Client, topic: &str, payload: &str, qos: QoS) {
    let message = client.message();
    let text = String::from_utf8_lossy(&message.payload);
    assert_eq!((&*message.topic, &*text, message.qos), (topic, payload, qos));
}

fn said(topic: &str, payload: &str) -> Said {
    Said { topic: topic.to_owned(), payload: payload.to_owned(), dup: false }
}
