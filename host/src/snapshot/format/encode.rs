//! From state to the bytes of a file.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, FlushCompress, Status};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::hex::hex;
use crate::snapshot::Compression;

/// Most bytes in one stored deflate block.
const MAX_STORED: usize = u16::MAX as usize;

/// Bytes of a sample, and how many are taken of a block to see whether it shrinks at all: an eighth
/// of it at most.
const SAMPLE: usize = 8 * 1024;
const SAMPLES: usize = 8;

/// State that a stream gathers before it is compressed: four blocks at once, and four MiB of
/// memory.
const BATCH: usize = 4 * BLOCK;

/// Below this, hashing and compressing take less time than waking another thread.
const ALONE: usize = 64 * 1024;

/// Turns a state into the bytes of its member: at once, or in pieces.
#[derive(Debug)]
pub(crate) struct Encoder {
    compression: Compression,
    /// State that is not compressed yet.
    pending: Vec<u8>,
    sha256: Sha256,
    crc32: crc32fast::Hasher,
    size: u64,
    stored: u64,
    index: Vec<u8>,
    output: Vec<Bytes>,
}

/// A compressed block, and what is kept about it.
struct Block {
    stored: Vec<u8>,
    entry: [u8; INDEX_ENTRY],
    crc32: crc32fast::Hasher,
}

impl Encoder {
    pub(crate) fn new(compression: Compression) -> Self {
        Self {
            compression,
            pending: Vec::new(),
            sha256: Sha256::new(),
            crc32: crc32fast::Hasher::new(),
            size: 0,
            stored: STATE_HEADER.len() as u64,
            index: Vec::new(),
            output: vec![Bytes::from_static(&STATE_HEADER)],
        }
    }

    /// The member of a whole state.
    pub(crate) fn encode(state: &[u8], compression: Compression) -> (Vec<Bytes>, Encoded) {
        let mut encoder = Self::new(compression);
        encoder.size = state.len() as u64;
        encoder.compress_blocks(state);
        encoder.finish()
    }

    /// Takes as much of `piece` as there is room for; the rest comes back, to be given again after
    /// [`Encoder::compress`]. Costs no more than copying.
    pub(crate) fn fill<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let room = BATCH - self.pending.len();
        let (taken, rest) = piece.split_at(room.min(piece.len()));
        self.pending.extend_from_slice(taken);
        self.size += taken.len() as u64;
        rest
    }

    /// Returns true if [`Encoder::compress`] is due.
    pub(crate) fn is_full(&self) -> bool {
        self.pending.len() == BATCH
    }

    /// Compresses what was gathered, whole blocks, on several processors.
    pub(crate) fn compress(&mut self) -> Vec<Bytes> {
        debug_assert!(
            self.is_full(),
            "only the last block of a state may be short"
        );
        let batch = std::mem::take(&mut self.pending);
        self.compress_blocks(&batch);
        self.pending = batch;
        self.pending.clear();
        std::mem::take(&mut self.output)
    }

    /// Bytes of state so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Ends the state: the last bytes of its member, and what a trailer needs to know.
    pub(crate) fn finish(mut self) -> (Vec<Bytes>, Encoded) {
        let rest = std::mem::take(&mut self.pending);
        self.compress_blocks(&rest);
        let encoded = Encoded {
            tombstone: false,
            size: self.size,
            sha256: hex(&self.sha256.finalize()),
            crc32: self.crc32.finalize(),
            member: self.stored + STATE_END as u64,
            index: self.index,
        };
        self.output.push(encoded.state_end());
        (self.output, encoded)
    }

    fn compress_blocks(&mut self, state: &[u8]) {
        let compression = self.compression;
        let sha256 = &mut self.sha256;
        let blocks: Vec<Block> = match state.len() {
            0 => Vec::new(),
            1..ALONE => {
                sha256.update(state);
                vec![Block::new(state, compression)]
            }
            _ => pool::run(|| {
                let chunks = state.par_chunks(BLOCK);
                let compress = || chunks.map(|chunk| Block::new(chunk, compression)).collect();
                rayon::join(|| sha256.update(state), compress).1
            }),
        };
        for block in blocks {
            self.stored += block.stored.len() as u64;
            self.crc32.combine(&block.crc32);
            self.index.extend_from_slice(&block.entry);
            self.output.push(block.stored.into());
        }
    }
}

impl Block {
    fn new(state: &[u8], compression: Compression) -> Self {
        let stored = with_compressor(compression, |compressor| compress(compressor, state));
        let stored = stored.flatten().unwrap_or_else(|| store(state));
        let mut crc32 = crc32fast::Hasher::new();
        crc32.update(state);
        Self {
            entry: index_entry(&stored),
            stored,
            crc32,
        }
    }
}

thread_local! {
    /// The compressor that this thread used last, and its level. Making one takes as long as
    /// compressing 4 KiB; it holds some 300 KiB.
    static COMPRESSOR: RefCell<Option<(u32, Compress)>> = const { RefCell::new(None) };
}

/// Calls `f` with a compressor of this thread; returns none where states are not compressed.
fn with_compressor<T>(compression: Compression, f: impl FnOnce(&mut Compress) -> T) -> Option<T> {
    let level = compression.level()?;
    COMPRESSOR.with_borrow_mut(|kept| {
        let (_, compressor) = match kept {
            Some(of_level) if of_level.0 == level => of_level,
            kept => {
                let compressor = Compress::new(flate2::Compression::new(level), false);
                kept.insert((level, compressor))
            }
        };
        Some(f(compressor))
    })
}

/// One block of the index.
pub(super) fn index_entry(block: &[u8]) -> [u8; INDEX_ENTRY] {
    let mut entry = [0; INDEX_ENTRY];
    let len = u32::try_from(block.len()).expect("a block is little more than 1 MiB");
    entry[..4].copy_from_slice(&len.to_le_bytes());
    entry[4..].copy_from_slice(&Sha256::digest(block)[..16]);
    entry
}

/// A block that shrank; none where storing it is no larger.
fn compress(compress: &mut Compress, state: &[u8]) -> Option<Vec<u8>> {
    if state.len() >= 8 * SAMPLES * SAMPLE && is_noise(compress, state) {
        return None;
    }
    deflate(compress, state)
}

/// Returns true if samples from all over a block do not shrink. Deflate takes longest for data that
/// it cannot compress.
fn is_noise(compress: &mut Compress, state: &[u8]) -> bool {
    let apart = (state.len() - SAMPLE) / (SAMPLES - 1);
    let mut samples = (0..SAMPLES).map(|n| &state[n * apart..][..SAMPLE]);
    samples.all(|sample| deflate(compress, sample).is_none())
}

fn deflate(compress: &mut Compress, state: &[u8]) -> Option<Vec<u8>> {
    compress.reset();
    // Far more room than deflate ever needs, which is nine bits for each byte at level 1: zlib-rs
    // 0.6 panics where a block that does not shrink meets the end of it.
    let mut block = Vec::with_capacity(state.len() + state.len() / 4 + 1024);
    let status = compress.compress_vec(state, &mut block, FlushCompress::Full);
    let whole = matches!(status, Ok(Status::Ok)) && compress.total_in() == state.len() as u64;
    (whole && block.len() < state.len()).then(|| {
        block.shrink_to_fit();
        block
    })
}

/// Bytes of a block of `len` bytes as it is: no block is longer.
pub(super) fn stored_len(len: usize) -> usize {
    len + 5 * len.div_ceil(MAX_STORED)
}

/// A block as it is, in deflate's stored blocks, which end on a byte.
fn store(state: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(stored_len(state.len()));
    for chunk in state.chunks(MAX_STORED) {
        let len = u16::try_from(chunk.len()).expect("no more than MAX_STORED");
        block.push(0);
        block.extend_from_slice(&len.to_le_bytes());
        block.extend_from_slice(&(!len).to_le_bytes());
        block.extend_from_slice(chunk);
    }
    block
}

/// A state member that is complete: all that a trailer says of it.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(super) tombstone: bool,
    pub(super) size: u64,
    pub(super) sha256: String,
    pub(super) crc32: u32,
    /// Bytes of the state member.
    pub(super) member: u64,
    pub(super) index: Vec<u8>,
}

impl Encoded {
    /// The state member of a tombstone, which is empty.
    pub(crate) fn tombstone() -> (Vec<Bytes>, Self) {
        let (output, encoded) = Encoder::new(Compression::Default).finish();
        let tombstone = true;
        (
            output,
            Self {
                tombstone,
                ..encoded
            },
        )
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.tombstone
    }

    /// Bytes of the state member.
    pub(crate) fn member_len(&self) -> u64 {
        self.member
    }

    /// The last bytes of the state member.
    pub(super) fn state_end(&self) -> Bytes {
        let mut end = [0; STATE_END];
        end[..2].copy_from_slice(&DEFLATE_END);
        end[2..6].copy_from_slice(&self.crc32.to_le_bytes());
        // gzip keeps the length modulo 2^32.
        end[6..].copy_from_slice(&(self.size as u32).to_le_bytes());
        Bytes::copy_from_slice(&end)
    }

    /// The trailer for this state as one version: what follows the state member.
    pub(crate) fn build_trailer(&self, seal: &TrailerFields<'_>) -> (Bytes, Metadata) {
        let metadata = Metadata {
            agent: seal.agent.into(),
            session: seal.session.map(Into::into),
            name: seal.name.into(),
            version: seal.version,
            parent: seal.parent,
            parent_sha256: seal.parent_sha256.clone(),
            size: self.size,
            sha256: self.sha256.clone(),
            crc32: self.crc32,
            block: BLOCK as u64,
            created_at: seal.created_at,
            media_type: seal.media_type.map(Into::into),
            labels: seal.labels.to_vec(),
            nonce: seal.nonce.into(),
        };
        let json = serde_json::to_vec(&metadata).expect("text and numbers are JSON");
        let len = u32::try_from(json.len()).expect("labels and names are bounded");
        let payload = [&len.to_le_bytes()[..], &json, &self.index].concat();

        let mut trailer = Vec::with_capacity(payload.len() + 2 * EXTRA_FRAME + FOOTER);
        for chunk in payload.chunks(MAX_EXTRA) {
            push_member(&mut trailer, TRAILER_ID, chunk);
        }
        self.push_footer(&mut trailer);
        (trailer.into(), metadata)
    }

    fn push_footer(&self, trailer: &mut Vec<u8>) {
        let kind = if !self.tombstone {
            KIND_STATE
        } else {
            KIND_TOMBSTONE
        };
        let at = trailer.len();
        let object = self.member + (at + FOOTER) as u64;
        let mut payload = Vec::with_capacity(FOOTER_PAYLOAD);
        payload.extend_from_slice(&object.to_le_bytes());
        payload.extend_from_slice(&self.member.to_le_bytes());
        payload.extend_from_slice(&[0; CHECKSUM]);
        payload.extend_from_slice(&kind.to_le_bytes());
        payload.extend_from_slice(&FORMAT.to_le_bytes());
        payload.extend_from_slice(&MAGIC);
        push_member(trailer, FOOTER_ID, &payload);
        let checksum = checksum(trailer);
        trailer[at + CHECKSUM_AT..][..CHECKSUM].copy_from_slice(&checksum);
    }
}

/// Fields that make a state one version of one name.
#[derive(Clone, Debug)]
pub(crate) struct TrailerFields<'a> {
    pub(crate) agent: &'a str,
    pub(crate) session: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) version: Version,
    pub(crate) parent: Option<Version>,
    pub(crate) parent_sha256: Option<String>,
    pub(crate) created_at: u64,
    pub(crate) media_type: Option<&'a str>,
    pub(crate) labels: &'a [(String, String)],
    pub(crate) nonce: &'a str,
}

/// Returns what a trailer needs to know of an existing state member, to save it again.
pub(crate) fn copy_of(trailer: &Trailer) -> Encoded {
    Encoded {
        tombstone: false,
        size: trailer.metadata.size,
        sha256: trailer.metadata.sha256.clone(),
        crc32: trailer.metadata.crc32,
        member: trailer.footer.member,
        index: trailer.index.clone(),
    }
}

fn push_member(out: &mut Vec<u8>, id: [u8; 2], payload: &[u8]) {
    let len = u16::try_from(payload.len()).expect("payloads are cut to MAX_EXTRA");
    out.extend_from_slice(&EXTRA_HEADER);
    out.extend_from_slice(&(len + 4).to_le_bytes());
    out.extend_from_slice(&id);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(&EMPTY_END);
}

/// The checksum of a trailer that ends in a footer: of all its bytes but its own.
pub(super) fn checksum(trailer: &[u8]) -> [u8; CHECKSUM] {
    let (before, rest) = trailer.split_at(trailer.len() - FOOTER + CHECKSUM_AT);
    Sha256::new()
        .chain_update(before)
        .chain_update(&rest[CHECKSUM..])
        .finalize()
        .into()
}
