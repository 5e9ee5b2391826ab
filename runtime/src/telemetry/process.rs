//! What the process uses, under the names that every exporter of Prometheus gives it. Elsewhere than on Linux there is less to
//! read, and what can't be read is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Reads the numbers of this process.
#[derive(Debug)]
pub(super) struct Process;

/// What `/proc/self/stat` says, as far as it is used.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    /// After the start of the system.
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    /// Reads the line. The name of the program is in it, in parentheses, and can be anything.
    fn parse(line: &str) -> Option<Stat> {
        let (_, fields) = line.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        // The third field of `proc_pid_stat(5)` is the first one here.
        let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
        Some(Stat {
            cpu_ticks: field(14)?.saturating_add(field(15)?),
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            // All of these are exact as long as they are below 2^53.
            let seconds = |ticks: u64| ticks as f64 / clock_ticks_per_second() as f64;
            let page = u64::try_from(page_size()).unwrap_or(u64::MAX);
            let help = "Processor time of the server.";
            let cpu = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(seconds(stat.cpu_ticks)).encode(cpu)?;
            let resident = stat.resident_pages.saturating_mul(page);
            gauge(&mut encoder, "process_resident_memory_bytes", "Memory that the server has.", resident)?;
            let help = "Address space of the server, most of it never used.";
            gauge(&mut encoder, "process_virtual_memory_bytes", help, stat.virtual_bytes)?;
            gauge(&mut encoder, "process_threads", "Threads of the server.", stat.threads)?;
            if let Some(boot) = boot_time() {
                let help = "When the server was started, in Unix time.";
                let start =
                    encoder.encode_descriptor("process_start_time_seconds", help, None, MetricType::Gauge)?;
                ConstGauge::new(boot as f64 + seconds(stat.start_ticks)).encode(start)?;
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // Without the one that reads this.
            let open = u64::try_from(files.count().saturating_sub(1)).unwrap_or(u64::MAX);
            gauge(&mut encoder, "process_open_fds", "Open files and sockets of the server.", open)?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            gauge(
                &mut encoder,
                "process_max_fds",
                "Files and sockets that the server may have open.",
                limit,
            )?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// When the system was started, in seconds of Unix time.
fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_can_be_anything() {
        let line = "7 (a) R 1 (b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 12345 1048576 77 18446744073709551615";
        let expected = Stat {
            cpu_ticks: 300,
            threads: 9,
            start_ticks: 12_345,
            virtual_bytes: 1_048_576,
            resident_pages: 77,
        };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse("7 (wharf) S 1"), None);
    }
}
