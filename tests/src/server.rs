//! A server that listens.

use std::net::SocketAddr;
use std::process::ExitStatus;

use crate::log::Log;
use crate::process::Process;

/// The process and where it listens. It is killed when the value is dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    /// Where agents and browsers connect.
    pub agents: SocketAddr,
    /// Where operators connect.
    pub admin: SocketAddr,
    /// The lines of its standard output.
    pub stdout: Log,
    /// The lines of its log.
    pub log: Log,
}

impl Server {
    /// Waits until a process that runs a server listens.
    pub async fn listening(process: Process) -> Server {
        let (agents, admin) = (address(&process, "agents").await, address(&process, "admin").await);
        let (stdout, log) = (process.stdout.clone(), process.log.clone());
        Server { process, agents, admin, stdout, log }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// See [`Process::signal`].
    pub fn signal(&self, signal: rustix::process::Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        self.process.ended().await
    }

    /// See [`Process::stop`].
    pub async fn stop(self) -> Log {
        self.process.stop().await
    }

    /// See [`Process::kill`].
    pub async fn kill(self) -> Log {
        self.process.kill().await
    }
}

async fn address(process: &Process, listener: &str) -> SocketAddr {
    let prefix = format!("listening {listener} http://");
    let address = |line: &str| Some(line.strip_prefix(&prefix)?.parse().expect("the address is one"));
    match process.stdout.find("the server to listen", address).await {
        Some(address) => address,
        None => {
            process.log.ended().await;
            panic!("the server ended at once");
        }
    }
}
