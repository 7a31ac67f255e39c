//! From the bytes of a file to what it says, trusting none of it.
//!
//! Every length is compared with the bytes that are really there before it is used, and nothing is allocated by
//! what a file claims.

use std::ops::Range;

use flate2::{Decompress, FlushDecompress, Status};
use sha2::{Digest as _, Sha256};

use super::encode::{self, checksum, copy_of};
use super::*;
use crate::snapshot::{Error, Info, Result};

/// Most bytes of a trailer: enough for the index of 3 TiB of state.
const MAX_TRAILER: u64 = 64 << 20;

/// No deflate stream shrinks its input more than this.
const MAX_RATIO: usize = 1032;

/// What the last bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Bytes of the whole object.
    pub(crate) object: u64,
    /// Bytes of the state member: the trailer begins here.
    pub(crate) member: u64,
    kind: u16,
    format: u16,
}

impl Footer {
    /// Reads the footer of an object of `size` bytes from its last bytes.
    ///
    /// It is believed only as far as lengths go: [`Trailer::parse`] verifies its checksum.
    pub(crate) fn parse(suffix: &[u8], size: u64) -> Result<Self> {
        let not_ours = "it does not end as a snapshot does: cut off, or not written by Persist";
        let mut footer = suffix
            .len()
            .checked_sub(FOOTER)
            .and_then(|at| Cursor::new(&suffix[at..]).member(FOOTER_ID))
            .filter(|(payload, _)| payload.0.len() == FOOTER_PAYLOAD)
            .map(|(payload, _)| payload)
            .ok_or_else(|| Error::corrupt(not_ours))?;
        let parsed = (|| {
            let (object, member) = (footer.u64()?, footer.u64()?);
            footer.take(CHECKSUM)?;
            let (kind, format) = (footer.u16()?, footer.u16()?);
            (footer.take(MAGIC.len())? == MAGIC).then_some(Self {
                object,
                member,
                kind,
                format,
            })
        })();
        let footer = parsed.ok_or_else(|| Error::corrupt(not_ours))?;
        if footer.object != size {
            return Err(Error::corrupt(format!(
                "it is {size} bytes long and says that it is {}",
                footer.object
            )));
        }
        let trailer = size.checked_sub(footer.member);
        if !trailer.is_some_and(|len| (FOOTER as u64..=MAX_TRAILER).contains(&len)) {
            return Err(Error::corrupt("its trailer has an impossible length"));
        }
        Ok(footer)
    }
}

/// All that a version says of itself, verified.
#[derive(Clone, Debug)]
pub(crate) struct Trailer {
    pub(crate) metadata: Metadata,
    pub(crate) footer: Footer,
    /// As stored: [`INDEX_ENTRY`] bytes for each block.
    pub(super) index: Vec<u8>,
    /// Where each block begins in the object, and where the last one ends.
    offsets: Vec<u64>,
}

impl Trailer {
    /// Verifies and reads a trailer; `bytes` are all from the end of the state member.
    pub(crate) fn parse(bytes: &[u8], footer: Footer) -> Result<Self> {
        let stored = &bytes[bytes.len() - FOOTER + CHECKSUM_AT..][..CHECKSUM];
        if checksum(bytes) != stored {
            return Err(Error::corrupt("its trailer does not match its checksum"));
        }
        // From here on the bytes are what someone meant to write.
        if footer.format != FORMAT {
            return Err(Error::Unsupported(format!(
                "this snapshot has format {}; this build reads format {FORMAT}. Use a newer Persist",
                footer.format
            )));
        }
        if ![KIND_STATE, KIND_TOMBSTONE].contains(&footer.kind) {
            return Err(Error::Unsupported(format!(
                "this snapshot is of kind {}, which this build does not know. Use a newer Persist",
                footer.kind
            )));
        }
        let members = &bytes[..bytes.len() - FOOTER];
        Self::parse_members(members, footer)
            .ok_or_else(|| Error::corrupt("its trailer contradicts itself"))
    }

    fn parse_members(members: &[u8], footer: Footer) -> Option<Self> {
        let mut payload = Vec::new();
        let mut rest = Cursor::new(members);
        while !rest.0.is_empty() {
            let (chunk, after) = rest.member(TRAILER_ID)?;
            payload.extend_from_slice(chunk.0);
            rest = after;
        }
        let mut payload = Cursor::new(&payload);
        let len = payload.u32()?;
        let metadata: Metadata = serde_json::from_slice(payload.take(len as usize)?).ok()?;
        let index = payload.0.to_vec();

        let blocks = metadata.size.div_ceil(BLOCK as u64);
        let tombstone = footer.kind == KIND_TOMBSTONE;
        let sound = metadata.block == BLOCK as u64
            && index.len() as u64 == blocks.checked_mul(INDEX_ENTRY as u64)?
            && (!tombstone || metadata.size == 0);
        let offsets = sound.then(|| offsets(&index))?;
        let end = offsets.last()?.checked_add(STATE_END as u64)?;
        (end == footer.member).then_some(Self {
            metadata,
            footer,
            index,
            offsets,
        })
    }

    /// Whether this is a tombstone.
    pub(crate) fn is_tombstone(&self) -> bool {
        self.footer.kind == KIND_TOMBSTONE
    }

    /// How many blocks the state has.
    pub(crate) fn blocks(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Where some blocks lie in the object.
    pub(crate) fn stored(&self, blocks: Range<usize>) -> Range<u64> {
        self.offsets[blocks.start]..self.offsets[blocks.end]
    }

    /// Bytes of state in a block.
    pub(crate) fn block_len(&self, block: usize) -> usize {
        let rest = self.metadata.size - (block * BLOCK) as u64;
        rest.min(BLOCK as u64) as usize
    }

    /// Whether the stored bytes of a block are those that were written.
    pub(crate) fn verify_block(&self, block: usize, stored: &[u8]) -> Result<()> {
        let entry = &self.index[block * INDEX_ENTRY..][..INDEX_ENTRY];
        match encode::index_entry(stored) == entry {
            true => Ok(()),
            false => Err(Error::corrupt(format!(
                "block {block} of its state does not match its checksum"
            ))),
        }
    }

    /// Verifies a block and appends its state to `state`.
    pub(crate) fn read_block(
        &self,
        block: usize,
        stored: &[u8],
        state: &mut Vec<u8>,
    ) -> Result<()> {
        self.verify_block(block, stored)?;
        let (start, len) = (state.len(), self.block_len(block));
        // One byte too many, so that a block that holds more than it says is seen to.
        state.reserve(len + 1);
        let mut inflate = Decompress::new(false);
        let status = inflate.decompress_vec(stored, state, FlushDecompress::None);
        let whole = matches!(status, Ok(Status::Ok))
            && inflate.total_in() == stored.len() as u64
            && state.len() - start == len;
        match whole {
            true => Ok(()),
            false => Err(Error::corrupt(format!(
                "block {block} of its state does not decompress"
            ))),
        }
    }

    /// Verifies a whole state member and returns its state.
    pub(crate) fn read_state(&self, member: &[u8]) -> Result<Vec<u8>> {
        let blocks = self.stored(0..self.blocks());
        let (head, tail) = (
            &member[..blocks.start as usize],
            &member[blocks.end as usize..],
        );
        self.verify_frame(head, tail)?;
        // The size is only a claim; what the bytes that are here can decompress to is not.
        let most = member.len().saturating_mul(MAX_RATIO);
        let mut state = Vec::with_capacity(most.min(self.metadata.size as usize) + 1);
        for block in 0..self.blocks() {
            let stored = self.stored(block..block + 1);
            self.read_block(
                block,
                &member[stored.start as usize..stored.end as usize],
                &mut state,
            )?;
        }
        let sha256 = hex(&Sha256::digest(&state));
        if state.len() as u64 != self.metadata.size
            || crc32fast::hash(&state) != self.metadata.crc32
            || sha256 != self.metadata.sha256
        {
            return Err(Error::corrupt("its state does not match its SHA-256"));
        }
        Ok(state)
    }

    /// Compares what stands before and after the blocks of a state member with what must be there.
    pub(crate) fn verify_frame(&self, head: &[u8], tail: &[u8]) -> Result<()> {
        match head == STATE_HEADER && tail == copy_of(self).state_end() {
            true => Ok(()),
            false => Err(Error::corrupt(
                "the beginning or end of its state is damaged",
            )),
        }
    }

    /// What is known of the version, as `name` and `version` of the key say; these are the authority.
    pub(crate) fn info(&self, name: &str, version: Version) -> Info {
        let metadata = self.metadata.clone();
        Info {
            name: name.into(),
            version,
            parent: metadata.parent,
            deleted: self.is_tombstone(),
            size: metadata.size,
            stored_size: self.footer.object,
            sha256: metadata.sha256,
            created_at: metadata.created_at,
            media_type: metadata.media_type,
            labels: metadata.labels,
        }
    }
}

/// Where each block begins in the object, and where the last one ends.
fn offsets(index: &[u8]) -> Vec<u64> {
    let mut at = STATE_HEADER.len() as u64;
    let mut offsets = vec![at];
    for entry in index.chunks_exact(INDEX_ENTRY) {
        at += u64::from(Cursor::new(entry).u32().unwrap_or_default());
        offsets.push(at);
    }
    offsets
}

/// Bytes that are taken from the front, as far as they go.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The payload of the empty member that begins here, and what follows it.
    fn member(mut self, id: [u8; 2]) -> Option<(Self, Self)> {
        if self.take(EXTRA_HEADER.len())? != EXTRA_HEADER {
            return None;
        }
        let extra = self.u16()?;
        if self.take(2)? != id {
            return None;
        }
        let len = self.u16()?;
        let payload = self.take(len.into())?;
        let sound = extra.checked_sub(4) == Some(len) && self.take(EMPTY_END.len())? == EMPTY_END;
        sound.then_some((Self(payload), self))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use bytes::Bytes;

    use super::*;
    use crate::snapshot::format::encode::{Encoded, Encoder, Seal};

    fn seal(labels: &[(String, String)]) -> Seal<'_> {
        Seal {
            agent: "bot",
            session: None,
            name: "memory",
            version: 7,
            parent: Some(6),
            parent_sha256: None,
            created_at: 1_780_000_000_000,
            media_type: Some("application/json"),
            labels,
            nonce: "00112233445566778899aabbccddeeff",
        }
    }

    fn file(state: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new();
        // Pieces that are no divisors of anything.
        state.chunks(777_777).for_each(|piece| encoder.write(piece));
        let (member, encoded) = encoder.finish();
        assemble(member, &encoded)
    }

    fn assemble(mut member: Vec<Bytes>, encoded: &Encoded) -> Vec<u8> {
        let labels = [("turn".to_owned(), "17".to_owned())];
        member.push(encoded.seal(&seal(&labels)).0);
        member.concat()
    }

    fn read(file: &[u8]) -> Result<(Trailer, Vec<u8>)> {
        let footer = Footer::parse(file, file.len() as u64)?;
        let (member, trailer) = file.split_at(footer.member as usize);
        let trailer = Trailer::parse(trailer, footer)?;
        let state = trailer.read_state(member)?;
        Ok((trailer, state))
    }

    /// Bytes that do not compress, the same every time.
    fn noise(len: usize) -> Vec<u8> {
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(|| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .take(len)
        .collect()
    }

    fn text(len: usize) -> Vec<u8> {
        b"the agent remembers this. "
            .iter()
            .copied()
            .cycle()
            .take(len)
            .collect()
    }

    #[test]
    fn a_state_comes_back_bit_for_bit() {
        for len in [0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
            for state in [text(len), noise(len)] {
                let (trailer, back) = read(&file(&state)).expect("reads");
                assert!(back == state, "{len} bytes");
                assert_eq!(trailer.blocks(), len.div_ceil(BLOCK));
                assert_eq!(
                    trailer.metadata.labels,
                    [("turn".to_owned(), "17".to_owned())]
                );
            }
        }
    }

    #[test]
    fn gzip_prints_the_state_and_nothing_else() {
        for state in [text(0), text(2 * BLOCK + 5), noise(BLOCK + 5)] {
            let file = file(&state);
            let mut first = Vec::new();
            flate2::read::GzDecoder::new(&file[..])
                .read_to_end(&mut first)
                .expect("one member");
            assert!(first == state);
            let mut all = Vec::new();
            flate2::read::MultiGzDecoder::new(&file[..])
                .read_to_end(&mut all)
                .expect("all members");
            assert!(all == state);
        }
    }

    #[test]
    fn noise_is_stored_and_grows_by_a_thousandth_at_most() {
        let state = noise(4 * BLOCK);
        let file = file(&state);
        assert!(
            file.len() < state.len() + state.len() / 1000,
            "{}",
            file.len()
        );
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let blocks = [text(100), noise(3), text(0)];
        let tombstone = Encoded::tombstone();
        let files = blocks.iter().map(|state| file(state));
        for golden in files.chain([assemble(tombstone.0, &tombstone.1)]) {
            read(&golden).expect("intact");
            for bit in 0..golden.len() * 8 {
                let mut flipped = golden.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    matches!(read(&flipped), Err(Error::Corrupt { .. })),
                    "bit {bit}"
                );
            }
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let golden = file(&text(100));
        for len in 0..golden.len() {
            assert!(
                matches!(read(&golden[..len]), Err(Error::Corrupt { .. })),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn a_long_index_spreads_over_members() {
        let (_, encoded) = Encoder::new().finish();
        let blocks = 2 * MAX_EXTRA / INDEX_ENTRY;
        let encoded = Encoded {
            size: (blocks * BLOCK) as u64,
            member: (STATE_HEADER.len() + blocks + STATE_END) as u64,
            index: [1, 0, 0, 0]
                .into_iter()
                .chain([0; 16])
                .cycle()
                .take(blocks * INDEX_ENTRY)
                .collect(),
            ..encoded
        };
        let (bytes, _) = encoded.seal(&seal(&[]));
        let size = encoded.member + bytes.len() as u64;
        let footer = Footer::parse(&bytes, size).expect("a footer");
        let trailer = Trailer::parse(&bytes, footer).expect("a trailer");
        assert_eq!(trailer.blocks(), blocks);
        assert_eq!(trailer.stored(5..7), 15..17);
    }

    #[test]
    fn a_later_format_is_unsupported_and_not_corrupt() {
        for (at, word) in [
            (FOOTER_PAYLOAD - 10, "format 2"),
            (FOOTER_PAYLOAD - 12, "kind 9"),
        ] {
            let mut later = file(b"state");
            let footer = later.len() - FOOTER;
            later[footer + EXTRA_FRAME - EMPTY_END.len() + at] =
                word.as_bytes()[word.len() - 1] - b'0';
            let member = Footer::parse(&later, later.len() as u64)
                .expect("lengths hold")
                .member;
            let sum = checksum(&later[member as usize..]);
            later[footer + CHECKSUM_AT..][..CHECKSUM].copy_from_slice(&sum);
            let error = read(&later).expect_err("a later format");
            assert!(
                matches!(&error, Error::Unsupported(text) if text.contains(word)),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_not_a_snapshot_is_refused() {
        for foreign in [&b""[..], b"hello", &[0; 4096], &STATE_HEADER] {
            assert!(matches!(read(foreign), Err(Error::Corrupt { .. })));
        }
    }
}
