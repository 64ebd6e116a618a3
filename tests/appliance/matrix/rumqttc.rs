//! rumqttc, the crate that our uplink speaks through, as a client of the gateway.
//!
//! The product builds it without TLS and WebSocket, which a [`hop`] puts around what it says, as the uplink
//! does. Its two versions are two families of types with the same names, so the scenarios are written once
//! and expanded for both.

use std::path::Path;

use super::{Cell, hop};

/// Goes through all scenarios.
pub(super) fn run(cell: &Cell) -> Vec<String> {
    let authorities = Path::new(&cell.authorities);
    let port = match cell.transport {
        "tls" => hop::tls(cell.port, authorities),
        "ws" => hop::websocket(cell.port),
        "wss" => hop::websocket(hop::tls(cell.port, authorities)),
        _ => cell.port,
    };
    let (authorities, prefix) = (cell.authorities.clone(), cell.prefix.clone());
    let cell = &Cell { port, authorities, prefix, ..*cell };
    if cell.version == "5" { five::run(cell) } else { four::run(cell) }
}

/// The scenarios in the types of one version. `$connected` makes options of a client, `$topic` reads a topic.
macro_rules! scenarios {
    ($connected:ident, $topic:expr) => {
        fn scenarios(cell: &Cell) -> Vec<String> {
            login(cell);
            pairs(cell);
            retained(cell);
            will(cell);
            kept(cell);
            super::super::SCENARIOS.map(str::to_owned).to_vec()
        }

        /// A client and what it gets; it is driven only while the test waits for something.
        struct Driven {
            client: Client,
            connection: Connection,
        }

        impl Driven {
            fn connect(cell: &Cell, name: &str, kept: bool, will: Option<LastWill>) -> Driven {
                let mut options = $connected(cell, name, kept, "right");
                if let Some(will) = will {
                    options.set_last_will(will);
                }
                let (client, connection) = Client::new(options, 100);
                let mut driven = Driven { client, connection };
                driven.until("CONNACK", |packet| matches!(packet, Packet::ConnAck(_)).then_some(()));
                driven
            }

            fn subscribe(&mut self, filter: &str, qos: QoS) {
                self.client.subscribe(filter, qos).unwrap();
                self.until("SUBACK", |packet| matches!(packet, Packet::SubAck(_)).then_some(()));
            }

            fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, retain: bool) {
                self.client.publish(topic, qos, retain, payload.to_vec()).unwrap();
                if qos == QoS::AtMostOnce {
                    // Nothing answers it; the next subscription does, behind it.
                    self.subscribe(&format!("{topic}-barrier"), qos);
                } else {
                    self.acknowledged(qos);
                }
            }

            fn acknowledged(&mut self, qos: QoS) {
                self.until("an acknowledgement", |packet| match packet {
                    Packet::PubAck(_) => (qos == QoS::AtLeastOnce).then_some(()),
                    Packet::PubComp(_) => (qos == QoS::ExactlyOnce).then_some(()),
                    _ => None,
                });
            }

            fn message(&mut self) -> Publish {
                self.until("a message", |packet| match packet {
                    Packet::Publish(publish) => Some(publish),
                    _ => None,
                })
            }

            fn until<T>(&mut self, what: &str, wanted: impl Fn(Packet) -> Option<T>) -> T {
                loop {
                    let event = match self.connection.recv_timeout(HANG) {
                        Ok(Ok(event)) => event,
                        other => panic!("{other:?} in place of {what}"),
                    };
                    if let Event::Incoming(packet) = event
                        && let Some(found) = wanted(packet)
                    {
                        return found;
                    }
                }
            }

            /// Says goodbye; the connection ends when it has left.
            fn leave(mut self) {
                self.client.disconnect().unwrap();
                while let Ok(Ok(_)) = self.connection.recv_timeout(HANG) {}
            }
        }

        fn login(cell: &Cell) {
            let (_client, mut connection) = Client::new($connected(cell, "wrong", false, "wrong"), 10);
            let answer = connection.recv_timeout(HANG).unwrap();
            assert!(answer.is_err(), "{answer:?}");
        }

        fn pairs(cell: &Cell) {
            let levels = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
            let mut publisher = Driven::connect(cell, "publisher", false, None);
            let large = vec![1; 100_000];
            for subscribed in levels {
                let mut subscriber = Driven::connect(cell, "subscriber", false, None);
                let base = format!("{}/pairs/{}", cell.prefix, subscribed as u8);
                subscriber.subscribe(&format!("{base}/+"), subscribed);
                for published in levels {
                    let topic = format!("{base}/{}", published as u8);
                    for payload in [&b""[..], b"hello", &large] {
                        publisher.publish(&topic, payload, published, false);
                        let got = subscriber.message();
                        assert_eq!($topic(&got), topic);
                        assert!(got.payload == payload, "{} bytes", got.payload.len());
                        assert_eq!(
                            (got.qos as u8, got.retain),
                            ((subscribed as u8).min(published as u8), false)
                        );
                    }
                }
                subscriber.leave();
            }
            publisher.leave();
        }

        fn retained(cell: &Cell) {
            let topic = format!("{}/retained/a", cell.prefix);
            let mut publisher = Driven::connect(cell, "publisher", false, None);
            publisher.publish(&topic, b"kept", QoS::AtLeastOnce, true);
            let mut late = Driven::connect(cell, "late", false, None);
            late.client.subscribe(format!("{}/retained/#", cell.prefix), QoS::AtLeastOnce).unwrap();
            let got = late.message();
            assert_eq!(($topic(&got), &got.payload[..], got.retain), (topic, &b"kept"[..], true));
        }

        fn will(cell: &Cell) {
            let topic = format!("{}/will/x", cell.prefix);
            let mut watcher = Driven::connect(cell, "watcher", false, None);
            watcher.subscribe(&format!("{}/will/+", cell.prefix), QoS::AtLeastOnce);
            // Dropped, its socket ends without a goodbye.
            drop(Driven::connect(cell, "dying", false, Some(last_will(&topic))));
            assert_eq!(watcher.message().payload, b"gone"[..]);
        }

        fn kept(cell: &Cell) {
            let mut keeper = Driven::connect(cell, "keeper", true, None);
            keeper.subscribe(&format!("{}/kept/+", cell.prefix), QoS::ExactlyOnce);
            keeper.leave();
            let mut publisher = Driven::connect(cell, "publisher", false, None);
            for number in 0..5 {
                for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    publisher.publish(&format!("{}/kept/x", cell.prefix), &[number, qos as u8], qos, false);
                }
            }
            let mut again = Driven::connect(cell, "keeper", true, None);
            let mut got: Vec<Vec<u8>> = (0..10).map(|_| again.message().payload.to_vec()).collect();
            // QoS 2 waits for the commit of its packet ids, so only what has one QoS is in order.
            got.sort_by_key(|payload| payload[1]);
            let wanted = [1, 2].into_iter().flat_map(|qos| (0..5).map(move |number| vec![number, qos]));
            assert_eq!(got, wanted.collect::<Vec<_>>());
        }
    };
}

mod four {
    use std::time::Duration;

    use rumqttc::{Client, Connection, Event, LastWill, MqttOptions, Packet, Publish, QoS};

    use super::Cell;
    use crate::stand::HANG;

    pub(super) fn run(cell: &Cell) -> Vec<String> {
        scenarios(cell)
    }

    fn options(cell: &Cell, name: &str, kept: bool, password: &str) -> MqttOptions {
        let mut options = MqttOptions::new(format!("{name}-{}", cell.prefix), "localhost", cell.port);
        options
            .set_credentials("barn", password)
            .set_clean_session(!kept)
            .set_max_packet_size(1 << 20, 1 << 20);
        options.set_keep_alive(Duration::from_secs(60));
        options
    }

    fn last_will(topic: &str) -> LastWill {
        LastWill::new(topic, "gone", QoS::AtLeastOnce, false)
    }

    scenarios!(options, |got: &Publish| got.topic.clone());
}

mod five {
    use std::time::Duration;

    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish, PublishProperties, SubscribeProperties};
    use rumqttc::v5::{Client, Connection, Event, MqttOptions};

    use super::super::OF_5;
    use super::Cell;
    use crate::stand::HANG;

    pub(super) fn run(cell: &Cell) -> Vec<String> {
        let mut done = scenarios(cell);
        properties_and_identifier(cell);
        done.extend(OF_5.map(str::to_owned));
        done
    }

    fn options(cell: &Cell, name: &str, kept: bool, password: &str) -> MqttOptions {
        let mut options = MqttOptions::new(format!("{name}-{}", cell.prefix), "localhost", cell.port);
        options.set_credentials("barn", password).set_clean_start(!kept).set_max_packet_size(Some(1 << 20));
        options.set_session_expiry_interval(kept.then_some(3600)).set_keep_alive(Duration::from_secs(60));
        options
    }

    fn last_will(topic: &str) -> LastWill {
        LastWill::new(topic, "gone", QoS::AtLeastOnce, false, None)
    }

    fn properties_and_identifier(cell: &Cell) {
        let topic = format!("{}/properties/x", cell.prefix);
        let mut subscriber = Driven::connect(cell, "properties", false, None);
        let identified = SubscribeProperties { id: Some(77), user_properties: Vec::new() };
        let filter = topic.replace("/x", "/+");
        subscriber.client.subscribe_with_properties(filter, QoS::AtLeastOnce, identified).unwrap();
        subscriber.until("SUBACK", |packet| matches!(packet, Packet::SubAck(_)).then_some(()));
        let pair = vec![("field".to_owned(), "north".to_owned())];
        let carried = PublishProperties { user_properties: pair.clone(), ..PublishProperties::default() };
        let client = &subscriber.client;
        client.publish_with_properties(topic, QoS::AtLeastOnce, false, "p", carried).unwrap();
        let got = subscriber.message().properties.unwrap();
        assert_eq!((got.user_properties, got.subscription_identifiers), (pair, vec![77]));
    }

    scenarios!(options, |got: &Publish| String::from_utf8(got.topic.to_vec()).unwrap());
}
