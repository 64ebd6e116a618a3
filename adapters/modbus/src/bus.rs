//! One bus at work: opens the line, asks what the schedule says, publishes what the guard lets through.
//!
//! One question at a time. Everything that decides stands in pure files: the plan, the schedule, the
//! guard, the decoding; here they are given bytes and time. Trouble on the line never ends the bus.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use adapter_api::clock::{Wall, wall};
use adapter_api::{Adapter, Host, Outbox, Running};
use tokio::sync::watch;

use crate::checked::{Bus, Link};
use crate::guard::Guard;
use crate::health::{Ended, Reporter};
use crate::plan::{Request, Wanted, plan};
use crate::reading::payload;
use crate::schedule::{Life, Next, Outcome, Schedule};
use crate::session::{Answer, Asking, Session};
use crate::timer::Timer;
use crate::value::{Order, Type, decode};
use crate::wire::{Connect, Dialer, Wire};

/// A bus as an adapter of the appliance.
#[derive(Debug)]
pub struct Modbus<C> {
    bus: Bus,
    connect: C,
}

impl<C: Connect> Modbus<C> {
    /// The bus over wires that `connect` opens.
    pub fn over(bus: Bus, connect: C) -> Modbus<C> {
        Modbus { bus, connect }
    }
}

/// The bus over the link that it is configured with.
pub fn adapter(bus: Bus) -> Box<dyn Adapter> {
    match Dialer::of(&bus.link) {
        Dialer::Serial(dialer) => Box::new(Modbus::over(bus, dialer)),
        Dialer::Tcp(dialer) => Box::new(Modbus::over(bus, dialer)),
    }
}

impl<C: Connect> Adapter for Modbus<C> {
    fn name(&self) -> String {
        format!("modbus:{}", self.bus.name)
    }

    fn run(self: Box<Self>, host: Arc<dyn Host>, mut stop: watch::Receiver<bool>) -> Running {
        Box::pin(async move {
            let name = self.name();
            let mut running = Runner::new(self.bus, self.connect, &host, name);
            tokio::select! {
                biased;
                // Who can no longer say stop has stopped.
                _ = stop.wait_for(|stop| *stop) => {}
                () = running.run() => {}
            }
            running.end().await;
        })
    }
}

struct Runner<C> {
    bus: Bus,
    connect: C,
    timer: Timer,
    requests: Vec<Request>,
    /// The points in the order in which they were planned.
    points: Vec<Point>,
    schedule: Schedule,
    outbox: Outbox,
    reporter: Reporter,
}

/// A planned point: where it is published, and what its registers mean.
struct Point {
    topic: Arc<str>,
    kind: Type,
    order: Order,
    scale: Option<f64>,
    unit: Option<String>,
}

impl<C: Connect> Runner<C> {
    fn new(bus: Bus, connect: C, host: &Arc<dyn Host>, name: String) -> Runner<C> {
        let timer = Timer::start();
        let now = timer.now();
        let (points, wanted) = points(&bus);
        let requests = plan(&wanted);
        let jobs: Vec<(usize, Duration)> =
            requests.iter().map(|request| (request.device, request.every)).collect();
        let schedule = Schedule::new(&jobs, bus.timeout + bus.line_time(0), now);
        let outbox = Outbox::new(Arc::clone(host), name);
        let reporter = Reporter::new(Arc::clone(host), &bus, now);
        Runner { bus, connect, timer, requests, points, schedule, outbox, reporter }
    }

    /// Opens the line and works on it, again and again.
    async fn run(&mut self) {
        self.report();
        self.hold_all();
        let mut guard = match self.bus.link {
            Link::Serial(_) => Guard::rtu(),
            Link::Tcp(_) => Guard::tcp(),
        };
        let mut pause = REOPEN_MIN;
        loop {
            let connecting = self.outbox.beside(self.connect.connect()).await;
            let error = match connecting {
                Err(error) => error,
                Ok(wire) => {
                    self.reporter.opened(self.timer.now());
                    self.schedule.opened(self.timer.now());
                    let mut session = Session::new(wire, guard, self.timer);
                    let error = self.work(&mut session).await;
                    self.settle(&session);
                    if session.has_answered {
                        pause = REOPEN_MIN;
                    }
                    guard = session.into_guard();
                    error
                }
            };
            self.reporter.lost(&format!("{}: {error}", self.bus.link), self.timer.now());
            self.report();
            self.outbox.beside(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(REOPEN_MAX);
        }
    }

    /// Whoever ran before us, our last life too, may have asked something just before its end: what it
    /// would be answered must not meet our first questions.
    fn hold_all(&mut self) {
        if let Link::Serial(_) = self.bus.link {
            let until = self.timer.now() + self.bus.line_time(u8::MAX) + self.bus.late_limit;
            for device in 0..self.bus.devices.len() {
                self.schedule.hold(device, Some(until));
            }
        }
    }

    /// Works until the line breaks.
    async fn work<W: Wire>(&mut self, session: &mut Session<W>) -> io::Error {
        loop {
            self.settle(session);
            self.report();
            let turn = match self.schedule.next(self.timer.now()) {
                Next::Send(job) => self.poll(job, session).await,
                Next::Wait(until) => {
                    let until = until.min(self.reporter.report_at());
                    self.outbox.beside(session.line.listen(until)).await
                }
            };
            if let Err(error) = turn {
                return error;
            }
        }
    }

    /// Asks one request and brings its answer to where it belongs.
    async fn poll<W: Wire>(&mut self, job: usize, session: &mut Session<W>) -> io::Result<()> {
        let Some(request) = self.requests.get(job) else { return Ok(()) };
        let Some(device) = self.bus.devices.get(request.device) else { return Ok(()) };
        let (unit, bytes) = (device.unit, request.answer_bytes());
        let asking = session.ask(unit, request, self.bus.quiet, self.bus.timeout);
        let sent = match self.outbox.beside(asking).await? {
            Asking::Quarantined => {
                self.schedule.hold(request.device, session.line.quarantine(unit));
                return Ok(());
            }
            Asking::Allowed => self.timer.now(),
        };
        let on_line = self.bus.line_time(bytes);
        let late_span = on_line + self.bus.late_limit;
        let answer = session.call(unit, request, sent + on_line + self.bus.timeout);
        match self.outbox.beside(answer).await {
            Ok(Some(answer)) => {
                let taken = session.line.answered().unwrap_or_else(wall);
                self.answered(job, answer, sent, taken);
                Ok(())
            }
            Ok(None) => {
                let late_until = session.line.give_up(late_span);
                self.schedule.hold(request.device, session.line.quarantine(unit));
                self.silent(job, sent, late_until, session).await
            }
            Err(error) => {
                // Whatever broke, the answer must not meet the next question.
                session.line.give_up(late_span);
                self.schedule.hold(request.device, session.line.quarantine(unit));
                Err(error)
            }
        }
    }

    /// The device answered in time.
    fn answered(&mut self, job: usize, answer: Answer, sent: Duration, taken: Wall) {
        let Some(request) = self.requests.get(job) else { return };
        let (ended, outcome) = match &answer {
            Answer::Words(_) => (Ended::Good, Outcome::Answered),
            Answer::Exception { text, is_absent: false } => {
                (Ended::Exception(text.clone()), Outcome::Answered)
            }
            // A gateway says for a device that it does not answer.
            Answer::Exception { text, is_absent: true } => (Ended::Exception(text.clone()), Outcome::Silent),
        };
        self.schedule.done(job, outcome, sent, self.timer.now());
        self.reporter.ended(
            request.device,
            job,
            &ended,
            self.schedule.life(request.device),
            self.timer.now(),
        );
        let Answer::Words(words) = answer else { return };
        for slot in &request.slots {
            let Some(point) = self.points.get(slot.point) else { continue };
            let start = usize::from(slot.offset);
            let words = words.get(start..start + usize::from(slot.addresses)).unwrap_or_default();
            let value = decode(words, point.kind, point.order, point.scale);
            self.outbox.put(&point.topic, payload(value, point.unit.as_deref(), taken));
        }
    }

    /// The device did not answer in time.
    async fn silent<W: Wire>(
        &mut self,
        job: usize,
        sent: Duration,
        late_until: Duration,
        session: &mut Session<W>,
    ) -> io::Result<()> {
        let Some(request) = self.requests.get(job) else { return Ok(()) };
        let device = request.device;
        self.schedule.done(job, Outcome::Silent, sent, self.timer.now());
        let life = self.schedule.life(device);
        self.reporter.ended(device, job, &Ended::Timeout, life, self.timer.now());
        session.check_silence(sent, self.bus.late_limit)?;
        let Some(unit) = self.bus.devices.get(device).map(|device| device.unit) else { return Ok(()) };
        if session.line.quarantine(unit).is_none() || life == Life::Dead {
            return Ok(());
        }
        // Who is slow will answer soon, and on a line two that speak at once are both lost.
        let until = late_until.min(self.timer.now() + self.bus.timeout);
        while self.timer.now() < until && !self.settle(session).contains_key(&unit) {
            self.outbox.beside(session.line.listen(until)).await?;
        }
        Ok(())
    }

    /// Takes note of what was on the line besides answers; returns the late ones.
    fn settle<W: Wire>(&mut self, session: &Session<W>) -> BTreeMap<u8, (u64, Duration)> {
        let heard = session.line.heard();
        self.reporter.heard(&heard);
        for unit in heard.late.keys() {
            if let Some(device) = self.bus.devices.iter().position(|device| device.unit == *unit) {
                self.schedule.hold(device, session.line.quarantine(*unit));
            }
        }
        heard.late
    }

    fn report(&mut self) {
        self.reporter.report(self.outbox.counts(), self.schedule.missed(), self.timer.now());
    }

    async fn end(mut self) {
        self.outbox.leave().await;
        self.reporter.report_all(self.outbox.counts(), self.schedule.missed());
    }
}

/// The points of a bus as they are published and as they are planned, in one order.
fn points(bus: &Bus) -> (Vec<Point>, Vec<Wanted>) {
    let all = bus.devices.iter().enumerate().flat_map(|(index, device)| {
        device.points.iter().map(move |point| {
            let topic = format!("modbus/{}/{}/{}", bus.name, device.name, point.name).into();
            let wanted = Wanted {
                device: index,
                register: point.register,
                addresses: point.kind.addresses(),
                every: point.every,
            };
            let (kind, order, scale, unit) = (point.kind, point.order, point.scale, point.unit.clone());
            (Point { topic, kind, order, scale, unit }, wanted)
        })
    });
    all.unzip()
}

/// Between two attempts to open the line, at first.
const REOPEN_MIN: Duration = Duration::from_millis(500);

/// And at most: a device that is plugged in again is found within this.
const REOPEN_MAX: Duration = Duration::from_secs(15);
