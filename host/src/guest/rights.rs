//! Rights of a guest in its scope.

use std::str::FromStr;

use super::error::GuestError;

/// Rights of a guest on the names of its scope. Each right is separate, and none is implied by
/// another.
///
/// A call that a guest has no right to is refused before the storage is asked anything, and in the
/// same words whether the thing is there or not.
///
/// | right | calls |
/// |---|---|
/// | `load` | `load`, `stat`, `reader`; `restore` and `fork` need it for what they copy |
/// | `save` | `save`, `writer`; `restore` and `fork` need it for what they make |
/// | `list` | `names`, `history` |
/// | `delete` | `delete` |
///
/// ```
/// use persist_host::guest::Rights;
///
/// let reader = Rights::read_only().under("public/");
/// assert!(reader.load && reader.list && !reader.save && !reader.delete);
/// assert_eq!("load, list".parse::<Rights>()?.under("public/"), reader);
/// # Ok::<(), persist_host::guest::UnknownRight>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rights {
    /// See what was saved.
    pub load: bool,
    /// Make versions.
    pub save: bool,
    /// See which names and versions there are.
    pub list: bool,
    /// Make tombstones.
    pub delete: bool,
    /// Prefix of the names that the rights are for; empty for every name.
    pub prefix: String,
}

/// A word that names no right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a right: the rights are load, save, list and delete")]
pub struct UnknownRight(String);

/// One of them, as the contract names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Load,
    Save,
    List,
    Delete,
}

impl Default for Rights {
    fn default() -> Self {
        Self::all()
    }
}

impl Rights {
    /// Everything, for every name.
    pub fn all() -> Self {
        Self {
            load: true,
            save: true,
            list: true,
            delete: true,
            prefix: String::new(),
        }
    }

    /// Nothing.
    pub fn none() -> Self {
        Self {
            load: false,
            save: false,
            list: false,
            delete: false,
            prefix: String::new(),
        }
    }

    /// To load and to list.
    pub fn read_only() -> Self {
        Self {
            load: true,
            list: true,
            ..Self::none()
        }
    }

    /// Restricts the rights to names that begin with `prefix`.
    #[must_use]
    pub fn under(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    fn has(&self, right: Right) -> bool {
        match right {
            Right::Load => self.load,
            Right::Save => self.save,
            Right::List => self.list,
            Right::Delete => self.delete,
        }
    }

    /// Refuses what may not be done with `name`.
    pub(super) fn check(&self, right: Right, name: &str) -> Result<(), GuestError> {
        if self.has(right) && name.starts_with(&self.prefix) {
            Ok(())
        } else {
            Err(GuestError::Denied {
                right: right.name(),
            })
        }
    }

    /// The prefix to list, where `prefix` was asked for; none where no name that may be seen begins
    /// so.
    pub(super) fn listed<'a>(&'a self, prefix: &'a str) -> Result<Option<&'a str>, GuestError> {
        if !self.list {
            return Err(GuestError::Denied {
                right: Right::List.name(),
            });
        }
        Ok(if prefix.starts_with(&self.prefix) {
            Some(prefix)
        } else {
            self.prefix.starts_with(prefix).then_some(&*self.prefix)
        })
    }
}

impl Right {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Save => "save",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

impl FromStr for Rights {
    type Err = UnknownRight;

    /// Reads names of rights between commas. An empty text is no right.
    fn from_str(text: &str) -> Result<Self, UnknownRight> {
        let mut rights = Self::none();
        for name in text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            match name {
                "load" => rights.load = true,
                "save" => rights.save = true,
                "list" => rights.list = true,
                "delete" => rights.delete = true,
                other => return Err(UnknownRight(other.to_owned())),
            }
        }
        Ok(rights)
    }
}
