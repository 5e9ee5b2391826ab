//! The frames of a run, made beforehand: the load generator often shares its processors with the server it measures.

use bytes::Bytes;
use wharf_protocol::{AgentId, Body, Call, Encoding, Limits, Message, Refusal, Request};

use super::report::Setup;
use crate::client::Frame;

/// What a message has around its body, at most, but for a long data type.
pub const OVERHEAD_BYTES: u64 = 128;

/// A body but for its filling.
const EMPTY_BODY: &str = r#"{"filling":""}"#;

/// The frames of each connection, to be sent in a circle. A connection has agents of its own, so that their messages stay
/// in order, and every one of them has its turn.
///
/// # Errors
///
/// A refusal of the setup's own bodies or ids, which are valid by how they are made.
pub fn prepare(setup: &Setup, data_type: &str) -> Result<Vec<Vec<Frame>>, Refusal> {
    let body = body(setup.size_bytes)?;
    let connections = u32::from(setup.connections);
    (0..connections).map(|connection| frames(setup, data_type, &body, connection)).collect()
}

fn frames(setup: &Setup, data_type: &str, body: &Body, connection: u32) -> Result<Vec<Frame>, Refusal> {
    let agents: Vec<AgentId> = (connection..setup.agents)
        .step_by(usize::from(setup.connections))
        .map(|number| AgentId::new(format!("bench-{number}")))
        .collect::<Result<_, _>>()?;
    let batch = usize::from(setup.batch);
    let mut turns = agents.iter().cycle();
    let frames = (0..agents.len().div_ceil(batch)).map(|_| {
        let requests: Vec<Request> =
            turns.by_ref().take(batch).map(|agent| request(agent, data_type, body)).collect();
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

/// A body of exactly so many bytes of JSON, filled with letters that no compression makes small.
fn body(size_bytes: u32) -> Result<Body, Refusal> {
    let filled = usize::try_from(size_bytes).unwrap_or(usize::MAX).saturating_sub(EMPTY_BODY.len());
    let filling: String = (0..filled).map(|_| rand::random_range('a'..='z')).collect();
    let json = EMPTY_BODY.replace(r#""""#, &format!(r#""{filling}""#));
    Body::new(Encoding::Json, Bytes::from(json), &Limits::default())
}

#[cfg(test)]
mod tests {
    use wharf_protocol::encode_frame;

    use super::*;

    fn setup(connections: u16, agents: u32, batch: u16) -> Setup {
        Setup {
            connections,
            agents,
            batch,
            size_bytes: 300,
            window: 64,
            rate: None,
            encoding: Encoding::Json,
        }
    }

    #[test]
    fn bodies_have_the_size_asked_for() {
        for size in [16, 17, 300, 70_000] {
            assert_eq!(body(size).unwrap().bytes().len(), usize::try_from(size).unwrap());
        }
    }

    #[test]
    fn every_agent_belongs_to_one_connection_and_has_its_turn() {
        let frames = prepare(&setup(3, 8, 1), "t").unwrap();
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);
        let all = format!("{frames:?}");
        for agent in 0..8 {
            assert_eq!(all.matches(&format!("bench-{agent}\\\"")).count(), 1, "agent {agent} in {all}");
        }
    }

    #[test]
    fn batches_are_full_even_with_few_agents() {
        let frames = prepare(&setup(1, 2, 64), "t").unwrap();
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].len(), 1);
        let text = format!("{:?}", frames[0][0]);
        assert_eq!(text.matches("bench-").count(), 64);
    }

    #[test]
    fn the_overhead_is_an_upper_bound() {
        let agent = AgentId::new("bench-999999").unwrap();
        let request = request(&agent, "ethereum_metrics", &body(300).unwrap());
        let frame = encode_frame(&request, None, Encoding::Json);
        assert!(u64::try_from(frame.len()).unwrap() <= 300 + OVERHEAD_BYTES, "{}", frame.len());
    }
}
