//! The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677): what it answers to what a client has said.
//!
//! Pure: what both have said so far is an argument, and so is the nonce, so nothing is kept between two
//! steps. Who is unknown is answered like anybody and fails at the end, so that names cannot be found out.
//! Channel binding is not offered. What is kept of a password proves that somebody has it, and does not
//! itself let anybody in.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pbkdf2::hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::Passwords;
use super::hash::{bounded, same};

/// What is kept of one password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

/// What SHA-256 makes.
pub type Key = [u8; 32];

/// The server.
pub struct Scram {
    secret: Key,
}

/// A client has shown that it has the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Who it is.
    pub user: String,
    /// The last message, by which the client sees that the server has the credential.
    pub message: String,
}

impl Scram {
    /// `secret` decides what unknown users are answered, and is nobody's to know.
    pub fn new(secret: Key) -> Scram {
        Scram { secret }
    }

    /// Whose name a client's first message has.
    pub fn user(first: &[u8]) -> Option<String> {
        First::read(first).map(|first| first.user)
    }

    /// The answer to a client's first message. `nonce` is printable, without a comma, and never used again.
    /// `None` where the message is none, asks for channel binding, or for somebody else's name.
    pub fn challenge(&self, passwords: &Passwords, first: &[u8], nonce: &str) -> Option<String> {
        let first = First::read(first)?;
        let decoy = self.decoy(passwords, &first.user);
        let Credential { iterations, salt, .. } = passwords.credential(&first.user).unwrap_or(&decoy);
        Some(format!("r={}{nonce},s={},i={iterations}", first.nonce, STANDARD.encode(salt)))
    }

    /// Whether a client's last message fits its first one and our answer to that.
    pub fn prove(&self, passwords: &Passwords, first: &[u8], challenge: &[u8], last: &[u8]) -> Option<Proof> {
        let first = First::read(first)?;
        let challenge = std::str::from_utf8(challenge).ok()?;
        let (nonce, _) = challenge.strip_prefix("r=")?.split_once(",s=")?;
        let last = Last::read(last)?;
        if last.binding != first.header.as_bytes() || last.nonce != nonce {
            return None;
        }
        let decoy = self.decoy(passwords, &first.user);
        let known = passwords.credential(&first.user);
        let credential = known.unwrap_or(&decoy);
        let said = format!("{},{challenge},{}", first.bare, last.without_proof);
        let mut client_key = hmac(&credential.stored_key, &[said.as_bytes()]);
        client_key.iter_mut().zip(last.proof).for_each(|(key, proof)| *key ^= proof);
        let stored_key: Key = Sha256::digest(client_key).into();
        let fits = same(&stored_key, &credential.stored_key);
        let signature = hmac(&credential.server_key, &[said.as_bytes()]);
        (fits && known.is_some())
            .then(|| Proof { user: first.user, message: format!("v={}", STANDARD.encode(signature)) })
    }

    /// What stands for a user who is unknown: always the same for one name, and in its form like what the
    /// file has of most others. Made for known users too, so that they take as long.
    fn decoy(&self, passwords: &Passwords, user: &str) -> Credential {
        let (iterations, salt_bytes) = passwords.credential_form();
        let mut salt = hmac(&self.secret, &[b"salt", user.as_bytes()]).to_vec();
        salt.truncate(salt_bytes);
        let stored_key = hmac(&self.secret, &[b"key", user.as_bytes()]);
        Credential { iterations, salt, stored_key, server_key: stored_key }
    }
}

impl Credential {
    /// What is kept of this password; `salt` is fresh.
    pub fn of(password: &[u8], salt: Vec<u8>, iterations: u32) -> Credential {
        let mut salted: Key = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password, &salt, iterations, &mut salted);
        let stored_key = Sha256::digest(hmac(&salted, &[b"Client Key"])).into();
        Credential { iterations, salt, stored_key, server_key: hmac(&salted, &[b"Server Key"]) }
    }

    /// Reads the part of a line behind [`SCHEME`]; `None` where it is none that we take.
    pub fn parse(text: &str) -> Option<Credential> {
        let mut fields = text.split('$');
        let iterations = bounded(fields.next()?, ITERATIONS_MIN, ITERATIONS_MAX)?;
        let salt = STANDARD.decode(fields.next()?).ok()?;
        let mut key = || Key::try_from(STANDARD.decode(fields.next()?).ok()?).ok();
        let credential = Credential { iterations, salt, stored_key: key()?, server_key: key()? };
        let sound = (SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&credential.salt.len());
        (sound && fields.next().is_none()).then_some(credential)
    }

    /// Its iterations, and the bytes of its salt.
    pub(super) fn form(&self) -> (u32, usize) {
        (self.iterations, self.salt.len())
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| STANDARD.encode(bytes));
        write!(out, "{SCHEME}{}${salt}${stored}${server}", self.iterations)
    }
}

/// Who has it can play the server: it does not belong in a log.
impl fmt::Debug for Credential {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credential").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// A client's first message.
struct First<'a> {
    /// Its part about channel binding and names, which the last message repeats.
    header: &'a str,
    bare: &'a str,
    user: String,
    nonce: &'a str,
}

impl First<'_> {
    fn read(message: &[u8]) -> Option<First<'_>> {
        let text = read_text(message)?;
        let (binding, rest) = text.split_once(',')?;
        // "p=…" insists on channel binding.
        if !matches!(binding, "n" | "y") {
            return None;
        }
        let (acts_as, bare) = rest.split_once(',')?;
        let header = text.strip_suffix(bare)?;
        let mut attributes = bare.split(',');
        // "m=…", which comes before the name, asks for what nobody has defined.
        let user = read_name(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        if !acts_as.is_empty() && read_name(acts_as.strip_prefix("a=")?)? != user {
            return None;
        }
        let printable = !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        (printable && attributes.all(is_attribute)).then_some(First { header, bare, user, nonce })
    }
}

/// A client's last message.
struct Last<'a> {
    without_proof: &'a str,
    binding: Vec<u8>,
    nonce: &'a str,
    proof: Key,
}

impl Last<'_> {
    fn read(message: &[u8]) -> Option<Last<'_>> {
        let (without_proof, proof) = read_text(message)?.rsplit_once(",p=")?;
        let proof = STANDARD.decode(proof).ok()?.try_into().ok()?;
        let mut attributes = without_proof.split(',');
        let binding = STANDARD.decode(attributes.next()?.strip_prefix("c=")?).ok()?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        attributes.all(is_attribute).then_some(Last { without_proof, binding, nonce, proof })
    }
}

fn read_text(message: &[u8]) -> Option<&str> {
    if message.len() > MESSAGE_BYTES_MAX || message.contains(&0) {
        return None;
    }
    std::str::from_utf8(message).ok()
}

/// A name, in which "," and "=" are written as numbers.
fn read_name(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = match part.strip_prefix("2C") {
            Some(rest) => (',', rest),
            None => ('=', part.strip_prefix("3D")?),
        };
        name.push(sign);
        name.push_str(rest);
    }
    (!name.is_empty()).then_some(name)
}

/// What we do not know and may pass over: a letter, "=", a value.
fn is_attribute(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b'=', _, ..] if letter.is_ascii_alphabetic())
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// What a line of the password file has before its numbers.
pub const SCHEME: &str = "$scram-sha-256$";

/// What `tidegate passwd` asks for. Only the client and `passwd` ever count so far, the gateway never.
pub(super) const ITERATIONS: u32 = 100_000;
/// RFC 7677, section 4.
const ITERATIONS_MIN: u32 = 4_096;
const ITERATIONS_MAX: u32 = 10_000_000;

/// Bytes of the salt that `tidegate passwd` makes.
pub(super) const SALT_BYTES: usize = 16;
const SALT_BYTES_MIN: usize = 8;
/// What a decoy's can be at most.
const SALT_BYTES_MAX: usize = 32;

/// Nobody has a name or a nonce that makes a message longer.
const MESSAGE_BYTES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3: the user "user", whose password is "pencil".
    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CHALLENGE: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SIGNATURE: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    const PENCIL: &str = "4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn pencil() -> Credential {
        Credential::parse(PENCIL).unwrap()
    }

    fn passwords() -> Passwords {
        let credential = pencil();
        Passwords::parse(&format!("user:{credential}\na,b=c:{credential}\n")).unwrap()
    }

    fn server() -> Scram {
        Scram::new([7; 32])
    }

    fn challenge(first: &str) -> Option<String> {
        server().challenge(&passwords(), first.as_bytes(), NONCE)
    }

    /// What a client with this password says last.
    fn answer(first: &str, challenge: &str, password: &[u8]) -> String {
        let field = |name: &str| challenge.split(',').find_map(|field| field.strip_prefix(name)).unwrap();
        let salt = STANDARD.decode(field("s=")).unwrap();
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password, &salt, field("i=").parse().unwrap(), &mut salted);
        let bare = first.splitn(3, ',').last().unwrap();
        let header = STANDARD.encode(first.strip_suffix(bare).unwrap());
        let without_proof = format!("c={header},r={}", field("r="));
        let client_key = hmac(&salted, &[b"Client Key"]);
        let said = format!("{bare},{challenge},{without_proof}");
        let signature = hmac(&Sha256::digest(client_key), &[said.as_bytes()]);
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }

    fn enters(first: &str, password: &[u8]) -> Option<String> {
        let challenge = challenge(first)?;
        let last = answer(first, &challenge, password);
        let proof = server().prove(&passwords(), first.as_bytes(), challenge.as_bytes(), last.as_bytes())?;
        Some(proof.user)
    }

    #[test]
    fn the_exchange_of_the_rfc_is_ours() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(Credential::of(b"pencil", salt, 4_096), pencil());
        assert_eq!(server().challenge(&passwords(), FIRST, NONCE).as_deref(), Some(CHALLENGE));
        let proof = server().prove(&passwords(), FIRST, CHALLENGE.as_bytes(), LAST.as_bytes());
        assert_eq!(proof, Some(Proof { user: "user".into(), message: SIGNATURE.into() }));
        assert_eq!(answer("n,,n=user,r=rOprNGfwEbeRWgbNEkqO", CHALLENGE, b"pencil"), LAST);
    }

    #[test]
    fn whatever_is_changed_on_the_way_proves_nothing() {
        let prove = |first: &[u8], challenge: &str, last: &str| {
            server().prove(&passwords(), first, challenge.as_bytes(), last.as_bytes())
        };
        assert_eq!(prove(b"y,,n=user,r=rOprNGfwEbeRWgbNEkqO", CHALLENGE, LAST), None);
        assert_eq!(prove(FIRST, &CHALLENGE.replace("4096", "4097"), LAST), None);
        assert_eq!(prove(FIRST, &CHALLENGE.replace("k0,", "k1,"), LAST), None, "not our nonce");
        for place in 0..LAST.len() {
            let mut last = LAST.as_bytes().to_vec();
            last[place] ^= 1;
            assert_eq!(server().prove(&passwords(), FIRST, CHALLENGE.as_bytes(), &last), None, "{place}");
        }
        for end in 0..LAST.len() {
            assert_eq!(prove(FIRST, CHALLENGE, &LAST[..end]), None, "{end}");
        }
    }

    #[test]
    fn only_the_password_lets_in() {
        assert_eq!(enters("n,,n=user,r=x", b"pencil").as_deref(), Some("user"));
        assert_eq!(enters("n,,n=user,r=x", b"pencil "), None);
        assert_eq!(enters("n,,n=nobody,r=x", b"pencil"), None);
    }

    #[test]
    fn channel_binding_is_refused_where_it_is_asked_for_and_only_there() {
        assert_eq!(enters("y,,n=user,r=x", b"pencil").as_deref(), Some("user"));
        assert_eq!(challenge("p=tls-exporter,,n=user,r=x"), None);
    }

    #[test]
    fn names_may_hold_commas_and_equals_signs_and_nobody_acts_as_another() {
        assert_eq!(enters("n,,n=a=2Cb=3Dc,r=x", b"pencil").as_deref(), Some("a,b=c"));
        assert_eq!(enters("n,a=a=2Cb=3Dc,n=a=2Cb=3Dc,r=x", b"pencil").as_deref(), Some("a,b=c"));
        assert_eq!(challenge("n,a=user,n=a=2Cb=3Dc,r=x"), None);
        assert_eq!(challenge("n,,n=a=2cb,r=x"), None);
        assert_eq!(challenge("n,,n=a=,r=x"), None);
    }

    #[test]
    fn what_is_no_first_message_is_not_answered() {
        for text in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=,r=x",
            "n,,r=x,n=user",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,n=user,r=\u{7f}",
            "n,,m=x,n=user,r=x",
            "n,user,n=user,r=x",
            "n,,n=user,r=x,",
            "n,,n=user,r=x,1=y",
            "n,,n=u\0,r=x",
            "x,,n=user,r=x",
        ] {
            assert_eq!(challenge(text), None, "{text:?}");
        }
        assert!(challenge("n,,n=user,r=x,t=later").is_some(), "extensions are passed over");
        let long = format!("n,,n=user,r={}", "x".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(challenge(&long), None);
    }

    #[test]
    fn an_unknown_user_is_answered_like_a_known_one() {
        let nobody = challenge("n,,n=nobody,r=x").unwrap();
        assert_eq!(challenge("n,,n=nobody,r=x").unwrap(), nobody, "asked again, the salt is the same");
        let known = challenge("n,,n=user,r=x").unwrap();
        let form = |challenge: &str| {
            let (salt, iterations) = challenge.split_once(",s=").unwrap().1.split_once(",i=").unwrap();
            (STANDARD.decode(salt).unwrap().len(), iterations.to_owned())
        };
        assert_eq!((form(&nobody), form(&known)), ((16, "4096".to_owned()), (16, "4096".to_owned())));
        assert_ne!(nobody, challenge("n,,n=nobodx,r=x").unwrap());
        let other = Scram::new([8; 32]).challenge(&passwords(), b"n,,n=nobody,r=x", NONCE).unwrap();
        assert_ne!(nobody, other, "it cannot be computed without the secret");
        let empty = server().challenge(&Passwords::default(), b"n,,n=nobody,r=x", NONCE).unwrap();
        assert!(empty.ends_with(",i=100000"), "{empty}");
    }

    #[test]
    fn an_unknown_user_has_the_form_that_most_have_whatever_others_get() {
        let line = |user: &str, iterations| {
            format!("{user}:{}\n", Credential::of(b"x", vec![user.as_bytes()[0]; 16], iterations))
        };
        let asked = |lines: &[String]| {
            let passwords = Passwords::parse(&lines.concat()).unwrap();
            (0..20)
                .filter_map(|name| {
                    let first = format!("n,,n=nobody{name},r=x");
                    server().challenge(&passwords, first.as_bytes(), NONCE)
                })
                .collect::<Vec<_>>()
        };
        let most = [line("a", 4_096), line("bb", 4_096)];
        let before = asked(&most);
        assert!(before.len() == 20 && before.iter().all(|challenge| challenge.ends_with(",i=4096")));
        assert_eq!(asked(&[&most[..], &[line("ccc", 5_000)]].concat()), before);
    }

    #[test]
    fn a_line_is_read_as_it_is_written_and_weak_ones_are_refused() {
        let line = pencil().to_string();
        assert_eq!(line, format!("{SCHEME}{PENCIL}"));
        assert!(!format!("{:?}", pencil()).contains("salt"));
        let key = STANDARD.encode([1; 32]);
        for text in [
            format!("4095$c2FsdHNhbHQ=${key}${key}"),
            format!("4096$c2FsdA==${key}${key}"),
            format!("4096$c2FsdHNhbHQ=${key}"),
            format!("4096$c2FsdHNhbHQ=${key}${key}$"),
            format!("4096$c2FsdHNhbHQ=${key}$AAAA"),
        ] {
            assert_eq!(Credential::parse(&text), None, "{text}");
        }
        assert!(Credential::parse(&format!("4096$c2FsdHNhbHQ=${key}${key}")).is_some());
    }
}
