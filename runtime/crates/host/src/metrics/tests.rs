use super::*;

fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn count(metrics: &GuestMetrics, name: &str, pairs: &[(&str, &str)]) -> Result<(), MetricError> {
    metrics.record(name.into(), labels(pairs), Update::Count(1))
}

#[test]
fn the_order_of_labels_makes_no_second_series_and_an_empty_one_is_none() {
    let metrics = GuestMetrics::new(10);
    count(&metrics, "seen", &[("a", "1"), ("b", "2")]).unwrap();
    count(&metrics, "seen", &[("b", "2"), ("c", ""), ("a", "1")]).unwrap();
    let expected = Metric {
        name: "seen".into(),
        labels: labels(&[("a", "1"), ("b", "2")]),
        value: MetricValue::Counter(2),
    };
    assert_eq!(metrics.snapshot(), [expected]);
}

#[test]
fn each_kind_has_series_of_its_own() {
    let metrics = GuestMetrics::new(10);
    for update in [Update::Count(3), Update::Set(1.5), Update::Observe(2.0), Update::Set(-0.25)] {
        metrics.record("thing".into(), Vec::new(), update).unwrap();
    }
    let values: Vec<_> = metrics.snapshot().into_iter().map(|metric| metric.value).collect();
    assert_eq!(values.len(), 3);
    assert!(
        values.contains(&MetricValue::Counter(3)) && values.contains(&MetricValue::Gauge(-0.25)),
        "{values:?}"
    );
}

#[test]
fn a_histogram_counts_each_value_in_one_bucket() {
    let metrics = GuestMetrics::new(10);
    for value in [-5.0, 0.001, 0.002, 10_000.0, 10_001.0, f64::MAX, f64::MAX] {
        metrics.record("latency".into(), Vec::new(), Update::Observe(value)).unwrap();
    }
    let [Metric { value: MetricValue::Histogram { sum, buckets }, .. }] = &metrics.snapshot()[..] else {
        panic!("{:?}", metrics.snapshot())
    };
    let counted: Vec<_> = buckets.iter().copied().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [(0.001, 2), (0.003, 1), (10_000.0, 1), (f64::INFINITY, 3)]);
    assert_eq!((*sum, buckets.len()), (f64::MAX, 16));
}

#[test]
fn a_counter_stays_at_its_end() {
    let metrics = GuestMetrics::new(1);
    for by in [u64::MAX - 1, 5, 0] {
        metrics.record("many".into(), Vec::new(), Update::Count(by)).unwrap();
    }
    assert_eq!(metrics.snapshot()[0].value, MetricValue::Counter(u64::MAX));
}

#[test]
fn series_are_bounded_and_those_that_are_there_go_on() {
    let metrics = GuestMetrics::new(2);
    count(&metrics, "a", &[]).unwrap();
    count(&metrics, "b", &[]).unwrap();
    let error = count(&metrics, "c", &[]).unwrap_err();
    assert_eq!(error, MetricError::TooMany { name: "c".into(), limit: 2 });
    count(&metrics, "a", &[]).unwrap();
    assert_eq!((metrics.snapshot().len(), metrics.refused()), (2, 1));
}

#[test]
fn what_can_be_no_series_is_refused_and_counted() {
    let metrics = GuestMetrics::new(100);
    let long = "x".repeat(65);
    for name in ["", "A", "1a", "_a", "a-b", "ä", "a\n", "seen_total", "x_bucket", long.as_str()] {
        count(&metrics, name, &[]).unwrap_err();
    }
    for label in ["", "A", "receiver", "le", "__name__", long.as_str()] {
        count(&metrics, "seen", &[(label, "x")]).unwrap_err();
    }
    let value = "x".repeat(129);
    count(&metrics, "seen", &[("a", value.as_str())]).unwrap_err();
    count(&metrics, "seen", &[("a", "1"), ("b", ""), ("a", "2")]).unwrap_err();
    let many: Vec<String> = (0..9).map(|number| format!("label{number}")).collect();
    let many: Vec<_> = many.iter().map(|label| (label.as_str(), "x")).collect();
    count(&metrics, "seen", &many).unwrap_err();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        metrics.record("seen".into(), Vec::new(), Update::Set(value)).unwrap_err();
        metrics.record("seen".into(), Vec::new(), Update::Observe(value)).unwrap_err();
    }
    assert_eq!((metrics.snapshot(), metrics.refused()), (Vec::new(), 25));
}

#[test]
fn a_refusal_says_what_was_found_in_one_line() {
    let metrics = GuestMetrics::new(100);
    let error = count(&metrics, &format!("a\n{}", "b".repeat(1000)), &[]).unwrap_err().to_string();
    assert!(error.starts_with(r#"record a metric: found the name "a\\nbbb"#), "{error}");
    assert!(error.len() < 300 && !error.contains('\n'), "{error}");
}
