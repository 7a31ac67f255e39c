//! The cache of compiled code: in a private directory, or not at all.
//!
//! Compiled code runs as this process, without a sandbox. So it is only taken from a directory that
//! no other user can have written to: it and everything in it belong to this process's user, and in
//! each directory above it, others cannot replace the next one.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use wasmtime::{Cache, CacheConfig};

/// Permission to write, for the group and for others.
const OTHERS_WRITE: u32 = 0o022;

/// All permissions of the group and of others.
const OTHERS: u32 = 0o077;

/// In a directory with this bit, such as `/tmp`, others cannot replace what is not theirs.
const STICKY: u32 = 0o1000;

/// Opens the cache in `dir`, which is made where it is missing. A cache saves time and nothing
/// else: without one, everything works as well, so that what is wrong with it is a warning.
pub(super) fn open(dir: &Path) -> Option<Cache> {
    let cache = private(dir).and_then(|dir| {
        let mut config = CacheConfig::new();
        config.with_directory(dir);
        Cache::new(config).map_err(|error| format!("{error:#}"))
    });
    match cache {
        Ok(cache) => Some(cache),
        Err(why) => {
            tracing::warn!(dir = %dir.display(), %why, "compiled agents are not cached");
            None
        }
    }
}

/// Returns the directory without links in its path, or why it is not private.
fn private(dir: &Path) -> Result<PathBuf, String> {
    let failed = |error: io::Error| error.to_string();
    let mut make = DirBuilder::new();
    make.recursive(true).mode(0o700);
    make.create(dir).map_err(failed)?;
    // Links are followed once, here. What they led to is what is examined and used.
    let dir = fs::canonicalize(dir).map_err(failed)?;
    let user = rustix::process::geteuid().as_raw();
    for above in dir.ancestors().skip(1) {
        let found = fs::symlink_metadata(above).map_err(failed)?;
        let others_write = found.mode() & OTHERS_WRITE != 0 && found.mode() & STICKY == 0;
        if others_write || (found.uid() != user && found.uid() != 0) {
            return Err(replaceable(above));
        }
    }
    let found = fs::symlink_metadata(&dir).map_err(failed)?;
    if found.uid() != user {
        return Err(stranger(&dir));
    }
    if found.mode() & OTHERS_WRITE != 0 {
        return Err(writable(&dir));
    }
    // What is writable in a directory that others cannot enter was so made by the umask of this
    // process's user.
    let is_closed = found.mode() & OTHERS == 0;
    close(&dir, &found).map_err(failed)?;
    check_entries(&dir, user, is_closed)?;
    Ok(dir)
}

/// Checks everything in a directory of this user, and takes the permissions of others away.
fn check_entries(dir: &Path, user: u32, is_closed: bool) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let found = match fs::symlink_metadata(&path) {
            // Another process of this user cleans up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.map_err(failed)?,
        };
        if found.uid() != user || !(found.is_file() || found.is_dir()) {
            return Err(stranger(&path));
        }
        if found.mode() & OTHERS_WRITE != 0 && !is_closed {
            return Err(writable(&path));
        }
        match close(&path, &found) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            closed => closed.map_err(failed)?,
        }
        if found.is_dir() {
            check_entries(&path, user, is_closed)?;
        }
    }
    Ok(())
}

fn close(path: &Path, found: &Metadata) -> io::Result<()> {
    if found.mode() & OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(found.mode() & 0o700))
}

fn replaceable(path: &Path) -> String {
    format!(
        "other users can replace files in {}; remove their write permission, or choose another \
         directory",
        path.display()
    )
}

fn stranger(path: &Path) -> String {
    format!(
        "{} is a link, or belongs to another user; remove it, or choose another directory",
        path.display()
    )
}

fn writable(path: &Path) -> String {
    format!(
        "other users can write to {}; remove it, because it may contain their code",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    /// A directory with an entry, as a cache leaves it.
    fn filled() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("above").join("cache");
        private(&dir).expect("a new one is private");
        fs::create_dir(dir.join("modules")).expect("makes");
        fs::write(dir.join("modules/entry"), "code").expect("writes");
        (root, dir)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("is there").mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
    }

    #[test]
    fn a_new_cache_is_private_whatever_the_umask_leaves_in_it() {
        let (_root, dir) = filled();
        assert_eq!(mode(&dir), 0o700);
        set_mode(&dir.join("modules"), 0o777);
        set_mode(&dir.join("modules/entry"), 0o666);
        private(&dir).expect("nobody else came in");
        assert_eq!(mode(&dir.join("modules")), 0o700);
        assert_eq!(mode(&dir.join("modules/entry")), 0o600);
    }

    #[test]
    fn a_cache_that_others_could_only_read_is_closed_and_used() {
        let (_root, dir) = filled();
        set_mode(&dir, 0o755);
        private(&dir).expect("nobody wrote to it");
        assert_eq!(mode(&dir), 0o700);
    }

    #[test]
    fn a_cache_that_others_can_write_to_is_not_used() {
        for bits in [0o777, 0o770, 0o702, 0o1777] {
            let (_root, dir) = filled();
            set_mode(&dir, bits);
            let why = private(&dir).expect_err("it is open");
            assert!(why.contains("other users can write"), "{bits:o}: {why}");
        }
        let (_root, dir) = filled();
        set_mode(&dir, 0o755);
        set_mode(&dir.join("modules/entry"), 0o664);
        private(&dir).expect_err("an entry is open, and others can get to it");
    }

    #[test]
    fn a_directory_above_that_others_can_write_to_is_noticed() {
        let (_root, dir) = filled();
        let above = dir.parent().expect("one").to_owned();
        set_mode(&above, 0o777);
        let why = private(&dir).expect_err("others can replace the cache");
        assert!(why.contains("replace"), "{why}");
        // As /tmp is.
        set_mode(&above, 0o1777);
        private(&dir).expect("others cannot replace it there");
    }

    #[test]
    fn missing_directories_are_created_only_below_a_private_one() {
        let root = tempfile::tempdir().expect("a directory");
        set_mode(root.path(), 0o777);
        private(&root.path().join("cache")).expect_err("others can replace it");
    }

    #[test]
    fn links_in_a_cache_are_not_followed() {
        let (root, dir) = filled();
        let elsewhere = root.path().join("elsewhere");
        fs::write(&elsewhere, "other code").expect("writes");
        symlink(&elsewhere, dir.join("modules/link")).expect("links");
        let why = private(&dir).expect_err("a link is in it");
        assert!(why.contains("modules/link"), "{why}");
    }

    #[test]
    fn a_directory_of_another_user_is_not_used() {
        if !rustix::process::geteuid().is_root() {
            // Only root can give a file away.
            return;
        }
        for path in ["", "modules", "modules/entry", ".."] {
            let (_root, dir) = filled();
            chown(dir.join(path), Some(4242), None).expect("chown");
            let why = private(&dir).expect_err("it is another's");
            assert!(why.contains("remove") || why.contains("replace"), "{why}");
        }
    }

    #[test]
    fn a_link_to_a_private_cache_is_the_cache() {
        let (root, dir) = filled();
        let link = root.path().join("link");
        symlink(&dir, &link).expect("links");
        let found = private(&link).expect("private");
        assert_eq!(found, fs::canonicalize(&dir).expect("is there"));
    }
}
