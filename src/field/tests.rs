//! Ports against a running engine: what an adapter sees.
//!
//! Port and engine are the real ones, the store is the test's own.

use adapter_api::{Acknowledgement, FromPort, Health, Hello, Host, Port, Qos, Refusal, State, ToPort, Will};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Field;
use crate::codec::{QoS, Version};
use crate::engine::testing::{Client, PATIENCE, Running, StoreMode};

fn hello(client_id: &str) -> Hello {
    Hello {
        client_id: client_id.to_owned(),
        user: Some("test".to_owned()),
        clean_start: true,
        session_expiry: 0,
        will: None,
        credit: 8,
        waits: false,
    }
}

fn publish(id: u64, topic: &str, payload: &str, qos: Qos) -> FromPort {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    FromPort::Publish { id, topic: topic.to_owned(), payload, qos, retain: false, properties: Bytes::new() }
}

async fn next(port: &mut Port) -> ToPort {
    let word = tokio::time::timeout(PATIENCE, port.next()).await;
    word.expect("the broker has something to say").expect("the port is open")
}

async fn open(field: &Field, hello: Hello) -> Port {
    let mut port = field.open(hello);
    assert_eq!(next(&mut port).await, ToPort::Connected { session_present: false });
    port
}

async fn subscribe(port: &mut Port, filter: &str, qos: Qos) {
    port.send(FromPort::Subscribe { id: 77, filter: filter.to_owned(), qos }).await.unwrap();
    assert_eq!(next(port).await, ToPort::Subscribed { id: 77, result: Ok(qos) });
}

/// Runs the test beside a thread that runs the field's tasks, as the appliance's runtime does.
fn run(mode: StoreMode, test: impl AsyncFnOnce(&mut Running, &Field)) {
    run_after(Vec::new(), mode, test);
}

/// The same with topics that an earlier run has left.
fn run_after(stale: Vec<String>, mode: StoreMode, test: impl AsyncFnOnce(&mut Running, &Field)) {
    let mut running = Running::start(mode, |_| {});
    let tasks = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let field = Field::new(running.inputs.clone(), running.clock, tasks.handle().clone(), stale);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || tasks.block_on(ended));
    let here = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    here.block_on(test(&mut running, &field));
    drop(end);
    assert!(thread.join().unwrap().is_err(), "it ends because the test has");
}

#[test]
fn a_port_is_a_client_among_clients() {
    run(StoreMode::Prompt, async |running, field| {
        let mut client = Client::connect(running.address, Version::V311, "client");
        client.subscribe("from/port", QoS::AtMostOnce);
        let mut port = open(field, hello("port")).await;
        subscribe(&mut port, "from/client", Qos::AtMostOnce).await;

        port.send(publish(5, "from/port", "up", Qos::AtLeastOnce)).await.unwrap();
        let answer = ToPort::Published(Acknowledgement { id: 5, result: Ok(()) });
        assert_eq!(next(&mut port).await, answer);
        assert_eq!(&*client.message().payload, b"up");

        client.publish("from/client", b"down", QoS::AtMostOnce);
        let ToPort::Message(delivery) = next(&mut port).await else { panic!("a message") };
        assert_eq!(
            (delivery.topic.as_str(), &*delivery.payload, delivery.id),
            ("from/client", &b"down"[..], 0)
        );

        port.send(FromPort::Close).await.unwrap();
        assert_eq!(port.next().await, None);
    });
}

#[test]
fn every_qos_goes_both_ways() {
    run(StoreMode::Prompt, async |_, field| {
        let mut publisher = open(field, hello("publisher")).await;
        let mut subscriber = open(field, hello("subscriber")).await;
        subscribe(&mut subscriber, "t/#", Qos::ExactlyOnce).await;
        for (id, qos) in [(1, Qos::AtMostOnce), (2, Qos::AtLeastOnce), (3, Qos::ExactlyOnce)] {
            publisher.send(publish(id, "t/x", "payload", qos)).await.unwrap();
            if qos != Qos::AtMostOnce {
                let answer = ToPort::Published(Acknowledgement { id, result: Ok(()) });
                assert_eq!(next(&mut publisher).await, answer);
            }
            let ToPort::Message(delivery) = next(&mut subscriber).await else { panic!("a message") };
            assert_eq!(delivery.qos, qos);
            if qos != Qos::AtMostOnce {
                subscriber.send(FromPort::Acknowledge { id: delivery.id }).await.unwrap();
            }
            subscriber.send(FromPort::Grant(1)).await.unwrap();
        }
        subscriber.send(FromPort::Unsubscribe { id: 9, filter: "t/#".to_owned() }).await.unwrap();
        assert_eq!(next(&mut subscriber).await, ToPort::Unsubscribed { id: 9 });
    });
}

#[test]
fn the_broker_sends_no_more_than_was_granted() {
    run(StoreMode::Prompt, async |_, field| {
        let mut subscriber = open(field, Hello { credit: 2, ..hello("subscriber") }).await;
        subscribe(&mut subscriber, "t", Qos::AtLeastOnce).await;
        let mut publisher = open(field, hello("publisher")).await;
        for id in 0..5 {
            publisher.send(publish(id, "t", &id.to_string(), Qos::AtLeastOnce)).await.unwrap();
            assert!(matches!(next(&mut publisher).await, ToPort::Published(_)));
        }
        for number in 0..5 {
            let ToPort::Message(delivery) = next(&mut subscriber).await else { panic!("a message") };
            assert_eq!(&*delivery.payload, number.to_string().as_bytes());
            subscriber.send(FromPort::Acknowledge { id: delivery.id }).await.unwrap();
            if number == 1 {
                // An answer that was asked for now overtakes nothing: no third message was on its way.
                subscribe(&mut subscriber, "other", Qos::AtMostOnce).await;
            }
            if number > 0 {
                subscriber.send(FromPort::Grant(1)).await.unwrap();
            }
        }
    });
}

#[test]
fn a_port_is_told_when_nothing_waits_for_it_any_more() {
    for session_expiry in [0, 3_600] {
        run(StoreMode::Prompt, async |_, field| {
            let mut subscriber =
                open(field, Hello { credit: 1, session_expiry, ..hello("subscriber") }).await;
            subscriber.send(FromPort::Drain).await.unwrap();
            assert_eq!(next(&mut subscriber).await, ToPort::Drained, "nothing waits");
            subscribe(&mut subscriber, "t", Qos::AtLeastOnce).await;
            let mut publisher = open(field, hello("publisher")).await;
            for id in 0..3 {
                publisher.send(publish(id, "t", "payload", Qos::AtLeastOnce)).await.unwrap();
                assert!(matches!(next(&mut publisher).await, ToPort::Published(_)));
            }
            subscriber.send(FromPort::Drain).await.unwrap();
            for _ in 0..3 {
                let ToPort::Message(delivery) = next(&mut subscriber).await else { panic!("a message") };
                subscriber.send(FromPort::Grant(1)).await.unwrap();
                subscriber.send(FromPort::Acknowledge { id: delivery.id }).await.unwrap();
            }
            assert_eq!(next(&mut subscriber).await, ToPort::Drained);
        });
    }
}

#[test]
fn a_dropped_port_is_a_lost_client_and_a_closed_one_is_not() {
    run(StoreMode::Prompt, async |running, field| {
        let mut client = Client::connect(running.address, Version::V5, "client");
        client.subscribe("will/#", QoS::AtMostOnce);
        let will = |topic: &str| {
            let (topic, payload) = (topic.to_owned(), Bytes::from_static(b"gone"));
            Some(Will { topic, payload, qos: Qos::AtMostOnce, retain: false })
        };
        let mut leaver = open(field, Hello { will: will("will/leaver"), ..hello("leaver") }).await;
        leaver.send(FromPort::Close).await.unwrap();
        assert_eq!(leaver.next().await, None);
        drop(open(field, Hello { will: will("will/lost"), ..hello("lost") }).await);
        assert_eq!(&*client.message().topic, "will/lost");
    });
}

#[test]
fn a_port_that_is_dropped_at_our_own_stop_is_no_lost_client() {
    run(StoreMode::Prompt, async |running, field| {
        let mut client = Client::connect(running.address, Version::V5, "client");
        client.subscribe("said/#", QoS::AtMostOnce);
        let (topic, payload) = ("said/will".to_owned(), Bytes::from_static(b"gone"));
        let will = Some(Will { topic, payload, qos: Qos::AtMostOnce, retain: false });
        let leaver = open(field, Hello { will, ..hello("leaver") }).await;
        let mut other = open(field, hello("other")).await;
        field.stopping();
        drop(leaver);
        for id in 0..100 {
            other.send(publish(id, "said/live", "x", Qos::AtLeastOnce)).await.unwrap();
            assert!(matches!(next(&mut other).await, ToPort::Published(_)));
            assert_eq!(&*client.message().topic, "said/live");
        }
        running.inputs.send(crate::engine::Input::Stop).await.unwrap();
        assert_eq!(next(&mut other).await, ToPort::Closed(Refusal::ShuttingDown));
    });
}

#[test]
fn a_port_that_reads_nothing_waits_and_nobody_else_does() {
    run(StoreMode::Prompt, async |_, field| {
        let Port { sender, mut receiver } = field.open(hello("deaf"));
        let sending = tokio::spawn(async move {
            for id in 0..10_000 {
                sender.send(publish(id, "t", "x", Qos::AtLeastOnce)).await.unwrap();
            }
            sender
        });
        let mut other = open(field, hello("other")).await;
        for id in 0..100 {
            other.send(publish(id, "t", "x", Qos::AtLeastOnce)).await.unwrap();
            assert!(matches!(next(&mut other).await, ToPort::Published(_)));
        }
        assert!(!sending.is_finished(), "it waits");
        assert_eq!(receiver.recv().await, Some(ToPort::Connected { session_present: false }));
        for id in 0..10_000 {
            let answer = ToPort::Published(Acknowledgement { id, result: Ok(()) });
            assert_eq!(receiver.recv().await, Some(answer));
        }
        sending.await.unwrap();
    });
}

#[test]
fn the_adapter_hears_why_its_port_was_closed() {
    run(StoreMode::Prompt, async |running, field| {
        let mut first = open(field, hello("same")).await;
        let mut second = open(field, hello("same")).await;
        assert_eq!(next(&mut first).await, ToPort::Closed(Refusal::TakenOver));
        assert_eq!(first.next().await, None);
        running.inputs.send(crate::engine::Input::Stop).await.unwrap();
        assert_eq!(next(&mut second).await, ToPort::Closed(Refusal::ShuttingDown));
    });
}

#[test]
fn what_an_adapter_reports_is_published_and_retained() {
    run(StoreMode::Prompt, async |running, field| {
        let health = |state, reason: Option<&str>| Health {
            state,
            reason: reason.map(str::to_owned),
            counters: json!({ "polls": 3 }),
        };
        let mut client = Client::connect(running.address, Version::V311, "client");
        client.subscribe("tidegate/+/+/state", QoS::AtMostOnce);
        let state = |client: &mut Client| -> Value {
            let message = client.message();
            assert_eq!(&*message.topic, "tidegate/modbus/line-1/state");
            serde_json::from_slice(&message.payload).unwrap()
        };
        field.report("modbus/line-1", health(State::Up, None));
        let first = state(&mut client);
        assert_eq!((&first["state"], &first["counters"]["polls"]), (&json!("up"), &json!(3)));
        field.report("modbus/line-1", health(State::Down, Some("no answer")));
        let second = state(&mut client);
        assert_eq!((&second["state"], &second["reason"]), (&json!("down"), &json!("no answer")));

        let mut late = Client::connect(running.address, Version::V311, "late");
        late.subscribe("tidegate/#", QoS::AtMostOnce);
        assert_eq!(state(&mut late), second);
        assert_eq!(field.parts().read()["modbus/line-1"].health.state, State::Down);
    });
}

/// What an earlier run has left.
const STALE: &str = "tidegate/modbus/gone/state";

#[test]
fn the_gateway_says_that_it_is_there_and_clears_what_nobody_reports_any_more() {
    run_after(vec![STALE.to_owned()], StoreMode::Prompt, async |running, field| {
        let mut client = Client::connect(running.address, Version::V5, "client");
        client.subscribe("tidegate/#", QoS::AtMostOnce);
        let said = client.message();
        assert_eq!((&*said.topic, &*said.payload), ("tidegate/status", &b"online"[..]));
        field.report("serial/scale", Health { state: State::Up, reason: None, counters: json!({}) });
        let mut next = client.message();
        if &*next.topic == STALE {
            assert!(next.payload.is_empty());
            next = client.message();
        }
        assert_eq!(&*next.topic, "tidegate/serial/scale/state");
    });
}
