//! The reason codes of MQTT 5 by their names, and the return codes of 3.1.1 that they become.
//!
//! One enum for every packet: which of them a packet may carry is the decoder's to check.

macro_rules! reasons {
    ($(#[doc = $text:literal] $name:ident = $code:literal,)*) => {
        /// A reason code of MQTT 5, table 2-6 of the standard.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $name = $code,)*
        }

        impl Reason {
            /// The reason with this code, if there is one.
            pub fn from_code(code: u8) -> Option<Reason> {
                match code {
                    $($code => Some(Reason::$name),)*
                    _ => None,
                }
            }

            /// The standard's words for it, for reason strings and logs.
            pub fn text(self) -> &'static str {
                match self {
                    $(Reason::$name => $text.trim().trim_end_matches('.'),)*
                }
            }
        }
    };
}

reasons! {
    /// Success; Normal disconnection; Granted QoS 0.
    Success = 0x00,
    /// Granted QoS 1.
    GrantedQoS1 = 0x01,
    /// Granted QoS 2.
    GrantedQoS2 = 0x02,
    /// Disconnect with Will Message.
    DisconnectWithWill = 0x04,
    /// No matching subscribers.
    NoMatchingSubscribers = 0x10,
    /// No subscription existed.
    NoSubscriptionExisted = 0x11,
    /// Continue authentication.
    ContinueAuthentication = 0x18,
    /// Re-authenticate.
    ReAuthenticate = 0x19,
    /// Unspecified error.
    UnspecifiedError = 0x80,
    /// Malformed Packet.
    MalformedPacket = 0x81,
    /// Protocol Error.
    ProtocolError = 0x82,
    /// Implementation specific error.
    ImplementationSpecificError = 0x83,
    /// Unsupported Protocol Version.
    UnsupportedProtocolVersion = 0x84,
    /// Client Identifier not valid.
    ClientIdentifierNotValid = 0x85,
    /// Bad User Name or Password.
    BadUserNameOrPassword = 0x86,
    /// Not authorized.
    NotAuthorized = 0x87,
    /// Server unavailable.
    ServerUnavailable = 0x88,
    /// Server busy.
    ServerBusy = 0x89,
    /// Banned.
    Banned = 0x8A,
    /// Server shutting down.
    ServerShuttingDown = 0x8B,
    /// Bad authentication method.
    BadAuthenticationMethod = 0x8C,
    /// Keep Alive timeout.
    KeepAliveTimeout = 0x8D,
    /// Session taken over.
    SessionTakenOver = 0x8E,
    /// Topic Filter invalid.
    TopicFilterInvalid = 0x8F,
    /// Topic Name invalid.
    TopicNameInvalid = 0x90,
    /// Packet Identifier in use.
    PacketIdentifierInUse = 0x91,
    /// Packet Identifier not found.
    PacketIdentifierNotFound = 0x92,
    /// Receive Maximum exceeded.
    ReceiveMaximumExceeded = 0x93,
    /// Topic Alias invalid.
    TopicAliasInvalid = 0x94,
    /// Packet too large.
    PacketTooLarge = 0x95,
    /// Message rate too high.
    MessageRateTooHigh = 0x96,
    /// Quota exceeded.
    QuotaExceeded = 0x97,
    /// Administrative action.
    AdministrativeAction = 0x98,
    /// Payload format invalid.
    PayloadFormatInvalid = 0x99,
    /// Retain not supported.
    RetainNotSupported = 0x9A,
    /// QoS not supported.
    QoSNotSupported = 0x9B,
    /// Use another server.
    UseAnotherServer = 0x9C,
    /// Server moved.
    ServerMoved = 0x9D,
    /// Shared Subscriptions not supported.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Connection rate exceeded.
    ConnectionRateExceeded = 0x9F,
    /// Maximum connect time.
    MaximumConnectTime = 0xA0,
    /// Subscription Identifiers not supported.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// Wildcard Subscriptions not supported.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl Reason {
    /// The code on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether the code says that something failed (0x80 and above).
    pub fn is_error(self) -> bool {
        self.code() >= 0x80
    }

    /// The return code of a 3.1 or 3.1.1 CONNACK that is nearest to it.
    pub fn return_code(self) -> u8 {
        match self {
            Reason::Success => 0,
            Reason::UnsupportedProtocolVersion => 1,
            Reason::ClientIdentifierNotValid => 2,
            Reason::BadUserNameOrPassword | Reason::BadAuthenticationMethod => 4,
            Reason::NotAuthorized | Reason::Banned => 5,
            _ => 3,
        }
    }

    /// The reason that a 3.1 or 3.1.1 CONNACK names by this return code.
    pub fn from_return_code(code: u8) -> Option<Reason> {
        Some(match code {
            0 => Reason::Success,
            1 => Reason::UnsupportedProtocolVersion,
            2 => Reason::ClientIdentifierNotValid,
            3 => Reason::ServerUnavailable,
            4 => Reason::BadUserNameOrPassword,
            5 => Reason::NotAuthorized,
            _ => return None,
        })
    }
}
