//! What must hold for any ACL file and any client.
//!
//! The first three lines are user name, client id and topic, the rest is the file. It is rules or a list
//! of mistakes on lines that the text has; what may be read may be subscribed to, and what may be set may
//! be written.

use bytestring::ByteString;
use tidegate::access::Rules;
use tidegate::router::filter::check_topic;

/// Panics where a promise of the access rules is broken.
pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(4, '\n');
    let mut part = || parts.next().unwrap_or_default();
    let (user, client_id, topic, file) = (part(), part(), part(), part());
    let rules = match Rules::parse(file) {
        Ok(rules) => rules,
        Err(mistakes) => {
            let lines = file.lines().count();
            assert!(!mistakes.is_empty());
            for mistake in mistakes {
                assert!((1..=lines).contains(&mistake.line) && !mistake.text.is_empty(), "{mistake:?}");
            }
            return;
        }
    };
    if check_topic(topic).is_err() {
        return;
    }
    let (user, client_id) = (ByteString::from(user), ByteString::from(client_id));
    for user in [Some(&user), None] {
        let access = rules.of_client(user, &client_id);
        if access.may_read(topic) {
            assert!(access.may_subscribe(topic));
            assert!(topic.starts_with('$') || access.may_subscribe("#"));
        }
        assert!(access.may_write(topic) || !access.may_set(topic));
        assert_eq!(rules.of_client(user, &client_id), access);
    }
}
