//! Holds an instance to its memory. The engine's own limiter looks at each memory alone and forgets that it refused one;
//! then a guest that is out of memory looks like any other that ends itself.

use wasmtime::ResourceLimiter;

use crate::engine::TABLE_ELEMENTS;
use crate::usage::HeldMemory;

/// The memory of one instance, summed over all its linear memories.
pub(crate) struct MemoryLimiter {
    limit: u64,
    used: HeldMemory,
    refused: Option<u64>,
}

impl MemoryLimiter {
    pub(crate) fn new(limit: u64, used: HeldMemory) -> Self {
        Self { limit, used, refused: None }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// How many bytes were asked for when memory was refused since the last [`forget`](Self::forget).
    pub(crate) fn refused(&self) -> Option<u64> {
        self.refused
    }

    /// Forgets what was refused: a guest may go on without, and what goes wrong later has another reason.
    pub(crate) fn forget(&mut self) {
        self.refused = None;
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let growth = u64::try_from(desired.saturating_sub(current)).unwrap_or(u64::MAX);
        let total = self.used.bytes().saturating_add(growth);
        if total > self.limit || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = Some(total);
            return Ok(false);
        }
        self.used.grow(growth);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Whether the growth was counted before it failed is not said, so it stays counted: a guest may get less memory
        // than it could have, never more.
        tracing::debug!(%error, "a guest's memory could not grow");
        self.refused.get_or_insert(self.used.bytes());
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::usage::Usage;

    fn limiter(limit: u64) -> MemoryLimiter {
        MemoryLimiter::new(limit, HeldMemory::new(Arc::new(Usage::default())))
    }

    #[test]
    fn all_memories_of_an_instance_count_together() {
        let mut limiter = limiter(300);
        assert!(limiter.memory_growing(0, 100, None).unwrap());
        assert!(limiter.memory_growing(0, 150, None).unwrap());
        assert!(!limiter.memory_growing(100, 200, None).unwrap());
        assert_eq!(limiter.refused(), Some(350));
        assert!(limiter.memory_growing(150, 200, None).unwrap(), "what was refused is not counted");
        limiter.forget();
        assert_eq!(limiter.refused(), None);
    }

    #[test]
    fn failed_growth_never_makes_room() {
        let mut limiter = limiter(300);
        for _ in 0..3 {
            assert!(limiter.memory_growing(0, 100, None).unwrap());
            limiter.memory_grow_failed(wasmtime::Error::msg("no")).unwrap();
        }
        assert!(!limiter.memory_growing(0, 100, None).unwrap());
    }
}
