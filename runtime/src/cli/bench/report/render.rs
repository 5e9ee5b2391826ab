//! The report for people: what was run, a table, the latencies, and in words what should not be overlooked.

use std::fmt;

use super::{Latency, Report, Setup, name};
use crate::cli::table::{Align, columns};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { url, data_type, encoding, connections, agents, batch, size_bytes, window, .. } =
            &self.setup;
        writeln!(f, "{url}, {data_type} as {}", name(*encoding))?;
        writeln!(
            f,
            "{connections} connections with {window} frames under way at most, {agents} agents, batches of {batch}, bodies of {size_bytes} bytes"
        )?;
        let stopped = if self.interrupted { ", stopped early" } else { "" };
        let warm_up = self.setup.warm_up.as_secs_f64();
        writeln!(f, "counted for {:.3} s after {warm_up} s of warm-up{stopped}\n", self.seconds)?;
        write!(
            f,
            "{}",
            columns(
                [("messages", Align::Left), ("total", Align::Right), ("a second", Align::Right)],
                self.rows()
            )
        )?;
        let Latency { p50, p90, p99, p99_9, max } = &self.latency_ms;
        let heads = ["ms until acknowledged", "p50", "p90", "p99", "p99.9", "max"];
        let cells = [*p50, *p90, *p99, *p99_9, *max].map(|milliseconds| format!("{milliseconds:.2}"));
        let [a, b, c, d, e] = cells;
        let from = if self.setup.rate.is_some() {
            "from when a frame was due"
        } else {
            "from when a frame was sent"
        };
        let aligned =
            heads.map(|head| (head, if head.starts_with("ms") { Align::Left } else { Align::Right }));
        write!(f, "\n{}", columns(aligned, vec![[from.to_owned(), a, b, c, d, e]]))?;
        self.words(f)
    }
}

impl Report {
    fn rows(&self) -> Vec<[String; 3]> {
        let rate = |count: u64| {
            let per_second = if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 };
            format!("{per_second:.0}")
        };
        let mut rows = Vec::new();
        if let Some(offered) = self.offered {
            rows.push(["offered".to_owned(), offered.to_string(), rate(offered)]);
        }
        let per_second = format!("{:.0}", self.messages_per_second);
        rows.push(["accepted".to_owned(), self.accepted.to_string(), per_second]);
        for (code, count) in &self.refused {
            rows.push([format!("refused: {code}"), count.to_string(), String::new()]);
        }
        for (what, count) in [("not answered", self.unanswered), ("due and not sent", self.unsent)] {
            if count > 0 {
                rows.push([what.to_owned(), count.to_string(), String::new()]);
            }
        }
        rows
    }

    fn words(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = if self.seconds > 0.0 { self.client_cpu_seconds / self.seconds * 100.0 } else { 0.0 };
        write!(
            f,
            "\n{:.2} MB/s of bodies; this program took {:.2} s of CPU time, {share:.0} % of a processor",
            self.megabytes_per_second, self.client_cpu_seconds
        )?;
        if self.disconnects > 0 {
            write!(f, "\n{} of {} connections broke", self.disconnects, self.setup.connections)?;
        }
        if self.fell_behind() && self.shortcomings().is_none() && !self.client_limited {
            write!(f, "\nthe server took less than it was offered, or the window was too small")?;
        }
        if self.client_limited {
            let share = self.sent_late as f64 / self.sent.max(1) as f64 * 100.0;
            write!(
                f,
                "\nthe client was the limit: {share:.0} % of the messages were sent more than 1 ms later than the server would have taken them, so that these latencies are partly its own; run it on a machine with more processors to spare, or lower --rate"
            )?;
        }
        Ok(())
    }
}
