//! Errors of calls, and of components that cannot be linked.

use wasmtime::component::ResourceTableError;

use crate::guest::BucketError;

/// Why a component does not get the key-value interfaces that it imports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyValueError {
    /// The component imports a dialect or a function that this host does not have.
    #[error("it imports {import}{}: {why}", of(.function))]
    Unsupported {
        /// Name of the imported interface, with its version.
        import: String,
        /// The function; none if the whole interface is not supported.
        function: Option<String>,
        /// The reason, with what is supported.
        why: String,
    },
    /// The linker refused the interfaces, as where it has them already.
    #[error(transparent)]
    Linker(wasmtime::Error),
}

fn of(function: &Option<String>) -> String {
    let function = function.as_ref();
    function.map_or(String::new(), |function| format!(" with `{function}`"))
}

/// An error of a guest's call.
#[derive(Debug)]
pub(super) enum CallError {
    /// The guest is told.
    Told(BucketError),
    /// The guest holds as many handles as its host allows.
    Full,
    /// The call ends the guest.
    Trap(wasmtime::Error),
}

impl From<BucketError> for CallError {
    fn from(error: BucketError) -> Self {
        Self::Told(error)
    }
}

impl From<ResourceTableError> for CallError {
    fn from(error: ResourceTableError) -> Self {
        match error {
            ResourceTableError::Full => Self::Full,
            error => Self::Trap(error.into()),
        }
    }
}
