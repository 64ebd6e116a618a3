//! SCRAM beside the passwords: on the same thread, with the same file and the same account of failures.
//!
//! Its steps cost no hash that is slow on purpose, so they are answered as they come and wait for no
//! comparison but the one under way.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;

use super::verify::Desk;
use crate::auth::{PasswordFile, Passwords, Scram, fresh_secret, kept_secret};
use crate::broker::{AuthOutcome, ConnectionId};
use crate::listener::Address;

/// A step to be taken. Not to be shown.
pub(super) struct Step {
    pub(super) connection: ConnectionId,
    pub(super) address: Option<Address>,
    /// What was said so far: by the client, by us, by the client.
    pub(super) transcript: Vec<Bytes>,
}

/// The server, under the secret in this file; without one under a secret of this start.
pub(super) fn server(secret: Option<&Path>) -> io::Result<Scram> {
    Ok(Scram::new(secret.map_or_else(fresh_secret, kept_secret)?))
}

impl Desk {
    /// Answers one step, by the files as they were last looked at.
    pub(super) fn answer(&mut self, step: &Step, now: u64) -> AuthOutcome {
        let none = Passwords::default();
        let passwords = self.files.passwords.as_ref().map_or(&none, PasswordFile::passwords);
        if let [first] = &*step.transcript {
            // Without a nonce of its own no exchange is safe.
            let Ok(nonce) = nonce() else { return AuthOutcome::Busy };
            return match self.scram.challenge(passwords, first, &nonce) {
                Some(said) => AuthOutcome::Challenge(said.into()),
                // What is not even an attempt counts as one that failed.
                None if self.failures.begin(step.address, NOBODY, now) => AuthOutcome::Wrong,
                None => AuthOutcome::TooManyFailures,
            };
        }
        let [first, challenge, last] = &*step.transcript else { return AuthOutcome::Wrong };
        let user = Scram::user(first).map_or(NOBODY, |user| self.memory.user(&user));
        let proof = self.scram.prove(passwords, first, challenge, last);
        // Who has come in from there is not kept out by a neighbour who uses up what may fail in his name.
        let is_welcome = proof.is_some() && self.failures.is_known(step.address, user);
        if !is_welcome && !self.failures.begin(step.address, user, now) {
            return AuthOutcome::TooManyFailures;
        }
        let Some(proof) = proof else { return AuthOutcome::Wrong };
        match is_welcome {
            true => self.failures.arrived(step.address, user),
            false => self.failures.succeeded(step.address, user),
        }
        AuthOutcome::Proven { user: proof.user.into(), data: proof.message.into() }
    }
}

fn nonce() -> io::Result<String> {
    let mut bytes = [0; NONCE_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
    Ok(STANDARD_NO_PAD.encode(bytes))
}

/// Stands for a user whom nobody can name.
const NOBODY: u64 = 0;

/// As many as never come twice.
const NONCE_BYTES: usize = 18;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use adapter_api::units::Rate;

    use super::*;
    use crate::auth::{Memory, Moment};
    use crate::engine::verify::AuthFiles;

    /// The user of RFC 7677, whose password is "pencil".
    const LINE: &str = "user:$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n";
    const FIRST: &[u8] = b"n,,n=user,r=x";

    fn desk(failures: u32) -> (tempfile::TempDir, Desk) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        std::fs::write(&path, LINE).unwrap();
        let rate = Rate { count: failures, per: Duration::from_secs(60) };
        let files = AuthFiles { passwords: Some(PasswordFile::at(&path)), ..AuthFiles::default() };
        (folder, Desk::new(files, Memory::new([7; 32]), server(None).unwrap(), Some(rate)))
    }

    /// The exchange of RFC 7677, whose nonce is not ours to choose: the desk keeps none.
    const EXCHANGE: [&[u8]; 3] = [
        b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    ];

    fn proven() -> AuthOutcome {
        AuthOutcome::Proven {
            user: "user".into(),
            data: Bytes::from_static(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
        }
    }

    fn ask(desk: &mut Desk, host: u8, transcript: &[&[u8]]) -> AuthOutcome {
        let step = Step {
            connection: ConnectionId { slot: 0, generation: 0 },
            address: Some(Address::of(IpAddr::from([192, 0, 2, host]))),
            transcript: transcript.iter().map(|said| Bytes::copy_from_slice(said)).collect(),
        };
        desk.look(&Moment::at(0));
        desk.answer(&step, 0)
    }

    fn challenge(desk: &mut Desk, host: u8) -> Bytes {
        match ask(desk, host, &[FIRST]) {
            AuthOutcome::Challenge(said) => said,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_two_challenges_are_alike() {
        let (_folder, mut desk) = desk(3);
        let (one, two) = (challenge(&mut desk, 1), challenge(&mut desk, 1));
        assert_ne!(one, two);
        assert!(one.starts_with(b"r=x") && one.ends_with(b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
    }

    #[test]
    fn what_fails_counts_for_its_address_whatever_is_wrong_with_it() {
        let (_folder, mut desk) = desk(3);
        let said = challenge(&mut desk, 1);
        let nonce = std::str::from_utf8(&said).unwrap().split(',').next().unwrap();
        let last = format!("c=biws,{nonce},p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        assert_eq!(ask(&mut desk, 1, &[FIRST, &said, last.as_bytes()]), AuthOutcome::Wrong);
        assert_eq!(ask(&mut desk, 1, &[b"nonsense"]), AuthOutcome::Wrong);
        assert_eq!(ask(&mut desk, 1, &[b"n,,n=,r=x"]), AuthOutcome::Wrong);
        assert_eq!(ask(&mut desk, 1, &[FIRST, &said, last.as_bytes()]), AuthOutcome::TooManyFailures);
        assert_eq!(ask(&mut desk, 1, &[b"nonsense"]), AuthOutcome::TooManyFailures);
        assert_eq!(ask(&mut desk, 2, &[FIRST, &said, last.as_bytes()]), AuthOutcome::Wrong);
    }

    #[test]
    fn who_succeeds_is_not_counted_and_a_new_file_counts() {
        let (folder, mut desk) = desk(1);
        for _ in 0..3 {
            assert_eq!(ask(&mut desk, 1, &EXCHANGE), proven());
        }
        std::fs::write(folder.path().join("passwd"), "# nobody, and so another length\n").unwrap();
        desk.look(&Moment::at(0));
        desk.look(&Moment::at(1_000));
        assert_eq!(ask(&mut desk, 1, &EXCHANGE), AuthOutcome::Wrong);
    }

    #[test]
    fn a_right_proof_lets_in_who_has_come_in_from_there_whatever_a_neighbour_tries_in_his_name() {
        let (_folder, mut desk) = desk(3);
        let [first, challenge, last] = EXCHANGE;
        let wrong = String::from_utf8_lossy(last).replace("p=d", "p=e").into_bytes();
        let wrong = [first, challenge, &wrong];
        assert_eq!(ask(&mut desk, 1, &EXCHANGE), proven());
        for host in [1, 2] {
            (0..3).for_each(|_| assert_eq!(ask(&mut desk, host, &wrong), AuthOutcome::Wrong));
            assert_eq!(ask(&mut desk, host, &wrong), AuthOutcome::TooManyFailures);
        }
        assert_eq!(ask(&mut desk, 1, &EXCHANGE), proven());
        assert_eq!(ask(&mut desk, 1, &wrong), AuthOutcome::TooManyFailures, "that forgives nothing");
        assert_eq!(ask(&mut desk, 2, &EXCHANGE), AuthOutcome::TooManyFailures, "nobody came in from there");
    }
}
