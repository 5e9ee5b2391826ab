//! What operators ask a server: its numbers and its status.

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::Value;

use crate::rest::{self, Answered, Rest};
use crate::server::Server;

/// What whoever reads OpenMetrics accepts.
pub const OPENMETRICS: &str =
    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";

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

    /// Those whose series begins like this.
    pub fn beginning(&self, series: &str) -> Vec<(&str, f64)> {
        let found = self.0.iter().filter(|(name, _)| name.starts_with(series));
        found.map(|(name, value)| (name.as_str(), *value)).collect()
    }
}

impl Server {
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.metrics_text(OPENMETRICS).await.text())
    }

    /// The numbers as whoever accepts this gets them.
    pub async fn metrics_text(&self, accept: &str) -> Answered {
        let request = Rest::new(self.admin).request(Method::GET, "/metrics").header(ACCEPT, accept);
        let answer = rest::send(request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
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
