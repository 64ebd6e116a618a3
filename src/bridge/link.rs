//! What is under way on one connection: packet ids, the window, and when the link is stuck. Pure.
//!
//! The protocol engine gives packet ids itself and tells them only by the order of its events, so what
//! was handed over waits in a queue for its id. A message counts as arrived when its acknowledgement
//! comes and never earlier; what is under way when the connection ends is simply forgotten here, since
//! the store still has it.
//!
//! Invariant: at most `window` messages are handed over and not yet acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytestring::ByteString;

use super::backoff;
use crate::codec::Reason;
use crate::record::{Message, Seq};

/// The state of one connection's outward half.
#[derive(Debug)]
pub(super) struct Link {
    limits: LinkLimits,
    /// Handed to the engine, in order; it has not told their packet ids.
    handed: VecDeque<Parcel>,
    /// By packet id, on the wire.
    sent: BTreeMap<u16, Parcel>,
    /// QoS 0: passed on by the engine, and not yet written to upstream's socket as far as is known.
    unwritten: VecDeque<Parcel>,
    /// QoS 0 messages that were written, and that were reported as arrived.
    written: u64,
    reported: u64,
    /// One whose packet id is still taken by an older message that upstream has not acknowledged; the
    /// engine sends it once that acknowledgement comes.
    held: Option<(u16, Parcel)>,
    /// Refused for now, with the time to try again.
    resting: Vec<(u64, Parcel)>,
    /// Of all of these, those that upstream has refused for now at least once.
    refused: usize,
    /// The first refusal since upstream took a message while none of those was left.
    refusal: Option<Refusal>,
    /// Bytes of all of these.
    weight: usize,
    /// The engine will send nothing more.
    wedged: bool,
    /// When the last packet of upstream came.
    heard: u64,
    /// When upstream answered a message the last time, or the first after none waited for an answer was
    /// handed over.
    answered: u64,
    /// When upstream took a message the last time, or the first after none was under way was handed over;
    /// earlier by what earlier connections owe.
    progressed: u64,
    /// The same for messages of others alone: what the next connection is left.
    carried: u64,
    /// Since when nothing has been under way, where nothing is.
    idle: u64,
    debt: Debt,
}

/// What earlier connections leave to the next: messages that waited, and of which none was taken. A new
/// connection alone is no progress.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Debt {
    /// For how long they have waited while there was a connection.
    waited: u64,
    /// Why, where upstream had refused one.
    refusal: Option<Refusal>,
}

/// What bounds a link. Times in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkLimits {
    /// Messages handed over and not acknowledged.
    pub(super) window: usize,
    /// Bytes of these, so that large messages do not fill memory; one message may always go.
    pub(super) window_bytes: usize,
    /// Silence of upstream after which the connection is given up.
    pub(super) silence: u64,
    /// Time without a message taken after which the link is not called connected.
    pub(super) stall: u64,
    /// Time without an answer after which the connection is given up.
    pub(super) renew: u64,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    /// Where it comes from.
    pub(super) origin: Origin,
    /// The message as it is here.
    pub(super) message: Arc<Message>,
    /// How often upstream has refused it for now.
    pub(super) refusals: u32,
}

/// Where a message comes from, so that its arrival is told there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A row of a route in the store.
    Row {
        /// Index of the route.
        route: usize,
        /// Its order number.
        seq: Seq,
    },
    /// A route that keeps nothing.
    Live {
        /// Index of the route.
        route: usize,
    },
    /// The bridge's own word on its status topic.
    Status,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Upstream has it.
    Arrived(Parcel),
    /// Upstream will never take it.
    Refused(Parcel, Reason),
    /// Upstream does not take the message of this topic now; it is tried again on this connection.
    Later(ByteString, Reason),
}

/// A message that upstream did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Why.
    pub(super) reason: Reason,
    /// The message as it is here.
    pub(super) message: Arc<Message>,
}

/// How the link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulse {
    /// Well.
    Flowing,
    /// Messages are under way and upstream takes none.
    Stalled,
    /// Nothing came from upstream for too long.
    Silent,
    /// No answer came for so long that the connection must be renewed.
    Stuck,
}

/// The engine's events do not fit what was handed over, or upstream acknowledges what was not sent: this
/// connection can no longer tell what has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tell which messages have arrived")]
pub(super) struct Confused;

impl Link {
    /// A fresh connection after others that owe this.
    pub(super) fn new(limits: LinkLimits, debt: Debt, now: u64) -> Link {
        Link {
            limits,
            handed: VecDeque::new(),
            sent: BTreeMap::new(),
            unwritten: VecDeque::new(),
            written: 0,
            reported: 0,
            held: None,
            resting: Vec::new(),
            refused: 0,
            refusal: debt.refusal.clone(),
            weight: 0,
            wedged: false,
            heard: now,
            answered: now,
            progressed: now,
            carried: now,
            idle: now,
            debt,
        }
    }

    /// Whether one more message of this weight may be handed over.
    pub(super) fn has_room(&self, weight: usize) -> bool {
        let under_way = self.under_way();
        under_way < self.limits.window
            && (under_way == 0 || self.weight.saturating_add(weight) <= self.limits.window_bytes)
    }

    /// Messages handed over and not acknowledged, those that rest among them.
    pub(super) fn under_way(&self) -> usize {
        self.unacknowledged() + self.resting.len()
    }

    /// Whether a message of others is under way. Our own word waits here, too, but nobody waits for it.
    fn carries(&self) -> bool {
        self.parcels().any(|parcel| parcel.origin != Origin::Status)
    }

    fn parcels(&self) -> impl Iterator<Item = &Parcel> {
        let resting = self.resting.iter().map(|(_, parcel)| parcel);
        let held = self.held.iter().map(|(_, parcel)| parcel);
        self.handed.iter().chain(self.sent.values()).chain(&self.unwritten).chain(held).chain(resting)
    }

    fn unacknowledged(&self) -> usize {
        self.handed.len() + self.sent.len() + self.unwritten.len() + usize::from(self.held.is_some())
    }

    /// The parcel was handed to the engine.
    pub(super) fn hand_over(&mut self, parcel: Parcel, now: u64) {
        if self.unacknowledged() == 0 {
            self.answered = now;
        }
        // One that was refused before has waited all the while.
        if parcel.refusals == 0 {
            let since = now.saturating_sub(self.debt.waited);
            if self.under_way() == 0 {
                self.progressed = since;
            }
            if !self.carries() {
                self.carried = since;
            }
        }
        self.refused += usize::from(parcel.refusals > 0);
        self.weight += parcel.message.weight();
        self.handed.push_back(parcel);
    }

    /// The engine has passed a PUBLISH on under this packet id; 0 is QoS 0.
    pub(super) fn on_sent(&mut self, packet_id: u16) -> Result<(), Confused> {
        if let Some((_, parcel)) = self.held.take_if(|(held, _)| *held == packet_id) {
            self.sent.insert(packet_id, parcel);
            return Ok(());
        }
        let parcel = self.handed.pop_front().ok_or(Confused)?;
        if packet_id == 0 {
            self.unwritten.push_back(parcel);
            return Ok(());
        }
        match self.sent.insert(packet_id, parcel) {
            Some(_) => Err(Confused),
            None => Ok(()),
        }
    }

    /// So many QoS 0 messages were written to upstream's socket on this connection.
    pub(super) fn on_written(&mut self, written: u64) {
        self.written = self.written.max(written);
    }

    /// A QoS 0 message that was written: it has arrived as far as anybody will ever know.
    pub(super) fn take_written(&mut self, now: u64) -> Option<Outcome> {
        // The two are told on separate ways, and either may come first.
        if self.reported >= self.written {
            return None;
        }
        let parcel = self.unwritten.pop_front()?;
        self.reported += 1;
        self.answered = now;
        self.taken(parcel.origin, now);
        self.let_go(parcel.message.weight(), now);
        Some(Outcome::Arrived(parcel))
    }

    /// The engine holds the next PUBLISH back: its packet id is still taken. The older message keeps the
    /// id until its acknowledgement comes, or that would be taken for the younger's.
    pub(super) fn on_held(&mut self, packet_id: u16) -> Result<(), Confused> {
        let parcel = self.handed.pop_front().ok_or(Confused)?;
        match self.held.replace((packet_id, parcel)) {
            Some(_) => Err(Confused),
            None => Ok(()),
        }
    }

    /// PUBACK. `random` spreads the retries of what is refused for now.
    pub(super) fn on_acknowledged(
        &mut self,
        packet_id: u16,
        reason: Reason,
        now: u64,
        random: u64,
    ) -> Result<Outcome, Confused> {
        let mut parcel = self.sent.remove(&packet_id).ok_or(Confused)?;
        self.answered = now;
        self.refused -= usize::from(parcel.refusals > 0);
        // After a refusal the engine no longer sends what it held for the same id, nor anything after it.
        let holds = self.held.as_ref().is_some_and(|(held, _)| *held == packet_id);
        self.wedged |= holds && reason.is_error();
        let weight = parcel.message.weight();
        let outcome = match verdict(reason) {
            Verdict::Taken => {
                self.taken(parcel.origin, now);
                Outcome::Arrived(parcel)
            }
            Verdict::Never => {
                self.note(reason, &parcel);
                Outcome::Refused(parcel, reason)
            }
            Verdict::Later => {
                self.note(reason, &parcel);
                self.refused += 1;
                let rest = backoff::rest(parcel.refusals, random);
                let due = now.saturating_add(u64::try_from(rest.as_millis()).unwrap_or(u64::MAX));
                parcel.refusals = parcel.refusals.saturating_add(1);
                let topic = parcel.message.topic.clone();
                self.resting.push((due, parcel));
                return Ok(Outcome::Later(topic, reason));
            }
        };
        self.let_go(weight, now);
        Ok(outcome)
    }

    /// A message of this weight is under way no more.
    fn let_go(&mut self, weight: usize, now: u64) {
        self.weight = self.weight.saturating_sub(weight);
        if self.under_way() == 0 {
            self.idle = now;
        }
    }

    fn taken(&mut self, origin: Origin, now: u64) {
        // That upstream takes our own word tells nothing of what has waited for so long.
        if origin == Origin::Status && self.debt.waited > 0 {
            return;
        }
        self.debt = Debt::default();
        self.progressed = now;
        self.carried = now;
        if self.refused == 0 {
            self.refusal = None;
        }
    }

    fn note(&mut self, reason: Reason, parcel: &Parcel) {
        let message = &parcel.message;
        self.refusal.get_or_insert_with(|| Refusal { reason, message: message.clone() });
    }

    /// A message that upstream has refused, until all such were taken or given up and another was taken.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// A packet of upstream came.
    pub(super) fn on_heard(&mut self, now: u64) {
        self.heard = now;
    }

    /// A message that was refused for now and may be sent again. It is handed over anew.
    pub(super) fn take_rested(&mut self, now: u64) -> Option<Parcel> {
        let index = self.resting.iter().position(|(due, _)| *due <= now)?;
        let (_, parcel) = self.resting.remove(index);
        self.let_go(parcel.message.weight(), now);
        self.refused -= 1;
        Some(parcel)
    }

    /// How the link does.
    pub(super) fn pulse(&self, now: u64) -> Pulse {
        let unanswered = self.unacknowledged() > 0 && now.saturating_sub(self.answered) >= self.limits.renew;
        let stalled = self.waited(now) >= self.limits.stall;
        if now.saturating_sub(self.heard) >= self.limits.silence {
            Pulse::Silent
        } else if self.wedged || unanswered {
            Pulse::Stuck
        } else if stalled {
            Pulse::Stalled
        } else {
            Pulse::Flowing
        }
    }

    /// For how long messages have waited without one being taken, earlier connections counted.
    fn waited(&self, now: u64) -> u64 {
        if self.under_way() > 0 { now.saturating_sub(self.progressed) } else { self.debt.waited }
    }

    /// For how long upstream took nothing on earlier connections; 0 once it has taken something.
    pub(super) fn owed(&self) -> u64 {
        self.debt.waited
    }

    /// The store has nothing left of what waited on earlier connections. Where there is nothing here
    /// either, and was not for as long as `quiet`, in milliseconds, nothing is owed any more.
    pub(super) fn forgive(&mut self, now: u64, quiet: u64) {
        let rested = self.under_way() == 0 && now.saturating_sub(self.idle) >= quiet;
        if self.debt.waited > 0 && rested {
            self.debt = Debt::default();
            self.refusal = None;
        }
    }

    /// What the next connection is left, if this one ends now. Our own word alone leaves nothing: its
    /// acknowledgement would not pay for it.
    pub(super) fn debt(&self, now: u64) -> Debt {
        let waited = if self.carries() { now.saturating_sub(self.carried) } else { self.debt.waited };
        Debt { waited, refusal: self.refusal.clone().filter(|_| waited > 0) }
    }

    /// Whether nothing waits for an acknowledgement.
    pub(super) fn is_quiet(&self) -> bool {
        self.unacknowledged() == 0
    }

    /// The limits that it was made with.
    pub(super) fn limits(&self) -> LinkLimits {
        self.limits
    }

    /// When the pulse may change by itself, or a rested message be sent.
    pub(super) fn deadline(&self, now: u64) -> u64 {
        if self.wedged {
            return now;
        }
        let mut deadline = self.heard.saturating_add(self.limits.silence);
        let since = if self.under_way() > 0 { self.progressed } else { self.idle };
        let may_turn = self.under_way() > 0 || self.debt.waited > 0;
        let stalls = may_turn.then_some((since, self.limits.stall));
        let renews = (self.unacknowledged() > 0).then_some((self.answered, self.limits.renew));
        for (since, wait) in stalls.into_iter().chain(renews) {
            let at = since.saturating_add(wait);
            if at > now {
                deadline = deadline.min(at);
            }
        }
        self.resting.iter().fold(deadline, |deadline, (due, _)| deadline.min(*due))
    }

    /// The routes of those under way that nobody keeps: what is lost, if the link ends now.
    pub(super) fn live(&self) -> impl Iterator<Item = usize> {
        self.parcels().filter_map(|parcel| match parcel.origin {
            Origin::Live { route } => Some(route),
            Origin::Row { .. } | Origin::Status => None,
        })
    }
}

enum Verdict {
    Taken,
    Later,
    Never,
}

/// Whether a message that was refused for this reason will never be taken.
pub(super) fn is_final(reason: Reason) -> bool {
    matches!(verdict(reason), Verdict::Never)
}

/// What a PUBACK's reason means for the message.
fn verdict(reason: Reason) -> Verdict {
    match reason {
        Reason::Success | Reason::NoMatchingSubscribers => Verdict::Taken,
        Reason::NotAuthorized
        | Reason::TopicNameInvalid
        | Reason::PacketTooLarge
        | Reason::PayloadFormatInvalid => Verdict::Never,
        // Quotas, upstream's own trouble, and what gives no reason: the message itself may be well.
        _ => Verdict::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::tests::reading;

    const LIMITS: LinkLimits =
        LinkLimits { window: 3, window_bytes: 10_000, silence: 90_000, stall: 30_000, renew: 60_000 };

    fn parcel(seq: u64, payload: usize) -> Parcel {
        let message = reading("t", vec![0; payload]);
        Parcel { origin: Origin::Row { route: 0, seq: Seq(seq) }, message: message.into(), refusals: 0 }
    }

    fn seq(parcel: &Parcel) -> u64 {
        match parcel.origin {
            Origin::Row { seq, .. } => seq.0,
            Origin::Live { .. } | Origin::Status => 0,
        }
    }

    fn show(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Arrived(parcel) => format!("arrived {}", seq(parcel)),
            Outcome::Refused(parcel, _) => format!("refused {}", seq(parcel)),
            Outcome::Later(..) => "later".to_owned(),
        }
    }

    /// Plays a script, one word of the engine or of time a line, and shows what came of it. `give N`,
    /// `own` (the bridge's own word), `sent ID`, `written COUNT`, `held ID`, `ack ID [CODE]`,
    /// `at MILLISECONDS`, `heard`, `pulse`, `room`, `rested`, `refusal`, `renew`, `forgive [QUIET]`.
    fn check(script: &[&str], expected: &str) {
        let mut link = Link::new(LIMITS, Debt::default(), 0);
        let (mut now, mut shown) = (0, Vec::new());
        for line in script {
            let mut words = line.split(' ');
            let word = words.next().unwrap();
            let mut number = || words.next().map(|text| text.parse::<u64>().unwrap());
            let first = number();
            let id = || u16::try_from(first.unwrap()).unwrap();
            match word {
                "at" => now = first.unwrap(),
                "give" => link.hand_over(parcel(first.unwrap(), 10), now),
                "own" => link.hand_over(Parcel { origin: Origin::Status, ..parcel(0, 10) }, now),
                "sent" => shown.extend(link.on_sent(id()).err().map(|_| "confused".to_owned())),
                "written" => link.on_written(first.unwrap()),
                "held" => shown.extend(link.on_held(id()).err().map(|_| "confused".to_owned())),
                "ack" => {
                    let code = u8::try_from(number().unwrap_or(0)).unwrap();
                    match link.on_acknowledged(id(), Reason::from_code(code).unwrap(), now, 0) {
                        Ok(outcome) => shown.push(show(&outcome)),
                        Err(Confused) => shown.push("confused".to_owned()),
                    }
                }
                "heard" => link.on_heard(now),
                "renew" => link = Link::new(LIMITS, link.debt(now), now),
                "forgive" => link.forgive(now, first.unwrap_or(0)),
                "refusal" => shown.push(match link.refusal() {
                    Some(refusal) => format!("{:#04x}", refusal.reason.code()),
                    None => "none".to_owned(),
                }),
                "pulse" => shown.push(format!("{:?} until {}", link.pulse(now), link.deadline(now))),
                "room" => shown.push(if link.has_room(10) { "room" } else { "full" }.to_owned()),
                "rested" => match link.take_rested(now) {
                    Some(parcel) => {
                        shown.push(format!("again {}", seq(&parcel)));
                        link.hand_over(parcel, now);
                    }
                    None => shown.push("none".to_owned()),
                },
                other => panic!("unknown word {other}"),
            }
            while let Some(outcome) = link.take_written(now) {
                shown.push(show(&outcome));
            }
        }
        assert_eq!(shown.join(", "), expected, "{script:?}");
    }

    #[test]
    fn acknowledgements_are_told_apart_in_any_order() {
        check(
            &["give 1", "give 2", "give 3", "sent 1", "sent 2", "sent 3", "ack 3", "ack 1", "ack 2"],
            "arrived 3, arrived 1, arrived 2",
        );
        // A message is written only after the next was handed over.
        check(&["give 1", "sent 1", "give 2", "ack 1", "sent 2", "ack 2"], "arrived 1, arrived 2");
    }

    #[test]
    fn a_held_message_does_not_take_the_acknowledgement_of_the_one_before_it() {
        // Id 1 is still open when it comes around again.
        check(&["give 1", "sent 1", "give 2", "held 1", "ack 1", "sent 1", "ack 1"], "arrived 1, arrived 2");
        check(&["give 1", "sent 1", "give 2", "held 1", "give 3", "held 1"], "confused");
    }

    #[test]
    fn after_a_refusal_with_a_message_held_the_connection_is_renewed_at_once() {
        check(&["give 1", "sent 1", "give 2", "held 1", "ack 1 151", "pulse"], "later, Stuck until 0");
    }

    #[test]
    fn the_window_counts_all_that_is_not_acknowledged_and_what_rests() {
        check(
            &["room", "give 1", "give 2", "room", "give 3", "room", "sent 1", "room"],
            "room, room, full, full",
        );
        check(
            &[
                "give 1",
                "give 2",
                "give 3",
                "sent 1",
                "sent 2",
                "sent 3",
                "ack 1 151",
                "room",
                "ack 2",
                "room",
            ],
            "later, full, arrived 2, room",
        );
        let mut link = Link::new(LIMITS, Debt::default(), 0);
        assert!(link.has_room(1_000_000), "one message may always go");
        link.hand_over(parcel(1, 9_500), 0);
        assert!(!link.has_room(500));
        link.on_sent(1).unwrap();
        link.on_acknowledged(1, Reason::Success, 0, 0).unwrap();
        assert!(link.has_room(500));
        assert_eq!(link.weight, 0);
    }

    #[test]
    fn a_message_that_is_tried_again_and_again_weighs_as_much_as_one() {
        let mut link = Link::new(LIMITS, Debt::default(), 0);
        link.hand_over(parcel(1, 10), 0);
        link.on_sent(1).unwrap();
        link.hand_over(parcel(2, 4_000), 0);
        for _ in 0..3 {
            link.on_sent(2).unwrap();
            link.on_acknowledged(2, Reason::QuotaExceeded, 0, 0).unwrap();
            assert!(link.has_room(5_000), "while it rests");
            assert!(!link.has_room(6_000), "while it rests");
            let again = link.take_rested(u64::MAX).unwrap();
            link.hand_over(again, 0);
            assert!(link.has_room(5_000));
            assert!(!link.has_room(6_000));
        }
    }

    #[test]
    fn a_message_of_qos_0_has_arrived_when_it_is_written() {
        check(&["give 1", "give 2", "sent 0", "sent 1", "ack 1", "written 1"], "arrived 2, arrived 1");
        check(
            &["give 1", "give 2", "written 1", "sent 0", "sent 0", "room", "written 2"],
            "arrived 1, room, arrived 2",
        );
    }

    #[test]
    fn what_is_refused_for_now_rests_and_what_is_refused_for_good_is_given_up() {
        // Half of the first ceiling is the least rest.
        check(
            &["give 1", "sent 1", "ack 1 151", "at 499", "rested", "at 500", "rested", "sent 2", "ack 2"],
            "later, none, again 1, arrived 1",
        );
        for (code, outcome) in [
            (0, "arrived 1"),
            (16, "arrived 1"),
            (128, "later"),
            (131, "later"),
            (135, "refused 1"),
            (144, "refused 1"),
            (145, "later"),
            (149, "refused 1"),
            (151, "later"),
            (153, "refused 1"),
        ] {
            check(&["give 1", "sent 1", &format!("ack 1 {code}")], outcome);
        }
    }

    #[test]
    fn an_acknowledgement_of_nothing_ends_the_connection() {
        check(&["ack 1"], "confused");
        check(&["give 1", "sent 1", "ack 2"], "confused");
        check(&["sent 1"], "confused");
        check(&["give 1", "sent 1", "ack 1", "ack 1"], "arrived 1, confused");
    }

    #[test]
    fn a_link_whose_acknowledgements_stop_is_stalled_and_then_renewed() {
        check(
            &[
                "at 10000", "heard", "give 1", "sent 1", "pulse", "at 40000", "heard", "pulse", "at 70000",
                "heard", "pulse",
            ],
            "Flowing until 40000, Stalled until 70000, Stuck until 160000",
        );
        // An acknowledgement is progress, whatever else is still under way.
        check(
            &[
                "give 1", "give 2", "sent 1", "sent 2", "at 29000", "heard", "ack 2", "at 58000", "heard",
                "pulse",
            ],
            "arrived 2, Flowing until 59000",
        );
        // With nothing under way there is nothing to confirm.
        check(
            &["at 80000", "pulse", "heard", "at 160000", "pulse"],
            "Flowing until 90000, Flowing until 170000",
        );
    }

    #[test]
    fn a_refusal_is_an_answer_but_no_progress() {
        // The connection is well, so it is not renewed; but nothing goes up.
        check(
            &[
                "give 1",
                "sent 1",
                "at 20000",
                "heard",
                "ack 1 151",
                "pulse",
                "at 30000",
                "pulse",
                "rested",
                "sent 2",
                "at 40000",
                "heard",
                "ack 2 128",
                "at 80000",
                "heard",
                "rested",
                "pulse",
            ],
            "later, Flowing until 20500, Stalled until 20500, again 1, later, again 1, Stalled until 140000",
        );
        // What is taken meanwhile is progress, whatever else rests.
        check(
            &[
                "give 1",
                "give 2",
                "sent 1",
                "sent 2",
                "ack 1 151",
                "at 20000",
                "heard",
                "ack 2",
                "at 40000",
                "pulse",
            ],
            "later, arrived 2, Flowing until 500",
        );
    }

    #[test]
    fn a_new_connection_is_no_progress() {
        check(
            &[
                "give 1", "sent 1", "at 20000", "heard", "renew", "pulse", "give 1", "sent 1", "at 30000",
                "pulse", "renew", "pulse", "forgive", "pulse",
            ],
            "Flowing until 50000, Stalled until 80000, Stalled until 60000, Flowing until 120000",
        );
        // What waits is not forgiven, and an acknowledgement pays for all.
        check(
            &[
                "give 1", "sent 1", "at 40000", "renew", "give 1", "sent 1", "forgive", "pulse", "ack 1",
                "pulse", "give 2", "pulse",
            ],
            "Stalled until 100000, arrived 1, Flowing until 130000, Flowing until 70000",
        );
        // With nothing under way there is nothing to owe.
        check(
            &["give 1", "sent 1", "ack 1", "at 40000", "renew", "pulse"],
            "arrived 1, Flowing until 130000",
        );
    }

    #[test]
    fn the_wait_of_our_own_word_is_not_left_to_the_next_connection() {
        check(
            &["own", "sent 1", "at 40000", "heard", "pulse", "renew", "pulse"],
            "Stalled until 60000, Flowing until 130000",
        );
        // What was handed over behind it has waited only since then; on this connection both count.
        check(
            &[
                "own", "sent 1", "at 25000", "heard", "give 1", "sent 2", "at 30000", "pulse", "renew",
                "pulse", "give 1", "pulse",
            ],
            "Stalled until 60000, Flowing until 60000, Flowing until 55000",
        );
        // Of what is owed already, nothing is lost or added.
        check(
            &[
                "give 1", "sent 1", "at 10000", "renew", "own", "sent 1", "at 19000", "renew", "give 1",
                "pulse",
            ],
            "Flowing until 39000",
        );
    }

    #[test]
    fn where_nobody_keeps_what_waited_it_is_forgiven_after_a_while_without_any() {
        check(
            &[
                "give 1",
                "sent 1",
                "at 40000",
                "renew",
                "forgive 30000",
                "pulse",
                "at 69999",
                "forgive 30000",
                "pulse",
                "at 70000",
                "heard",
                "forgive 30000",
                "pulse",
            ],
            "Stalled until 70000, Stalled until 70000, Flowing until 160000",
        );
        // The while begins anew behind each message that was under way, our own word among them.
        check(
            &[
                "give 1",
                "sent 1",
                "at 40000",
                "renew",
                "own",
                "sent 1",
                "at 50000",
                "heard",
                "ack 1",
                "at 70000",
                "forgive 30000",
                "pulse",
                "at 80000",
                "forgive 30000",
                "pulse",
            ],
            "arrived 0, Stalled until 80000, Flowing until 140000",
        );
        check(
            &["give 1", "sent 1", "at 40000", "renew", "give 2", "at 70000", "forgive 30000", "pulse"],
            "Stalled until 100000",
        );
    }

    #[test]
    fn the_first_refusal_is_told_until_all_is_well_again() {
        check(
            &[
                "give 1",
                "give 2",
                "give 3",
                "sent 1",
                "sent 2",
                "sent 3",
                "refusal",
                "ack 1 151",
                "refusal",
                "ack 2 128",
                "ack 3",
                "refusal",
                "at 500",
                "rested",
                "sent 4",
                "ack 4",
                "refusal",
                "rested",
                "sent 5",
                "ack 5",
                "refusal",
            ],
            "none, later, 0x97, later, arrived 3, 0x97, again 1, arrived 1, 0x97, again 2, arrived 2, none",
        );
        // One for good leaves nothing behind that could wait: it is told until something is taken.
        check(
            &["give 1", "sent 1", "ack 1 135", "refusal", "give 2", "sent 1", "ack 1", "refusal"],
            "refused 1, 0x87, arrived 2, none",
        );
    }

    #[test]
    fn a_silent_upstream_is_given_up() {
        check(&["at 89999", "pulse", "at 90000", "pulse"], "Flowing until 90000, Silent until 90000");
    }
}
