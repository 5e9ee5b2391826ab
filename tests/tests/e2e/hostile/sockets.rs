//! A receiver that uses sockets, which nobody can be granted.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use e2e::files;

use super::{Ring, config};

#[tokio::test]
pub async fn sockets_lead_nowhere() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    let datagrams = UdpSocket::bind(address).expect("the port is free for datagrams too");
    let config = config("none")
        .receiver("sockets", &files::guest("sockets"), &["metrics"])
        .set("receivers.sockets.config.address", address.to_string());
    let ring = Ring::start(config).await;
    for what in ["connect", "listen", "send", "look up"] {
        let line = ring.server.log.wait_for(&["receiver.name=sockets", &format!(" guest: {what}: ")]).await;
        assert!(!line.contains("worked"), "{line}");
    }
    listener.set_nonblocking(true).expect("it can be asked without waiting");
    datagrams.set_nonblocking(true).expect("it can be asked without waiting");
    assert!(listener.accept().is_err() && datagrams.recv(&mut [0; 16]).is_err(), "nothing arrived");
    assert_eq!(ring.server.receiver("sockets").await["failed"], 0);
    ring.end().await;
}
