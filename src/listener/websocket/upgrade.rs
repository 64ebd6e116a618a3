//! From the bytes of an HTTP request to the answer that makes a WebSocket of it, or says why not.
//!
//! One path, one purpose: whatever is no upgrade for MQTT gets a status of 4xx and the end. A browser opens
//! streams for any page and shows its certificate for it, so pages of another place than ours are refused
//! unless they are listed. Programs send no `Origin` and are not asked.

use std::sync::Arc;

use tungstenite::error::ProtocolError;
use tungstenite::handshake::machine::TryParse as _;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::HeaderValue;
use tungstenite::http::header::{CONTENT_LENGTH, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL, TRANSFER_ENCODING};

/// A request whose end has not come.
#[derive(Debug, Default)]
pub(super) struct Upgrade {
    request: Vec<u8>,
    /// Whose pages are welcome beside our own: see [`is_foreign`].
    origins: Arc<[String]>,
}

/// What came of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The request is not whole yet.
    Wait,
    /// It is granted; the last so many of the bytes are frames already.
    Granted(Vec<u8>, usize),
    /// It is refused.
    Refused(Vec<u8>),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NoHttp,
    TooLarge,
    End,
    Body,
    Host,
    Method,
    Path,
    Origin,
    NoUpgrade,
    Key,
    Protocol,
}

impl Upgrade {
    /// For a listener that welcomes the pages of these origins.
    pub(super) fn new(origins: Arc<[String]>) -> Upgrade {
        Upgrade { request: Vec::new(), origins }
    }

    /// Bytes of the request that have come.
    pub(super) fn held(&self) -> usize {
        self.request.len()
    }

    /// Takes the next bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Answer {
        let before = self.request.len();
        self.request.extend_from_slice(bytes);
        // MQTT or TLS at the wrong door is told at once, and not after a wait for its end.
        if !self.request.first().is_some_and(u8::is_ascii_uppercase) {
            return Answer::Refused(Refusal::NoHttp.response());
        }
        let from = before.saturating_sub(END.len() - 1);
        let fresh = self.request.get(from..).unwrap_or_default();
        let end = fresh.windows(END.len()).position(|window| window == END).map(|at| from + at + END.len());
        match end {
            Some(end) if end <= REQUEST_MAX => {
                let rest = self.request.len() - end;
                match grant(self.request.get(..end).unwrap_or_default(), &self.origins) {
                    Ok(response) => Answer::Granted(response, rest),
                    Err(refusal) => Answer::Refused(refusal.response()),
                }
            }
            None if self.request.len() < REQUEST_MAX => Answer::Wait,
            _ => Answer::Refused(Refusal::TooLarge.response()),
        }
    }
}

fn grant(bytes: &[u8], origins: &[String]) -> Result<Vec<u8>, Refusal> {
    let (size, request) = Request::try_parse(bytes).map_err(refusal)?.ok_or(Refusal::NoHttp)?;
    // A bare line feed ends a line for that parser and not for us: what lies between would be nobody's.
    if size != bytes.len() {
        return Err(Refusal::End);
    }
    let lengths = request.headers().get_all(CONTENT_LENGTH);
    if request.headers().contains_key(TRANSFER_ENCODING) || lengths.iter().any(|length| length != "0") {
        return Err(Refusal::Body);
    }
    if request.headers().get_all(HOST).iter().count() != 1 {
        return Err(Refusal::Host);
    }
    if request.uri().path() != PATH {
        return Err(Refusal::Path);
    }
    if is_foreign(&request, origins) {
        return Err(Refusal::Origin);
    }
    let mut response = create_response(&request).map_err(refusal)?;
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    let offered =
        || offered.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // [MQTT5-6.0.0-4] [MQTT311-6.0.0-4]
    let chosen = PROTOCOLS.iter().find(|known| offered().any(|name| name.trim() == **known));
    let chosen = chosen.ok_or(Refusal::Protocol)?;
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response).map_err(refusal)?;
    Ok(bytes)
}

/// Whether a browser asks for a page that comes neither from the place that it asks nor from one of these.
fn is_foreign(request: &Request, origins: &[String]) -> bool {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    request.headers().get_all(ORIGIN).iter().any(|origin| {
        let Ok(origin) = origin.to_str() else { return true };
        let place = origin.split_once("://").map(|(_, place)| place);
        let ours = place.zip(host).is_some_and(|(place, host)| place.eq_ignore_ascii_case(host));
        !ours && !origins.iter().any(|listed| listed.eq_ignore_ascii_case(origin))
    })
}

fn refusal(error: tungstenite::Error) -> Refusal {
    let tungstenite::Error::Protocol(error) = error else { return Refusal::NoHttp };
    match error {
        ProtocolError::WrongHttpMethod => Refusal::Method,
        ProtocolError::WrongHttpVersion
        | ProtocolError::MissingConnectionUpgradeHeader
        | ProtocolError::MissingUpgradeWebSocketHeader
        | ProtocolError::MissingSecWebSocketVersionHeader => Refusal::NoUpgrade,
        ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey => Refusal::Key,
        _ => Refusal::NoHttp,
    }
}

impl Refusal {
    fn response(self) -> Vec<u8> {
        let (status, more, text) = match self {
            Refusal::NoHttp => ("400 Bad Request", "", "this is no HTTP request"),
            Refusal::TooLarge => ("431 Request Header Fields Too Large", "", "the request is too large"),
            Refusal::End => ("400 Bad Request", "", "lines end with CR LF here"),
            Refusal::Body => ("400 Bad Request", "", "an upgrade has no body"),
            Refusal::Host => ("400 Bad Request", "", "one Host is needed"),
            Refusal::Method => ("405 Method Not Allowed", "Allow: GET\r\n", "only GET is known here"),
            Refusal::Path => ("404 Not Found", "", "MQTT over WebSocket is at /mqtt"),
            Refusal::Origin => ("403 Forbidden", "", "this page's origin is not in allowed_origins"),
            Refusal::NoUpgrade => (
                "426 Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                "MQTT over WebSocket (version 13) is spoken here",
            ),
            Refusal::Key => ("400 Bad Request", "", "Sec-WebSocket-Key is missing or wrong"),
            Refusal::Protocol => ("400 Bad Request", "", "Sec-WebSocket-Protocol must offer mqtt"),
        };
        let connection = if self == Refusal::NoUpgrade { "close, Upgrade" } else { "close" };
        let length = text.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\n{more}Connection: {connection}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}\n"
        )
        .into_bytes()
    }
}

/// Where MQTT is spoken.
const PATH: &str = "/mqtt";
/// What is understood, the best first; the second is what clients of MQTT 3.1 ask for.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// The end of a request without a body.
const END: &[u8] = b"\r\n\r\n";
/// Bytes of a request; a longer one is refused.
const REQUEST_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: x, mqtt\r\n\r\n";

    fn ask(request: &str) -> String {
        match Upgrade::default().take(request.as_bytes()) {
            Answer::Wait => "wait".to_owned(),
            Answer::Granted(response, _) | Answer::Refused(response) => String::from_utf8(response).unwrap(),
        }
    }

    // [MQTT5-6.0.0-4] [MQTT311-6.0.0-4]
    #[test]
    fn a_right_request_is_granted_whatever_pieces_it_comes_in() {
        for size in [1, 3, 50, GOOD.len()] {
            let mut upgrade = Upgrade::default();
            let answers: Vec<Answer> =
                GOOD.as_bytes().chunks(size).map(|piece| upgrade.take(piece)).collect();
            let (last, before) = answers.split_last().unwrap();
            assert!(before.iter().all(|answer| *answer == Answer::Wait));
            let Answer::Granted(response, 0) = last else { panic!("{last:?}") };
            let response = String::from_utf8_lossy(response);
            assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
            // The example of RFC 6455 1.3.
            assert!(response.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{response}");
            assert!(response.contains("sec-websocket-protocol: mqtt\r\n"), "{response}");
        }
    }

    #[test]
    fn pages_of_other_places_are_refused_unless_they_are_listed() {
        let ask = |origin: &str, listed: &[&str]| {
            let origins = listed.iter().map(|listed| (*listed).to_owned()).collect();
            let request = GOOD.replace("Host: x", &format!("Host: x:9001\r\n{origin}"));
            match Upgrade::new(origins).take(request.as_bytes()) {
                Answer::Granted(..) => 101,
                Answer::Refused(response) if response.starts_with(b"HTTP/1.1 403 ") => 403,
                other => panic!("{other:?}"),
            }
        };
        let panel = "https://panel.example";
        for (origin, listed, status) in [
            ("A: b", &[][..], 101),
            ("Origin: http://x:9001", &[], 101),
            ("Origin: https://X:9001", &[], 101),
            ("Origin: https://x", &[], 403),
            ("Origin: https://x:9001.evil.example", &[], 403),
            ("Origin: null", &[panel], 403),
            ("Origin: x:9001", &[panel], 403),
            ("Origin:", &[panel], 403),
            ("Origin: \u{e9}", &[panel], 403),
            ("Origin: https://panel.example", &[], 403),
            ("Origin: https://panel.example", &["https://other.example", panel], 101),
            ("Origin: http://panel.example", &[panel], 403),
            ("Origin: https://panel.example\r\nOrigin: https://evil.example", &[panel], 403),
        ] {
            assert_eq!(ask(origin, listed), status, "{origin} where {listed:?}");
        }
    }

    #[test]
    fn frames_that_come_with_the_request_are_left() {
        let Answer::Granted(_, rest) = Upgrade::default().take(format!("{GOOD}abc").as_bytes()) else {
            panic!("granted")
        };
        assert_eq!(rest, 3);
    }

    #[test]
    fn clients_of_older_times_find_their_protocol() {
        assert!(ask(&GOOD.replace("x, mqtt", "mqttv3.1")).contains("sec-websocket-protocol: mqttv3.1\r\n"));
        assert!(ask(&GOOD.replace("x, mqtt", "mqttv3.1,mqtt")).contains("sec-websocket-protocol: mqtt\r\n"));
        let two = "mqttv3.1\r\nSec-WebSocket-Protocol: mqtt";
        assert!(ask(&GOOD.replace("x, mqtt", two)).contains("sec-websocket-protocol: mqtt\r\n"));
    }

    // [MQTT5-6.0.0-3] [MQTT311-6.0.0-3]
    #[test]
    fn what_is_no_upgrade_for_mqtt_is_refused_by_its_status() {
        for (request, status) in [
            ("GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "426"),
            (GOOD.replace("Version: 13", "Version: 8"), "426"),
            (GOOD.replace("Upgrade: websocket", "Upgrade: h2c"), "426"),
            (GOOD.replace("/mqtt", "/"), "404"),
            (GOOD.replace("/mqtt", "/mqtts"), "404"),
            (GOOD.replace("GET", "POST"), "405"),
            (GOOD.replace("x, mqtt", "x, MQTT5"), "400"),
            (GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), "400"),
            ("\x10\x0C\0\x04MQTT".to_owned(), "400"),
            ("GARBAGE\r\n\r\n".to_owned(), "400"),
            (GOOD.replace("Host: x\r\n", ""), "400"),
            (GOOD.replace("Host: x", "Host: x\r\nHost: y"), "400"),
            (GOOD.replace("Host: x", "Host: x\r\nContent-Length: 5"), "400"),
            (GOOD.replace("Host: x", "Host: x\r\nTransfer-Encoding: chunked"), "400"),
            // The first empty line ends it for one parser, the second for the other.
            (GOOD.replace("mqtt\r\n\r\n", "mqtt\n\nGET / HTTP/1.1\r\n\r\n"), "400"),
            (format!("GET /mqtt HTTP/1.1\r\n{}\r\n\r\n", "A: b\r\n".repeat(2_000)), "431"),
            (format!("GET /{}", "a".repeat(9_000)), "431"),
        ] {
            let response = ask(&request);
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {response}");
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{response}");
        }
        assert!(ask(&GOOD.replace("/mqtt", "/mqtt?x=1")).starts_with("HTTP/1.1 101 "));
        let empty = "Host: x\r\nContent-Length: 0";
        assert!(ask(&GOOD.replace("Host: x", empty)).starts_with("HTTP/1.1 101 "));
    }
}
