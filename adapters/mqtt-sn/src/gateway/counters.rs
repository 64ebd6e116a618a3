//! What the gateway has counted since the start, for the health report.
//!
//! Every datagram that is not served falls under exactly one reason here, so that a figure that grows
//! says what is wrong in the field.

use serde::Serialize;

/// Counts since the start, save for `clients`, `sleeping` and `sessions`, which are those of now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counters {
    /// Clients that are connected.
    pub(crate) clients: u64,
    /// Of them, those that sleep or are awake for a moment.
    pub(crate) sleeping: u64,
    /// Clients that are known, connected or not.
    pub(crate) sessions: u64,
    /// Datagrams that came.
    pub(crate) received: u64,
    /// Datagrams that went.
    pub(crate) sent: u64,
    /// Publishes handed to the broker (QoS 0, -1) or held by it (QoS 1, 2).
    pub(crate) published: u64,
    /// Messages sent to clients (QoS 0) or acknowledged by them (QoS 1, 2).
    pub(crate) delivered: u64,
    /// Clients whose keep alive ran out or that did not answer.
    pub(crate) lost: u64,
    /// What clients sent again and was recognised.
    pub(crate) repeated: u64,
    /// What was sent again to clients.
    pub(crate) retransmitted: u64,
    /// CONNECTs answered with a refusal.
    pub(crate) refused_connects: u64,
    /// Of them, those because too many new clients came at once.
    pub(crate) refused_newcomers: u64,
    /// PUBLISHes answered with a refusal.
    pub(crate) refused_publishes: u64,
    /// SUBSCRIBEs answered with a refusal.
    pub(crate) refused_subscribes: u64,
    /// REGISTERs and will updates answered with a refusal.
    pub(crate) refused_requests: u64,
    /// Datagrams that are no message.
    pub(crate) ignored_malformed: u64,
    /// Messages of a type that the standard reserves.
    pub(crate) ignored_reserved: u64,
    /// Datagrams longer than `max_packet`.
    pub(crate) ignored_too_large: u64,
    /// Datagrams from an address that sends more than `max_rate`, or from too many addresses at once.
    pub(crate) ignored_too_fast: u64,
    /// Frames of forwarders, which are not served yet.
    pub(crate) ignored_encapsulated: u64,
    /// Messages that have no meaning in the client's state, or answer nothing.
    pub(crate) ignored_unexpected: u64,
    /// Messages from addresses without a client, whether or not answered with DISCONNECT.
    pub(crate) ignored_strangers: u64,
    /// QoS -1 publishes that are not allowed, or name no topic.
    pub(crate) ignored_qos_minus_1: u64,
    /// Messages for clients that are longer than `max_packet`, and so were not sent.
    pub(crate) dropped_too_long: u64,
    /// Messages for clients that refused them or their topic.
    pub(crate) dropped_declined: u64,
    /// Messages for clients whose topic table is full.
    pub(crate) dropped_no_topic_id: u64,
    /// QoS 0 messages that waited for clients which left or were lost.
    pub(crate) dropped_unsent: u64,
    /// Requests that found the broker's queue full.
    pub(crate) busy: u64,
    /// Datagrams that the system would not send.
    pub(crate) send_failed: u64,
}
