//! From state to the bytes of a file.

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use sha2::{Digest as _, Sha256};

use super::*;

/// Four to eight times as fast as the usual 6, for 4 % of size (GNU gzip's and flate2's default is 6).
const LEVEL: u32 = 3;

/// Most bytes in one stored deflate block.
const MAX_STORED: usize = u16::MAX as usize;

/// Turns a state that arrives in pieces into the bytes of its member.
#[derive(Debug)]
pub(crate) struct Encoder {
    compress: Compress,
    /// State that does not fill a block yet.
    pending: Vec<u8>,
    sha256: Sha256,
    crc32: crc32fast::Hasher,
    size: u64,
    stored: u64,
    index: Vec<u8>,
    output: Vec<Bytes>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self {
            compress: Compress::new(Compression::new(LEVEL), false),
            pending: Vec::new(),
            sha256: Sha256::new(),
            crc32: crc32fast::Hasher::new(),
            size: 0,
            stored: STATE_HEADER.len() as u64,
            index: Vec::new(),
            output: vec![Bytes::from_static(&STATE_HEADER)],
        }
    }

    /// Appends state.
    pub(crate) fn write(&mut self, mut state: &[u8]) {
        self.sha256.update(state);
        self.crc32.update(state);
        self.size += state.len() as u64;
        if !self.pending.is_empty() {
            let missing = BLOCK - self.pending.len();
            let (head, rest) = state.split_at(missing.min(state.len()));
            self.pending.extend_from_slice(head);
            state = rest;
            if self.pending.len() == BLOCK {
                let block = std::mem::take(&mut self.pending);
                self.block(&block);
            }
        }
        let mut blocks = state.chunks_exact(BLOCK);
        for block in &mut blocks {
            self.block(block);
        }
        self.pending.extend_from_slice(blocks.remainder());
    }

    /// Bytes of state so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Takes the bytes of the file that are ready.
    pub(crate) fn take_output(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.output)
    }

    /// Ends the state: the last bytes of its member, and what a trailer needs to know.
    pub(crate) fn finish(mut self) -> (Vec<Bytes>, Encoded) {
        let last = std::mem::take(&mut self.pending);
        if !last.is_empty() {
            self.block(&last);
        }
        let crc32 = self.crc32.finalize();
        let encoded = Encoded {
            tombstone: false,
            size: self.size,
            sha256: hex(&self.sha256.finalize()),
            crc32,
            member: self.stored + STATE_END as u64,
            index: self.index,
        };
        self.output.push(encoded.state_end());
        (self.output, encoded)
    }

    fn block(&mut self, state: &[u8]) {
        let block = compress(&mut self.compress, state).unwrap_or_else(|| store(state));
        self.stored += block.len() as u64;
        self.index.extend_from_slice(&index_entry(&block));
        self.output.push(block.into());
    }
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
    compress.reset();
    // With no more room than the state itself takes, a block that does not shrink does not fit.
    let mut block = Vec::with_capacity(state.len());
    let status = compress.compress_vec(state, &mut block, FlushCompress::Full);
    let whole = matches!(status, Ok(Status::Ok)) && compress.total_in() == state.len() as u64;
    // A block that fills the room to the last byte may have more to say.
    (whole && block.len() < block.capacity()).then(|| {
        block.shrink_to_fit();
        block
    })
}

/// A block as it is, in deflate's stored blocks, which end on a byte.
fn store(state: &[u8]) -> Vec<u8> {
    let heads = 5 * state.len().div_ceil(MAX_STORED);
    let mut block = Vec::with_capacity(state.len() + heads);
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
        let (output, encoded) = Encoder::new().finish();
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
    pub(crate) fn seal(&self, seal: &Seal<'_>) -> (Bytes, Metadata) {
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
        let kind = match self.tombstone {
            false => KIND_STATE,
            true => KIND_TOMBSTONE,
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

/// What makes a state one version of one name.
#[derive(Clone, Debug)]
pub(crate) struct Seal<'a> {
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

/// What a trailer needs to know of a state member that is there already, to save it again.
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
