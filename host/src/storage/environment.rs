//! Variables of the environment, as a value.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// The environment that a configuration is completed from. Its `Debug` shows no value: some are
/// credentials.
///
/// [`Environment::current`] is the only function of this library that reads the settings of the
/// process environment. Libraries read some variables of the process by themselves, also where a
/// program uses another `Environment`:
///
/// | library | variables |
/// |---|---|
/// | AWS SDK | `AWS_CONTAINER_…`; `HOME`, for the tokens of single sign-on; `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_…`, for STS and single sign-on |
/// | Google's library | `GCE_METADATA_HOST` |
/// | HTTP and TLS libraries | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`; `SSL_CERT_FILE`, `SSL_CERT_DIR` |
///
/// ```
/// use persist_host::storage::{Environment, StorageConfig};
///
/// let environment = Environment::from_iter([("PERSIST_STORAGE", "file:///var/lib/agents")]);
/// let config = StorageConfig::from_environment(&environment)?;
/// assert_eq!(config, StorageConfig::local("/var/lib/agents"));
/// # Ok::<(), persist_host::storage::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Returns the environment of this process, as it is now.
    pub fn current() -> Self {
        std::env::vars_os().collect()
    }

    /// Returns the value of a variable; none where it is not set or empty.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let value = self.variables.get(OsStr::new(name))?;
        (!value.is_empty()).then_some(value)
    }

    /// Returns the environment without these variables.
    #[must_use]
    pub fn without<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        for name in names {
            self.variables.remove(OsStr::new(name));
        }
        self
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let variables = variables.into_iter();
        Self {
            variables: variables.map(|(k, v)| (k.into(), v.into())).collect(),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let environment = Environment::from_iter([("A", ""), ("B", "b")]);
        assert_eq!(environment.get("A"), None);
        assert_eq!(environment.get("B"), Some(OsStr::new("b")));
        assert_eq!(environment.get("C"), None);
        assert_eq!(environment.without(["B"]).get("B"), None);
    }

    #[test]
    fn debug_output_shows_no_value() {
        let environment = Environment::from_iter([("AWS_SECRET_ACCESS_KEY", "PLANTED")]);
        let shown = format!("{environment:?}");
        assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("PLANTED"));
    }
}
