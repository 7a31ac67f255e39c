//! Damage that can happen to the bytes of a file.

use std::collections::BTreeMap;
use std::fmt;

use fastrand::Rng;

use crate::golden::Golden;
use crate::malformed_file::Forge;

/// Number of bytes that a disk, a cache and a file system move as one.
const PAGE: usize = 4096;

/// Bytes that are put before or after a file.
const EXTENSIONS: [&[u8]; 6] = [
    &[0],
    &[0xff],
    b"\n",
    &[0; PAGE],
    &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff],
    // An empty member, which gzip passes over.
    &[
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ],
];

/// One damage to one file. Files are numbers, in the order of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// One bit is another.
    Flip { bit: usize },
    /// Truncated to a number of bytes.
    Cut { len: usize },
    /// A number of bytes are missing in front.
    Behead { len: usize },
    /// One of [`EXTENSIONS`] stands before it.
    Before { what: usize },
    /// One of [`EXTENSIONS`] stands after it.
    After { what: usize },
    /// The beginning of this file up to `at`, and another file from `from` on.
    Splice {
        other: usize,
        at: usize,
        from: usize,
    },
    /// A [`Damage::Splice`] where both places are ends of blocks or members.
    Seam {
        other: usize,
        at: usize,
        from: usize,
    },
    /// A page holds zeros.
    Zero { page: usize },
    /// A page was written over the next one, too.
    Over { page: usize },
    /// A page is there twice, and all that follows comes later.
    Twice { page: usize },
    /// A page is that of another file.
    Foreign { page: usize, other: usize },
    /// Two blocks have changed places.
    Swap { one: usize, two: usize },
}

impl Damage {
    /// Its row in the report.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Flip { .. } => "bits flipped",
            Self::Cut { .. } => "truncations",
            Self::Behead { .. } => "beginnings missing",
            Self::Before { .. } | Self::After { .. } => "bytes added before or after",
            Self::Splice { .. } => "splices anywhere",
            Self::Seam { .. } => "splices at the ends of blocks and members",
            Self::Zero { .. } => "pages zeroed",
            Self::Over { .. } | Self::Twice { .. } => "pages doubled",
            Self::Foreign { .. } => "pages of another file",
            Self::Swap { .. } => "blocks swapped",
        }
    }

    /// The other file that it takes something from.
    pub(super) fn other(self) -> Option<usize> {
        match self {
            Self::Splice { other, .. } | Self::Seam { other, .. } | Self::Foreign { other, .. } => {
                Some(other)
            }
            _ => None,
        }
    }

    /// The file that it makes of file `n`; none where that is a file that nothing happened to.
    pub(super) fn of(self, n: usize, files: &[Golden]) -> Option<Vec<u8>> {
        let file = &files[n].bytes[..];
        let page = |of: &'_ [u8], n: usize| {
            let start = (n * PAGE).min(of.len());
            start..(start + PAGE).min(of.len())
        };
        let mut damaged = file.to_vec();
        match self {
            Self::Flip { bit } => damaged[bit / 8] ^= 1 << (bit % 8),
            Self::Cut { len } => damaged.truncate(len),
            Self::Behead { len } => drop(damaged.drain(..len)),
            Self::Before { what } => damaged = [EXTENSIONS[what], file].concat(),
            Self::After { what } => damaged.extend_from_slice(EXTENSIONS[what]),
            Self::Splice { other, at, from } | Self::Seam { other, at, from } => {
                damaged = [&file[..at], &files[other].bytes[from..]].concat();
            }
            Self::Zero { page: n } => damaged[page(file, n)].fill(0),
            Self::Over { page: n } => {
                let to = page(file, n + 1);
                damaged[to.clone()].copy_from_slice(&file[n * PAGE..][..to.len()]);
            }
            Self::Twice { page: n } => {
                let range = page(file, n);
                damaged = [&file[..range.end], &file[range.start..]].concat();
            }
            Self::Foreign { page: n, other } => {
                let foreign = &files[other].bytes;
                let len = page(file, n).len().min(page(foreign, n).len());
                damaged[n * PAGE..][..len].copy_from_slice(&foreign[n * PAGE..][..len]);
            }
            Self::Swap { one, two } => {
                let mut forge = Forge::read(file).ok()?;
                forge.blocks.swap(one, two);
                // The trailer stays: a forge would list the blocks as they are.
                let member = [&forge.header[..], &forge.blocks.concat()].concat();
                damaged[..member.len()].copy_from_slice(&member);
            }
        }
        let intact = files.iter().any(|golden| golden.bytes == damaged);
        (!intact).then_some(damaged)
    }

    /// Returns the damage that can happen to file `n`: at most `count` of each kind, evenly spread
    /// where there are more.
    pub(super) fn all(n: usize, files: &[Golden], count: u64, rng: &mut Rng) -> Vec<Self> {
        let len = files[n].bytes.len();
        let pages = len.div_ceil(PAGE);
        let others = || (0..files.len()).filter(move |other| *other != n);
        let mut all = Vec::new();
        all.extend((0..len * 8).map(|bit| Self::Flip { bit }));
        all.extend((0..len).map(|len| Self::Cut { len }));
        all.extend((1..=len).map(|len| Self::Behead { len }));
        for what in 0..EXTENSIONS.len() {
            all.extend([Self::Before { what }, Self::After { what }]);
        }
        all.extend(seams(n, files));
        all.extend(places(n, files, rng));
        for page in 0..pages {
            all.extend([Self::Zero { page }, Self::Twice { page }]);
            all.extend((page + 1 < pages).then_some(Self::Over { page }));
            let longer = others().filter(|other| files[*other].bytes.len() > page * PAGE);
            all.extend(longer.map(|other| Self::Foreign { page, other }));
        }
        let blocks = Forge::read(&files[n].bytes).map_or(0, |forge| forge.blocks.len());
        all.extend((0..blocks).flat_map(|two| (0..two).map(move |one| Self::Swap { one, two })));
        thinned(all, count, rng)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Splices of file `n` with every file, itself too, at every pair of places where something ends.
fn seams(n: usize, files: &[Golden]) -> impl Iterator<Item = Damage> {
    let ends = |n: usize| Forge::read(&files[n].bytes).map_or(Vec::new(), |f| f.boundaries());
    (0..files.len()).flat_map(move |other| {
        let starts = ends(other);
        let pairs = ends(n).into_iter().flat_map(move |at| {
            let starts = starts.clone().into_iter();
            starts.map(move |from| Damage::Seam { other, at, from })
        });
        pairs.collect::<Vec<_>>()
    })
}

/// Splices of file `n` at places that mean nothing: where both files have the same length before,
/// and anywhere.
fn places(n: usize, files: &[Golden], rng: &mut Rng) -> Vec<Damage> {
    let mut splices = Vec::new();
    for (other, with) in files.iter().enumerate() {
        for _ in 0..2000 {
            let at = rng.usize(..=files[n].bytes.len());
            let from = if rng.bool() && at <= with.bytes.len() {
                at
            } else {
                rng.usize(..=with.bytes.len())
            };
            splices.push(Damage::Splice { other, at, from });
        }
    }
    splices
}

/// At most `count` of each kind.
fn thinned(all: Vec<Damage>, count: u64, rng: &mut Rng) -> Vec<Damage> {
    let mut kinds = BTreeMap::<_, Vec<_>>::new();
    for damage in all {
        kinds.entry(damage.kind()).or_default().push(damage);
    }
    let thin = |(_, kind): (_, Vec<Damage>)| {
        let step = kind
            .len()
            .div_ceil(count.max(1).try_into().unwrap_or(usize::MAX));
        let first = rng.usize(..step.max(1));
        kind.into_iter().skip(first).step_by(step.max(1))
    };
    kinds.into_iter().flat_map(thin).collect()
}
