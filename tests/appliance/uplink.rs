//! TLS means checked, and the reason is told.
//!
//! Another authority, another name, an expired certificate, a wrong password: each is refused, `status`
//! says which, and nothing is sent. What the cloud commands during an outage arrives after it.

use tidegate::codec::QoS;

use crate::program;
use crate::stand::{Certificates, Client, Cloud, Gateway, Link, Options, Proxy, Security, wait_for};

#[test]
fn each_refusal_of_an_uplink_is_named_and_nothing_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Certificates::new(folder.path(), "ours");
    let other = Certificates::new(folder.path(), "other");
    let good = ours.server("cloud.example");
    let cases = [
        ("another authority", Security::Tls(&other.server("cloud.example")), "unknown"),
        ("another name", Security::Tls(&ours.server("elsewhere.example")), "name"),
        ("an expired certificate", Security::Tls(&ours.expired("cloud.example")), "expired"),
        ("a wrong password", Security::Password(&good, "barn", "right"), "password"),
    ]
    .map(|(what, security, word)| (what, Cloud::start(folder.path(), &security), word));
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "wrong\n").unwrap();

    for (what, cloud, word) in cases {
        let mut inside = Client::connect(cloud.inside, &Options::new("listener"));
        inside.subscribe("#", QoS::AtLeastOnce);
        let place = folder.path().join(what.replace(' ', "-"));
        let gateway = Gateway::start(
            program(),
            &place,
            &format!(
                "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtts://127.0.0.1:{}\"]\nusername = \"barn\"\npassword_file = {secret:?}\n\
             tls = {{ ca = {:?}, server_name = \"cloud.example\" }}\n[[bridge.forward]]\nfilter = \"up/#\"\nto = \"{{topic}}\"\n",
                cloud.port,
                ours.ca(),
            ),
        );
        Client::connect(gateway.port(), &Options::new("sensor")).publish_acknowledged("up/x", "reading");
        let status = gateway.until(what, |status| {
            let reason = status["bridges"][0]["reason"].as_str().unwrap_or_default().to_lowercase();
            reason.contains(word)
        });
        println!("measured: {what}: {}", status["bridges"][0]["reason"]);
        assert_eq!(status["routes"][0]["queued"], 1, "{what}: the reading is kept");
        inside.publish("marker", "nothing came before this", QoS::AtMostOnce);
        assert_eq!(inside.message().topic, "marker", "{what}: something was sent");
    }
}

#[test]
fn commands_given_during_an_outage_arrive_after_it() {
    for protocol in [4, 5] {
        let folder = tempfile::tempdir().unwrap();
        let authority = Certificates::new(folder.path(), "authority");
        let cloud = Cloud::start(folder.path(), &Security::Tls(&authority.server("cloud.example")));
        let proxy = Proxy::start(cloud.port, Link::Open);
        // MQTT 3.1.1 has no word for it.
        let expiry = if protocol == 5 { "session_expiry = \"1h\"\n" } else { "" };
        let mut gateway = Gateway::start(
            program(),
            folder.path(),
            &format!(
                "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtts://127.0.0.1:{}\"]\nprotocol = {protocol}\n{expiry}keepalive = \"5s\"\n\
             tls = {{ ca = {:?}, server_name = \"cloud.example\" }}\n\
             [[bridge.receive]]\nfilter = \"sites/{{gateway}}/commands/#\"\nto = \"commands/{{1}}\"\nqos = 1\n",
                proxy.port,
                authority.ca(),
            ),
        );
        let mut plc = Client::connect(gateway.port(), &Options::kept("plc"));
        plc.subscribe("commands/#", QoS::AtLeastOnce);
        let mut operator = Client::connect(cloud.inside, &Options::new("operator"));
        // The first that arrives shows that the subscription upstream stands.
        wait_for("the uplink's subscription", || {
            operator.publish_acknowledged("sites/barn-7/commands/probe", "probe");
            plc.next_within(std::time::Duration::from_millis(500)).ok().flatten()
        });
        proxy.set(Link::Closed);
        gateway.until("the link down", |status| status["bridges"][0]["state"] != "connected");
        for number in 0..20 {
            operator.publish_acknowledged("sites/barn-7/commands/valve", number.to_string());
        }
        gateway.kill();
        gateway.start_again();
        proxy.set(Link::Open);
        let mut plc = Client::connect(gateway.port(), &Options::kept("plc"));
        let mut next = 0;
        while next < 20 {
            let message = plc.message();
            if message.topic == "commands/valve" && message.payload == next.to_string().as_bytes() {
                next += 1;
            }
        }
        println!("measured: protocol {protocol}: 20 of 20 commands of the outage arrived, in order");
    }
}

#[test]
fn a_command_too_large_for_the_gateway_is_passed_over_and_blocks_nothing() {
    for protocol in [4, 5] {
        let folder = tempfile::tempdir().unwrap();
        let cloud = Cloud::start(folder.path(), &Security::Plain);
        let gateway = Gateway::start(
            program(),
            folder.path(),
            &format!(
                "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:{}\"]\nprotocol = {protocol}\n\
                 [[bridge.forward]]\nfilter = \"up/#\"\nto = \"{{topic}}\"\n\
                 [[bridge.receive]]\nfilter = \"sites/{{gateway}}/commands/#\"\nto = \"commands/{{1}}\"\n",
                cloud.port,
            ),
        );
        let mut plc = Client::connect(gateway.port(), &Options::new("plc"));
        plc.subscribe("commands/#", QoS::AtLeastOnce);
        gateway.until("subscribed", |status| status["bridges"][0]["subscriptions"][0]["answer"] == "granted");
        let mut operator = Client::connect(cloud.inside, &Options::new("operator"));
        operator.publish_acknowledged("sites/barn-7/commands/firmware", vec![b'x'; 2_000_000]);
        operator.publish_acknowledged("sites/barn-7/commands/valve", "open");
        let message = plc.message();
        assert_eq!((&*message.topic, &message.payload[..]), ("commands/valve", &b"open"[..]));
        Client::connect(gateway.port(), &Options::new("sensor")).publish_acknowledged("up/x", "reading");
        let status = gateway.until("delivered", |status| status["routes"][0]["delivered"] == 1);
        let counts = &status["bridges"][0]["counts"];
        assert_eq!(counts["connects"], 1, "{counts}");
        // Over MQTT 5 upstream knows the limit and does not send it at all.
        let cut = u64::from(protocol == 4);
        assert_eq!(counts["too_large"], cut, "{counts}");
        assert_eq!(gateway.log().contains("[limits] max_packet_size"), cut == 1, "{}", gateway.log());
    }
}

#[test]
fn a_stop_with_an_uplink_that_does_not_answer_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(folder.path(), &Security::Plain);
    let proxy = Proxy::start(cloud.port, Link::Open);
    let mut gateway = Gateway::start(
        program(),
        folder.path(),
        &format!(
            "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:{}\"]\n\
             [[bridge.forward]]\nfilter = \"up/#\"\nto = \"{{topic}}\"\n",
            proxy.port,
        ),
    );
    gateway.until("connected", |status| status["bridges"][0]["state"] == "connected");
    proxy.set(Link::Silent);
    Client::connect(gateway.port(), &Options::new("sensor")).publish_acknowledged("up/x", "reading");
    gateway.until("sent", |status| status["bridges"][0]["counts"]["in_flight"] == 1);
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.log());
    assert!(!gateway.log().contains("in time"), "{}", gateway.log());
}
