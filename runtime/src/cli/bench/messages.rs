//! The frames of a run, made beforehand: the load generator often shares its processors with the server it measures.

use bytes::Bytes;
use wharf_protocol::{AgentId, Body, Call, Encoding, Limits, Message, Refusal, Request};

use super::report::Setup;
use crate::client::Frame;

/// What a message has around its body, at most, but for a long data type.
pub const OVERHEAD_BYTES: u64 = 128;

/// Bodies that take turns: enough that no message is like the one before, whatever looks at them.
const BODIES: usize = 16;

/// The smallest body that has the shape that the agents' have.
const SHAPED_BYTES: usize = 64;

/// What a body tells, over and over with a number behind the name until it is large enough.
const MEMBERS: [&str; 12] = [
    "cpu_load",
    "memory_usage",
    "disk_read_bytes",
    "disk_write_bytes",
    "network_received_bytes",
    "network_sent_bytes",
    "open_files",
    "processes",
    "temperature",
    "swap_usage",
    "load_average",
    "uptime_seconds",
];

/// The frames of each connection, to be sent in a circle. A connection has agents of its own, so that their messages stay
/// in order, and every one of them has its turn.
///
/// # Errors
///
/// A refusal of the setup's own bodies or ids, which are valid by how they are made.
pub fn prepare(setup: &Setup) -> Result<Vec<Vec<Frame>>, Refusal> {
    let size = usize::try_from(setup.size_bytes).unwrap_or(usize::MAX);
    let bodies: Vec<Body> = (0..BODIES)
        .map(|_| Body::new(Encoding::Json, Bytes::from(body(size)), &Limits::default()))
        .collect::<Result<_, _>>()?;
    let connections = u32::from(setup.connections);
    (0..connections).map(|connection| frames(setup, &bodies, connection)).collect()
}

fn frames(setup: &Setup, bodies: &[Body], connection: u32) -> Result<Vec<Frame>, Refusal> {
    let agents: Vec<AgentId> = (connection..setup.agents)
        .step_by(usize::from(setup.connections))
        .map(|number| AgentId::new(format!("bench-{number}")))
        .collect::<Result<_, _>>()?;
    let batch = usize::from(setup.batch);
    let mut turns = agents.iter().cycle().zip(bodies.iter().cycle());
    let frames = (0..agents.len().div_ceil(batch)).map(|_| {
        let requests: Vec<Request> =
            turns.by_ref().take(batch).map(|(agent, body)| request(agent, &setup.data_type, body)).collect();
        Frame::encode(&requests, setup.encoding)
    });
    Ok(frames.collect())
}

fn request(agent: &AgentId, data_type: &str, body: &Body) -> Request {
    Request::from(Call::Data(Message {
        agent: agent.clone(),
        data_type: data_type.to_owned(),
        message_id: None,
        sent_at: None,
        traceparent: None,
        body: body.clone(),
    }))
}

/// A body of exactly so many bytes of JSON, at least 16: metrics with values of their own, as agents send them, and a note
/// that fills what is left.
fn body(size: usize) -> String {
    let (open, close) =
        if size < SHAPED_BYTES { ("{", "}") } else { (r#"{"type":"statistics","body":{"#, "}}") };
    let mut text = String::with_capacity(size);
    text.push_str(open);
    for number in 0_usize.. {
        let name = MEMBERS.get(number % MEMBERS.len()).copied().unwrap_or_default();
        let again = match number / MEMBERS.len() {
            0 => String::new(),
            round => format!("_{round}"),
        };
        let member = format!(r#""{name}{again}":{:.2},"#, rand::random_range(0.0..100.0));
        if text.len() + member.len() + r#""note":"""#.len() + close.len() > size {
            break;
        }
        text.push_str(&member);
    }
    text.push_str(r#""note":""#);
    let filled = size.saturating_sub(text.len() + 1 + close.len());
    text.extend((0..filled).map(|_| rand::random_range('a'..='z')));
    text.push('"');
    text.push_str(close);
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use wharf_protocol::encode_frame;

    use super::*;

    fn setup(connections: u16, agents: u32, batch: u16) -> Setup {
        Setup {
            url: String::new(),
            data_type: "t".to_owned(),
            encoding: Encoding::Json,
            connections,
            agents,
            batch,
            size_bytes: 300,
            window: 64,
            rate: None,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(1),
        }
    }

    #[test]
    fn bodies_are_objects_of_the_size_asked_for() {
        for size in (16..400).chain([70_000]) {
            let body = body(size);
            assert_eq!(body.len(), size, "{body}");
            let value: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert!(value.is_object(), "{body}");
        }
    }

    #[test]
    fn bodies_are_told_apart_and_mostly_numbers() {
        let bodies: HashSet<_> = (0..BODIES).map(|_| body(300)).collect();
        assert_eq!(bodies.len(), BODIES);
        for body in bodies {
            let value: serde_json::Value = serde_json::from_str(&body).unwrap();
            let members = value["body"].as_object().unwrap();
            assert!(members.values().filter(|value| value.is_number()).count() >= 8, "{body}");
        }
    }

    #[test]
    fn every_agent_belongs_to_one_connection_and_has_its_turn() {
        let frames = prepare(&setup(3, 8, 1)).unwrap();
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);
        let all = format!("{frames:?}");
        for agent in 0..8 {
            assert_eq!(all.matches(&format!("bench-{agent}\\\"")).count(), 1, "agent {agent} in {all}");
        }
    }

    #[test]
    fn batches_are_full_even_with_few_agents() {
        let frames = prepare(&setup(1, 2, 64)).unwrap();
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].len(), 1);
        let text = format!("{:?}", frames[0][0]);
        assert_eq!(text.matches("bench-").count(), 64);
    }

    #[test]
    fn the_overhead_is_an_upper_bound() {
        let agent = AgentId::new("bench-999999").unwrap();
        let body = Body::new(Encoding::Json, Bytes::from(body(300)), &Limits::default()).unwrap();
        let request = request(&agent, "ethereum_metrics", &body);
        let frame = encode_frame(&request, None, Encoding::Json);
        assert!(u64::try_from(frame.len()).unwrap() <= 300 + OVERHEAD_BYTES, "{}", frame.len());
    }
}
