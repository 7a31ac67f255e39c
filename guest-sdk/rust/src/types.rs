//! The nouns of the contract, as Rust has them.

/// The number of a version: 1 for the first save of a name, then one more for each save, delete,
/// restore or fork into it.
pub type Version = u64;

/// Information about one version that is known without reading its state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// The name as the agent wrote it.
    pub name: String,
    /// This version.
    pub version: Version,
    /// The version that was the head when this one was made; `None` for the first.
    pub parent: Option<Version>,
    /// True for a tombstone: the name was deleted here. `size` is then 0.
    pub deleted: bool,
    /// Bytes of state.
    pub size: u64,
    /// Bytes at rest, after compression.
    pub stored_size: u64,
    /// SHA-256 of the state, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The host's clock when it was saved, in milliseconds since 1970 UTC. For people: `version` is
    /// the order.
    pub created_at: u64,
    /// Media type, as given when saved.
    pub media_type: Option<String>,
    /// Key and value, as given when saved; keys under `persist.` are the host's.
    pub labels: Vec<(String, String)>,
}

impl Info {
    /// The value of the label `key`.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }
}

/// One version with its state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Information about the version.
    pub info: Info,
    /// The state, bit for bit as saved.
    pub state: Vec<u8>,
}

/// Condition that a name must meet for a change to be made; else the change is refused with
/// [`Error::Conflict`](crate::Error::Conflict).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Anything. A [`Writer`](crate::Writer) takes the head when it is opened as what it expects.
    #[default]
    Any,
    /// Nothing was saved, or the head is a tombstone.
    Absent,
    /// This version is the head; a tombstone counts.
    Version(Version),
}

impl Expect {
    /// The head is still the version that was loaded, or there is still none.
    pub fn head(version: Option<Version>) -> Self {
        version.map_or(Self::Absent, Self::Version)
    }
}

/// How to save: by default whatever the head is, without a media type or labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaveOptions {
    pub(crate) expect: Expect,
    pub(crate) media_type: Option<String>,
    pub(crate) labels: Vec<(String, String)>,
}

impl SaveOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the condition that the name must meet.
    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// Kept in [`Info`]; the host never interprets it.
    pub fn media_type(mut self, media_type: impl Into<String>) -> Self {
        self.media_type = Some(media_type.into());
        self
    }

    /// Adds a label, kept in [`Info`]. Each key once; keys under `persist.` are the host's.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }
}

/// The limits that an agent can plan for. Others are met as
/// [`Error::QuotaExceeded`](crate::Error::QuotaExceeded).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of state in one save or load; above it, use [`Writer`](crate::Writer) and
    /// [`Reader`](crate::Reader).
    pub max_inline: u64,
    /// Bytes that one call of a stream carries. `Writer` and `Reader` see to it.
    pub max_chunk: u32,
    /// Bytes of one state. What can be saved can be loaded.
    pub max_state: u64,
    /// UTF-8 bytes of a name.
    pub max_name: u32,
    /// Items in one page of history or names.
    pub max_page: u32,
}
