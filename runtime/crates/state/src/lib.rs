//! What Wharf remembers beside the log: how far each receiver has come.
//!
//! A [`Cursor`] says which offsets of one lane of a topic a receiver has finished; [`State`] keeps the cursors of all
//! receivers in a small database in the data directory. This crate neither reads the log nor decides what is
//! finished: delivery does both. Every call of [`State`] blocks on the disk.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod cursor;
mod error;
mod layout;
mod store;

pub use cursor::{Cursor, CursorFull, Cursors, MAX_RUNS};
pub use error::StateError;
pub use store::{Persist, State};
