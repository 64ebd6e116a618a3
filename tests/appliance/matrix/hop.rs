//! What is between a client that speaks TCP alone and a listener of TLS or WebSocket, as a relay is between
//! rumqttc and the uplink's stream.
//!
//! Bytes pass unread and in both directions; whoever ends one side ends the other. A hop runs until the
//! test's process ends.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

/// Gives the port of a hop that speaks TLS to that other port, whose certificate these authorities signed.
pub(super) fn tls(port: u16, authorities: &Path) -> u16 {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authorities).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
    let (listener, own) = listen();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((mut client, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let gateway = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
                    gateway.set_nodelay(true)?;
                    let name = ServerName::try_from("localhost").expect("a name");
                    let mut gateway = connector.connect(name, gateway).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut gateway).await
                });
            }
        });
    });
    own
}

/// Gives the port of a hop that speaks WebSocket to that other port.
pub(super) fn websocket(port: u16) -> u16 {
    let (listener, own) = listen();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || pass_framed(client, port));
        }
    });
    own
}

fn pass_framed(mut client: TcpStream, port: u16) {
    let gateway = TcpStream::connect(("127.0.0.1", port)).unwrap();
    gateway.set_nodelay(true).unwrap();
    let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
    let (mut from_gateway, _) = tungstenite::client::client(request, gateway).unwrap();
    let (mut to_client, wire) = (client.try_clone().unwrap(), from_gateway.get_ref().try_clone().unwrap());
    // Each half has its own: nothing that is read here has to be answered.
    let halves = WebSocketConfig::default().write_buffer_size(0);
    let mut to_gateway = WebSocket::from_raw_socket(wire, Role::Client, Some(halves));
    let down = thread::spawn(move || {
        while let Ok(Message::Binary(bytes)) = from_gateway.read() {
            if to_client.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 8_192];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        if to_gateway.send(Message::binary(buffer[..count].to_vec())).is_err() {
            break;
        }
    }
    let _ = to_gateway.get_ref().shutdown(Shutdown::Both);
    let _ = down.join();
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}
