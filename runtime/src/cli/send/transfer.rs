//! Brings the lines to the server: batches of what is there, several frames under way, again what the server could not
//! take or a lost connection left unanswered.
//!
//! Messages are sent in the order of their lines. Where some are sent again, they may come after later ones that were
//! accepted at once, and the server may have one already whose answer was lost: it keeps its `message_id`, by which the server
//! knows it.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use wharf_protocol::{AgentId, Answer, Call, Encoding, Message, Refusal, Request};

use super::{
    console::Console,
    input::{Line, own_id},
    tally::{BAD_LINE, Tally},
};
use crate::{
    backoff::Backoff,
    client::{ClientError, Connection, Endpoint, Frame, is_transient},
    unix_time::unix_milliseconds,
};

/// Messages that may be unanswered, however many a frame holds. Enough that the server always has a group to sync while
/// answers of the last one travel.
const MAX_MESSAGES_IN_FLIGHT: usize = 2_048;

/// Frames that may be unanswered with the largest batches: one that is stored, one that travels, and some slack.
const MIN_FRAMES_IN_FLIGHT: usize = 4;

/// Bytes of bodies that may be unanswered: they are kept for sending again. One message may exceed it.
const MAX_BYTES_IN_FLIGHT: usize = 32 * 1024 * 1024;

/// Bytes of bodies in one frame, where it holds more than one message. Far below what servers take as the largest frame.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// How often one message is sent again to a server that says it is overloaded. With the pauses between, that is half a
/// minute of a server that takes nothing.
const MAX_REFUSALS: u32 = 10;

/// Connections in a row that end without an answer. With the pauses between, that is half a minute without a server.
const MAX_RECONNECTS: u32 = 10;

/// The first pause before trying again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause of our own before trying again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause that a server can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// What is sent where, and how.
pub struct Settings {
    /// The server.
    pub endpoint: Endpoint,
    /// Whose messages these are.
    pub agent: AgentId,
    /// Of which type they are.
    pub data_type: String,
    /// The encoding on the wire.
    pub encoding: Encoding,
    /// Messages in a frame at most, at least one.
    pub batch: usize,
}

/// One run of `wharf send`.
pub struct Transfer {
    settings: Settings,
    /// Makes the ids of this run's messages differ from those of any other.
    run: u64,
    waiting: VecDeque<Outgoing>,
    bytes_in_flight: usize,
    resume_at: Option<Instant>,
    reconnects: u32,
    backoff: Backoff,
    tally: Tally,
    console: Console,
}

/// A message that is not acknowledged.
struct Outgoing {
    origin: Origin,
    request: Request,
}

/// What is known of a message beside what is sent.
struct Origin {
    line: u64,
    bytes: usize,
    sent: bool,
    refusals: u32,
}

/// What went into one frame.
#[derive(Default)]
struct Batch {
    origins: Vec<Origin>,
    requests: Vec<Request>,
    bytes: usize,
}

impl Transfer {
    /// A run that has sent nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            run: rand::random(),
            waiting: VecDeque::new(),
            bytes_in_flight: 0,
            resume_at: None,
            reconnects: 0,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            tally: Tally::default(),
            console: Console::new(),
        }
    }

    /// What became of the messages so far.
    pub fn into_tally(self) -> Tally {
        self.console.finish();
        self.tally
    }

    /// Sends all lines. May be dropped at any time; the tally then tells how far it came.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached at first, or not again for a while.
    pub async fn run(&mut self, mut lines: mpsc::Receiver<Vec<Line>>) -> Result<(), ClientError> {
        let mut connection = self.connect().await?;
        loop {
            let Err(error) = self.pump(&mut connection, &mut lines).await else {
                connection.close().await;
                return Ok(());
            };
            self.take_back(connection.into_unanswered());
            connection = self.reconnect(error).await?;
        }
    }

    async fn connect(&self) -> Result<Connection<Batch>, ClientError> {
        let window = (MAX_MESSAGES_IN_FLIGHT / self.settings.batch.max(1)).max(MIN_FRAMES_IN_FLIGHT);
        Connection::open(&self.settings.endpoint, window).await
    }

    async fn reconnect(&mut self, mut error: ClientError) -> Result<Connection<Batch>, ClientError> {
        loop {
            if !error.is_worth_another_try() || self.reconnects >= MAX_RECONNECTS {
                return Err(error);
            }
            if self.reconnects == 0 {
                self.console.say(&format!("failed to {}; connecting again", error.with_causes()));
            }
            self.reconnects = self.reconnects.saturating_add(1);
            sleep(self.backoff.next_pause()).await;
            match self.connect().await {
                Ok(connection) => return Ok(connection),
                Err(again) => error = again,
            }
        }
    }

    /// Sends and hears answers until everything is answered or the connection ends.
    async fn pump(
        &mut self,
        connection: &mut Connection<Batch>,
        lines: &mut mpsc::Receiver<Vec<Line>>,
    ) -> Result<(), ClientError> {
        let mut ended = false;
        loop {
            self.fill(connection, lines).await;
            let idle = connection.in_flight() == 0;
            if ended && idle && self.waiting.is_empty() {
                return Ok(());
            }
            let paused = self.resume_at;
            let hungry = !ended && paused.is_none() && self.waiting.is_empty() && connection.has_room();
            tokio::select! {
                answer = connection.answer() => {
                    let (batch, answer) = answer?;
                    self.settle(batch, answer);
                }
                block = lines.recv(), if hungry => match block {
                    Some(block) => self.take_in(block),
                    None => ended = true,
                },
                () = sleep_until(paused.unwrap_or_else(Instant::now)), if paused.is_some() && idle => self.resume(),
            }
        }
    }

    /// Sends what is there as far as the window lets it.
    async fn fill(&mut self, connection: &mut Connection<Batch>, lines: &mut mpsc::Receiver<Vec<Line>>) {
        while self.resume_at.is_none() && connection.has_room() && self.bytes_in_flight < MAX_BYTES_IN_FLIGHT
        {
            if self.waiting.is_empty()
                && let Ok(block) = lines.try_recv()
            {
                self.take_in(block);
            }
            let Some((frame, batch)) = self.next_frame() else { return };
            self.bytes_in_flight = self.bytes_in_flight.saturating_add(batch.bytes);
            connection.send(frame, batch).await;
        }
    }

    fn next_frame(&mut self) -> Option<(Frame, Batch)> {
        let mut batch = Batch::default();
        while let Some(next) = self.waiting.front()
            && batch.has_room_for(next, self.settings.batch)
            && let Some(next) = self.waiting.pop_front()
        {
            batch.push(next);
        }
        if batch.requests.is_empty() {
            return None;
        }
        let unsent = batch
            .origins
            .iter_mut()
            .filter_map(|origin| (!mem::replace(&mut origin.sent, true)).then_some(()));
        self.tally.count_sent(unsent.count());
        Some((Frame::encode(&batch.requests, self.settings.encoding), batch))
    }

    fn take_in(&mut self, block: Vec<Line>) {
        let sent_at = Some(unix_milliseconds());
        for Line { number, body } in block {
            let body = match body {
                Ok(body) => body,
                Err(error) => {
                    self.tally.count_refused(BAD_LINE);
                    self.console.complain(BAD_LINE, &format!("line {number}: {error}"));
                    continue;
                }
            };
            let origin = Origin { line: number, bytes: body.bytes().len(), sent: false, refusals: 0 };
            let message = Message {
                agent: self.settings.agent.clone(),
                data_type: self.settings.data_type.clone(),
                message_id: Some(own_id(&body).unwrap_or_else(|| format!("{:016x}-{number}", self.run))),
                sent_at,
                traceparent: None,
                body,
            };
            self.waiting.push_back(Outgoing { origin, request: Request::from(Call::Data(message)) });
        }
    }

    fn settle(&mut self, batch: Batch, answer: Answer) {
        self.reconnects = 0;
        self.bytes_in_flight = self.bytes_in_flight.saturating_sub(batch.bytes);
        let mut refused: BTreeMap<usize, Refusal> = match answer {
            Answer::Success { .. } => BTreeMap::new(),
            Answer::Batch { errors, .. } => errors.into_iter().collect(),
            Answer::Error { refusal, .. } => {
                (0..batch.requests.len()).map(|index| (index, refusal.clone())).collect()
            }
        };
        let mut accepted = 0_usize;
        for (index, message) in batch.into_messages().enumerate() {
            match refused.remove(&index) {
                None => accepted = accepted.saturating_add(1),
                Some(refusal) => self.take_refused(message, &refusal),
            }
        }
        if accepted > 0 {
            self.tally.count_accepted(accepted);
            self.backoff.reset();
        }
        self.console.progress(self.tally.accepted());
    }

    /// Keeps a message that may be accepted later; tells of one that is refused for good.
    fn take_refused(&mut self, mut message: Outgoing, refusal: &Refusal) {
        if is_transient(refusal.code) && message.origin.refusals < MAX_REFUSALS {
            message.origin.refusals = message.origin.refusals.saturating_add(1);
            self.waiting.push_back(message);
            // One pause for all that is refused before it is over: they were sent before anyone knew.
            if self.resume_at.is_none() {
                let asked_for = Duration::from_millis(refusal.retry_after_ms.unwrap_or_default());
                let pause = asked_for.min(LONGEST_RETRY_AFTER).max(self.backoff.next_pause());
                self.resume_at = Some(Instant::now() + pause);
            }
            return;
        }
        let code = refusal.code.as_str();
        self.tally.count_refused(code);
        self.console.complain(code, &format!("line {}: {refusal}", message.origin.line));
    }

    /// What was unanswered when the connection ended is sent before anything else.
    fn take_back(&mut self, unanswered: VecDeque<Batch>) {
        self.bytes_in_flight = 0;
        self.waiting.extend(unanswered.into_iter().flat_map(Batch::into_messages));
        self.resume();
    }

    /// Sends again, in the order of the lines.
    fn resume(&mut self) {
        self.resume_at = None;
        self.waiting.make_contiguous().sort_by_key(|message| message.origin.line);
    }
}

impl Batch {
    fn has_room_for(&self, next: &Outgoing, max_messages: usize) -> bool {
        self.requests.is_empty()
            || (self.requests.len() < max_messages
                && self.bytes.saturating_add(next.origin.bytes) <= MAX_BATCH_BYTES)
    }

    fn push(&mut self, message: Outgoing) {
        self.bytes = self.bytes.saturating_add(message.origin.bytes);
        self.origins.push(message.origin);
        self.requests.push(message.request);
    }

    fn into_messages(self) -> impl Iterator<Item = Outgoing> {
        std::iter::zip(self.origins, self.requests).map(|(origin, request)| Outgoing { origin, request })
    }
}

#[cfg(test)]
mod tests;
