//! The status again and again: on a terminal in the place of the one before, elsewhere below it. A server that does not answer is
//! waited for.

use std::io::{ErrorKind, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{ask, text};
use crate::cli::admin::{Answer, Server};
use crate::cli::table::{cut, printable};
use crate::cli::{terminal, time};

/// Often enough to follow, and seldom enough to cost the server nothing.
const EVERY: Duration = Duration::from_secs(1);

/// Makes a terminal begin at its top, with nothing on it.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// Makes it write over what is there from the top on.
const HOME: &str = "\x1b[H";
/// Erases what was in the rest of the line, and of everything below.
const ERASE_LINE: &str = "\x1b[K";
const ERASE_BELOW: &str = "\x1b[J";

/// What tells whether it is the same run of the server.
#[derive(Deserialize)]
struct Run {
    uptime_seconds: f64,
}

/// Whether the server answered, over time.
#[derive(Debug, Default)]
struct Contact {
    /// How long the server was up at its last answer.
    uptime: Option<f64>,
    /// Since when it does not answer, and why.
    silent: Option<(u64, String)>,
    /// What is to be known of earlier times.
    past: Option<String>,
}

/// Shows it until `shutdown`.
pub async fn run(server: &Server, json: bool, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let mut contact = Contact::default();
    let mut shown = String::new();
    let mut told = None;
    let mut is_first = true;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let answer = ask(server, shutdown).await.and_then(|answer| read(&answer, json));
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let is_new = match answer {
            Ok((uptime, text)) => {
                contact.answered(uptime, now());
                shown = text;
                true
            }
            // Whether this is the right address, the first answer tells.
            Err(error) if is_first => return Err(error),
            Err(error) => {
                contact.silent(&format!("{error:#}"), now());
                false
            }
        };
        let notice = contact.notice();
        let printed = match terminal::size().filter(|_| !json) {
            Some(size) => print(&screen(notice.as_deref(), &shown, size, is_first)),
            None => {
                if notice != told {
                    // Nobody may be reading it.
                    let _ = notice
                        .iter()
                        .try_for_each(|notice| writeln!(std::io::stderr(), "wharf: {}", printable(notice)));
                }
                let gap = if is_first || json { "" } else { "\n" };
                if is_new { print(&format!("{gap}{shown}")) } else { Ok(()) }
            }
        };
        match printed {
            // Whoever read it has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            printed => printed.context("failed to print the status")?,
        }
        told = notice;
        is_first = false;
    }
}

fn read(answer: &Answer, json: bool) -> anyhow::Result<(f64, String)> {
    let Run { uptime_seconds } = answer.read()?;
    Ok((uptime_seconds, text(answer, json)?))
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What makes a terminal show this, as far as it fits.
fn screen(notice: Option<&str>, status: &str, size: terminal::Size, is_first: bool) -> String {
    let notice = notice.map(|notice| format!("{}\n\n", printable(notice))).unwrap_or_default();
    let text = cut(&format!("{notice}{status}"), size.width);
    let mut screen = if is_first { CLEAR } else { HOME }.to_owned();
    // The line that the cursor ends in is one too.
    for line in text.lines().take(size.height.saturating_sub(1)) {
        screen.extend([line, ERASE_LINE, "\r\n"]);
    }
    screen + ERASE_BELOW
}

impl Contact {
    fn answered(&mut self, uptime: f64, now: u64) {
        let again = self.uptime.is_some_and(|before| uptime < before);
        let again = if again { "the server was started again" } else { "the server answers again" };
        if let Some((since, _)) = self.silent.take() {
            self.past =
                Some(format!("{again}: no answer from {} to {}", time::write(since), time::write(now)));
        } else if self.uptime.is_some_and(|before| uptime < before) {
            self.past = Some(format!("{again}, seen at {}", time::write(now)));
        }
        self.uptime = Some(uptime);
    }

    fn silent(&mut self, why: &str, now: u64) {
        let since = self.silent.as_ref().map_or(now, |(since, _)| *since);
        self.silent = Some((since, why.to_owned()));
    }

    fn notice(&self) -> Option<String> {
        match &self.silent {
            Some((since, why)) => {
                Some(format!("no answer since {}, trying again: {why}", time::write(*since)))
            }
            None => self.past.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_was_away_is_told_of() {
        let mut contact = Contact::default();
        contact.answered(10.0, 1_000);
        contact.answered(11.0, 2_000);
        assert_eq!(contact.notice(), None);
        contact.silent("refused", 3_000);
        contact.silent("timed out", 4_000);
        assert_eq!(
            contact.notice().as_deref(),
            Some("no answer since 1970-01-01T00:00:03Z, trying again: timed out")
        );
        contact.answered(14.0, 5_000);
        assert_eq!(
            contact.notice().as_deref(),
            Some("the server answers again: no answer from 1970-01-01T00:00:03Z to 1970-01-01T00:00:05Z")
        );
        contact.silent("refused", 6_000);
        contact.answered(0.5, 7_000);
        assert_eq!(
            contact.notice().as_deref(),
            Some("the server was started again: no answer from 1970-01-01T00:00:06Z to 1970-01-01T00:00:07Z")
        );
        contact.answered(0.2, 8_000);
        assert_eq!(
            contact.notice().as_deref(),
            Some("the server was started again, seen at 1970-01-01T00:00:08Z")
        );
    }

    #[test]
    fn a_terminal_gets_what_fits_in_the_place_of_what_was_there() {
        let size = terminal::Size { width: 6, height: 4 };
        assert_eq!(
            screen(None, "one\n1234567\n", size, true),
            "\x1b[H\x1b[2Jone\x1b[K\r\n12345…\x1b[K\r\n\x1b[J"
        );
        assert_eq!(
            screen(Some("a\x1bway"), "one\ntwo\n", size, false),
            "\x1b[Ha\u{fffd}way\x1b[K\r\n\x1b[K\r\none\x1b[K\r\n\x1b[J"
        );
    }
}
