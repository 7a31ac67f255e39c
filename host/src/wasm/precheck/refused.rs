//! Reasons to refuse a component before compilation.

use std::fmt;

/// Maximum nesting of components, and of their types. Toolchains nest three or four.
pub(super) const MAX_DEPTH: usize = 32;

/// A reason to refuse a component.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::wasm) enum Refused {
    /// It is no component, or its parts do not fit together.
    Damaged,
    /// Its components or types are nested deeper than [`MAX_DEPTH`].
    Nested,
    /// It passes modules or components as arguments.
    Passed,
    /// It has more functions than the limit `functions`.
    Functions { found: u64, max: u64 },
    /// A function nests more blocks than the limit `nested-blocks`.
    Blocks { max: u64 },
    /// A function nests more loops than a compiler takes well.
    Loops { max: usize },
    /// A function passes or declares more values than its bytes can make.
    Dense,
}

pub(super) type Result<T> = std::result::Result<T, Refused>;

impl From<wasmparser::BinaryReaderError> for Refused {
    fn from(_: wasmparser::BinaryReaderError) -> Self {
        Self::Damaged
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => {
                "it is damaged, or uses a WebAssembly feature that this host does not allow; copy \
                 it again, or build it without that feature"
            }
            Self::Nested => "its components, or their types, are nested too deeply",
            Self::Passed => {
                "it passes modules or components as arguments, which this host does not allow"
            }
            Self::Functions { found, max } => {
                return write!(
                    f,
                    "it has at least {found} functions, and the limit `functions` is {max}; remove \
                     unused code, or raise the limit"
                );
            }
            Self::Blocks { max } => {
                return write!(
                    f,
                    "one of its functions nests more than {max} blocks (limit `nested-blocks`); \
                     split that function, or raise the limit"
                );
            }
            Self::Loops { max } => {
                return write!(
                    f,
                    "one of its functions nests more than {max} loops, which would take too long \
                     to compile; split that function"
                );
            }
            Self::Dense => {
                "one of its functions has too many locals, parameters, blocks or branch targets to \
                 compile; split that function, or build it with optimization"
            }
        })
    }
}
