//! rumqttc's MQTT 5 behind [`Uplink`].
//!
//! Topic aliases are not allowed to upstream, since rumqttc shows the application an empty topic for
//! them; messages are acknowledged by hand.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as EngineQoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, Filter, LastWill, Packet, PubAckReason, Publish, PublishProperties,
    RetainForwardRule, SubscribeReasonCode, UnsubAckReason,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{Outgoing, Transport};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{
    Arrival, Greeting, Happening, OFFLINE, Overrun, RECEIVE_MAXIMUM, Receipt, Uplink, Welcome,
    engine_inflight, request_capacity,
};
use crate::bridge::mapping::is_local_topic;
use crate::bridge::shape::{Outbound, Retain};
use crate::bridge::trouble::{Trouble, show_reason};
use crate::codec::{Properties, Property, QoS, Reason};

/// Starts an engine that connects to the relay's socket.
pub(super) fn start(
    greeting: &Greeting,
    path: &str,
    sender: mpsc::Sender<Happening>,
) -> (Box<dyn Uplink>, JoinHandle<()>) {
    let (client, engine) = AsyncClient::new(options(greeting, path), request_capacity(greeting));
    let driver = tokio::spawn(drive(engine, greeting.keepalive, sender));
    (Box::new(Mqtt5 { client }), driver)
}

fn options(greeting: &Greeting, path: &str) -> MqttOptions {
    let mut options = MqttOptions::new(greeting.client_id.clone(), path, 0);
    options
        .set_transport(Transport::Unix)
        .set_keep_alive(greeting.keepalive)
        .set_clean_start(greeting.keep_session.is_none())
        .set_session_expiry_interval(greeting.keep_session)
        .set_connection_timeout(greeting.within.as_secs().max(1))
        .set_outgoing_inflight_upper_limit(engine_inflight(greeting.window))
        .set_receive_maximum(Some(RECEIVE_MAXIMUM))
        .set_max_packet_size(Some(greeting.packet_size))
        .set_manual_acks(true);
    if let Some((username, password)) = &greeting.login {
        options.set_credentials(username, password);
    }
    if let Some(topic) = &greeting.status_topic {
        options.set_last_will(LastWill::new(topic, OFFLINE, EngineQoS::AtLeastOnce, true, None));
    }
    options
}

struct Mqtt5 {
    client: AsyncClient,
}

impl Uplink for Mqtt5 {
    fn publish(&mut self, outbound: Outbound) -> Result<(), Overrun> {
        let Outbound { topic, payload, qos, retain, expiry, properties } = outbound;
        let sent = match properties_of(&properties, expiry) {
            Some(properties) => {
                self.client.try_publish_with_properties(topic, engine_qos(qos), retain, payload, properties)
            }
            None => self.client.try_publish(topic, engine_qos(qos), retain, payload),
        };
        sent.map_err(|_| Overrun)
    }

    fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<(), Overrun> {
        let filter = Filter {
            path: filter.to_owned(),
            qos: engine_qos(qos),
            // What we forward ourselves does not come back.
            nolocal: true,
            preserve_retain: true,
            // A kept subscription has had its retained messages.
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
        };
        self.client.try_subscribe_many([filter]).map_err(|_| Overrun)
    }

    fn unsubscribe(&mut self, filter: &str) -> Result<(), Overrun> {
        self.client.try_unsubscribe(filter).map_err(|_| Overrun)
    }

    fn acknowledge(&mut self, receipt: Receipt) -> Result<(), Overrun> {
        let arrived = Publish { pkid: receipt.packet_id, qos: engine_qos(receipt.qos), ..Publish::default() };
        self.client.try_ack(&arrived).map_err(|_| Overrun)
    }

    fn disconnect(&mut self) -> Result<(), Overrun> {
        self.client.try_disconnect().map_err(|_| Overrun)
    }
}

/// Polls the engine until its connection ends. A poll is never cut short while the engine lives.
async fn drive(mut engine: EventLoop, keepalive: Duration, sender: mpsc::Sender<Happening>) {
    loop {
        match engine.poll().await {
            Ok(event) => {
                if let Event::Incoming(Packet::ConnAck(_)) = &event {
                    // An upstream that wants no pings says 0, which the engine would take for "at once".
                    if engine.options.keep_alive().is_zero() {
                        engine.options.set_keep_alive(keepalive);
                    }
                }
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
                let _ = sender.send(Happening::Lost(trouble(error))).await;
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
        Event::Incoming(Packet::ConnAck(connack)) => Happening::Connected(welcome(&connack)),
        Event::Incoming(Packet::PubAck(ack)) => Happening::Acknowledged(ack.pkid, ack_reason(ack.reason)),
        Event::Incoming(Packet::SubAck(ack)) => Happening::Subscribed(granted(ack.return_codes.first())),
        Event::Incoming(Packet::UnsubAck(ack)) => Happening::Unsubscribed(ended(ack.reasons.first())),
        Event::Incoming(Packet::Publish(publish)) => arrival(publish),
        Event::Incoming(_) => Happening::Heard,
    })
}

fn welcome(connack: &ConnAck) -> Welcome {
    let told = connack.properties.as_ref();
    Welcome {
        session_present: connack.session_present,
        receive_maximum: told.and_then(|told| told.receive_max).unwrap_or(u16::MAX),
        maximum_packet_size: told.and_then(|told| told.max_packet_size),
        maximum_qos: match told.and_then(|told| told.max_qos) {
            Some(0) => QoS::AtMostOnce,
            Some(1) => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        },
        retain: match told.and_then(|told| told.retain_available) {
            Some(0) => Retain::Unavailable,
            _ => Retain::Available,
        },
        keepalive: told
            .and_then(|told| told.server_keep_alive)
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(seconds.into())),
    }
}

fn arrival(publish: Publish) -> Happening {
    let qos = match publish.qos {
        EngineQoS::AtMostOnce => QoS::AtMostOnce,
        EngineQoS::AtLeastOnce => QoS::AtLeastOnce,
        EngineQoS::ExactlyOnce => QoS::ExactlyOnce,
    };
    match String::from_utf8(publish.topic.into()) {
        Ok(topic) => Happening::Arrived(Arrival {
            topic,
            payload: publish.payload,
            retain: publish.retain,
            properties: publish.properties.map_or_else(Properties::new, properties),
            receipt: Receipt { packet_id: publish.pkid, qos },
        }),
        Err(_) => Happening::Lost(Trouble::Lost { why: "upstream sends a topic that is no text".to_owned() }),
    }
}

/// What travels with a message from upstream. An engine that hands on what is not valid must not
/// cost us the message: that property alone is left out.
fn properties(given: PublishProperties) -> Properties {
    let mut list = Vec::new();
    let format = given.payload_format_indicator.filter(|format| *format <= 1);
    list.extend(format.map(Property::PayloadFormatIndicator));
    list.extend(given.message_expiry_interval.map(Property::MessageExpiryInterval));
    // [MQTT5-1.5.4-2]
    let is_text = |text: &String| !text.contains('\0');
    list.extend(given.content_type.filter(is_text).map(|text| Property::ContentType(text.into())));
    let answer = given.response_topic.filter(|topic| is_local_topic(topic));
    list.extend(answer.map(|topic| Property::ResponseTopic(topic.into())));
    list.extend(given.correlation_data.map(Property::CorrelationData));
    let notes = given.user_properties.into_iter().filter(|(name, value)| is_text(name) && is_text(value));
    list.extend(notes.map(|(name, value)| Property::UserProperty(name.into(), value.into())));
    Properties::from_list(&list)
}

fn granted(code: Option<&SubscribeReasonCode>) -> Result<QoS, Reason> {
    Err(match code {
        Some(SubscribeReasonCode::Success(EngineQoS::AtMostOnce)) => return Ok(QoS::AtMostOnce),
        Some(SubscribeReasonCode::Success(EngineQoS::AtLeastOnce)) => return Ok(QoS::AtLeastOnce),
        Some(SubscribeReasonCode::Success(EngineQoS::ExactlyOnce)) => return Ok(QoS::ExactlyOnce),
        Some(SubscribeReasonCode::ImplementationSpecific) => Reason::ImplementationSpecificError,
        Some(SubscribeReasonCode::NotAuthorized) => Reason::NotAuthorized,
        Some(SubscribeReasonCode::TopicFilterInvalid) => Reason::TopicFilterInvalid,
        Some(SubscribeReasonCode::PkidInUse) => Reason::PacketIdentifierInUse,
        Some(SubscribeReasonCode::QuotaExceeded) => Reason::QuotaExceeded,
        Some(SubscribeReasonCode::SharedSubscriptionsNotSupported) => Reason::SharedSubscriptionsNotSupported,
        Some(SubscribeReasonCode::SubscriptionIdNotSupported) => Reason::SubscriptionIdentifiersNotSupported,
        Some(SubscribeReasonCode::WildcardSubscriptionsNotSupported) => {
            Reason::WildcardSubscriptionsNotSupported
        }
        Some(SubscribeReasonCode::Failure | SubscribeReasonCode::Unspecified) | None => {
            Reason::UnspecifiedError
        }
    })
}

fn ended(code: Option<&UnsubAckReason>) -> Result<(), Reason> {
    Err(match code {
        Some(UnsubAckReason::Success | UnsubAckReason::NoSubscriptionExisted) => return Ok(()),
        Some(UnsubAckReason::ImplementationSpecificError) => Reason::ImplementationSpecificError,
        Some(UnsubAckReason::NotAuthorized) => Reason::NotAuthorized,
        Some(UnsubAckReason::TopicFilterInvalid) => Reason::TopicFilterInvalid,
        Some(UnsubAckReason::PacketIdentifierInUse) => Reason::PacketIdentifierInUse,
        Some(UnsubAckReason::UnspecifiedError) | None => Reason::UnspecifiedError,
    })
}

fn ack_reason(reason: PubAckReason) -> Reason {
    match reason {
        PubAckReason::Success => Reason::Success,
        PubAckReason::NoMatchingSubscribers => Reason::NoMatchingSubscribers,
        PubAckReason::UnspecifiedError => Reason::UnspecifiedError,
        PubAckReason::ImplementationSpecificError => Reason::ImplementationSpecificError,
        PubAckReason::NotAuthorized => Reason::NotAuthorized,
        PubAckReason::TopicNameInvalid => Reason::TopicNameInvalid,
        PubAckReason::PacketIdentifierInUse => Reason::PacketIdentifierInUse,
        PubAckReason::QuotaExceeded => Reason::QuotaExceeded,
        PubAckReason::PayloadFormatInvalid => Reason::PayloadFormatInvalid,
    }
}

fn refusal(code: ConnectReturnCode) -> Reason {
    match code {
        ConnectReturnCode::Success => Reason::Success,
        ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
            Reason::UnsupportedProtocolVersion
        }
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            Reason::ClientIdentifierNotValid
        }
        ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::ServerUnavailable => {
            Reason::ServerUnavailable
        }
        ConnectReturnCode::UnspecifiedError => Reason::UnspecifiedError,
        ConnectReturnCode::MalformedPacket => Reason::MalformedPacket,
        ConnectReturnCode::ProtocolError => Reason::ProtocolError,
        ConnectReturnCode::ImplementationSpecificError => Reason::ImplementationSpecificError,
        ConnectReturnCode::BadUserNamePassword => Reason::BadUserNameOrPassword,
        ConnectReturnCode::NotAuthorized => Reason::NotAuthorized,
        ConnectReturnCode::ServerBusy => Reason::ServerBusy,
        ConnectReturnCode::Banned => Reason::Banned,
        ConnectReturnCode::BadAuthenticationMethod => Reason::BadAuthenticationMethod,
        ConnectReturnCode::TopicNameInvalid => Reason::TopicNameInvalid,
        ConnectReturnCode::PacketTooLarge => Reason::PacketTooLarge,
        ConnectReturnCode::QuotaExceeded => Reason::QuotaExceeded,
        ConnectReturnCode::PayloadFormatInvalid => Reason::PayloadFormatInvalid,
        ConnectReturnCode::RetainNotSupported => Reason::RetainNotSupported,
        ConnectReturnCode::QoSNotSupported => Reason::QoSNotSupported,
        ConnectReturnCode::UseAnotherServer => Reason::UseAnotherServer,
        ConnectReturnCode::ServerMoved => Reason::ServerMoved,
        ConnectReturnCode::ConnectionRateExceeded => Reason::ConnectionRateExceeded,
    }
}

fn trouble(error: ConnectionError) -> Trouble {
    let why = match error {
        ConnectionError::ConnectionRefused(code) => return Trouble::Turned { reason: refusal(code) },
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            let reason = Reason::from_code(reason_code as u8).unwrap_or(Reason::UnspecifiedError);
            let reason = show_reason(reason);
            match reason_string {
                Some(text) => format!("upstream disconnects us ({reason}: {text})"),
                None => format!("upstream disconnects us ({reason})"),
            }
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => super::CLOSED.to_owned(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "a ping was not answered".to_owned(),
        ConnectionError::Timeout(_) => super::NO_CONNACK.to_owned(),
        other => other.to_string().to_lowercase(),
    };
    Trouble::Lost { why }
}

/// The properties of a PUBLISH upward, in their order; `None` where there are none.
fn properties_of(properties: &Properties, expiry: Option<u32>) -> Option<PublishProperties> {
    if expiry.is_none() && properties.as_bytes().is_empty() {
        return None;
    }
    let mut made = PublishProperties { message_expiry_interval: expiry, ..PublishProperties::default() };
    for property in properties.iter() {
        match property {
            Property::PayloadFormatIndicator(format) => made.payload_format_indicator = Some(format),
            Property::ContentType(kind) => made.content_type = Some(kind.to_string()),
            Property::ResponseTopic(topic) => made.response_topic = Some(topic.to_string()),
            Property::CorrelationData(data) => made.correlation_data = Some(data),
            Property::UserProperty(name, value) => {
                made.user_properties.push((name.to_string(), value.to_string()));
            }
            // Nothing else travels: the broker has taken it out.
            _ => {}
        }
    }
    Some(made)
}

fn engine_qos(qos: QoS) -> EngineQoS {
    match qos {
        QoS::AtMostOnce => EngineQoS::AtMostOnce,
        QoS::AtLeastOnce => EngineQoS::AtLeastOnce,
        QoS::ExactlyOnce => EngineQoS::ExactlyOnce,
    }
}
