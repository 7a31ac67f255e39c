//! Which storage to use, as a program, the environment or a URL says it.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Error, ErrorKind, Local, Result, Storage};

/// A kind of storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageBackend {
    /// Files under a directory of this machine.
    #[default]
    Local,
}

/// Which storage to use, and how.
///
/// ```
/// use std::path::PathBuf;
/// use persist_host::storage::{StorageBackend, StorageConfig};
///
/// let config = StorageConfig::default_local();
/// // or with custom path
/// let config = StorageConfig {
///     backend: StorageBackend::Local,
///     local_base_path: Some(PathBuf::from("/custom/path/to/snapshots")),
///     ..Default::default()
/// };
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageConfig {
    /// The kind of storage.
    pub backend: StorageBackend,
    /// The directory of [`StorageBackend::Local`]. None: `PERSIST_LOCAL_PATH`, and where that is not
    /// set, `persist` in the platform's data directory (on Linux `~/.local/share/persist`).
    pub local_base_path: Option<PathBuf>,
}

impl StorageConfig {
    /// The local disk, in the default place.
    pub fn default_local() -> Self {
        Self::default()
    }

    /// The local disk, under `path`.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        Self {
            local_base_path: Some(path.into()),
            ..Self::default()
        }
    }

    /// What the environment asks for: `PERSIST_STORAGE` names a backend (`local`) or a URL; the local
    /// disk where it is not set.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it names something else.
    pub fn from_env() -> Result<Self> {
        match env::var_os("PERSIST_STORAGE") {
            None => Ok(Self::default_local()),
            Some(value) => match value.to_str() {
                Some("" | "local") => Ok(Self::default_local()),
                Some(text) => Self::from_url(text).map_err(|error| error.about("PERSIST_STORAGE")),
                None => Err(Error::new(
                    ErrorKind::Config,
                    "PERSIST_STORAGE is not UTF-8",
                )),
            },
        }
    }

    /// The storage that `url` names: `file:///absolute/path`.
    ///
    /// ```
    /// # use persist_host::storage::StorageConfig;
    /// let config = StorageConfig::from_url("file:///var/lib/agents")?;
    /// assert_eq!(config, StorageConfig::local("/var/lib/agents"));
    /// # Ok::<(), persist_host::storage::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is not such a URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let refuse = |why: &str| Err(Error::new(ErrorKind::Config, format!("{url:?} {why}")));
        match url.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Ok(Self::local(percent_decode(path)?)),
            Some(("file", _)) => {
                refuse("has no absolute path; three slashes, as in file:///var/lib/agents")
            }
            Some(("s3" | "gs", _)) => refuse("needs a backend that this build does not have"),
            None if matches!(url, "s3" | "gcs") => {
                refuse("is a backend that this build does not have; it has local")
            }
            None if url.starts_with('/') => refuse(&format!("is a path; write file://{url}")),
            _ => refuse("is not a storage; write file:///absolute/path"),
        }
    }

    /// The storage itself. Nothing is opened or made yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where no directory is configured and the platform names none.
    pub fn build(&self) -> Result<Arc<dyn Storage>> {
        match self.backend {
            StorageBackend::Local => Ok(Arc::new(Local::new(self.local_path()?))),
        }
    }

    fn local_path(&self) -> Result<PathBuf> {
        self.local_base_path
            .clone()
            .or_else(|| env::var_os("PERSIST_LOCAL_PATH").map(PathBuf::from))
            .filter(|path| !path.as_os_str().is_empty())
            .or_else(|| dirs::data_dir().map(|dir| dir.join("persist")))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Config,
                    "no directory for snapshots: this account has no home; set PERSIST_LOCAL_PATH",
                )
            })
    }
}

/// The path of a URL: `%20` is a space, and so on.
fn percent_decode(path: &str) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;

    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let decoded = rest
            .split_at_checked(2)
            .filter(|(digits, _)| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|(digits, tail)| Some((std::str::from_utf8(digits).ok()?, tail)))
            .and_then(|(digits, tail)| Some((u8::from_str_radix(digits, 16).ok()?, tail)));
        let Some((byte @ 1.., tail)) = decoded else {
            let what =
                format!("{path:?} has a % that is not followed by two hex digits; write %25");
            return Err(Error::new(ErrorKind::Config, what));
        };
        bytes.push(byte);
        rest = tail;
    }
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_no_storage_is_refused_with_what_to_write() {
        for bad in [
            "",
            "file:relative",
            "file://host/x",
            "http://x",
            "/var",
            "s3",
            "file:///a%zz",
            "file:///%00",
        ] {
            let error = StorageConfig::from_url(bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
        }
    }

    #[test]
    fn a_url_may_hold_spaces() {
        assert_eq!(
            StorageConfig::from_url("file:///a%20b").expect("good"),
            StorageConfig::local("/a b")
        );
    }
}
