//! What the agent reports about its host, and how it is read. Knows neither the server nor the protocol.

use std::time::Instant;

use serde::Serialize;
use sysinfo::{CpuRefreshKind, DiskRefreshKind, Disks, MemoryRefreshKind, Networks, RefreshKind, System};

/// The name of the loopback interface, whose bytes never leave the host.
const LOOPBACK: &str = "lo";

/// One report: the `data` of a `system_metrics` message.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(rename = "type")]
    kind: &'static str,
    body: Sample,
}

impl Report {
    /// Wraps a sample in the shape that receivers of `system_metrics` know.
    pub fn statistics(body: Sample) -> Self {
        Self { kind: "statistics", body }
    }
}

/// The state of the host at one moment. What a system cannot tell is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Mean use of all cores since the sample before, in percent.
    pub cpu_load: f64,
    /// Used part of the memory, in percent. Memory that the system would give back (caches) is not used.
    pub memory_usage: f64,
    /// Used part of the fullest file system on a disk, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_usage: Option<u64>,
    /// Size of the memory.
    pub memory_total_bytes: u64,
    /// Memory in use.
    pub memory_used_bytes: u64,
    /// The averages of running and waiting tasks that the system keeps.
    #[serde(flatten)]
    pub load: Option<Load>,
    /// Traffic since the sample before, without the loopback interface.
    #[serde(flatten)]
    pub network: Option<Traffic>,
    /// Time since the host started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
}

/// Mean number of tasks that ran or waited to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Load {
    /// Over the last minute.
    pub load_1m: f64,
    /// Over the last five minutes.
    pub load_5m: f64,
    /// Over the last fifteen minutes.
    pub load_15m: f64,
}

/// How fast bytes come and go.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Traffic {
    /// Received per second, over all interfaces.
    pub network_received_bytes_per_second: u64,
    /// Sent per second, over all interfaces.
    pub network_sent_bytes_per_second: u64,
}

/// Reads the host. Load and traffic are differences, so one sampler is kept for a whole run.
pub struct Sampler {
    system: System,
    disks: Option<Disks>,
    networks: Option<Networks>,
    sampled: Instant,
}

impl Sampler {
    /// Takes the first readings, from which the first sample is a difference.
    ///
    /// # Errors
    ///
    /// When this system tells nothing about processors and memory.
    pub fn new() -> Result<Self, sysinfo::Error> {
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        Ok(Self {
            system: System::new_with_specifics(what)?,
            disks: Disks::new().ok(),
            networks: Networks::new_with_refreshed_list().ok(),
            sampled: Instant::now(),
        })
    }

    /// The state now. Blocks while the system answers.
    pub fn sample(&mut self) -> Sample {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let elapsed = self.sampled.elapsed().as_secs_f64();
        self.sampled = Instant::now();
        let memory_total_bytes = self.system.total_memory();
        let memory_used_bytes = self.system.used_memory();
        Sample {
            cpu_load: to_hundredths(f64::from(self.system.global_cpu_usage())),
            memory_usage: to_hundredths(percent(memory_used_bytes, memory_total_bytes)),
            disk_usage: self.disk_usage(),
            memory_total_bytes,
            memory_used_bytes,
            load: System::load_average().ok().map(|load| Load {
                load_1m: load.one,
                load_5m: load.five,
                load_15m: load.fifteen,
            }),
            network: self.traffic(elapsed),
            uptime_seconds: System::uptime().ok(),
        }
    }

    fn disk_usage(&mut self) -> Option<u64> {
        let disks = self.disks.as_mut()?;
        disks.refresh_specifics(true, DiskRefreshKind::nothing().with_storage());
        disks
            .iter()
            .filter(|disk| disk.total_space() > 0)
            .map(|disk| {
                let used = disk.total_space().saturating_sub(disk.available_space());
                rounded(percent(used, disk.total_space()))
            })
            .max()
    }

    fn traffic(&mut self, elapsed_seconds: f64) -> Option<Traffic> {
        let networks = self.networks.as_mut()?;
        networks.refresh(true);
        let (mut received, mut sent) = (0_u64, 0_u64);
        for (_, interface) in networks.iter().filter(|(name, _)| *name != LOOPBACK) {
            received = received.saturating_add(interface.received());
            sent = sent.saturating_add(interface.transmitted());
        }
        Some(Traffic {
            network_received_bytes_per_second: per_second(received, elapsed_seconds),
            network_sent_bytes_per_second: per_second(sent, elapsed_seconds),
        })
    }
}

/// `part` of `whole` in percent, 0 of nothing.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { as_float(part) / as_float(whole) * 100.0 }
}

fn per_second(count: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { rounded(as_float(count) / seconds) } else { 0 }
}

/// Readings are not more exact than this, and a page shows no more.
fn to_hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The nearest float; what is beyond 53 bits does not show in a percentage or a rate.
fn as_float(value: u64) -> f64 {
    value as f64
}

fn rounded(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "this cast saturates, and the values are quotients of what the system counted"
    )]
    let whole = value.round() as u64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_shape_that_receivers_know() {
        let report = Report::statistics(Sample {
            cpu_load: 3.25,
            memory_usage: 41.5,
            disk_usage: Some(42),
            memory_total_bytes: 8_000_000_000,
            memory_used_bytes: 3_320_000_000,
            load: Some(Load { load_1m: 0.5, load_5m: 0.25, load_15m: 0.0 }),
            network: Some(Traffic {
                network_received_bytes_per_second: 1_500,
                network_sent_bytes_per_second: 300,
            }),
            uptime_seconds: Some(86_400),
        });
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap(), @r#"
        {
          "type": "statistics",
          "body": {
            "cpu_load": 3.25,
            "memory_usage": 41.5,
            "disk_usage": 42,
            "memory_total_bytes": 8000000000,
            "memory_used_bytes": 3320000000,
            "load_1m": 0.5,
            "load_5m": 0.25,
            "load_15m": 0.0,
            "network_received_bytes_per_second": 1500,
            "network_sent_bytes_per_second": 300,
            "uptime_seconds": 86400
          }
        }
        "#);
    }

    #[test]
    fn what_the_system_does_not_tell_is_left_out() {
        let report = Report::statistics(Sample {
            cpu_load: 0.0,
            memory_usage: 0.0,
            disk_usage: None,
            memory_total_bytes: 0,
            memory_used_bytes: 0,
            load: None,
            network: None,
            uptime_seconds: None,
        });
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap(), @r#"
        {
          "type": "statistics",
          "body": {
            "cpu_load": 0.0,
            "memory_usage": 0.0,
            "memory_total_bytes": 0,
            "memory_used_bytes": 0
          }
        }
        "#);
    }

    #[test]
    fn a_real_sample_is_plausible() {
        let mut sampler = Sampler::new().expect("this system has a processor and memory");
        let sample = sampler.sample();
        assert!((0.0..=100.0).contains(&sample.cpu_load), "{sample:?}");
        assert!(sample.memory_usage > 0.0 && sample.memory_usage <= 100.0, "{sample:?}");
        assert!(sample.memory_used_bytes <= sample.memory_total_bytes, "{sample:?}");
        assert!(sample.disk_usage.is_none_or(|usage| usage <= 100), "{sample:?}");
    }

    #[test]
    fn quotients_of_nothing_are_nothing() {
        assert_eq!(rounded(percent(1, 0)), 0);
        assert_eq!(rounded(percent(1, 3)), 33);
        assert_eq!(per_second(10, 0.0), 0);
        assert_eq!(per_second(10, 4.0), 3);
        assert_eq!(rounded(f64::MAX), u64::MAX);
    }
}
