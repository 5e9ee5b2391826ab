//! The metrics that receivers keep: shared by their instances, bounded, and loud about what is refused.

use wharf_host::{Metric, MetricValue};

use crate::fixtures::{Fixture, Log, batch, options};

fn metric(name: &str, labels: &[(&str, &str)], value: MetricValue) -> Metric {
    let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Metric { name: name.into(), labels, value }
}

#[tokio::test]
async fn all_instances_share_the_series() {
    let fixture = Fixture::new();
    let receiver = fixture.load("tools").await;
    let count = r#"{"do":"count","name":"seen","labels":[["b","2"],["a","1"]],"by":3}"#;
    let same = r#"{"do":"count","name":"seen","labels":[["a","1"],["b","2"]],"by":4}"#;
    receiver.instantiate().await.unwrap().handle(&batch(&[count])).await.unwrap();
    receiver
        .instantiate()
        .await
        .unwrap()
        .handle(&batch(&[
            same,
            r#"{"do":"set","name":"seen","value":-2.5}"#,
            r#"{"do":"observe","name":"took","values":[0.5,7]}"#,
        ]))
        .await
        .unwrap();
    let mut metrics = receiver.metrics();
    metrics.sort_by_key(|metric| (metric.name.clone(), metric.labels.clone()));
    let [gauge, counter, Metric { name, value: MetricValue::Histogram { sum, buckets }, .. }] = &metrics[..]
    else {
        panic!("{metrics:?}")
    };
    assert_eq!(*gauge, metric("seen", &[], MetricValue::Gauge(-2.5)));
    assert_eq!(*counter, metric("seen", &[("a", "1"), ("b", "2")], MetricValue::Counter(7)));
    let counted: Vec<_> = buckets.iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!((name.as_str(), *sum, counted), ("took", 7.5, vec![&(1.0, 1), &(10.0, 1)]));
    assert_eq!(receiver.metrics_refused(), 0);
}

#[tokio::test]
async fn what_is_refused_is_counted_and_said_in_the_log() {
    let log = Log::start();
    let fixture = Fixture::new();
    let mut options = options("tools");
    options.metric_series = 10;
    options.log_lines_per_second = 1_000;
    let receiver = fixture.host.load(options).await.unwrap();
    let bodies = [
        r#"{"do":"series","name":"many","number":50}"#,
        r#"{"do":"set","name":"level","value":null}"#,
        r#"{"do":"count","name":"Bad\nname","labels":[],"by":1}"#,
        r#"{"do":"count","name":"seen","labels":[["receiver","other"]],"by":1}"#,
    ];
    receiver.instantiate().await.unwrap().handle(&batch(&bodies)).await.unwrap();
    assert_eq!((receiver.metrics().len(), receiver.metrics_refused()), (10, 43));
    let lines = log.guest_lines();
    assert_eq!(lines.len(), 43);
    assert!(
        lines.iter().all(|line| line.starts_with("WARN guest: record ") && line.contains("stream=host")),
        "{lines:?}"
    );
    assert!(lines[0].contains("metric-series") && lines[40].contains("finite"), "{lines:?}");
}
