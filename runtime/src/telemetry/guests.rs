//! What receivers count themselves, and what the sandbox counts of each, read off them when the numbers are asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use wharf_host::{Metric, MetricValue, Receiver};

use super::ReceiverLabel;

/// The labels of one series.
type Labels = Vec<(String, String)>;

/// The receivers whose numbers are exported. Clones are the same list.
#[derive(Clone, Default)]
pub struct Guests {
    receivers: Arc<Mutex<Vec<Receiver>>>,
}

impl Guests {
    /// Exports the numbers of these receivers from now on, and of no others.
    pub fn set(&self, receivers: Vec<Receiver>) {
        *self.receivers.lock().unwrap_or_else(PoisonError::into_inner) = receivers;
    }

    fn receivers(&self) -> Vec<Receiver> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guests").finish_non_exhaustive()
    }
}

impl Collector for Guests {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let receivers = self.receivers();
        let own = |count: fn(&Receiver) -> u64| {
            receivers.iter().map(move |receiver| {
                let labels = labels(receiver.name(), Vec::new());
                (labels, MetricValue::Counter(count(receiver)))
            })
        };
        let lines = own(Receiver::log_lines).collect();
        family(&mut encoder, "guest_log_lines", "Lines that a receiver wrote to the log.", lines)?;
        let dropped = own(Receiver::log_lines_dropped).collect();
        let help = "Lines of a receiver that were dropped because there were too many in a second.";
        family(&mut encoder, "guest_log_lines_dropped", help, dropped)?;
        let refused = own(Receiver::metrics_refused).collect();
        let help = "Updates of a receiver's own metrics that were refused.";
        family(&mut encoder, "guest_metric_updates_refused", help, refused)?;
        let help = "Time that threads spent in calls of a receiver; what they waited does not count.";
        let mut busy = encoder.encode_descriptor("receiver_busy_seconds", help, None, MetricType::Counter)?;
        for receiver in &receivers {
            let label = ReceiverLabel::new(receiver.name());
            ConstCounter::new(receiver.busy_time().as_secs_f64()).encode(busy.encode_family(&label)?)?;
        }
        let memory = receivers.iter().map(|receiver| {
            // Exact up to 8 PiB.
            (labels(receiver.name(), Vec::new()), MetricValue::Gauge(receiver.memory_bytes() as f64))
        });
        let help = "Memory of the instances of a receiver that there are.";
        family(&mut encoder, "receiver_memory_bytes", help, memory.collect())?;
        let stored = receivers.iter().filter_map(|receiver| {
            // Exact up to 8 PiB.
            let bytes = receiver.keyvalue_bytes()? as f64;
            Some((labels(receiver.name(), Vec::new()), MetricValue::Gauge(bytes)))
        });
        let help = "Bytes that a receiver uses of its key-value store.";
        family(&mut encoder, "guest_keyvalue_bytes", help, stored.collect())?;
        let sending = receivers.iter().filter_map(|receiver| {
            // Never more than a few thousand.
            let requests = receiver.outgoing_in_flight()? as f64;
            Some((labels(receiver.name(), Vec::new()), MetricValue::Gauge(requests)))
        });
        let help = "HTTP requests of a receiver that are under way.";
        family(&mut encoder, "guest_requests_in_flight", help, sending.collect())?;
        let failed = receivers.iter().filter_map(|receiver| {
            let failed = receiver.outgoing_failed()?;
            Some((labels(receiver.name(), Vec::new()), MetricValue::Counter(failed)))
        });
        let help = "HTTP requests of a receiver that were refused or failed.";
        family(&mut encoder, "guest_requests_failed", help, failed.collect())?;

        let metrics = receivers.iter().map(|receiver| (receiver.name().to_owned(), receiver.metrics()));
        for (name, series) in families(metrics) {
            family(&mut encoder, &name, "Of receivers, by the name that they gave it.", series)?;
        }
        Ok(())
    }
}

/// The metrics of receivers as the export has them: those of one kind and name together, whoever they are of, and in an order
/// that stays.
fn families(
    receivers: impl Iterator<Item = (String, Vec<Metric>)>,
) -> BTreeMap<String, Vec<(Labels, MetricValue)>> {
    let mut families = BTreeMap::<String, Vec<_>>::new();
    for (receiver, metrics) in receivers {
        for Metric { name, labels: own, value } in metrics {
            let kind = match &value {
                MetricValue::Counter(_) => "counter",
                MetricValue::Gauge(_) => "gauge",
                MetricValue::Histogram { .. } => "histogram",
            };
            families.entry(format!("guest_{kind}_{name}")).or_default().push((labels(&receiver, own), value));
        }
    }
    for series in families.values_mut() {
        series.sort_by(|(one, _), (other, _)| one.cmp(other));
    }
    families
}

/// The labels of a receiver's series, with its name, which none of them may have.
fn labels(receiver: &str, own: Labels) -> Labels {
    let mut labels = vec![("receiver".to_owned(), receiver.to_owned())];
    labels.extend(own);
    labels
}

/// Writes series that are all of one kind.
fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: Vec<(Labels, MetricValue)>,
) -> fmt::Result {
    let kind = match series.first() {
        Some((_, MetricValue::Counter(_))) => MetricType::Counter,
        Some((_, MetricValue::Gauge(_))) => MetricType::Gauge,
        Some((_, MetricValue::Histogram { .. })) => MetricType::Histogram,
        None => return Ok(()),
    };
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in &series {
        encode(family.encode_family(labels)?, value)?;
    }
    Ok(())
}

fn encode(mut encoder: MetricEncoder<'_>, value: &MetricValue) -> fmt::Result {
    match value {
        MetricValue::Counter(value) => encoder.encode_counter::<Labels, u64, u64>(value, None),
        MetricValue::Gauge(value) => encoder.encode_gauge(value),
        MetricValue::Histogram { sum, buckets } => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_histogram::<Labels>(*sum, count, buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    /// Exports the metrics of receivers as the server would.
    #[derive(Debug)]
    struct Fixed(Vec<(String, Vec<Metric>)>);

    impl Collector for Fixed {
        fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
            for (name, series) in families(self.0.iter().cloned()) {
                family(&mut encoder, &name, "Help", series)?;
            }
            Ok(())
        }
    }

    fn metric(name: &str, labels: &[(&str, &str)], value: MetricValue) -> Metric {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Metric { name: name.to_owned(), labels, value }
    }

    #[test]
    fn series_of_several_receivers_are_one_family() {
        let one = vec![
            metric("alerts", &[("level", "high")], MetricValue::Counter(2)),
            metric("alerts", &[], MetricValue::Gauge(0.5)),
        ];
        let other = vec![
            metric("alerts", &[], MetricValue::Counter(3)),
            metric(
                "took",
                &[],
                MetricValue::Histogram { sum: 4.5, buckets: vec![(1.0, 2), (f64::INFINITY, 1)] },
            ),
        ];
        let mut registry = Registry::with_prefix("wharf");
        registry.register_collector(Box::new(Fixed(vec![("one".into(), one), ("other".into(), other)])));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        let expected = r#"# HELP wharf_guest_counter_alerts Help
# TYPE wharf_guest_counter_alerts counter
wharf_guest_counter_alerts_total{receiver="one",level="high"} 2
wharf_guest_counter_alerts_total{receiver="other"} 3
# HELP wharf_guest_gauge_alerts Help
# TYPE wharf_guest_gauge_alerts gauge
wharf_guest_gauge_alerts{receiver="one"} 0.5
# HELP wharf_guest_histogram_took Help
# TYPE wharf_guest_histogram_took histogram
wharf_guest_histogram_took_sum{receiver="other"} 4.5
wharf_guest_histogram_took_count{receiver="other"} 3
wharf_guest_histogram_took_bucket{le="1.0",receiver="other"} 2
wharf_guest_histogram_took_bucket{le="+Inf",receiver="other"} 3
# EOF
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn the_value_of_a_label_makes_no_line_of_its_own() {
        let hostile = "a\"} 1\nwharf_messages_accepted_total{type=\"x\\";
        let metrics = vec![metric("seen", &[("text", hostile)], MetricValue::Counter(1))];
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Fixed(vec![("one".into(), metrics)])));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        let line = r#"guest_counter_seen_total{receiver="one",text="a\"} 1\nwharf_messages_accepted_total{type=\"x\\"} 1"#;
        assert!(text.lines().any(|found| found == line) && text.lines().count() == 4, "{text}");
    }
}
