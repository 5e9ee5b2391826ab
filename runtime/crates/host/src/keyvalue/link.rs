//! The interfaces of `wasi:keyvalue`, for receivers that have the grant.

use wasmtime::component::{HasSelf, Linker, Resource};
use wharf_state::{Bucket, KeyValueError, Seen, Swap};

use super::KeyValueAccess;
use crate::store::State;
use generated::wasi::keyvalue::atomics::{self, CasError};
use generated::wasi::keyvalue::batch;
use generated::wasi::keyvalue::store::{self, Error, KeyResponse};

mod generated {
    wasmtime::component::bindgen!({
        inline: "
            package wharf:keyvalue;
            world imports {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }
        ",
        path: "../../../wit",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": wharf_state::Bucket,
            "wasi:keyvalue/atomics.cas": super::Cas,
        },
    });
}

/// How many keys a page of a list has. With the longest keys this is a megabyte.
const PAGE_KEYS: usize = 1_000;

/// A key whose value is to be swapped, and what was last seen there. The value is not kept: a guest can have a thousand of
/// these, and values can be large.
#[derive(Debug)]
pub struct Cas {
    bucket: Bucket,
    key: String,
    seen: Seen,
}

/// What comes of an operation: a trap, or an answer to the guest.
type Answer<T> = wasmtime::Result<Result<T, Error>>;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    atomics::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    batch::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl State {
    fn keyvalue(&self) -> wasmtime::Result<KeyValueAccess> {
        // Linked only with the grant, and then there is one.
        self.shared.keyvalue.clone().ok_or_else(|| wasmtime::format_err!("there is no key-value store"))
    }

    /// Does something with a bucket that the guest has a handle of.
    async fn with_bucket<T: Send + 'static>(
        &mut self,
        bucket: &Resource<Bucket>,
        work: impl FnOnce(&Bucket) -> Result<T, KeyValueError> + Send + 'static,
    ) -> Answer<T> {
        let bucket = self.table.get(bucket)?.clone();
        Ok(self.keyvalue()?.run(move || work(&bucket)).await.map_err(Error::Other))
    }
}

impl store::Host for State {
    async fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        match self.keyvalue()?.bucket(&identifier) {
            Ok(bucket) => Ok(Ok(self.table.push(bucket)?)),
            Err(reason) => Ok(Err(Error::Other(reason))),
        }
    }
}

impl store::HostBucket for State {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        self.with_bucket(&bucket, move |bucket| bucket.get(&key)).await
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        self.with_bucket(&bucket, move |bucket| bucket.set(&key, &value)).await
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
        self.with_bucket(&bucket, move |bucket| bucket.delete(&key)).await
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        self.with_bucket(&bucket, move |bucket| bucket.exists(&key)).await
    }

    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<String>) -> Answer<KeyResponse> {
        // The cursor is the last key of the page before. Any text will do: it is only a place in the order of keys.
        self.with_bucket(&bucket, move |bucket| {
            let page = bucket.list_keys(cursor.as_deref(), PAGE_KEYS)?;
            let cursor = page.keys.last().filter(|_| page.more).cloned();
            Ok(KeyResponse { keys: page.keys, cursor })
        })
        .await
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Answer<i64> {
        self.with_bucket(&bucket, move |bucket| bucket.increment(&key, delta)).await
    }

    async fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
        let Cas { bucket, key, seen } = self.table.delete(cas)?;
        let swap = {
            let (bucket, key) = (bucket.clone(), key.clone());
            self.keyvalue()?.run(move || bucket.compare_and_swap(&key, seen, &value)).await
        };
        Ok(match swap {
            Ok(Swap::Done) => Ok(()),
            Ok(Swap::Conflict(seen)) => {
                Err(CasError::CasFailed(self.table.push(Cas { bucket, key, seen })?))
            }
            Err(reason) => Err(CasError::StoreError(Error::Other(reason))),
        })
    }
}

impl atomics::HostCas for State {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        let place = (self.table.get(&bucket)?.clone(), key.clone());
        let looked = self.with_bucket(&bucket, move |bucket| bucket.look(&key)).await?;
        Ok(match looked {
            Ok((seen, _)) => {
                let (bucket, key) = place;
                Ok(self.table.push(Cas { bucket, key, seen })?)
            }
            Err(error) => Err(error),
        })
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        let Cas { bucket, key, .. } = self.table.get(&cas)?;
        let (bucket, key) = (bucket.clone(), key.clone());
        let looked = self.keyvalue()?.run(move || bucket.look(&key)).await;
        Ok(match looked {
            Ok((seen, value)) => {
                // A later swap is of what the guest knows, which is this now.
                self.table.get_mut(&cas)?.seen = seen;
                Ok(value)
            }
            Err(reason) => Err(Error::Other(reason)),
        })
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<(String, Option<Vec<u8>>)>> {
        self.with_bucket(&bucket, move |bucket| {
            let values = bucket.get_many(&keys)?;
            Ok(keys.into_iter().zip(values).collect())
        })
        .await
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Answer<()> {
        self.with_bucket(&bucket, move |bucket| bucket.set_many(&pairs)).await
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        self.with_bucket(&bucket, move |bucket| bucket.delete_many(&keys)).await
    }
}
