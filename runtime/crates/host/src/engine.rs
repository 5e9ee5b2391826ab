//! How components are compiled, and how many instances of which size the engine has room for. The settings that change
//! machine code are in one function, because the child process that compiles must use exactly the same ones.

use wasmtime::{Config, Engine, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::error::HostError;
use crate::host::HostOptions;

/// Address space that is reserved for each memory, and with it the most that `max_memory` can be. With 4 GiB, what a 32-bit
/// guest can address at all, compiled code needs no bounds checks.
pub(crate) const MEMORY_RESERVATION: u64 = 4 << 30;

/// Core module instances in one component: today's toolchains use 4 (JavaScript) to about 20 (Python with its libraries).
const CORE_INSTANCES: u32 = 64;

/// Memories in one component. One is the rule; a composed component has one for each of its parts.
const MEMORIES: u32 = 4;

/// Tables in one component. Toolchains use one for functions and one for the glue between modules.
const TABLES: u32 = 16;

/// Elements of one table: as many functions as a program may take the address of. Interpreters need about 10,000.
pub(crate) const TABLE_ELEMENTS: usize = 20_000;

/// The settings that decide what the machine code looks like.
pub(crate) fn compile_config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .memory_reservation(MEMORY_RESERVATION)
        // Debug information comes from a stranger, and reading it would happen in this process. Names come without it.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

/// The engine that runs components. Its pool is as large as `options` say and stays so.
pub(crate) fn engine(options: &HostOptions) -> Result<Engine, HostError> {
    if options.max_memory > MEMORY_RESERVATION {
        return Err(HostError::MaxMemory { asked: options.max_memory, limit: MEMORY_RESERVATION });
    }
    let max_memory = usize::try_from(options.max_memory).unwrap_or(usize::MAX);
    let stores = options.max_instances.saturating_add(options.max_pages);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(stores)
        .total_core_instances(stores.saturating_mul(CORE_INSTANCES))
        .max_core_instances_per_component(CORE_INSTANCES)
        // A guest that uses garbage collection has its heap in a memory of the pool.
        .total_memories(stores.saturating_mul(MEMORIES + 1))
        .max_memories_per_component(MEMORIES)
        .total_tables(stores.saturating_mul(TABLES))
        .max_tables_per_component(TABLES)
        .table_elements(TABLE_ELEMENTS)
        .total_stacks(stores)
        .total_gc_heaps(stores)
        .max_memory_size(max_memory);
    let mut config = compile_config();
    config.allocation_strategy(pool);
    Engine::new(&config).map_err(|error| HostError::Engine(error.into_boxed_dyn_error()))
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::DefaultHasher;
    use std::hash::{Hash, Hasher};

    use super::*;
    use crate::host::Compiler;

    fn hash(engine: &Engine) -> u64 {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    fn options(max_memory: u64) -> HostOptions {
        let compiler = Compiler { program: "none".into(), args: Vec::new() };
        HostOptions {
            max_memory,
            max_instances: 2,
            max_pages: 1,
            ..HostOptions::new("none".into(), compiler)
        }
    }

    #[test]
    fn what_the_child_compiles_fits_every_pool() {
        let child = hash(&Engine::new(&compile_config()).unwrap());
        assert_eq!(child, hash(&engine(&options(1 << 20)).unwrap()));
        assert_eq!(child, hash(&engine(&options(MEMORY_RESERVATION)).unwrap()));
    }

    #[test]
    fn more_memory_than_a_guest_can_address_is_refused() {
        assert!(matches!(engine(&options(MEMORY_RESERVATION + 1)), Err(HostError::MaxMemory { .. })));
    }
}
