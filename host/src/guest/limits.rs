//! Limits of what guests may use: one table, all of it on by default, all of it settable.

use std::fmt;
use std::time::Duration;

use crate::units::{SIZE_UNITS, parse_duration, parse_size};

/// Makes [`Limits`], its default, its table for people and its table for programs from one list, so
/// that they cannot differ.
macro_rules! limits {
    ($($name:literal $field:ident: $type:ty = $default:expr, $shown:literal, $range:expr;
       $what:literal; $why:literal; $at:literal;)*) => {
        /// Limits of what guests may use.
        ///
        /// A size of the store is advertised to the guest, so that it can plan. Where it can be
        /// told, a guest at a limit gets `quota-exceeded` with the limit's name; where not, its run
        /// ends, and no other.
        ///
        /// | limit | default | description | reason for the default | when reached |
        /// |---|---|---|---|---|
        $(#[doc = concat!(
            "| `", $name, "` | ", $shown, " | ", $what, " | ", $why, " | ", $at, " |"
        )])*
        ///
        /// ```
        /// use std::time::Duration;
        /// use persist_host::guest::Limits;
        ///
        /// let mut limits = Limits::default();
        /// limits.cpu = Duration::from_secs(1);
        /// limits.set("state-size", "64 MiB")?;
        /// assert_eq!(limits.state_size, 64 << 20);
        /// # Ok::<(), persist_host::guest::LimitError>(())
        /// ```
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Limits {
            $(#[doc = concat!($what, " (`", $name, "`).")] pub $field: $type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        static TABLE: &[Limit] = &[
            $(Limit {
                name: $name,
                default: $shown,
                description: $what,
                reason: $why,
                when_reached: $at,
                show: |limits| limits.$field.show(),
                set: |limits, text| {
                    limits.$field = Amount::parse(text, $range, $shown)?;
                    Ok(())
                },
            },)*
        ];
    };
}

limits! {
    // What one scope may ask of the store, whatever the number of its instances.
    "inline-size" inline_size: u64 = 16 << 20, "16 MiB", 1..=1 << 40;
        "maximum bytes of state in one `save` or `load`";
        "the whole memory of an agent; the host holds it up to four times";
        "`too-large`";
    "chunk" chunk: u64 = 1 << 20, "1 MiB", 1..=1 << 31;
        "maximum bytes in one `write` or `read`";
        "one block of the stored file";
        "`quota-exceeded` for a write; a shorter read";
    "state-size" state_size: u64 = 1 << 30, "1 GiB", 1..=1 << 50;
        "maximum bytes of one state";
        "a thousand times the memory of an agent";
        "`quota-exceeded`";
    "name-size" name_size: u64 = 200, "200 B", 1..=200;
        "maximum bytes of an encoded name";
        "the maximum that every file system supports; it cannot be raised";
        "`quota-exceeded`; over 200, `invalid`";
    "label-size" label_size: u64 = 8 << 10, "8 KiB", 0..=8 << 10;
        "maximum bytes of the labels and the media type together";
        "every stat reads them; it cannot be raised";
        "`quota-exceeded`; over 8 KiB, `invalid`";
    "page" page: u64 = 100, "100", 1..=10_000;
        "maximum items in a page of `history` or `names`";
        "each item of a history costs a read";
        "a shorter page";
    "open-writers" open_writers: u64 = 4, "4", 0..=1 << 20;
        "open writers of one scope";
        "each holds up to 20 MiB of host memory";
        "`quota-exceeded`";
    "open-readers" open_readers: u64 = 16, "16", 0..=1 << 20;
        "open readers of one scope";
        "each holds up to 10 MiB of host memory";
        "`quota-exceeded`";
    "calls-in-flight" calls_in_flight: u64 = 16, "16", 1..=1 << 20;
        "concurrent calls of one scope";
        "an instance makes one call at a time, and few agents have that many concurrent runs";
        "`quota-exceeded`";
    "saves-per-minute" saves_per_minute: u64 = 6000, "6000", 0..=1 << 40;
        "changes of one scope per minute: saves, writers, deletions, restores, forks";
        "100 a second is more than a disk can sync, and costs money on a cloud backend";
        "`quota-exceeded`";
    "reads-per-minute" reads_per_minute: u64 = 30_000, "30000", 0..=1 << 40;
        "reads of one scope per minute: loads, stats, pages, each version of a history, copies";
        "five reads for each change; more costs money on a cloud backend";
        "`quota-exceeded`";
    "bytes-read-per-minute" bytes_read_per_minute: u64 = 4 << 30, "4 GiB", 0..=1 << 60;
        "stored bytes that one scope reads per minute";
        "four states of the maximum size; cloud backends charge for each byte";
        "`quota-exceeded`; a started read completes";
    "names-at-rest" names_at_rest: u64 = 10_000, "10000", 0..=1 << 60;
        "names of one scope, including deleted names";
        "a name is never removed, and each name slows every list of the scope";
        "`quota-exceeded` for a new name";
    "bytes-at-rest" bytes_at_rest: u64 = 10 << 30, "10 GiB", 0..=1 << 60;
        "stored bytes of one scope, including old versions";
        "ten states of the maximum size";
        "`quota-exceeded`, after old versions are pruned";
    "versions-at-rest" versions_at_rest: u64 = 100_000, "100000", 0..=1 << 60;
        "versions of all names of one scope";
        "one version a minute for two months";
        "`quota-exceeded`, after old versions are pruned";

    // What one run may use of the machine.
    "memory" memory: u64 = 256 << 20, "256 MiB", 0..=1 << 40;
        "bytes of all linear memories of a run";
        "enough for the Python runtime and some MiB of data";
        "the allocation fails";
    "memories" memories: u64 = 16, "16", 0..=10_000;
        "linear memories of a run";
        "a component has one for each module, and few have more than one";
        "the run is stopped";
    "tables" tables: u64 = 100, "100", 0..=10_000;
        "tables of a run";
        "one for each module, and some for linking";
        "the run is stopped";
    "table-elements" table_elements: u64 = 100_000, "100000", 0..=10_000_000;
        "elements of all tables of a run";
        "the largest toolchain needs 30,000";
        "the growth fails";
    "instances" instances: u64 = 100, "100", 0..=10_000;
        "instances of modules and components of a run";
        "Python, the largest, has some dozens";
        "the run is stopped";
    "handles" handles: u64 = 1024, "1024", 1..=1 << 20;
        "handles of a run, including those of WASI and its own resources";
        "more than any toolchain needs, and little memory";
        "the run is stopped";
    "cpu" cpu: Duration = Duration::from_secs(30), "30 s", 0..=MONTH;
        "CPU time of the guest's own code; host code is not counted";
        "enough for long computations, too little for mining";
        "the run is stopped";
    "wall-clock" wall_clock: Duration = Duration::from_secs(300), "5 min", 0..=MONTH;
        "time from the start to the end of a run";
        "also stops a run that waits for a slow storage backend";
        "the run is stopped";
    "output" output: u64 = 1 << 20, "1 MiB", 0..=1 << 30;
        "bytes kept of standard output, and the same of standard error";
        "the host holds them until the run ends";
        "printing fails";
    "http-requests" http_requests: u64 = 100, "100", 0..=1 << 40;
        "outgoing HTTP requests of a run";
        "a turn of a conversation needs a few; most services charge for each";
        "the request fails";
    "http-bytes" http_bytes: u64 = 64 << 20, "64 MiB", 0..=1 << 50;
        "bytes of all HTTP request and response bodies of a run";
        "the longest conversation with a model has some MiB";
        "the request or the response fails";
    "http-time" http_time: Duration = Duration::from_secs(120), "2 min", 0..=MONTH;
        "time of one HTTP request, from its start to the end of the response";
        "a model may think for a minute; it ends before `wall-clock` does";
        "the request or the response fails";

    // What all guests of a host may use together.
    "component" component: u64 = 64 << 20, "64 MiB", 0..=1 << 30;
        "bytes of a component before compilation";
        "Python components have 18 MiB";
        "the component is rejected";
    "definitions" definitions: u64 = 100_000, "100000", 0..=1 << 40;
        "definitions of a component, counted for each instance of a nested component";
        "a few KB of nested components can expand to billions; Python has two thousand";
        "the component is rejected";
    "instance-storage" instance_storage: u64 = 16 << 20, "16 MiB", 0..=1 << 40;
        "host bytes for globals, functions and segments of all instances of a run";
        "the limit of the linear memories does not include them; Python needs 1 MiB";
        "the component is rejected";
    "functions" functions: u64 = 50_000, "50000", 1..=1_000_000;
        "functions of all modules of a component";
        "the compiler takes 6 KB for each; Python and JavaScript have under 20,000";
        "the component is rejected";
    "nested-blocks" nested_blocks: u64 = 2000, "2000", 1..=100_000;
        "nesting depth of blocks in one function";
        "compile time grows with the square of the depth; Python and JavaScript nest up to 800";
        "the component is rejected";
    "stack" stack: u64 = 512 << 10, "512 KiB", 4096..=1 << 20;
        "bytes of a guest's stack";
        "host code has 8 MiB of its own";
        "the run is stopped";
    "compilations" compilations: u64 = 2, "2", 1..=1024;
        "concurrent compilations";
        "a compilation cannot be stopped; some threads of the disk pool must stay free";
        "waits";
    "compile-time" compile_time: Duration = Duration::from_secs(120), "2 min", 0..=MONTH;
        "time until an agent is compiled, including the wait";
        "Python takes 5 s";
        "the component is rejected";
    "runs" runs: u64 = 64, "64", 1..=1 << 20;
        "concurrent runs";
        "the host needs this many times the memory of one run";
        "waits";
    "runs-of-scope" runs_of_scope: u64 = 16, "16", 1..=1 << 20;
        "concurrent runs of one scope; never more than three quarters of `runs`";
        "the same as the concurrent calls; one scope cannot block the others";
        "waits";
    "run-wait" run_wait: Duration = Duration::from_secs(300), "5 min", 0..=MONTH;
        "time that a run waits to start";
        "one `wall-clock`: by then every earlier run has ended";
        "the run is rejected";
    "host-calls" host_calls: u64 = 256, "256", 1..=1 << 20;
        "concurrent calls of all guests";
        "the number that one storage backend can serve";
        "waits";
    "host-writers" host_writers: u64 = 256, "256", 0..=1 << 20;
        "open writers of all guests";
        "5 GiB of host memory if all of them are full";
        "`throttled`";
    "host-readers" host_readers: u64 = 1024, "1024", 0..=1 << 20;
        "open readers of all guests";
        "10 GiB of host memory if all of them are full";
        "`throttled`";
}

const MONTH: u64 = 31 * 24 * 60 * 60;

/// Maximum number of bytes of the host that an open writer holds: 4 MiB of state, 12 MiB of pieces,
/// and the bytes that are on their way.
const WRITER: u64 = 20 << 20;

/// Maximum number of bytes that an open reader holds: four blocks, their stored bytes, and the end
/// of the file.
const READER: u64 = 10 << 20;

/// Maximum number of bytes of the host for the HTTP requests of a run: 16 connections with their
/// buffers.
const HTTP: u64 = 16 * (512 << 10);

/// Maximum number of bytes that the host holds for a handle of HTTP: headers, and a written chunk.
const HTTP_HANDLE: u64 = 32 << 10;

/// Bytes of the stack of a run for the functions of the host, which run on the same one as the
/// agent. In a build without optimization, a save on the local disk takes 16 to 48 KiB, and one to
/// a server more, for the functions of its SDK. Too little would end the process, so there is
/// plenty. It is address space until it is used.
pub(crate) const HOST_STACK: u64 = 8 << 20;

/// One row of the table.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Limit {
    /// Its stable kebab-case name: in code, in configuration, and in what a guest is told.
    pub name: &'static str,
    /// Its value where nothing else is said, as [`Limits::set`] takes it.
    pub default: &'static str,
    /// Description of what the limit counts.
    pub description: &'static str,
    /// Reason for the default.
    pub reason: &'static str,
    /// Description of what happens at the limit.
    pub when_reached: &'static str,
    show: fn(&Limits) -> String,
    set: fn(&mut Limits, &str) -> Result<(), String>,
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("name", &self.name)
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

/// Why a limit was not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// There is none of this name.
    #[error("{name:?} is not a limit: the limits are {}", names())]
    Unknown {
        /// The name.
        name: String,
    },
    /// The value is none, or too large or small.
    #[error("invalid value {value:?} for the limit {name}: {why}")]
    Value {
        /// The name of the limit.
        name: String,
        /// Value that was to be set.
        value: String,
        /// Description of the values that are allowed.
        why: String,
    },
}

impl Limits {
    /// Every limit, in the order of the table above.
    pub fn table() -> &'static [Limit] {
        TABLE
    }

    /// Sets a limit by its name. Sizes are bytes, or end in KiB, MiB, GiB or TiB
    /// ([`parse_size`]). Durations are such as `500ms`, `30s`, `5min` or `1d` ([`parse_duration`]).
    /// All else are plain numbers.
    ///
    /// # Errors
    /// [`LimitError`], and nothing is changed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), LimitError> {
        let limit = TABLE.iter().find(|limit| limit.name == name);
        let limit = limit.ok_or_else(|| LimitError::Unknown { name: name.into() })?;
        (limit.set)(self, value).map_err(|why| LimitError::Value {
            name: name.into(),
            value: value.into(),
            why,
        })
    }

    /// The value of a limit, as [`Limits::set`] takes it; none where there is no such limit.
    pub fn get(&self, name: &str) -> Option<String> {
        let limit = TABLE.iter().find(|limit| limit.name == name)?;
        Some((limit.show)(self))
    }

    /// Bytes that one call of a guest may bring into the host before it is a trap: what is
    /// advertised, and 1 MiB more, so that a guest slightly over a limit is told which one.
    pub fn hostcall_fuel(&self) -> usize {
        to_usize(self.inline_size.max(self.chunk).saturating_add(1 << 20))
    }

    /// Runs that one scope may have under way: [`Limits::runs_of_scope`], and never all of
    /// [`Limits::runs`] where there is more than one, so that a scope that fills its share leaves
    /// places to the others.
    pub(super) fn share_of_runs(&self) -> u64 {
        let left_to_others = (self.runs / 4).max(1);
        let most = self.runs.saturating_sub(left_to_others).max(1);
        self.runs_of_scope.min(most)
    }

    /// Bytes of memory that all guests together can make a runner hold, whatever they do,
    /// beside the compiled agents and the compilations that are under way.
    pub fn memory_bound(&self) -> u64 {
        let call = 4 * self.inline_size.max(self.chunk) + (4 << 20);
        let run = self.memory
            + 16 * self.table_elements
            + HTTP_HANDLE * self.handles
            + HTTP
            + self.instance_storage
            + 2 * self.output
            + self.stack
            + HOST_STACK
            + call;
        let of_all = |each: u64, host: u64| host.min(each.saturating_mul(self.runs));
        self.runs
            .saturating_mul(run)
            .saturating_add(WRITER.saturating_mul(of_all(self.open_writers, self.host_writers)))
            .saturating_add(READER.saturating_mul(of_all(self.open_readers, self.host_readers)))
    }
}

fn names() -> String {
    let names: Vec<_> = TABLE.iter().map(|limit| limit.name).collect();
    names.join(", ")
}

/// Converts a limit to `usize`: as much of it as this machine can count.
pub(crate) fn to_usize(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Converts a limit to `u32`, as the contract counts it.
pub(super) fn to_u32(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// The value of a limit as text.
trait Amount: Sized {
    /// Parses a value in `range`. `default` tells whether it is a size.
    fn parse(
        text: &str,
        range: std::ops::RangeInclusive<u64>,
        default: &str,
    ) -> Result<Self, String>;
    fn show(&self) -> String;
}

impl Amount for u64 {
    fn parse(
        text: &str,
        range: std::ops::RangeInclusive<u64>,
        default: &str,
    ) -> Result<Self, String> {
        let least = range.start();
        let most = range.end();
        let number = parse_size(text).ok();
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                if default.ends_with('B') {
                    let (least, most) = (least.show(), most.show());
                    format!("not a size from {least} to {most}, such as {default}")
                } else {
                    format!("not a number from {least} to {most}")
                }
            })
    }

    fn show(&self) -> String {
        let whole = |(_, bytes): &&(&str, u64)| *self >= *bytes && self.is_multiple_of(*bytes);
        match SIZE_UNITS.iter().rev().find(whole) {
            Some((unit, bytes)) => format!("{} {unit}", self / bytes),
            None => self.to_string(),
        }
    }
}

impl Amount for Duration {
    /// `range` is in seconds.
    fn parse(
        text: &str,
        range: std::ops::RangeInclusive<u64>,
        _default: &str,
    ) -> Result<Self, String> {
        let least = Self::from_secs(*range.start());
        let most = Self::from_secs(*range.end());
        let time = parse_duration(text).map_err(|error| error.to_string())?;
        if (least..=most).contains(&time) {
            Ok(time)
        } else {
            Err("more than a month".into())
        }
    }

    fn show(&self) -> String {
        match self.subsec_nanos() {
            0 => format!("{} s", self.as_secs()),
            nanos if nanos.is_multiple_of(1_000_000) => format!("{} ms", self.as_millis()),
            _ => humantime::format_duration(*self).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_that_a_row_shows_is_the_default() {
        for limit in Limits::table() {
            let mut limits = Limits::default();
            limits.set(limit.name, "1").ok();
            limits.set(limit.name, "1 s").ok();
            limits.set(limit.name, limit.default).expect(limit.name);
            assert_eq!(limits, Limits::default(), "{}", limit.name);
        }
    }

    #[test]
    fn every_limit_comes_back_as_it_was_set() {
        for limit in Limits::table() {
            let mut limits = Limits::default();
            let value = ["4097", "7", "1500 ms"]
                .into_iter()
                .find(|value| limits.set(limit.name, value).is_ok())
                .expect(limit.name);
            assert_eq!(limits.get(limit.name).as_deref(), Some(value));
        }
    }

    #[test]
    fn durations_have_the_grammar_of_the_command() {
        let mut limits = Limits::default();
        for (value, seconds) in [
            ("1d", 86_400),
            ("1 h", 3600),
            ("1h 30m", 5400),
            ("1week", 604_800),
        ] {
            limits.set("cpu", value).expect(value);
            assert_eq!(limits.cpu, Duration::from_secs(seconds));
        }
        limits.set("cpu", "1500us").expect("microseconds");
        let shown = limits.get("cpu").expect("a limit");
        limits.set("cpu", &shown).expect("what was shown");
        assert_eq!(limits.cpu, Duration::from_micros(1500));
    }

    #[test]
    fn the_range_of_a_size_has_units() {
        for (name, value, why) in [
            (
                "stack",
                "2MiB",
                "not a size from 4 KiB to 1 MiB, such as 512 KiB",
            ),
            ("memories", "many", "not a number from 0 to 10000"),
        ] {
            let error = Limits::default().set(name, value).expect_err(name);
            let expected = format!("invalid value {value:?} for the limit {name}: {why}");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_value_that_means_nothing_changes_nothing() {
        let mut limits = Limits::default();
        for (name, value) in [
            ("memory", "-1"),
            ("memory", "much"),
            ("memory", ""),
            ("memory", "+1"),
            ("memory", "MiB"),
            ("memory", "99999999999999999999"),
            ("memory", "99999999 TiB"),
            ("name-size", "201"),
            ("cpu", "3"),
            ("cpu", "9 weeks"),
            ("cpu", "32d"),
            ("runs", "0"),
            ("nonsense", "1"),
        ] {
            assert!(limits.set(name, value).is_err(), "{name}={value}");
        }
        assert_eq!(limits, Limits::default());
    }
}
