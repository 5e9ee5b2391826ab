//! What a receiver can do with what it keeps. Every number and text here may come from a stranger's program.

use std::{
    ops::Bound,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Account, KeyValue, KeyValueError, MAX_BUCKET_NAME, MAX_KEY, MAX_KEYS, MAX_READ, MAX_VALUE, Refusal,
    layout::{bucket_end, bucket_prefix, parse_entry_key},
    open::damaged,
    transaction::{Found, Transaction},
};
use crate::StateError;

/// A second name of the bucket whose name is empty, for programs that were written for hosts which call it so.
const DEFAULT_BUCKET: &str = "default";

/// What one receiver keeps, in any number of buckets. Clones are the same.
#[derive(Clone, Debug)]
pub struct KeyValueStore {
    database: KeyValue,
    receiver: Arc<str>,
    max_bytes: u64,
    account: Arc<Account>,
}

/// Values under keys. Clones are the same. Every method waits for the disk: run it off the async threads.
///
/// What one method wrote, the next one reads, whoever calls it.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: KeyValueStore,
    name: Arc<str>,
}

/// Some keys of a bucket, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<String>,
    /// Whether there are more after the last of them.
    pub more: bool,
}

/// What was seen under a key, to be sure later that it is still there: no value, or one that a certain write made. A value
/// that was written again is another one, also if its bytes are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    write: Option<u64>,
}

/// What came of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The value was written.
    Done,
    /// Somebody else wrote meanwhile, and nothing was changed. This is what is there now.
    Conflict(Seen),
}

/// A key of a bucket of a receiver.
pub struct Place<'a> {
    pub receiver: &'a str,
    pub bucket: &'a str,
    pub key: &'a str,
}

impl KeyValueStore {
    pub(super) fn new(database: KeyValue, receiver: Arc<str>, max_bytes: u64, account: Arc<Account>) -> Self {
        Self { database, receiver, max_bytes, account }
    }

    /// The bytes in use by all buckets together, keys, values and what is added for each entry. Does not wait for the disk.
    pub fn used(&self) -> u64 {
        self.account.used.load(Ordering::Acquire)
    }

    /// The bucket of that name, which needs not be made first. The empty name and `default` are the same bucket.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if the name is longer than [`MAX_BUCKET_NAME`] or holds a zero byte.
    pub fn bucket(&self, name: &str) -> Result<Bucket, Refusal> {
        if name.len() > MAX_BUCKET_NAME {
            return Err(Refusal::BucketLength { found: name.len() });
        }
        if name.contains('\0') {
            return Err(Refusal::BucketName);
        }
        let name = if name == DEFAULT_BUCKET { "" } else { name };
        Ok(Bucket { store: self.clone(), name: name.into() })
    }
}

impl Bucket {
    /// What all buckets of the receiver use together, see [`KeyValueStore::used`].
    pub fn used(&self) -> u64 {
        self.store.used()
    }

    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// As those of all methods: [`KeyValueError::Refused`] for a key that is too long, [`KeyValueError::Failed`] if the
    /// database can't be read or written or what is there is damaged.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        Ok(self.find(key)?.map(|found| found.value().to_vec()))
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get).
    pub fn exists(&self, key: &str) -> Result<bool, KeyValueError> {
        Ok(self.find(key)?.is_some())
    }

    /// Writes the value of `key`, whether or not it has one.
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get); also refused if the value is larger than [`MAX_VALUE`] or does not fit in what the receiver
    /// may keep.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), KeyValueError> {
        let place = self.place(key)?;
        check_value(value)?;
        self.write(|transaction| Ok(transaction.put(&place, value)?))
    }

    /// Removes `key`, if it has a value. Possible also when the store is full.
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get).
    pub fn delete(&self, key: &str) -> Result<(), KeyValueError> {
        let place = self.place(key)?;
        self.write(|transaction| Ok(transaction.remove(&place)?))
    }

    /// The next `limit` keys after `after`, which needs not be there itself, or the first ones. Never more than
    /// [`MAX_KEYS`].
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get).
    pub fn list_keys(&self, after: Option<&str>, limit: usize) -> Result<KeyPage, KeyValueError> {
        let prefix = bucket_prefix(&self.store.receiver, &self.name);
        let start = match after {
            Some(key) => Bound::Excluded(self.place(key)?.key()),
            None => Bound::Included(prefix.clone()),
        };
        let end = Bound::Excluded(bucket_end(&self.store.receiver, &self.name));
        self.store.database.read(|open| {
            let mut found = open.keys((start, end));
            let mut keys = Vec::new();
            for key in found.by_ref().take(limit.min(MAX_KEYS)) {
                keys.push(parse_entry_key(&key?, &prefix)?.to_owned());
            }
            let more = found.next().transpose()?.is_some();
            Ok(KeyPage { keys, more })
        })
    }

    /// The values of `keys`, in their order, as they were at moments of their own.
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get); also refused for more than [`MAX_KEYS`] keys or more than [`MAX_READ`] bytes of values.
    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, KeyValueError> {
        check_number(keys.len())?;
        let places = keys.iter().map(|key| self.place(key)).collect::<Result<Vec<_>, _>>()?;
        self.store.database.read(|open| {
            let mut room = MAX_READ;
            let read = |place| {
                let Some(found) = Found::read(open, place)? else { return Ok(None) };
                room = room.checked_sub(found.value().len()).ok_or(Refusal::Read)?;
                Ok(Some(found.value().to_vec()))
            };
            places.iter().map(read).collect()
        })
    }

    /// Writes all pairs, or none. Of a key that comes twice the last value stays.
    ///
    /// # Errors
    ///
    /// See [`set`](Self::set); also refused for more than [`MAX_KEYS`] pairs.
    pub fn set_many(&self, pairs: &[(String, Vec<u8>)]) -> Result<(), KeyValueError> {
        check_number(pairs.len())?;
        let mut puts = Vec::new();
        for (key, value) in pairs {
            check_value(value)?;
            puts.push((self.place(key)?, value));
        }
        self.write(|transaction| {
            puts.iter().try_for_each(|(place, value)| Ok(transaction.put(place, value)?))
        })
    }

    /// Removes all of these keys that have a value, or none.
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get); also refused for more than [`MAX_KEYS`] keys.
    pub fn delete_many(&self, keys: &[String]) -> Result<(), KeyValueError> {
        check_number(keys.len())?;
        let places = keys.iter().map(|key| self.place(key)).collect::<Result<Vec<_>, _>>()?;
        self.write(|transaction| places.iter().try_for_each(|place| Ok(transaction.remove(place)?)))
    }

    /// Adds `delta` to the number under `key`, and gives the sum. A key without a value counts as 0.
    ///
    /// The value of a number is its eight bytes in two's complement, the lowest first, as Spin writes them: a program that
    /// was made for it finds what it expects.
    ///
    /// # Errors
    ///
    /// See [`set`](Self::set); also refused if the value is no such number or the sum does not fit into one.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, KeyValueError> {
        let place = self.place(key)?;
        self.write(|transaction| {
            let number = match transaction.get(&place)? {
                Some(found) => {
                    let bytes = found.value();
                    let number = bytes.try_into().map_err(|_| Refusal::NotANumber { found: bytes.len() })?;
                    i64::from_le_bytes(number)
                }
                None => 0,
            };
            let sum = number.checked_add(delta).ok_or(Refusal::Overflow { number, delta })?;
            transaction.put(&place, &sum.to_le_bytes())?;
            Ok(sum)
        })
    }

    /// Looks at `key`: what is there, to compare with later, and its value.
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get).
    pub fn look(&self, key: &str) -> Result<(Seen, Option<Vec<u8>>), KeyValueError> {
        let found = self.find(key)?;
        let seen = Seen { write: found.as_ref().map(|found| found.write) };
        Ok((seen, found.map(|found| found.value().to_vec())))
    }

    /// Writes the value of `key` if there is still what was `seen`.
    ///
    /// # Errors
    ///
    /// See [`set`](Self::set).
    pub fn compare_and_swap(&self, key: &str, seen: Seen, value: &[u8]) -> Result<Swap, KeyValueError> {
        let place = self.place(key)?;
        check_value(value)?;
        self.write(|transaction| {
            let present = Seen { write: transaction.get(&place)?.map(|found| found.write) };
            if present != seen {
                return Ok(Swap::Conflict(present));
            }
            transaction.put(&place, value)?;
            Ok(Swap::Done)
        })
    }

    fn find(&self, key: &str) -> Result<Option<Found>, KeyValueError> {
        let place = self.place(key)?;
        self.store.database.read(|open| Ok(Found::read(open, &place)?))
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T, KeyValueError>,
    ) -> Result<T, KeyValueError> {
        let KeyValueStore { database, receiver, max_bytes, account } = &self.store;
        database.write(receiver, *max_bytes, account, change)
    }

    fn place<'a>(&'a self, key: &'a str) -> Result<Place<'a>, Refusal> {
        if key.len() > MAX_KEY {
            return Err(Refusal::KeyLength { found: key.len() });
        }
        Ok(Place { receiver: &self.store.receiver, bucket: &self.name, key })
    }
}

impl Place<'_> {
    /// The key of the database.
    pub fn key(&self) -> Vec<u8> {
        let mut key = bucket_prefix(self.receiver, self.bucket);
        key.extend_from_slice(self.key.as_bytes());
        key
    }

    pub fn damaged(&self, problem: &str) -> StateError {
        damaged(self.receiver, format!("key {:?} of bucket {:?}: {problem}", self.key, self.bucket))
    }
}

fn check_value(value: &[u8]) -> Result<(), Refusal> {
    if value.len() > MAX_VALUE {
        return Err(Refusal::ValueLength { found: value.len() });
    }
    Ok(())
}

fn check_number(keys: usize) -> Result<(), Refusal> {
    if keys > MAX_KEYS {
        return Err(Refusal::Keys { found: keys });
    }
    Ok(())
}
