//! Why there is no uplink, in words for the person who must mend it.
//!
//! Each kind names its culprit: the network, the operator's configuration, or upstream. The text is a
//! fragment that fits "cannot {x}"; [`Trouble::word`] is the short word that programs look at.

use std::time::Duration;

use adapter_api::units::show_duration;

use super::link::is_final;
use crate::codec::Reason;

/// Why there is no uplink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The host name has no address.
    #[error("resolve {host}: {error}")]
    Dns {
        /// The host.
        host: String,
        /// What the resolver said.
        error: String,
    },
    /// Nobody listens.
    #[error("reach {address}: connection refused")]
    Refused {
        /// Where.
        address: String,
    },
    /// No answer in time.
    #[error("{what} {address}: no answer within {}", show_duration(*.within))]
    Timeout {
        /// Which step.
        what: &'static str,
        /// Where.
        address: String,
        /// How long was waited.
        within: Duration,
    },
    /// Another fault of the network.
    #[error("reach {address}: {error}")]
    Network {
        /// Where.
        address: String,
        /// What the system said.
        error: String,
    },
    /// The certificate is from an authority that is not trusted.
    #[error("trust {name}: its certificate is from an unknown authority")]
    UnknownAuthority {
        /// The expected name.
        name: String,
    },
    /// The certificate is for another name.
    #[error("trust {name}: its certificate is for another name")]
    WrongName {
        /// The expected name.
        name: String,
    },
    /// The certificate is out of date.
    #[error("trust {name}: its certificate has expired")]
    Expired {
        /// The expected name.
        name: String,
    },
    /// The certificate is not valid yet, or our clock is behind.
    #[error("trust {name}: its certificate is not valid yet (is the clock right?)")]
    NotYetValid {
        /// The expected name.
        name: String,
    },
    /// Another fault of TLS.
    #[error("speak TLS with {name}: {error}")]
    Tls {
        /// The expected name.
        name: String,
        /// What is wrong.
        error: String,
    },
    /// A file of the configuration cannot be used.
    #[error("use {file}: {error}")]
    File {
        /// Which.
        file: String,
        /// What is wrong.
        error: String,
    },
    /// Upstream refused the connection.
    #[error("log in: upstream refuses the connection ({}){}", show_reason(*.reason), cure(*.reason))]
    Turned {
        /// Why.
        reason: Reason,
    },
    /// Upstream takes the connection and does not answer CONNECT.
    #[error("log in: upstream did not answer CONNECT within {}", show_duration(*.within))]
    Unanswered {
        /// How long was waited.
        within: Duration,
    },
    /// Upstream ended the connection.
    #[error("stay connected: {why}")]
    Lost {
        /// Why.
        why: String,
    },
    /// Upstream says nothing.
    #[error("hear upstream: nothing came for {}", show_duration(*.within))]
    Silent {
        /// How long.
        within: Duration,
    },
    /// Upstream refuses messages.
    #[error(
        "pass on {topic:?}: upstream refuses it for {} ({}){}",
        if is_final(*.reason) { "good" } else { "now" },
        show_reason(*.reason),
        cure_of_refusal(*.reason)
    )]
    Refusing {
        /// Here, of the first message.
        topic: String,
        /// Why that was refused.
        reason: Reason,
    },
    /// Upstream acknowledges nothing.
    #[error("make progress: no acknowledgement came for {}", show_duration(*.within))]
    Stuck {
        /// How long.
        within: Duration,
    },
}

impl Trouble {
    /// Nothing was acknowledged for so many milliseconds, told in a unit of which there are at least two.
    pub(super) fn stuck(millis: u64) -> Trouble {
        let unit = [86_400_000, 3_600_000, 60_000, 1_000].into_iter().find(|unit| millis >= 2 * unit);
        let unit = unit.unwrap_or(1);
        Trouble::Stuck { within: Duration::from_millis(millis / unit * unit) }
    }

    /// The whole of it, as it stands in the status and in the log.
    pub fn sentence(&self) -> String {
        format!("cannot {self}")
    }

    /// The short word for programs; it never changes.
    pub fn word(&self) -> &'static str {
        match self {
            Trouble::Dns { .. } => "dns",
            Trouble::Refused { .. } => "refused",
            Trouble::Timeout { .. } => "timeout",
            Trouble::Network { .. } => "network",
            Trouble::UnknownAuthority { .. } => "tls_unknown_authority",
            Trouble::WrongName { .. } => "tls_wrong_name",
            Trouble::Expired { .. } => "tls_expired",
            Trouble::NotYetValid { .. } => "tls_not_yet_valid",
            Trouble::Tls { .. } => "tls",
            Trouble::File { .. } => "file",
            Trouble::Turned { reason: Reason::BadUserNameOrPassword } => "bad_user_name_or_password",
            Trouble::Turned { reason: Reason::NotAuthorized } => "not_authorized",
            Trouble::Turned { .. } => "turned_away",
            // A word stays, whatever the text says.
            Trouble::Unanswered { .. } | Trouble::Lost { .. } => "lost",
            Trouble::Silent { .. } => "silent",
            Trouble::Refusing { .. } => "refusing",
            Trouble::Stuck { .. } => "stuck",
        }
    }
}

/// What the operator can do about a refusal.
fn cure(reason: Reason) -> &'static str {
    match reason {
        // Brokers answer a wrong password with either.
        Reason::BadUserNameOrPassword | Reason::NotAuthorized => {
            ": see username and password_file, and the rights there"
        }
        _ => "",
    }
}

/// What the operator can do about a message that is refused.
fn cure_of_refusal(reason: Reason) -> &'static str {
    match reason {
        Reason::QuotaExceeded => ": see the quotas there",
        Reason::NotAuthorized => ": see the rights there",
        Reason::TopicNameInvalid => ": see the forward route's to",
        Reason::PayloadFormatInvalid | Reason::PacketTooLarge => ": see what may be sent there",
        _ => ": see upstream's own log",
    }
}

/// A reason code in words.
pub(super) fn show_reason(reason: Reason) -> String {
    let words = match reason {
        Reason::BadUserNameOrPassword => "bad user name or password",
        Reason::NotAuthorized => "not authorized",
        Reason::ClientIdentifierNotValid => "client id not valid",
        Reason::UnsupportedProtocolVersion => "protocol version not supported",
        Reason::ServerUnavailable => "server unavailable",
        Reason::ServerBusy => "server busy",
        Reason::ServerShuttingDown => "server shutting down",
        Reason::SessionTakenOver => "another client uses the same client id",
        Reason::QuotaExceeded => "quota exceeded",
        Reason::UnspecifiedError => "unspecified error",
        Reason::ImplementationSpecificError => "error of its implementation",
        Reason::PacketTooLarge => "packet too large",
        Reason::RetainNotSupported => "retain not supported",
        Reason::QoSNotSupported => "QoS not supported",
        Reason::TopicNameInvalid => "topic name invalid",
        Reason::PayloadFormatInvalid => "payload format invalid",
        Reason::UseAnotherServer | Reason::ServerMoved => "upstream has moved",
        Reason::Banned => "banned",
        _ => return format!("reason code {:#04x}", reason.code()),
    };
    words.to_owned()
}
