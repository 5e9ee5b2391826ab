//! What can go wrong while a guest runs, told apart as far as the engine lets us, with what the guest left behind: where it
//! was, and the last lines that it wrote to standard error. A Rust panic's text is only there; its trap says `unreachable`.

use std::fmt;
use std::time::Duration;

use tokio::time::error::Elapsed;
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, ThrownException, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::limiter::MemoryLimiter;

/// How much of a backtrace is kept: about fifty frames. Function names come from the guest and can be of any length.
const MAX_BACKTRACE: usize = 8 * 1024;

/// How much of a message is kept that a guest may have had a hand in.
pub(crate) const MAX_MESSAGE: usize = 1024;

/// Why a call of a guest gave no answer. Whatever it is, the instance is gone.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// The guest ended itself, or did what it may not do.
    #[error("run the guest: {kind}{}", detail(message, kind))]
    Trap {
        /// What kind of trap.
        kind: TrapKind,
        /// The engine's words.
        message: String,
        /// What the guest left behind.
        evidence: Evidence,
    },
    /// The guest's code ran until its deadline.
    #[error("run the guest: it computed for longer than its deadline of {limit:?}")]
    Deadline {
        /// The time that it had.
        limit: Duration,
        /// What the guest left behind.
        evidence: Evidence,
    },
    /// The guest was waiting in a call of the host at its deadline. That need not be the fault of what it was working on.
    #[error("run the guest: it waited for the host for longer than its deadline of {limit:?}")]
    HostCallDeadline {
        /// The time that it had.
        limit: Duration,
        /// What the guest left behind. Without a backtrace, because nobody stopped in the guest.
        evidence: Evidence,
    },
    /// The guest ended after more memory was refused to it.
    #[error("run the guest: it asked for {asked} bytes of memory, more than its limit of {limit}")]
    OutOfMemory {
        /// The memory that it would have had, in bytes.
        asked: u64,
        /// The memory that it may have, in bytes.
        limit: u64,
        /// What the guest left behind.
        evidence: Evidence,
    },
    /// The guest called `exit`, which ends an instance as a trap does.
    #[error(
        "run the guest: it ended itself with exit code {code}; a receiver must return from its functions"
    )]
    Exit {
        /// 0 if it claimed success.
        code: i32,
        /// What the guest left behind.
        evidence: Evidence,
    },
    /// The receiver's `init` gave an error, whose text this is, or what it was granted can't be had.
    #[error("initialise the receiver: {0}")]
    Init(String),
    /// The host has no room for another instance.
    #[error("make an instance: {0}; raise the host's number of instances")]
    Pool(String),
    /// The instance had a fault before, or a call of it was given up. Make a new one.
    #[error("run the guest: the instance is gone since an earlier fault")]
    Gone,
}

/// What kind of trap it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrapKind {
    /// An `unreachable` instruction: a panic or an abort, in most languages. The text is on standard error.
    Unreachable,
    /// Too deep a recursion, seen by the engine.
    StackOverflow,
    /// A memory access out of bounds. With Rust and C, too deep a recursion looks like this.
    MemoryOutOfBounds,
    /// A bound of the host on handles, resources or data in one call.
    HostLimit,
    /// Anything else; the message says what.
    Other,
}

impl fmt::Display for TrapKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unreachable => "it panicked or aborted",
            Self::StackOverflow => "its stack overflowed",
            Self::MemoryOutOfBounds => "it reached outside its memory, perhaps because its stack overflowed",
            Self::HostLimit => "it went past a limit of the host",
            Self::Other => "it trapped",
        })
    }
}

/// What a guest left behind when it failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The guest's stack, one frame a line, the innermost first.
    pub backtrace: Option<String>,
    /// The last lines that the failed call wrote to standard error.
    pub stderr: Vec<String>,
}

impl Fault {
    /// What the guest left behind, if any of it ran.
    pub fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Trap { evidence, .. }
            | Self::Deadline { evidence, .. }
            | Self::HostCallDeadline { evidence, .. }
            | Self::OutOfMemory { evidence, .. }
            | Self::Exit { evidence, .. } => Some(evidence),
            Self::Init(_) | Self::Pool(_) | Self::Gone => None,
        }
    }

    /// Whether what the guest was working on may be the cause: not so where the host had no room, or kept it waiting.
    pub fn is_of_the_guest(&self) -> bool {
        match self {
            Self::Trap { .. } | Self::Deadline { .. } | Self::OutOfMemory { .. } | Self::Exit { .. } => true,
            Self::HostCallDeadline { .. } | Self::Init(_) | Self::Pool(_) | Self::Gone => false,
        }
    }

    /// Every word that [`kind`](Self::kind) can give.
    pub const KINDS: [&'static str; 12] = [
        "unreachable",
        "stack-overflow",
        "memory-out-of-bounds",
        "host-limit",
        "trap",
        "deadline",
        "host-call-deadline",
        "out-of-memory",
        "exit",
        "init",
        "pool",
        "gone",
    ];

    /// One word for it, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trap { kind: TrapKind::Unreachable, .. } => "unreachable",
            Self::Trap { kind: TrapKind::StackOverflow, .. } => "stack-overflow",
            Self::Trap { kind: TrapKind::MemoryOutOfBounds, .. } => "memory-out-of-bounds",
            Self::Trap { kind: TrapKind::HostLimit, .. } => "host-limit",
            Self::Trap { kind: TrapKind::Other, .. } => "trap",
            Self::Deadline { .. } => "deadline",
            Self::HostCallDeadline { .. } => "host-call-deadline",
            Self::OutOfMemory { .. } => "out-of-memory",
            Self::Exit { .. } => "exit",
            Self::Init(_) => "init",
            Self::Pool(_) => "pool",
            Self::Gone => "gone",
        }
    }

    /// Makes a fault of a call that had to end within `limit` and did not.
    pub(crate) fn late(_: Elapsed, limit: Duration, stderr: Vec<String>) -> Self {
        Self::HostCallDeadline { limit, evidence: Evidence { backtrace: None, stderr } }
    }

    /// Makes a fault of what the engine says about a call that had to end within `limit`.
    pub(crate) fn new(
        error: &wasmtime::Error,
        limit: Duration,
        memory: &MemoryLimiter,
        stderr: Vec<String>,
    ) -> Self {
        if let Some(full) = error.downcast_ref::<PoolConcurrencyLimitError>() {
            return Self::Pool(full.to_string());
        }
        let backtrace = error
            .downcast_ref::<WasmBacktrace>()
            .map(|backtrace| printable(&backtrace.to_string(), MAX_BACKTRACE, true));
        let evidence = Evidence { backtrace, stderr };
        if error.is::<DeadlineExceeded>() {
            Self::Deadline { limit, evidence }
        } else if let Some(exit) = error.downcast_ref::<I32Exit>() {
            Self::Exit { code: exit.0, evidence }
        } else if let Some(asked) = memory.refused() {
            Self::OutOfMemory { asked, limit: memory.limit(), evidence }
        } else {
            let message = printable(&error.root_cause().to_string(), MAX_MESSAGE, false);
            Self::Trap { kind: trap_kind(error), message, evidence }
        }
    }
}

/// The engine's words where they say more than the kind.
fn detail(message: &str, kind: &TrapKind) -> String {
    match kind {
        TrapKind::HostLimit | TrapKind::Other => format!(": {message}"),
        TrapKind::Unreachable | TrapKind::StackOverflow | TrapKind::MemoryOutOfBounds => String::new(),
    }
}

fn trap_kind(error: &wasmtime::Error) -> TrapKind {
    if error.is::<ResourceTableError>() {
        return TrapKind::HostLimit;
    }
    // One of the guest's own that nobody in it caught.
    if error.is::<ThrownException>() {
        return TrapKind::Other;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => TrapKind::Unreachable,
        Some(Trap::StackOverflow) => TrapKind::StackOverflow,
        Some(Trap::MemoryOutOfBounds) => TrapKind::MemoryOutOfBounds,
        Some(_) => TrapKind::Other,
        // Not a trap of WebAssembly, so the host refused to go on.
        None => TrapKind::HostLimit,
    }
}

/// Text from a guest, cut to `limit` bytes, that can do no harm in a log or on a terminal.
pub(crate) fn printable(text: &str, limit: usize, lines: bool) -> String {
    let mut clean = String::with_capacity(text.len().min(limit));
    for character in text.chars() {
        if clean.len() >= limit {
            clean.push('…');
            break;
        }
        if character.is_control() && character != '\t' && !(lines && character == '\n') {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// The trap that the host raises in a guest that computes for too long.
#[derive(Debug, thiserror::Error)]
#[error("deadline exceeded")]
pub(crate) struct DeadlineExceeded;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_of_the_guest_is_no_limit_of_the_host() {
        assert_eq!(trap_kind(&ThrownException.into()), TrapKind::Other);
        assert_eq!(trap_kind(&ResourceTableError::Full.into()), TrapKind::HostLimit);
    }
}
