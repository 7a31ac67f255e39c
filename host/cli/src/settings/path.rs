//! Paths in `persist.toml`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use persist_host::storage::local_path;

/// A path of the file: `~/` is this account's home, and a relative one begins where the file is.
pub(super) fn in_dir(dir: &Path, path: &Path, key: &str) -> Result<PathBuf> {
    let path = local_path(path).with_context(|| format!("{key} in persist.toml"))?;
    Ok(dir.join(path))
}
