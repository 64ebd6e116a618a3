//! Everything that can be wrong with a packet, and what to tell the peer about it.
//!
//! One line a fault: the reason code of MQTT 5 that a DISCONNECT or CONNACK carries for it, the clause
//! that was broken, and words for the log. The culprit is always the peer.

use super::Reason;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident: $reason:ident, $clause:literal, $text:literal;)*) => {
        /// Why bytes are no packet that this peer may send. The connection must end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum Malformed {
            $(
                $(#[$doc])*
                #[error("decode the packet: {} [{}]", $text, $clause)]
                $name,
            )*
        }

        impl Malformed {
            /// Every fault, in the order of the table.
            pub const ALL: &'static [Malformed] = &[$(Malformed::$name,)*];

            /// The reason code for the peer.
            pub fn reason(self) -> Reason {
                match self {
                    $(Malformed::$name => Reason::$reason,)*
                }
            }

            /// The clause that was broken.
            pub fn clause(self) -> &'static str {
                match self {
                    $(Malformed::$name => $clause,)*
                }
            }

            /// The fault's name, for tables of tests and counters.
            pub fn name(self) -> &'static str {
                match self {
                    $(Malformed::$name => stringify!($name),)*
                }
            }
        }
    };
}

faults! {
    /// Type 0, or AUTH before MQTT 5.
    PacketType: MalformedPacket, "MQTT5-2.1.2", "there is no such packet type";
    /// A type that only the other side sends.
    WrongDirection: ProtocolError, "MQTT5-2.1.2", "this side never sends that packet";
    /// Something else came before CONNECT.
    ConnectExpected: ProtocolError, "MQTT5-3.1.0-1", "the first packet is not CONNECT";
    /// CONNECT came again.
    SecondConnect: ProtocolError, "MQTT5-3.1.0-2", "CONNECT came a second time";
    /// Flags of the fixed header.
    HeaderFlags: MalformedPacket, "MQTT5-2.1.3-1", "a reserved flag of the fixed header is set or missing";
    /// A length of five bytes.
    LengthTooLong: MalformedPacket, "MQTT5-2.1.4", "the remaining length has more than four bytes";
    /// A number in more bytes than it needs.
    LengthNotMinimal: MalformedPacket, "MQTT5-1.5.5-1", "a variable byte integer has more bytes than it needs";
    /// Over the limit.
    TooLarge: PacketTooLarge, "MQTT5-3.1.2-24", "the packet is larger than the limit";
    /// The packet ends inside a field.
    EndsEarly: MalformedPacket, "MQTT5-2.1.4", "the packet ends inside a field";
    /// Bytes are left after the last field.
    TrailingBytes: MalformedPacket, "MQTT5-2.1.4", "bytes are left after the last field";
    /// Not UTF-8, surrogates among it.
    NotUtf8: MalformedPacket, "MQTT5-1.5.4-1", "a text is not UTF-8";
    /// U+0000 in a text.
    NullInText: MalformedPacket, "MQTT5-1.5.4-2", "a text contains U+0000";
    /// Packet id 0.
    PacketIdZero: MalformedPacket, "MQTT5-2.2.1-3", "the packet identifier is 0";

    /// Name or level.
    ProtocolVersion: UnsupportedProtocolVersion, "MQTT5-3.1.2-2", "protocol name and level are not 3.1, 3.1.1 or 5";
    /// Bit 0 of the connect flags.
    ConnectFlagReserved: MalformedPacket, "MQTT5-3.1.2-3", "the reserved connect flag is set";
    /// Will QoS or retain without a will.
    WillFlags: MalformedPacket, "MQTT5-3.1.2-11", "will QoS or will retain is set without a will";
    /// Will QoS 3.
    WillQoS: MalformedPacket, "MQTT5-3.1.2-12", "the will has QoS 3";
    /// Password without user name before MQTT 5.
    PasswordAlone: MalformedPacket, "MQTT311-3.1.2-22", "a password came without a user name";

    /// QoS 3.
    QoS3: MalformedPacket, "MQTT5-3.3.1-4", "both QoS bits are set";
    /// DUP at QoS 0.
    DupAtQoS0: MalformedPacket, "MQTT5-3.3.1-2", "DUP is set at QoS 0";
    /// `+` or `#` in a topic name.
    WildcardInTopic: MalformedPacket, "MQTT5-3.3.2-2", "a topic name contains a wildcard";
    /// No topic, no alias.
    TopicMissing: ProtocolError, "MQTT5-4.7.3-1", "the topic is empty and no alias stands for it";
    /// Alias 0.
    TopicAliasZero: TopicAliasInvalid, "MQTT5-3.3.2-8", "the topic alias is 0";

    /// No filter in SUBSCRIBE or UNSUBSCRIBE.
    NoFilter: ProtocolError, "MQTT5-3.8.3-2", "there is not one topic filter";
    /// Filter of no characters.
    FilterEmpty: MalformedPacket, "MQTT5-4.7.3-1", "a topic filter is empty";
    /// Reserved bits of the options.
    OptionsReserved: MalformedPacket, "MQTT5-3.8.3-5", "reserved bits of the subscription options are set";
    /// QoS 3 wished.
    OptionsQoS: ProtocolError, "MQTT5-3.8.3.1", "the subscription wishes QoS 3";
    /// Retain handling 3.
    OptionsRetainHandling: ProtocolError, "MQTT5-3.8.3.1", "the retain handling is 3";
    /// No Local on a shared subscription.
    NoLocalShared: ProtocolError, "MQTT5-3.8.3-4", "No Local is set on a shared subscription";

    /// A reason or return code that the packet does not have.
    ReasonForeign: MalformedPacket, "MQTT5-2.4", "the packet has no such reason code";
    /// Reserved bits of CONNACK, or a session with a refusal.
    ConnAckFlags: MalformedPacket, "MQTT5-3.2.2-1", "reserved acknowledge flags are set";
    /// No reason in SUBACK or UNSUBACK.
    NoReason: MalformedPacket, "MQTT5-3.9.3-1", "there is not one reason code";

    /// An identifier that does not exist.
    PropertyUnknown: MalformedPacket, "MQTT5-2.2.2.2", "there is no such property";
    /// A property of another packet.
    PropertyForeign: MalformedPacket, "MQTT5-2.2.2.2", "the packet does not have that property";
    /// A property twice.
    PropertyRepeated: ProtocolError, "MQTT5-2.2.2.2", "a property comes twice";
    /// A value out of its range.
    PropertyValue: ProtocolError, "MQTT5-2.2.2.2", "a property's value is out of its range";
    /// Subscription identifier from a client.
    SubscriptionIdFromClient: ProtocolError, "MQTT5-3.3.4-6", "a client's PUBLISH has a subscription identifier";
    /// A wildcard in the response topic.
    ResponseTopic: ProtocolError, "MQTT5-3.3.2-14", "the response topic contains a wildcard";
    /// Authentication data without a method.
    AuthenticationMethod: ProtocolError, "MQTT5-3.1.2.11.10", "authentication has no method";
}
