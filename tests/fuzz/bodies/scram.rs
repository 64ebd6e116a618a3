//! What must hold for any words of a client that logs in by SCRAM.
//!
//! The first line is the client's first message, the second its last. Whatever it says, it is answered with
//! its own nonce and something of ours, and only who knows the password gets in, by his own name.

use tidegate::auth::{Passwords, Scram};

/// Panics where a promise of the exchange is broken.
pub(crate) fn run(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (first, last) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let passwords = Passwords::parse(FILE).expect("lines of ours");
    let server = Scram::new([7; 32]);
    let Some(challenge) = server.challenge(&passwords, first, NONCE) else {
        assert_eq!(server.prove(&passwords, first, b"r=x,s=eHh4eHh4eHg=,i=4096", last), None);
        return;
    };
    let (nonce, rest) =
        challenge.strip_prefix("r=").and_then(|rest| rest.split_once(",s=")).expect("a nonce");
    let theirs = nonce.strip_suffix(NONCE).expect("ours behind theirs");
    assert!(String::from_utf8_lossy(first).contains(&format!(",r={theirs}")));
    assert!(rest.ends_with(",i=4096"), "{rest}");
    assert_eq!(server.challenge(&passwords, first, NONCE).as_deref(), Some(&*challenge));
    if let Some(proof) = server.prove(&passwords, first, challenge.as_bytes(), last) {
        assert_eq!(proof.user, "user");
        assert_eq!(proof.message.len(), "v=".len() + 44);
        // What only the server may know does not help a client: another nonce, another proof.
        let later = server.challenge(&passwords, first, "later").expect("it was answered before");
        assert_eq!(server.prove(&passwords, first, later.as_bytes(), last), None);
    }
}

/// The user of RFC 7677, section 3, and the server's part of its nonce.
const FILE: &str = "user:$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n";
const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
