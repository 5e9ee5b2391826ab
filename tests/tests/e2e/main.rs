//! What Wharf promises, tried on the real binary from outside. One file a subject; each test has a server of its own.

mod backlog;
mod clients;
mod codes;
mod config;
mod connections;
mod docs;
mod durability;
mod frames;
mod guests;
mod hostile;
mod inspect;
mod metrics;
mod output;
mod overload;
mod pages;
mod parking;
mod poison;
mod presence;
mod quarantine;
mod receivers;
mod retention;
mod shutdown;
mod slow_clients;
mod status;
mod timer;
mod tour;
