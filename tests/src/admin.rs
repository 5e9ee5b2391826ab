//! What operators ask a server: its numbers and its status.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::rest::Rest;
use crate::server::Server;

/// The numbers of a server at one moment, by series, as in `wharf_messages_accepted_total{type="metrics"}`.
#[derive(Debug)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads the text format, all of it.
    pub fn parse(text: &str) -> Metrics {
        let body = text.strip_suffix("# EOF\n").expect("OpenMetrics ends with a mark");
        let samples = body.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, number) = line.rsplit_once(' ').expect("a sample is a series and a number");
            (series.to_owned(), number.parse().expect("a number is one"))
        });
        Metrics(samples.collect())
    }

    /// A number; zero if there is no such series yet.
    pub fn get(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }
}

impl Server {
    pub async fn metrics(&self) -> Metrics {
        let answer = Rest::new(self.admin).get("/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Metrics::parse(&answer.text())
    }

    /// The status of one receiver.
    pub async fn receiver(&self, name: &str) -> Value {
        let status = self.status().await;
        let receivers = status["receivers"].as_array().expect("receivers are a list");
        receivers.iter().find(|receiver| receiver["name"] == name).expect("the receiver is listed").clone()
    }

    pub async fn status(&self) -> Value {
        let answer = Rest::new(self.admin).get("/admin/v1/status").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.value()
    }
}
