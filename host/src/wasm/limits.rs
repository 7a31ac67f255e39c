//! Limits of what guests may use: one table, all of it on by default, all of it settable.

use std::fmt;
use std::time::Duration;

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
        /// | limit | default | what | why this number | at it |
        /// |---|---|---|---|---|
        $(#[doc = concat!(
            "| `", $name, "` | ", $shown, " | ", $what, " | ", $why, " | ", $at, " |"
        )])*
        ///
        /// ```
        /// use std::time::Duration;
        /// use persist_host::wasm::Limits;
        ///
        /// let mut limits = Limits::default();
        /// limits.cpu = Duration::from_secs(1);
        /// limits.set("state-size", "64 MiB")?;
        /// assert_eq!(limits.state_size, 64 << 20);
        /// # Ok::<(), persist_host::wasm::LimitError>(())
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
                what: $what,
                why: $why,
                at_it: $at,
                show: |limits| limits.$field.show(),
                set: |limits, text| {
                    limits.$field = Amount::parse(text, $range)?;
                    Ok(())
                },
            },)*
        ];
    };
}

limits! {
    // What one scope may ask of the store, whatever the number of its instances.
    "inline-size" inline_size: u64 = 16 << 20, "16 MiB", 1..=1 << 40;
        "bytes of state in one `save` or `load`";
        "an agent's whole memory; the host holds it up to four times";
        "`too-large`";
    "chunk" chunk: u64 = 1 << 20, "1 MiB", 1..=1 << 31;
        "bytes in one `write` or `read`";
        "one block of the file";
        "`quota-exceeded`, a shorter read";
    "state-size" state_size: u64 = 1 << 30, "1 GiB", 1..=1 << 50;
        "bytes of one state, however it is saved";
        "a thousand times an agent's memory";
        "`quota-exceeded`";
    "name-size" name_size: u64 = 200, "200 B", 1..=200;
        "bytes of a name as it is encoded";
        "what every file system takes, and the most that there can be";
        "`quota-exceeded`; over 200, `invalid`";
    "label-size" label_size: u64 = 8 << 10, "8 KiB", 0..=8 << 10;
        "bytes of labels and media type together";
        "they are read with every look, and the most that there can be";
        "`quota-exceeded`; over 8 KiB, `invalid`";
    "page" page: u64 = 100, "100", 1..=10_000;
        "items in a page of `history` or `names`";
        "each item of a history costs a read";
        "a shorter page";
    "open-writers" open_writers: u64 = 4, "4", 0..=1 << 20;
        "writers of one scope that are open";
        "each holds up to 20 MiB of the host";
        "`quota-exceeded`";
    "open-readers" open_readers: u64 = 16, "16", 0..=1 << 20;
        "readers of one scope that are open";
        "each holds up to 10 MiB of the host";
        "`quota-exceeded`";
    "calls-in-flight" calls_in_flight: u64 = 16, "16", 1..=1 << 20;
        "calls of one scope at the same time";
        "an instance makes one at a time, and few agents are run so often at once";
        "`quota-exceeded`";
    "saves-per-minute" saves_per_minute: u64 = 6000, "6000", 0..=1 << 40;
        "changes of one scope: saves, writers, deletions, restores, forks";
        "a hundred a second is more than a disk syncs, and a bill on a server";
        "`quota-exceeded`";
    "reads-per-minute" reads_per_minute: u64 = 30_000, "30000", 0..=1 << 40;
        "reads of one scope: loads, stats, pages, each version of a history, copies";
        "five for each change; more is a bill on a server, too";
        "`quota-exceeded`";
    "bytes-read-per-minute" bytes_read_per_minute: u64 = 4 << 30, "4 GiB", 0..=1 << 60;
        "stored bytes that reads of one scope take from the storage";
        "four of the largest states; a server's traffic is paid by the byte";
        "`quota-exceeded`; a read that has begun ends";
    "names-at-rest" names_at_rest: u64 = 10_000, "10000", 0..=1 << 60;
        "names of one scope, deleted ones too";
        "a name stays for ever, and each costs every list of the scope";
        "`quota-exceeded` for a new name";
    "bytes-at-rest" bytes_at_rest: u64 = 10 << 30, "10 GiB", 0..=1 << 60;
        "bytes of one scope's files, old versions too";
        "ten of the largest states";
        "`quota-exceeded`, after old versions were pruned";
    "versions-at-rest" versions_at_rest: u64 = 100_000, "100000", 0..=1 << 60;
        "versions of one scope, of all names together";
        "one a minute for two months";
        "`quota-exceeded`, after old versions were pruned";

    // What one run may use of the machine.
    "memory" memory: u64 = 256 << 20, "256 MiB", 0..=1 << 40;
        "bytes of all linear memories of a run";
        "Python's runtime and a memory of some MiB fit";
        "the allocation fails";
    "memories" memories: u64 = 16, "16", 0..=10_000;
        "linear memories of a run";
        "a component has one for each module, and few have more than one";
        "the run ends";
    "tables" tables: u64 = 100, "100", 0..=10_000;
        "tables of a run";
        "one for each module, and some for linking";
        "the run ends";
    "table-elements" table_elements: u64 = 100_000, "100000", 0..=10_000_000;
        "elements of all tables of a run";
        "the largest toolchain needs 30,000";
        "the growth fails";
    "instances" instances: u64 = 100, "100", 0..=10_000;
        "instances of modules and components of a run";
        "Python, the largest, is some dozen";
        "the run ends";
    "handles" handles: u64 = 1024, "1024", 1..=1 << 20;
        "handles of a run, those of WASI and of its own resources too";
        "more than any toolchain needs, and little memory";
        "the run ends";
    "cpu" cpu: Duration = Duration::from_secs(30), "30 s", 0..=MONTH;
        "time in the guest's own code; the host's does not count";
        "a long thought, and no mining";
        "the run ends";
    "wall-clock" wall_clock: Duration = Duration::from_secs(300), "5 min", 0..=MONTH;
        "time from start to end of a run";
        "a run that hangs in slow storage ends, too";
        "the run ends";
    "output" output: u64 = 1 << 20, "1 MiB", 0..=1 << 30;
        "bytes kept of standard output, and as many of standard error";
        "the host holds them until the run ends";
        "printing fails";

    // What all guests of a host may use together.
    "component" component: u64 = 64 << 20, "64 MiB", 0..=1 << 30;
        "bytes of a component before it is compiled";
        "Python's are 18 MiB";
        "it is not loaded";
    "definitions" definitions: u64 = 100_000, "100000", 0..=1 << 40;
        "definitions of a component, once each component in it is instantiated";
        "a few KB of nested components can stand for billions; Python has two thousand";
        "it is not loaded";
    "instance-storage" instance_storage: u64 = 16 << 20, "16 MiB", 0..=1 << 40;
        "bytes of the host for globals, functions and segments of all instances of a run";
        "no linear memory counts them; Python needs 1 MiB";
        "it is not loaded";
    "functions" functions: u64 = 50_000, "50000", 1..=1_000_000;
        "functions of all modules of a component";
        "the compiler takes 6 KB for each; Python and JavaScript have under 20,000";
        "it is not loaded";
    "nested-blocks" nested_blocks: u64 = 2000, "2000", 1..=100_000;
        "blocks in blocks in one function";
        "the compiler takes the square of it; the largest of Python and JavaScript nest 800";
        "it is not loaded";
    "stack" stack: u64 = 512 << 10, "512 KiB", 4096..=1 << 20;
        "bytes of a guest's stack";
        "the host's own part of the 2 MiB stays free";
        "the run ends";
    "compilations" compilations: u64 = 2, "2", 1..=1024;
        "compilations at the same time";
        "one cannot be stopped: a few that never end must leave the threads of the disk";
        "waiting";
    "compile-time" compile_time: Duration = Duration::from_secs(120), "2 min", 0..=MONTH;
        "time until an agent is compiled, waiting included";
        "Python takes 5 s";
        "it is not loaded";
    "runs" runs: u64 = 64, "64", 1..=1 << 20;
        "runs at the same time";
        "memory is so many times what one run may use";
        "waiting";
    "runs-of-scope" runs_of_scope: u64 = 16, "16", 1..=1 << 20;
        "runs of one scope at the same time, and at most three quarters of `runs`";
        "as many as its calls in flight; no scope keeps the others waiting";
        "waiting";
    "run-wait" run_wait: Duration = Duration::from_secs(300), "5 min", 0..=MONTH;
        "time that a run waits for its turn";
        "one `wall-clock`: whoever ran when it came has ended by then";
        "it is not run";
    "host-calls" host_calls: u64 = 256, "256", 1..=1 << 20;
        "calls of all guests at the same time";
        "what one storage answers well";
        "waiting";
    "host-writers" host_writers: u64 = 256, "256", 0..=1 << 20;
        "writers of all guests that are open";
        "5 GiB of the host, where all are full";
        "`throttled`";
    "host-readers" host_readers: u64 = 1024, "1024", 0..=1 << 20;
        "readers of all guests that are open";
        "10 GiB of the host, where all are full";
        "`throttled`";
}

const MONTH: u64 = 31 * 24 * 60 * 60;

/// Maximum number of bytes of the host that an open writer holds: 4 MiB of state, 12 MiB of pieces,
/// and the bytes that are on their way.
const WRITER: u64 = 20 << 20;

/// Maximum number of bytes that an open reader holds: four blocks, their stored bytes, and the end
/// of the file.
const READER: u64 = 10 << 20;

/// The stack of a run, the host's part included.
const FIBER: u64 = 2 << 20;

/// One row of the table.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Limit {
    /// Its stable kebab-case name: in code, in configuration, and in what a guest is told.
    pub name: &'static str,
    /// Its value where nothing else is said, as [`Limits::set`] takes it.
    pub default: &'static str,
    /// Description of what the limit counts.
    pub what: &'static str,
    /// Why its default is that number.
    pub why: &'static str,
    /// Description of what happens at the limit.
    pub at_it: &'static str,
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
    #[error("there is no limit {name}; there are {}", names())]
    Unknown {
        /// The name.
        name: String,
    },
    /// The value is none, or too large or small.
    #[error("the limit {name} cannot be {value:?}: {why}")]
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

    /// Sets a limit by its name. Sizes are bytes, or end in KiB, MiB, GiB or TiB; times end in ms,
    /// s, min or h; all else are plain numbers.
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
        size(self.inline_size.max(self.chunk).saturating_add(1 << 20))
    }

    /// Runs that one scope may have under way: [`Limits::runs_of_scope`], and never all of
    /// [`Limits::runs`] where there is more than one, so that a scope that fills its share leaves
    /// places to the others.
    pub(super) fn share_of_runs(&self) -> u64 {
        let left_to_others = (self.runs / 4).max(1);
        let most = self.runs.saturating_sub(left_to_others).max(1);
        self.runs_of_scope.min(most)
    }

    /// Bytes of memory that all guests together can make an [`AgentHost`](super::AgentHost) hold,
    /// whatever they do, beside the compiled agents and the compilations that are under way.
    pub fn memory_bound(&self) -> u64 {
        let call = 4 * self.inline_size.max(self.chunk) + (4 << 20);
        let run = self.memory
            + 16 * self.table_elements
            + 1024 * self.handles
            + self.instance_storage
            + 2 * self.output
            + FIBER
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
pub(super) fn size(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// The value of a limit as text.
trait Amount: Sized {
    fn parse(text: &str, range: std::ops::RangeInclusive<u64>) -> Result<Self, String>;
    fn show(&self) -> String;
}

const SIZES: [(&str, u64); 6] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("B", 1),
    ("", 1),
];

/// In milliseconds.
const TIMES: [(&str, u64); 4] = [("ms", 1), ("min", 60_000), ("h", 3_600_000), ("s", 1000)];

impl Amount for u64 {
    fn parse(text: &str, range: std::ops::RangeInclusive<u64>) -> Result<Self, String> {
        let least = range.start();
        let most = range.end();
        number(text, &SIZES)
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                format!("it is a number from {least} to {most}, or one with KiB, MiB, GiB or TiB")
            })
    }

    fn show(&self) -> String {
        let units = SIZES[..4].iter().rev();
        let whole = |(_, bytes): &&(&str, u64)| *self >= *bytes && self.is_multiple_of(*bytes);
        match units.clone().find(whole) {
            Some((unit, bytes)) => format!("{} {unit}", self / bytes),
            None => self.to_string(),
        }
    }
}

impl Amount for Duration {
    /// `range` is in seconds.
    fn parse(text: &str, range: std::ops::RangeInclusive<u64>) -> Result<Self, String> {
        let least = range.start() * 1000;
        let most = range.end() * 1000;
        number(text, &TIMES)
            .filter(|millis| (least..=most).contains(millis))
            .map(Self::from_millis)
            .ok_or_else(|| "it is a number with ms, s, min or h, at most a month".into())
    }

    fn show(&self) -> String {
        let millis = self.as_millis();
        if millis.is_multiple_of(1000) {
            format!("{} s", millis / 1000)
        } else {
            format!("{millis} ms")
        }
    }
}

/// A number with one of the units behind it.
fn number(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (unit, factor) = units.iter().find(|(unit, _)| text.ends_with(unit))?;
    let digits = text.strip_suffix(unit)?.trim_end();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .parse::<u64>()
        .ok()
        .filter(|_| plain)?
        .checked_mul(*factor)
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
            ("runs", "0"),
            ("nonsense", "1"),
        ] {
            assert!(limits.set(name, value).is_err(), "{name}={value}");
        }
        assert_eq!(limits, Limits::default());
    }
}
