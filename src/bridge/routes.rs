//! The forward routes: what is next to go, and what became of it.
//!
//! Stored routes read their rows from the store, page by page; routes that keep nothing have a queue in
//! RAM. All take turns, so that none starves another of the window. What arrived is told to the store in
//! batches, and only here: nothing else moves a cursor. Where the store is behind with that, the route waits.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::{mpsc, watch};

use super::config::Forward;
use super::intake::Intake;
use super::link::{Origin, Parcel};
use crate::record::{DropReason, Message, ReaderId, Rows, Seq};
use crate::store::Handle;
use crate::unstored::Outlet;

/// Where a forward route's messages come from.
#[derive(Debug)]
pub enum Supply {
    /// From the store, by the route's reader.
    Stored(ReaderId),
    /// From the queue in RAM of a route with `store = false`.
    Unstored(Outlet),
}

/// All forward routes of a bridge.
pub(super) struct Routes {
    store: Handle,
    committed: watch::Receiver<Seq>,
    routes: Vec<Route>,
    /// Whose turn it is.
    turn: usize,
    /// What the store answers to this connection's reads; what it still owes to an older one is void.
    answers: mpsc::Receiver<Answer>,
    answer_to: mpsc::Sender<Answer>,
}

struct Route {
    forward: Forward,
    source: Source,
}

enum Source {
    Stored { reader: ReaderId, intake: Intake, arrived: Vec<Seq>, given_up: Vec<(DropReason, Seq)> },
    Unstored { outlet: Outlet, ready: VecDeque<Arc<Message>> },
}

/// The store's answer to a read: at most one for each route is under way.
struct Answer {
    route: usize,
    rows: Rows,
}

impl Routes {
    /// One supply for each route, in the order of the configuration.
    pub(super) fn new(forwards: &[Forward], supplies: Vec<Supply>, store: Handle) -> Routes {
        let routes: Vec<Route> = forwards
            .iter()
            .zip(supplies)
            .map(|(forward, supply)| Route { forward: forward.clone(), source: Source::of(supply) })
            .collect();
        let committed = store.committed();
        let (answer_to, answers) = answer_queue(&routes);
        Routes { store, committed, routes, turn: 0, answers, answer_to }
    }

    /// A new connection: every stored route begins at its oldest unsettled row.
    pub(super) fn rewind(&mut self) {
        self.flush();
        (self.answer_to, self.answers) = answer_queue(&self.routes);
        for route in &mut self.routes {
            if let Source::Stored { intake, .. } = &mut route.source {
                *intake = Intake::new();
            }
        }
    }

    /// The route of this index.
    pub(super) fn forward(&self, route: usize) -> Option<&Forward> {
        self.routes.get(route).map(|route| &route.forward)
    }

    /// Asks the store for what will be needed next.
    pub(super) fn read_ahead(&mut self) {
        let committed = *self.committed.borrow_and_update();
        for (index, route) in self.routes.iter_mut().enumerate() {
            let Source::Stored { reader, intake, .. } = &mut route.source else { continue };
            if let Some((after, limit)) = intake.ask(committed) {
                let answer_to = self.answer_to.clone();
                self.store.read(*reader, after, limit, move |rows| {
                    // There is a place for each route's one answer, or the connection is gone.
                    let _ = answer_to.try_send(Answer { route: index, rows });
                });
            }
        }
    }

    /// The next message in turn, if it is one that there is room for.
    pub(super) fn next(&mut self, has_room: impl Fn(usize) -> bool) -> Option<Parcel> {
        let count = self.routes.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let Some(route) = self.routes.get_mut(index) else { continue };
            let Some(weight) = route.source.next_weight() else { continue };
            if !route.source.may_send(&self.store) {
                continue;
            }
            if !has_room(weight) {
                // It keeps its turn, so that small messages of others do not pass it for ever.
                self.turn = index;
                return None;
            }
            self.turn = (index + 1) % count;
            return route.source.pop(index);
        }
        None
    }

    /// Whether nothing of what waited before this connection is left here or in the store.
    pub(super) fn are_caught_up(&self) -> bool {
        self.routes.iter().all(|route| match &route.source {
            Source::Stored { intake, .. } => intake.is_caught_up(),
            Source::Unstored { ready, .. } => ready.is_empty(),
        })
    }

    /// Whether what waits on any route is still there on the next connection.
    pub(super) fn are_all_stored(&self) -> bool {
        self.routes.iter().all(|route| matches!(route.source, Source::Stored { .. }))
    }

    /// A message has reached upstream.
    pub(super) fn arrived(&mut self, origin: Origin) {
        let (Origin::Row { route, .. } | Origin::Live { route }) = origin else { return };
        match (self.routes.get_mut(route).map(|route| &mut route.source), origin) {
            (Some(Source::Stored { arrived, .. }), Origin::Row { seq, .. }) => arrived.push(seq),
            (Some(Source::Unstored { outlet, .. }), Origin::Live { .. }) => outlet.delivered(1),
            _ => {}
        }
    }

    /// A message will never reach upstream.
    pub(super) fn given_up(&mut self, origin: Origin, reason: DropReason) {
        let (Origin::Row { route, .. } | Origin::Live { route }) = origin else { return };
        match (self.routes.get_mut(route).map(|route| &mut route.source), origin) {
            (Some(Source::Stored { given_up, .. }), Origin::Row { seq, .. }) => given_up.push((reason, seq)),
            (Some(Source::Unstored { outlet, .. }), Origin::Live { .. }) => outlet.dropped(reason, 1),
            _ => {}
        }
    }

    /// Tells the store what became of its rows.
    pub(super) fn flush(&mut self) {
        for route in &mut self.routes {
            let Source::Stored { reader, arrived, given_up, .. } = &mut route.source else { continue };
            if !arrived.is_empty() {
                self.store.settle(*reader, std::mem::take(arrived));
            }
            while let Some((reason, _)) = given_up.first().copied() {
                let same = given_up.extract_if(.., |(other, _)| *other == reason).map(|(_, seq)| seq);
                self.store.drop_rows(*reader, same.collect(), reason);
            }
        }
    }

    /// Waits until there may be something new to send. Whether messages of routes that keep nothing are
    /// taken is `live`: what the window cannot hold stays in their queue, within its limit.
    pub(super) async fn changed(&mut self, live: Live) {
        let Routes { answers, committed, routes, .. } = self;
        tokio::select! {
            answer = answers.recv() => {
                let Some(Answer { route, rows }) = answer else { return };
                if let Some(Source::Stored { intake, .. }) = routes.get_mut(route).map(|r| &mut r.source) {
                    intake.fill(rows);
                }
            }
            () = news(committed) => {}
            (route, messages) = take_live(routes), if live == Live::Take => {
                if let Some(Source::Unstored { ready, .. }) = routes.get_mut(route).map(|r| &mut r.source) {
                    ready.extend(messages);
                }
            }
        }
    }

    /// While there is no link: drops what comes for routes that keep nothing. Never ends.
    pub(super) async fn shed(&mut self) -> Infallible {
        for route in &mut self.routes {
            if let Source::Unstored { outlet, ready } = &mut route.source {
                outlet.dropped(DropReason::LinkDown, count(ready.len()));
                ready.clear();
            }
        }
        loop {
            let (route, messages) = take_live(&mut self.routes).await;
            if let Some(Source::Unstored { outlet, .. }) = self.routes.get_mut(route).map(|r| &mut r.source) {
                outlet.dropped(DropReason::LinkDown, count(messages.len()));
            }
        }
    }
}

/// Whether messages of routes that keep nothing are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Live {
    /// There is room.
    Take,
    /// There is none.
    Leave,
}

/// A place for each route's answer: at most one read of a route is under way.
fn answer_queue(routes: &[Route]) -> (mpsc::Sender<Answer>, mpsc::Receiver<Answer>) {
    mpsc::channel(routes.len().max(1))
}

impl Source {
    fn of(supply: Supply) -> Source {
        match supply {
            Supply::Stored(reader) => {
                let (arrived, given_up) = (Vec::new(), Vec::new());
                Source::Stored { reader, intake: Intake::new(), arrived, given_up }
            }
            Supply::Unstored(outlet) => Source::Unstored { outlet, ready: VecDeque::new() },
        }
    }

    fn next_weight(&self) -> Option<usize> {
        match self {
            Source::Stored { intake, .. } => intake.next_weight(),
            Source::Unstored { ready, .. } => ready.front().map(|message| message.weight()),
        }
    }

    /// Whether a crash may repeat one more.
    fn may_send(&self, store: &Handle) -> bool {
        match self {
            Source::Stored { reader, arrived, given_up, .. } => {
                store.room_for_ends(*reader) > arrived.len() + given_up.len()
            }
            Source::Unstored { .. } => true,
        }
    }

    fn pop(&mut self, route: usize) -> Option<Parcel> {
        match self {
            Source::Stored { intake, .. } => intake.pop().map(|row| Parcel {
                origin: Origin::Row { route, seq: row.seq },
                message: row.message,
                refusals: 0,
            }),
            Source::Unstored { ready, .. } => ready.pop_front().map(|message| Parcel {
                origin: Origin::Live { route },
                message,
                refusals: 0,
            }),
        }
    }
}

/// Waits for a commit; for ever once the store is gone, since then there will be none.
async fn news(committed: &mut watch::Receiver<Seq>) {
    if committed.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The next messages of the first route that keeps nothing and has some.
async fn take_live(routes: &mut [Route]) -> (usize, Vec<Arc<Message>>) {
    type Taking<'a> = Pin<Box<dyn Future<Output = Vec<Arc<Message>>> + Send + 'a>>;
    let mut takings: Vec<(usize, Taking<'_>)> = Vec::new();
    for (index, route) in routes.iter_mut().enumerate() {
        if let Source::Unstored { outlet, .. } = &mut route.source {
            takings.push((index, Box::pin(outlet.take(LIVE_MAX))));
        }
    }
    poll_fn(|context| {
        for (index, taking) in &mut takings {
            if let Poll::Ready(messages) = taking.as_mut().poll(context) {
                return Poll::Ready((*index, messages));
            }
        }
        Poll::Pending
    })
    .await
}

fn count(messages: usize) -> u64 {
    u64::try_from(messages).unwrap_or(u64::MAX)
}

/// Messages that are taken from a queue in RAM at once; the rest stays under the queue's own limit.
const LIVE_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bridge::tests::reading;
    use crate::bridge::{Config, ForwardConfig};
    use crate::codec::QoS;
    use crate::record::{Identifiers, Row, Want};
    use crate::store::{Ask, Inbox};

    const READER: ReaderId = ReaderId(1);

    fn routes(store: Handle) -> Routes {
        let forward = ForwardConfig { filter: "#".into(), to: "{topic}".into(), ..ForwardConfig::default() };
        let urls = vec!["mqtt://127.0.0.1:1".to_owned()];
        let config = Config { name: "cloud".into(), urls, forward: vec![forward], ..Config::default() };
        Routes::new(&config.check("g").unwrap().forwards, vec![Supply::Stored(READER)], store)
    }

    fn row(seq: u64) -> Row {
        let message = reading("t", "p");
        let subscription_ids = Identifiers::default();
        let want = Want { reader: READER, qos: QoS::AtLeastOnce, retain: false, subscription_ids };
        Row { seq: Seq(seq), number: seq, message: Arc::new(message), want }
    }

    /// Answers what is asked, from a backlog without end; nothing is ever written.
    fn answer(inbox: &Inbox) {
        for ask in inbox.take(Some(std::time::Duration::ZERO)) {
            let Ask::Read { reader, after, limit, reply } = ask else { continue };
            let rows: Vec<Row> = (1..=u64::from(limit.rows)).map(|next| row(after.0 + next)).collect();
            let through = after.0 + u64::from(limit.rows);
            reply(Rows { reader, rows, through: Seq(through), newest: Seq(1 << 40), left: 0 });
        }
    }

    /// Sends what it may, with a window of one. Returns how many.
    async fn forward(routes: &mut Routes, inbox: &Inbox) -> usize {
        let mut sent = 0;
        while sent < 3_000 {
            routes.flush();
            routes.read_ahead();
            answer(inbox);
            let Some(parcel) = routes.next(|_| true) else {
                let more = std::pin::pin!(routes.changed(Live::Leave));
                match futures_now(more).await {
                    true => continue,
                    false => break,
                }
            };
            routes.arrived(parcel.origin);
            sent += 1;
        }
        sent
    }

    /// Whether it is over at once.
    async fn futures_now(mut waited: Pin<&mut impl Future<Output = ()>>) -> bool {
        poll_fn(|context| Poll::Ready(waited.as_mut().poll(context).is_ready())).await
    }

    #[tokio::test]
    async fn no_more_goes_up_than_may_be_sent_again() {
        let (handle, inbox) = Handle::channel();
        inbox.announce(Seq(1 << 40));
        let mut routes = routes(handle);
        assert_eq!(forward(&mut routes, &inbox).await, 1_000, "the window and a thousand may be repeated");
        let wrote = |rows| {
            inbox.wrote(&BTreeMap::from([(READER, rows)]));
            inbox.announce(Seq(1 << 40));
        };
        wrote(400);
        assert_eq!(forward(&mut routes, &inbox).await, 400);
        // What is not written grows older while the store cannot commit.
        inbox.halt();
        wrote(900);
        assert_eq!(forward(&mut routes, &inbox).await, 0);
        wrote(100);
        assert_eq!(forward(&mut routes, &inbox).await, 1, "nothing was left unwritten");
        inbox.go_on(Seq(1 << 40));
        assert_eq!(forward(&mut routes, &inbox).await, 999);
    }
}
