//! rumqttc's MQTT 3.1.1 behind [`Uplink`].
//!
//! The version has no reason codes and no limits in CONNACK: a PUBACK is a success, and what upstream
//! does not take shows as a lost connection.

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, NetworkOptions,
    Outgoing, Packet, Publish, QoS as EngineQoS, StateError, SubscribeReasonCode, Transport,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{
    Arrival, Greeting, Happening, OFFLINE, Overrun, Receipt, Uplink, Welcome, engine_inflight,
    request_capacity,
};
use crate::bridge::shape::{Outbound, PACKET_MAX, Retain};
use crate::bridge::trouble::Trouble;
use crate::codec::{Properties, QoS, Reason};

/// Starts an engine that connects to the relay's socket.
pub(super) fn start(
    greeting: &Greeting,
    path: &str,
    sender: mpsc::Sender<Happening>,
) -> (Box<dyn Uplink>, JoinHandle<()>) {
    let (client, mut engine) = AsyncClient::new(options(greeting, path), request_capacity(greeting));
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(greeting.within.as_secs().max(1));
    engine.set_network_options(network);
    let driver = tokio::spawn(drive(engine, sender));
    (Box::new(Mqtt4 { client }), driver)
}

fn options(greeting: &Greeting, path: &str) -> MqttOptions {
    let mut options = MqttOptions::new(greeting.client_id.clone(), path, 0);
    options
        .set_transport(Transport::Unix)
        .set_keep_alive(greeting.keepalive)
        .set_clean_session(greeting.keep_session.is_none())
        .set_inflight(engine_inflight(greeting.window))
        .set_max_packet_size(bytes(greeting.packet_size), bytes(PACKET_MAX))
        .set_manual_acks(true);
    if let Some((username, password)) = &greeting.login {
        options.set_credentials(username, password);
    }
    if let Some(topic) = &greeting.status_topic {
        options.set_last_will(LastWill::new(topic, OFFLINE, EngineQoS::AtLeastOnce, true));
    }
    options
}

struct Mqtt4 {
    client: AsyncClient,
}

impl Uplink for Mqtt4 {
    fn publish(&mut self, outbound: Outbound) -> Result<(), Overrun> {
        let Outbound { topic, payload, qos, retain, .. } = outbound;
        self.client.try_publish(topic, engine_qos(qos), retain, payload).map_err(|_| Overrun)
    }

    fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<(), Overrun> {
        self.client.try_subscribe(filter, engine_qos(qos)).map_err(|_| Overrun)
    }

    fn unsubscribe(&mut self, filter: &str) -> Result<(), Overrun> {
        self.client.try_unsubscribe(filter).map_err(|_| Overrun)
    }

    fn acknowledge(&mut self, receipt: Receipt) -> Result<(), Overrun> {
        let mut arrived = Publish::new("", engine_qos(receipt.qos), Vec::new());
        arrived.pkid = receipt.packet_id;
        self.client.try_ack(&arrived).map_err(|_| Overrun)
    }

    fn disconnect(&mut self) -> Result<(), Overrun> {
        self.client.try_disconnect().map_err(|_| Overrun)
    }
}

/// Polls the engine until its connection ends. A poll is never cut short while the engine lives.
async fn drive(mut engine: EventLoop, sender: mpsc::Sender<Happening>) {
    loop {
        match engine.poll().await {
            Ok(event) => {
                if !tell(event, &sender).await {
                    return;
                }
            }
            Err(error) => {
                // What was read before the error has happened all the same.
                while let Some(event) = engine.state.events.pop_front() {
                    if !tell(event, &sender).await {
                        return;
                    }
                }
                // Nobody listens where the bridge has given this connection up.
                let _ = sender.send(Happening::Lost(trouble(&error))).await;
                return;
            }
        }
    }
}

async fn tell(event: Event, sender: &mpsc::Sender<Happening>) -> bool {
    match happening(event) {
        Some(happening) => sender.send(happening).await.is_ok(),
        None => true,
    }
}

fn happening(event: Event) -> Option<Happening> {
    Some(match event {
        Event::Outgoing(Outgoing::Publish(packet_id)) => Happening::Sent(packet_id),
        Event::Outgoing(Outgoing::AwaitAck(packet_id)) => Happening::Held(packet_id),
        Event::Outgoing(Outgoing::Disconnect) => Happening::Left,
        Event::Outgoing(_) => return None,
        Event::Incoming(Packet::ConnAck(connack)) => Happening::Connected(Welcome {
            session_present: connack.session_present,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            maximum_qos: QoS::ExactlyOnce,
            retain: Retain::Available,
            keepalive: None,
        }),
        Event::Incoming(Packet::PubAck(ack)) => Happening::Acknowledged(ack.pkid, Reason::Success),
        Event::Incoming(Packet::SubAck(ack)) => Happening::Subscribed(match ack.return_codes.first() {
            Some(SubscribeReasonCode::Success(qos)) => Ok(own_qos(*qos)),
            Some(SubscribeReasonCode::Failure) | None => Err(Reason::UnspecifiedError),
        }),
        Event::Incoming(Packet::UnsubAck(_)) => Happening::Unsubscribed(Ok(())),
        Event::Incoming(Packet::Publish(publish)) => Happening::Arrived(Arrival {
            topic: publish.topic,
            payload: publish.payload,
            retain: publish.retain,
            properties: Properties::new(),
            receipt: Receipt { packet_id: publish.pkid, qos: own_qos(publish.qos) },
        }),
        Event::Incoming(_) => Happening::Heard,
    })
}

fn trouble(error: &ConnectionError) -> Trouble {
    let why = match error {
        ConnectionError::ConnectionRefused(code) => return Trouble::Turned { reason: refusal(*code) },
        ConnectionError::MqttState(StateError::ConnectionAborted) => super::CLOSED.to_owned(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "a ping was not answered".to_owned(),
        ConnectionError::NetworkTimeout => super::NO_CONNACK.to_owned(),
        ConnectionError::FlushTimeout => "upstream takes no more bytes".to_owned(),
        other => other.to_string().to_lowercase(),
    };
    Trouble::Lost { why }
}

fn refusal(code: ConnectReturnCode) -> Reason {
    match code {
        ConnectReturnCode::Success => Reason::Success,
        ConnectReturnCode::RefusedProtocolVersion => Reason::UnsupportedProtocolVersion,
        ConnectReturnCode::BadClientId => Reason::ClientIdentifierNotValid,
        ConnectReturnCode::ServiceUnavailable => Reason::ServerUnavailable,
        ConnectReturnCode::BadUserNamePassword => Reason::BadUserNameOrPassword,
        ConnectReturnCode::NotAuthorized => Reason::NotAuthorized,
    }
}

fn engine_qos(qos: QoS) -> EngineQoS {
    match qos {
        QoS::AtMostOnce => EngineQoS::AtMostOnce,
        QoS::AtLeastOnce => EngineQoS::AtLeastOnce,
        QoS::ExactlyOnce => EngineQoS::ExactlyOnce,
    }
}

fn own_qos(qos: EngineQoS) -> QoS {
    match qos {
        EngineQoS::AtMostOnce => QoS::AtMostOnce,
        EngineQoS::AtLeastOnce => QoS::AtLeastOnce,
        EngineQoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn bytes(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
