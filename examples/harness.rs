use tidegate::{
    broker::{self, Broker, LimitsConfig, Passwords},
    clock::Clock,
    engine::{Engine, Heartbeat, Inbox, Input, Limits, Parts},
    listener::Config,
    record::Restored,
    record::Ticket,
    store::{Ask, Handle},
};
fn main() {
    let port = std::env::args().nth(1).unwrap();
    let (inbox, inputs) = Inbox::open().unwrap();
    let clock = Clock::start();
    let (store, store_inbox) = Handle::channel();
    let listener = Config { bind: format!("127.0.0.1:{port}"), ..Config::default() }.check().unwrap();
    let parts = Parts {
        inbox,
        clock,
        broker: Broker::new(
            broker::Config {
                limits: LimitsConfig { max_connections: 20000, ..Default::default() }.check().unwrap(),
                gateway: "x".into(),
                routes: vec![],
                passwords: Passwords::Absent,
            },
            7,
            Restored::default(),
            clock.now(),
        ),
        store,
        listeners: vec![listener],
        limits: Limits { max_connections: 20000, ..Limits::default() },
        passwords: None,
        unstored: vec![],
        heartbeat: Heartbeat::default(),
    };
    std::thread::spawn(move || {
        let mut t = 0;
        loop {
            for ask in store_inbox.take(None) {
                if let Ask::Writes { batch, .. } = ask {
                    t += batch.len() as u64;
                    let _ = inputs.send_blocking(Input::Committed(Ticket(t)));
                }
            }
        }
    });
    Engine::new(parts).unwrap().run().unwrap();
}
