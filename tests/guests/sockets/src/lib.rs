//! Tries to reach the network by sockets, for which there is no grant: to connect to the address in its setting `address`, to
//! listen, to send a datagram there, and to look up a name. Prints what came of each.

use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use exports::wharf::receiver::handler::Guest;
use wharf::receiver::types::{Batch, Failure};

wit_bindgen::generate!({ path: "../../../wit", world: "wharf:receiver/base", generate_all });

struct Sockets;

impl Guest for Sockets {
    fn handle(_: Batch) -> Vec<Failure> {
        let address = std::env::var("address").expect("there is an address to try");
        report("connect", TcpStream::connect(&address));
        report("listen", TcpListener::bind("127.0.0.1:0"));
        report("send", UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"hello", &address)));
        report("look up", ("localhost", 80).to_socket_addrs().map(Vec::from_iter));
        Vec::new()
    }
}

fn report<T>(what: &str, outcome: std::io::Result<T>) {
    match outcome {
        Ok(_) => println!("{what}: worked"),
        Err(error) => println!("{what}: {error}"),
    }
}

export!(Sockets);
