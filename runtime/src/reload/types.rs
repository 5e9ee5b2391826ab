//! Data types that a reload brings: their topics are opened beside the others, and agents may send to them once everything else is
//! in place.

use std::sync::Arc;

use wharf_log::Topic;

use super::{ReloadError, Reloads};
use crate::config::{Config, DataType};
use crate::data_types;
use crate::dedup::{self, Dedup};
use crate::delivery::Feed;

/// A data type whose topic is open, and to which nobody sends yet.
pub struct NewType {
    data_type: DataType,
    feed: Feed,
    /// If ids are remembered there.
    dedup: Option<Arc<Dedup>>,
}

impl NewType {
    /// Its topic, and its settings.
    pub fn topic(&self) -> (Topic, DataType) {
        (self.feed.topic.clone(), self.data_type.clone())
    }
}

impl Reloads {
    /// Opens the topics of data types that are new.
    ///
    /// # Errors
    ///
    /// See [`ReloadError`]. None of them is open then.
    pub(super) async fn open_types(&self, config: &Config) -> Result<Vec<NewType>, ReloadError> {
        let is_new = |data_type: &&DataType| self.parts.feeds.get(&data_type.name).is_none();
        let mut opened = Vec::new();
        for data_type in config.types.iter().filter(is_new) {
            match self.open_type(data_type, config).await {
                Ok(new) => opened.push(new),
                Err(error) => {
                    self.close_types(opened).await;
                    return Err(error);
                }
            }
        }
        Ok(opened)
    }

    async fn open_type(&self, data_type: &DataType, config: &Config) -> Result<NewType, ReloadError> {
        let options = data_types::topic_options(data_type, &config.log, &self.parts.metrics);
        let log = self.parts.log.clone();
        let topic = tokio::task::spawn_blocking(move || log.add(options)).await?;
        let topic = topic.ok_or(ReloadError::Stopping)?.map_err(ReloadError::Log)?;
        let feed = data_types::feed(data_type, topic, &self.parts.data_dir);
        let dedup = data_types::message_ids(data_type, &feed, &self.parts.metrics);
        if let Some(dedup) = &dedup
            && let Err(error) = dedup::restore(std::slice::from_ref(dedup), &self.parts.state).await
        {
            self.close_type(&data_type.name).await;
            return Err(ReloadError::MessageIds(error));
        }
        self.parts.feeds.add(feed.clone());
        Ok(NewType { data_type: data_type.clone(), feed, dedup })
    }

    /// Closes the topics of data types that are not to come after all.
    pub(super) async fn close_types(&self, types: Vec<NewType>) {
        for NewType { data_type, .. } in types {
            self.close_type(&data_type.name).await;
        }
    }

    async fn close_type(&self, name: &str) {
        self.parts.feeds.remove(name);
        let (log, name) = (self.parts.log.clone(), name.to_owned());
        let closing = tokio::task::spawn_blocking(move || log.remove(&name)).await;
        if let Err(error) = closing {
            tracing::error!(%error, "failed to close the topic of a data type that a reload did not bring after all");
        }
    }

    /// Lets agents send to data types that are open.
    pub(super) async fn begin_types(&self, types: Vec<NewType>) {
        for NewType { data_type, feed, dedup } in types {
            let name = data_type.name.as_str();
            self.parts.metrics.log.set_topics(self.parts.feeds.topics());
            let Some(index) = self.parts.presence.add(feed.topic, feed.durability).await else {
                // There is room for as many as the config may have, see `Fixed`.
                tracing::error!(log.topic = name, "there is no room for another data type");
                continue;
            };
            if let Some(dedup) = &dedup {
                self.parts.remembering.add(dedup.clone());
            }
            self.parts.router.add(name, index, feed.gate, dedup, &self.parts.metrics);
        }
    }
}
