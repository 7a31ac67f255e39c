//! Stores as plain tar files.
//!
//! An archive holds the objects of a store under their keys, `~/store.json` and the newest policy
//! first and `manifest.jsonl` last. So `tar xf` in an empty directory makes a store on the local
//! disk; and a tar file without a manifest was cut off.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Args;
use persist_host::snapshot::{Error, Info, Name, RawVersion, Scope, Store, Version, layout};
use persist_host::storage::{ErrorKind, Key, ReadRange, Storage};
use rustix::fs::{AtFlags, CWD};
use serde_json::json;

use super::copy::{How, Mirror, Proof, Ways, copy};
use super::tar_storage::TarStorage;
use super::{nowhere, printed};
use crate::address;
use crate::build::random_suffix;
use crate::error::{Damaged, Usage};
use crate::exit::snapshot_code;
use crate::interrupt::Interrupt;
use crate::print::Out;
use crate::progress::Progress;
use crate::select::{Conditions, Names};
use crate::stdio::say;
use crate::stores::{Create, Stores};
use crate::text;
use crate::when::{At, Past, When};

const BLOCK: u64 = 512;

/// A file of at most this many bytes is held whole before any of it is written.
const SMALL: u64 = 8 << 20;

/// A trailer may say any time; the header of a tar file holds eleven octal digits of seconds.
const MAX_TIME: u64 = 0o77_777_777_777 * 1000;

/// Write versions to a tar file
///
/// Each version is verified before it is written. The last entry, manifest.jsonl, has a line for
/// each version; the manifest is held in memory, about 300 bytes for each version. `tar xf` in an
/// empty directory creates a store with the policy of this one.
///
/// Conditions select names by their newest version. A name whose newest version cannot be read is
/// reported and left out, and the exit code is then 6.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist export agents.tar
  persist export bot.tar bot
  persist export bot.tar bot --at yesterday
  persist export gold.tar --label tier=gold
  persist export - bot | zstd > bot.tar.zst")]
pub(crate) struct Export {
    /// File to create, which must not exist, or - for standard output
    file: PathBuf,
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    conditions: Conditions,
}

/// Copy the versions in a tar file from `persist export` into the store
///
/// Copies and compares as `persist copy` does. A store that --create creates gets the policy in the
/// archive. An existing store keeps its own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist import agents.tar
  persist import agents.tar bot/memory --storage s3://bucket/agents --create")]
pub(crate) struct Import {
    /// File to read; not a pipe, because it is not read in order
    file: PathBuf,
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    pub(crate) create: Create,
}

impl Export {
    pub(crate) async fn run(self, store: &Store, storage: &dyn Storage, out: Out) -> Result<()> {
        let file = self.file.clone();
        let written = self.write(store, storage, out).await;
        written.map_err(|error| match error.downcast::<io::Error>() {
            // An archive is useless unless it is complete.
            Ok(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                anyhow::anyhow!(
                    "the reader of standard output closed it before the archive was complete"
                )
            }
            Ok(error) => {
                let what = if file.as_os_str() == "-" {
                    "cannot write the archive to standard output; the output is incomplete"
                        .to_owned()
                } else {
                    format!("cannot write the archive {}", file.display())
                };
                anyhow::Error::new(error).context(what)
            }
            Err(error) => error,
        })
    }

    async fn write(self, store: &Store, storage: &dyn Storage, out: Out) -> Result<()> {
        if let Some(pipe) = compressor(&self.file) {
            let file = self.file.display();
            return Err(Usage::new(format!(
                "{file} has the extension of a compressed file; an archive is a plain tar file"
            ))
            .with_hint(format!(
                "name it .tar, or run `persist export - | {pipe} > {file}`"
            ))
            .into());
        }
        let to_stdout = self.file.as_os_str() == "-";
        if to_stdout && io::stdout().is_terminal() {
            let what = "cannot write an archive to a terminal";
            return Err(Usage::new(what).with_hint("name a FILE").into());
        }
        store.require().await?;
        self.names.require(store).await?;
        let selections = &self.names.selections;
        let (selection, unreadable) = self.conditions.select(store, selections).await?;
        let target = Target::open(&self.file)?;
        let mut archive = Archive {
            out,
            builder: tar::Builder::new(target),
            manifest: Vec::new(),
            proof: Proof::default(),
            damaged: 0,
        };
        for (address, error) in &unreadable {
            archive.damaged += 1;
            let code = snapshot_code(error);
            out.error(code, format_args!("{address}: {error}"));
        }
        archive.store_header(storage).await?;
        let mut progress = Progress::bytes(out, "exported", None);
        let mut walk = store.walk(&selection);
        let mut names = 0_u64;
        let mut has_policy = false;
        while let Some((scope, name)) = walk.next().await? {
            let before = archive.proof.versions;
            match self.at.at {
                None => archive.name(&scope, &name, &mut progress).await?,
                Some(when) => archive.name_at(&scope, &name, when, &mut progress).await?,
            }
            names += u64::from(self.at.at.is_none() || archive.proof.versions > before);
            // An archive of nothing is an error, and holds nothing.
            if archive.proof.versions > 0 && !has_policy {
                archive.policy(store).await?;
                has_policy = true;
            }
        }
        drop(progress);
        if archive.proof.versions == 0 {
            return Err(nowhere(store, &selection).await);
        }
        let damaged = archive.damaged;
        let proof = archive.finish()?;
        let versions = proof.versions;
        let bytes = proof.bytes;
        let value = json!({
            "event": "exported", "names": names, "versions": versions, "bytes": bytes,
            "digest": proof.digest(),
        });
        let text = || {
            format!(
                "exported {} of {}, {}",
                text::count(versions, "version"),
                text::count(names, "name"),
                text::bytes(bytes)
            )
        };
        if to_stdout {
            out.note(format_args!("{}", text()))
        } else {
            printed(out.print(&value, text), "the archive is written")?
        }
        Damaged::none_of(damaged)
    }
}

impl Import {
    pub(crate) async fn run(self, stores: &Stores<'_>, out: Out) -> Result<()> {
        let selection = self.names.selection();
        let from = Store::new(Arc::new(TarStorage::open(&self.file)?));
        self.names.require(&from).await?;
        let to = stores.usual_copy_of(&from.policy().await?, self.create)?;
        let how = Ways {
            how: self.how,
            mirror: Mirror::default(),
            at: None,
        };
        copy(&from, &to, &selection, how, &Interrupt::default(), out).await
    }
}

/// The program that makes files of such a name; none where the name is not that of a compressed
/// file.
fn compressor(file: &Path) -> Option<&'static str> {
    let extension = file.extension()?.to_str()?.to_ascii_lowercase();
    Some(match &*extension {
        "gz" | "tgz" | "taz" | "z" | "zip" | "7z" | "rar" => "gzip",
        "zst" | "tzst" | "zstd" => "zstd",
        "xz" | "txz" => "xz",
        "lzma" | "tlz" => "lzma",
        "bz2" | "tbz" | "tbz2" | "bz" => "bzip2",
        "lz4" => "lz4",
        "lz" => "lzip",
        "br" => "brotli",
        _ => return None,
    })
}

/// A tar file that is being written.
struct Archive {
    out: Out,
    builder: tar::Builder<Target>,
    manifest: Vec<u8>,
    proof: Proof,
    damaged: usize,
}

/// The file of a version, of which nothing is damaged: what is in the archive cannot be taken back.
enum Body {
    Held(Info, Key, Vec<Bytes>),
    Read(Box<RawVersion>),
}

impl Archive {
    async fn store_header(&mut self, storage: &dyn Storage) -> Result<()> {
        match storage
            .read(&Key::new(layout::STORE_HEADER)?, ReadRange::Suffix(1 << 20))
            .await
        {
            Ok(part) => {
                self.header(
                    layout::STORE_HEADER,
                    part.bytes.len() as u64,
                    SystemTime::now(),
                )?;
                self.body(&part.bytes)?;
                self.pad(part.bytes.len() as u64)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds the newest policy. It is not in the manifest, which is of the agents' versions.
    async fn policy(&mut self, store: &Store) -> Result<()> {
        let read = async {
            let Some(mut stored) = store.stored_policy().await? else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            while let Some(piece) = stored.next().await? {
                bytes.extend_from_slice(&piece);
            }
            Ok(Some((stored.key().clone(), stored.info().clone(), bytes)))
        };
        let (key, info, bytes) = match read.await {
            Ok(Some(policy)) => policy,
            Ok(None) => return Ok(()),
            Err(error @ Error::Storage(_)) => return Err(error.into()),
            Err(error) => {
                self.out.error(
                    snapshot_code(&error),
                    format_args!("the store's policy was not exported: {error}"),
                );
                self.damaged += 1;
                return Ok(());
            }
        };
        self.header(key.as_str(), bytes.len() as u64, tar_time(&info))?;
        self.body(&bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// Adds the version of a name that was the newest at a time, unless the name was deleted.
    async fn name_at(
        &mut self,
        scope: &Scope,
        name: &Name,
        when: When,
        progress: &mut Progress,
    ) -> Result<()> {
        let address = address::address(scope.agent(), scope.session(), name);
        let why = match when.find(scope, name).await? {
            Past::Version(info) if info.deleted => return Ok(()),
            Past::Version(info) => {
                return self.versions(scope, name, &[info.version], progress).await;
            }
            Past::NotYet | Past::Nothing => return Ok(()),
            Past::Pruned(oldest) => {
                format!("its versions of that time are pruned; the oldest is {oldest}")
            }
            Past::Unreadable(version, error) => format!("version {version}: {error}"),
        };
        self.damaged += 1;
        progress.aside(|| {
            self.out
                .error(6, format_args!("{address} was not exported: {why}"));
        });
        Ok(())
    }

    async fn name(&mut self, scope: &Scope, name: &Name, progress: &mut Progress) -> Result<()> {
        let mut before = None;
        loop {
            let versions = scope.versions(name.as_str(), before, 1000).await?;
            self.versions(scope, name, &versions, progress).await?;
            before = versions.last().copied();
            if before.is_none() {
                return Ok(());
            }
        }
    }

    async fn versions(
        &mut self,
        scope: &Scope,
        name: &Name,
        versions: &[Version],
        progress: &mut Progress,
    ) -> Result<()> {
        let address = address::address(scope.agent(), scope.session(), name);
        let pins = scope.pins(name.as_str()).await?;
        for &version in versions {
            let body = match body(scope, name, version).await {
                Ok(body) => body,
                // Pruned since it was listed.
                Err(Error::NotFound(_)) => continue,
                Err(error) if is_of_one_version(scope, name, &error).await => {
                    let code = snapshot_code(&error);
                    progress.aside(|| {
                        self.out.error(
                            code,
                            format_args!("{address}@{version} was not exported: {error}"),
                        );
                    });
                    self.damaged += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let key = self.version(&address, body, progress).await?;
            if let Some((dir, _)) = key.as_str().rsplit_once('/')
                && pins.contains(&version)
            {
                self.header(
                    &format!("{dir}/{}", layout::pin_segment(version)),
                    0,
                    SystemTime::now(),
                )?;
            }
        }
        Ok(())
    }

    async fn version(&mut self, address: &str, body: Body, progress: &mut Progress) -> Result<Key> {
        let (info, key) = match &body {
            Body::Held(info, key, _) => (info.clone(), key.clone()),
            Body::Read(stored) => (stored.info().clone(), stored.key().clone()),
        };
        self.header(key.as_str(), info.stored_size, tar_time(&info))?;
        match body {
            Body::Held(_, _, pieces) => {
                for piece in pieces {
                    self.body(&piece)?;
                }
                progress.add(info.stored_size);
            }
            Body::Read(mut stored) => {
                while let Some(piece) = stored.next().await? {
                    self.body(&piece)?;
                    progress.add(piece.len() as u64);
                }
            }
        }
        self.pad(info.stored_size)?;
        self.line(address, key.as_str(), &info)?;
        Ok(key)
    }

    fn line(&mut self, address: &str, key: &str, info: &Info) -> Result<()> {
        self.proof.add(address, info);
        let line =
            json!({ "key": key, "address": format!("{address}@{}", info.version), "info": info });
        Ok(writeln!(self.manifest, "{line}")?)
    }

    fn finish(mut self) -> Result<Proof> {
        let manifest = std::mem::take(&mut self.manifest);
        self.header(
            layout::ARCHIVE_MANIFEST,
            manifest.len() as u64,
            SystemTime::now(),
        )?;
        self.body(&manifest)?;
        self.pad(manifest.len() as u64)?;
        self.builder.into_inner()?.finish()?;
        Ok(self.proof)
    }

    /// Begins an entry of `size` bytes.
    fn header(&mut self, key: &str, size: u64, time: SystemTime) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(
            time.duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
        );
        // Its body comes piece by piece.
        Ok(self.builder.append_data(&mut header, key, io::empty())?)
    }

    fn body(&mut self, piece: &[u8]) -> Result<()> {
        Ok(self.builder.get_mut().write_all(piece)?)
    }

    /// Ends an entry of `size` bytes: the next one begins at a whole block.
    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = size.next_multiple_of(BLOCK) - size;
        self.body(&vec![0; rest as usize])
    }
}

fn tar_time(info: &Info) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(info.created_at.min(MAX_TIME))
}

/// Returns true if the other versions can be read despite the error.
async fn is_of_one_version(scope: &Scope, name: &Name, error: &Error) -> bool {
    match error {
        error if error.is_of_file() => true,
        // The storage lists it, and does not give it.
        Error::Storage(_) => scope.versions(name.as_str(), None, 1).await.is_ok(),
        _ => false,
    }
}

/// Reads a version as far as is needed to know that it is whole.
async fn body(
    scope: &Scope,
    name: &Name,
    version: Version,
) -> persist_host::snapshot::Result<Body> {
    let mut stored = scope.stored(name.as_str(), version).await?;
    let info = stored.info().clone();
    let key = stored.key().clone();
    if info.stored_size > SMALL {
        scope.verify(name.as_str(), Some(version)).await?;
        return Ok(Body::Read(Box::new(stored)));
    }
    let mut pieces = Vec::new();
    while let Some(piece) = stored.next().await? {
        pieces.push(piece);
    }
    Ok(Body::Held(info, key, pieces))
}

/// Destination of an archive. A file gets its name only once it is complete.
enum Target {
    Stdout(io::Stdout),
    File(Unnamed),
}

/// A file without a name, which is gone with the process where the file system has such files; else
/// one called NAME.RANDOM.part.
struct Unnamed {
    file: io::BufWriter<File>,
    part: Option<PathBuf>,
    name: PathBuf,
}

impl Target {
    fn open(path: &Path) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout(io::stdout()));
        }
        if path.exists() {
            let what = format!("{} exists", path.display());
            return Err(Usage::new(what).with_hint("name another file").into());
        }
        Ok(Self::File(Unnamed::in_directory_of(path)?))
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Stdout(mut stdout) => Ok(stdout.flush()?),
            Self::File(file) => file.name(),
        }
    }
}

impl Unnamed {
    fn in_directory_of(name: &Path) -> Result<Self> {
        let (file, part) = match without_name(directory(name)) {
            Some(file) => (file, None),
            None => {
                let (file, part) = with_a_name(name)?;
                (file, Some(part))
            }
        };
        Ok(Self {
            file: io::BufWriter::new(file),
            part,
            name: name.into(),
        })
    }

    /// Unlike a rename, this replaces nothing.
    fn name(mut self) -> Result<()> {
        self.file.flush()?;
        let file = self.file.get_ref();
        file.sync_all()?;
        let named = match &self.part {
            Some(part) => std::fs::hard_link(part, &self.name),
            None => {
                let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
                let flags = AtFlags::SYMLINK_FOLLOW;
                rustix::fs::linkat(CWD, itself, CWD, &self.name, flags).map_err(Into::into)
            }
        };
        named.with_context(|| format!("cannot name the archive {}", self.name.display()))?;
        Ok(File::open(directory(&self.name))?.sync_all()?)
    }
}

/// Opens a file without a name, if the file system and the operating system have such files.
fn without_name(directory: &Path) -> Option<File> {
    #[cfg(target_os = "linux")]
    let file = {
        use rustix::fs::{Mode, OFlags};

        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR);
        file.map(File::from).ok()
    };
    #[cfg(not(target_os = "linux"))]
    let file = {
        let _ = directory;
        None
    };
    file
}

/// Makes a file beside `name` that only this account can read, never through a link.
fn with_a_name(name: &Path) -> Result<(File, PathBuf)> {
    let mut part = name.as_os_str().to_owned();
    part.push(format!(".{}.part", random_suffix()?));
    let part = PathBuf::from(part);
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&part);
    let file = file.with_context(|| format!("cannot create {}", part.display()))?;
    Ok((file, part))
}

fn directory(name: &Path) -> &Path {
    let parent = name
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File(file) => file.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File(file) => file.file.flush(),
        }
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(part) = &self.part
            && let Err(error) = std::fs::remove_file(part)
        {
            say(format_args!(
                "warning: cannot remove {}: {error}",
                part.display()
            ));
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn an_archive_that_needs_a_name_is_private_and_follows_no_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let name = dir.path().join("agents.tar");
        let mine = dir.path().join("mine");
        std::fs::write(&mine, "mine").expect("written");
        symlink(&mine, dir.path().join("agents.tar.part")).expect("linked");
        let (file, part) = with_a_name(&name).expect("made");
        let mode = file.metadata().expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(part, with_a_name(&name).expect("made").1);
        assert_eq!(std::fs::read(&mine).expect("readable"), b"mine");
        let unnamed = Unnamed {
            file: io::BufWriter::new(file),
            part: Some(part.clone()),
            name: name.clone(),
        };
        unnamed.name().expect("named");
        assert!(name.exists() && !part.exists());
    }
}
