//! What a guest may use. Every limit is on by default, and every one can be set.

use std::time::Duration;

/// What a guest may ask of the store: advertised to it, so that it can plan.
///
/// | limit | default | why | at it, the guest gets |
/// |---|---|---|---|
/// | `max_inline` | 16 MiB | an agent's whole memory; the host holds it three times | `too-large` |
/// | `max_chunk` | 1 MiB | one block of the file | `quota-exceeded` |
/// | `max_state` | 1 GiB | some thousand times an agent's memory | `quota-exceeded` |
/// | `max_page` | 100 | each item costs a read | a shorter page |
/// | `max_writers` | 4 | each holds up to 16 MiB of host memory | `quota-exceeded` |
/// | `max_readers` | 16 | each holds up to 8 MiB of host memory | `quota-exceeded` |
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestLimits {
    /// Bytes of state in one `save` or `load`.
    pub max_inline: u64,
    /// Bytes in one `write` or `read`.
    pub max_chunk: u32,
    /// Bytes of one state, however it is saved.
    pub max_state: u64,
    /// Items in one page.
    pub max_page: u32,
    /// Writers that are open at the same time.
    pub max_writers: u32,
    /// Readers that are open at the same time.
    pub max_readers: u32,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            max_inline: 16 << 20,
            max_chunk: 1 << 20,
            max_state: 1 << 30,
            max_page: 100,
            max_writers: 4,
            max_readers: 16,
        }
    }
}

impl GuestLimits {
    /// Bytes that one call may bring into the host before it is a trap: what is advertised, and as much
    /// again as a chunk, so that a guest slightly over a limit is told which one.
    pub fn hostcall_fuel(&self) -> usize {
        let most = self.max_inline.max(self.max_chunk.into());
        usize::try_from(most.saturating_add(1 << 20)).unwrap_or(usize::MAX)
    }
}

/// What one run of an agent may use of the machine.
///
/// | limit | default | why | at it |
/// |---|---|---|---|
/// | `memory` | 256 MiB | Python's runtime and a memory of some MiB fit; all linear memories together | the allocation fails |
/// | `memories` | 16 | a component has one for each of its modules, and few have more than one | it is not started |
/// | `tables` | 100 | the same, with some more for linking | it is not started |
/// | `instances` | 100 | Python, the largest, is some dozen modules linked at the start | it is not started |
/// | `table_elements` | 100,000 | the largest guest toolchain needs 30,000 | the growth fails |
/// | `component` | 64 MiB | Python's are 18 MiB | it is not loaded |
/// | `cpu` | 30 s | time in the guest's own code; waiting for the host does not count | a trap |
/// | `wall_clock` | 5 min | a run that hangs in slow storage ends, too | a trap |
/// | `output` | 1 MiB | each of standard output and error, which the host keeps | printing fails |
/// ```
/// use std::time::Duration;
/// use persist_host::wasm::Limits;
///
/// let mut limits = Limits::default();
/// limits.cpu = Duration::from_secs(1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of all linear memories together.
    pub memory: usize,
    /// Linear memories.
    pub memories: usize,
    /// Tables.
    pub tables: usize,
    /// Instances of core modules.
    pub instances: usize,
    /// Elements of all tables together.
    pub table_elements: usize,
    /// Bytes of a component before it is compiled.
    pub component: usize,
    /// Time that the guest's own code may run.
    pub cpu: Duration,
    /// Time from start to end.
    pub wall_clock: Duration,
    /// Bytes kept of standard output, and as many of standard error.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            memories: 16,
            tables: 100,
            instances: 100,
            table_elements: 100_000,
            component: 64 << 20,
            cpu: Duration::from_secs(30),
            wall_clock: Duration::from_secs(5 * 60),
            output: 1 << 20,
        }
    }
}
