//! Which agents are known, from which data types, and what was told of them: what presence keeps between two runs.
//!
//! The keyspace `agents` has one entry for each agent, `presence` one for each topic. Reading checks everything; an entry
//! that does not fit is named and left out. Numbers are big-endian.
//!
//! ```text
//! agents    key    id of the agent
//!           value  format (1 byte, 0x01) | active (1 byte, 0 or 1) | for each topic that it has used:
//!                  told (1 byte: 0 inactive, 1 active, 2 not known) | length of the name (1 byte) | name
//! presence  key    topic
//!           value  format (1 byte, 0x01) | offset (8 bytes): the entries reflect everything of the topic below
//! ```

use crate::layout::{MAX_NAME, take};
use crate::{State, StateError};

#[cfg(test)]
mod tests;

/// The format that this version writes, and the only one that it reads.
const FORMAT: u8 = 1;

/// An agent as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAgent {
    /// Its id.
    pub id: String,
    /// Whether it was active.
    pub active: bool,
    /// The topics of the data types that it has used.
    pub topics: Vec<UsedTopic>,
}

/// A topic that an agent has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedTopic {
    /// The topic's name.
    pub name: String,
    /// What the last record there says, active or not; `None` if that is not known, so that it is to be told again.
    pub told: Option<bool>,
}

/// Everything that is kept of agents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownAgents {
    /// The agents, by id.
    pub agents: Vec<KnownAgent>,
    /// For each topic, the offset below which the entries reflect everything.
    pub reflected: Vec<(String, u64)>,
    /// Entries that are not ones that Wharf writes, each with what is wrong.
    pub damaged: Vec<String>,
}

impl State {
    /// Everything that is kept of agents.
    ///
    /// # Errors
    ///
    /// [`StateError::Read`], or a failure to open the database again.
    pub fn agents(&self) -> Result<KnownAgents, StateError> {
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let mut known = KnownAgents::default();
        for entry in open.agents.iter() {
            let (id, value) = entry.into_inner().map_err(|error| self.read_error(error))?;
            match decode_agent(&id, &value) {
                Ok(agent) => known.agents.push(agent),
                Err(problem) => {
                    known.damaged.push(format!("agent {:?}: {problem}", id.escape_ascii().to_string()))
                }
            }
        }
        for entry in open.presence.iter() {
            let (topic, value) = entry.into_inner().map_err(|error| self.read_error(error))?;
            match decode_reflected(&topic, &value) {
                Ok(reflected) => known.reflected.push(reflected),
                Err(problem) => {
                    known.damaged.push(format!("topic {:?}: {problem}", topic.escape_ascii().to_string()));
                }
            }
        }
        Ok(known)
    }

    /// Saves agents that have changed, removes those that are `forgotten`, and moves topics, all in one atomic write that
    /// survives the end of this process, but not a power loss.
    ///
    /// # Errors
    ///
    /// [`StateError::Name`] for an id or a name that can't be a key, or [`StateError::Write`]: then nobody knows whether the
    /// save took place, and it is to be repeated.
    pub fn save_agents(
        &self,
        changed: &[KnownAgent],
        forgotten: &[String],
        reflected: &[(String, u64)],
    ) -> Result<(), StateError> {
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let mut batch = open.database.batch().durability(Some(fjall::PersistMode::Buffer));
        for agent in changed {
            batch.insert(&open.agents, name_key("agent", &agent.id)?, encode_agent(agent)?);
        }
        for id in forgotten {
            batch.remove(&open.agents, name_key("agent", id)?);
        }
        for (topic, offset) in reflected {
            let value = [&[FORMAT][..], &offset.to_be_bytes()].concat();
            batch.insert(&open.presence, name_key("topic", topic)?, value);
        }
        let written = batch.commit();
        self.settle(guard, written)
    }

    /// Forgets up to which offset of these topics the saved agents are what was written, as if they had never been saved.
    /// One atomic write that survives the end of this process, but not a power loss.
    ///
    /// # Errors
    ///
    /// As for [`save_agents`](Self::save_agents).
    pub fn forget_topics<'a>(&self, topics: impl Iterator<Item = &'a str>) -> Result<(), StateError> {
        let mut guard = self.lock();
        let open = self.opened(&mut guard)?;
        let mut batch = open.database.batch().durability(Some(fjall::PersistMode::Buffer));
        for topic in topics {
            batch.remove(&open.presence, name_key("topic", topic)?);
        }
        let written = batch.commit();
        self.settle(guard, written)
    }
}

/// A name as a key.
pub(crate) fn name_key<'a>(what: &'static str, name: &'a str) -> Result<&'a [u8], StateError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(StateError::Name { what, name: name.to_owned() });
    }
    Ok(name.as_bytes())
}

fn encode_agent(agent: &KnownAgent) -> Result<Vec<u8>, StateError> {
    let mut value = vec![FORMAT, u8::from(agent.active)];
    for UsedTopic { name, told } in &agent.topics {
        let length = u8::try_from(name_key("topic", name)?.len())
            .map_err(|_| StateError::Name { what: "topic", name: name.clone() })?;
        value.extend_from_slice(&[told.map_or(2, u8::from), length]);
        value.extend_from_slice(name.as_bytes());
    }
    Ok(value)
}

pub(crate) fn decode_agent(id: &[u8], mut value: &[u8]) -> Result<KnownAgent, String> {
    let id = text(id).ok_or("its id is not text")?;
    check_format(&mut value)?;
    let active = match take(&mut value) {
        Some([active @ 0..=1]) => active == 1,
        Some([other]) => return Err(format!("it is marked {other}, expected 0 or 1")),
        None => return Err("it ends early".to_owned()),
    };
    let mut topics = Vec::new();
    while !value.is_empty() {
        let [told, length] = take(&mut value).ok_or("it ends within a topic")?;
        let told = match told {
            0 => Some(false),
            1 => Some(true),
            2 => None,
            other => return Err(format!("a topic is marked {other}, expected 0, 1 or 2")),
        };
        let (name, rest) = value.split_at_checked(length.into()).ok_or("it ends within a topic")?;
        value = rest;
        topics.push(UsedTopic { name: text(name).ok_or("the name of a topic is not text")?, told });
    }
    Ok(KnownAgent { id, active, topics })
}

pub(crate) fn decode_reflected(topic: &[u8], mut value: &[u8]) -> Result<(String, u64), String> {
    let topic = text(topic).ok_or("its name is not text")?;
    check_format(&mut value)?;
    let offset = value.try_into().map_err(|_| format!("its offset has {} bytes, expected 8", value.len()))?;
    Ok((topic, u64::from_be_bytes(offset)))
}

fn check_format(value: &mut &[u8]) -> Result<(), String> {
    match take(value) {
        Some([FORMAT]) => Ok(()),
        Some([other]) => Err(format!("its format is {other}, this version knows format {FORMAT}")),
        None => Err("it is empty".to_owned()),
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    str::from_utf8(bytes).ok().map(str::to_owned)
}
