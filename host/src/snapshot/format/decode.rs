//! From the bytes of a file to what it says, trusting none of it.
//!
//! Every length is compared with the bytes that are really there before it is used, and nothing is
//! allocated by what a file claims.

use std::ops::Range;

use flate2::{Decompress, FlushDecompress, Status};
use rayon::prelude::*;

use super::encode::{self, checksum, copy_of};
use super::*;
use crate::snapshot::{Error, Info, Result};
use crate::storage;

/// Most bytes of a trailer: enough for the index of 3 TiB of state.
const MAX_TRAILER: u64 = 64 << 20;

/// Most bytes of metadata: labels of 8 KiB, each escaped in JSON, and three names.
const MAX_METADATA: u32 = 128 << 10;

/// No deflate stream shrinks its input more than this.
const MAX_RATIO: usize = 1032;

/// Content of the last bytes of a file.
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
    /// The footer that these last bytes of an object end in; none where it was not written by
    /// Persist, or is cut off.
    ///
    /// It is believed only as far as lengths go: [`Trailer::parse`] verifies its checksum.
    pub(crate) fn find(suffix: &[u8]) -> Option<Self> {
        let at = suffix.len().checked_sub(FOOTER)?;
        let (mut footer, _) = Cursor::new(&suffix[at..]).member(FOOTER_ID)?;
        let object = footer.u64()?;
        let member = footer.u64()?;
        footer.take(CHECKSUM)?;
        let kind = footer.u16()?;
        let format = footer.u16()?;
        (footer.0 == MAGIC).then_some(Self {
            object,
            member,
            kind,
            format,
        })
    }

    /// Compares what it says with an object of `size` bytes.
    pub(crate) fn check(self, size: u64) -> Result<Self> {
        let footer = self;
        if footer.object != size {
            return Err(Error::corrupt(format!(
                "it has {size} bytes, but its footer says {}",
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
    /// Index as stored: [`INDEX_ENTRY`] bytes for each block.
    pub(super) index: Vec<u8>,
    /// Offsets in the object where each block begins, and where the last one ends.
    offsets: Vec<u64>,
}

/// Hint for a file that a newer version wrote.
const NEWER: &str = "use a newer version of Persist";

impl Trailer {
    /// Verifies and reads a trailer; `bytes` are all from the end of the state member.
    pub(crate) fn parse(bytes: &[u8], footer: Footer) -> Result<Self> {
        let stored = &bytes[bytes.len() - FOOTER + CHECKSUM_AT..][..CHECKSUM];
        if checksum(bytes) != stored {
            return Err(Error::corrupt("its trailer does not match its checksum"));
        }
        // The checksum matches, so from here on the bytes are as they were written.
        if footer.format != FORMAT {
            return Err(Error::unsupported(format!(
                "this snapshot has format {}, and this version of Persist reads format {FORMAT}",
                footer.format
            ))
            .with_hint(NEWER));
        }
        if ![KIND_STATE, KIND_TOMBSTONE].contains(&footer.kind) {
            return Err(Error::unsupported(format!(
                "this snapshot is of the unknown kind {}",
                footer.kind
            ))
            .with_hint(NEWER));
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
        let len = payload.u32().filter(|len| *len <= MAX_METADATA)?;
        let metadata: Metadata = serde_json::from_slice(payload.take(len as usize)?).ok()?;
        let index = payload.0.to_vec();

        let blocks = metadata.size.div_ceil(BLOCK as u64);
        let tombstone = footer.kind == KIND_TOMBSTONE;
        let lens = index
            .chunks_exact(INDEX_ENTRY)
            .map(|entry| Cursor::new(entry).u32());
        let parent = metadata.parent_sha256.as_deref();
        let sound = metadata.block == BLOCK as u64
            // They are shown to people: a forged file could put anything into them.
            && is_hex(&metadata.sha256, 64)
            && parent.is_none_or(|sha256| is_hex(sha256, 64))
            && is_hex(&metadata.nonce, 32)
            // What does not shrink is stored, which bounds what has to be read for a block.
            && lens.flatten().all(|len| len as usize <= encode::stored_len(BLOCK))
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

    /// Returns true if this is a tombstone.
    pub(crate) fn is_tombstone(&self) -> bool {
        self.footer.kind == KIND_TOMBSTONE
    }

    /// How many blocks the state has.
    pub(crate) fn blocks(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Returns the range of some blocks in the object.
    pub(crate) fn stored(&self, blocks: Range<usize>) -> Range<u64> {
        self.offsets[blocks.start]..self.offsets[blocks.end]
    }

    /// Bytes of state in a block.
    pub(crate) fn block_len(&self, block: usize) -> usize {
        let rest = self.metadata.size - (block * BLOCK) as u64;
        rest.min(BLOCK as u64) as usize
    }

    /// Returns the bytes of a block out of stored ones that begin with block `first`.
    fn block<'a>(&self, block: usize, first: usize, stored: &'a [u8]) -> &'a [u8] {
        let [start, end] = [block, block + 1].map(|at| self.offsets[at] - self.offsets[first]);
        &stored[start as usize..end as usize]
    }

    /// Checks that the stored bytes of some blocks are those that were written.
    pub(crate) fn verify_blocks(&self, mut blocks: Range<usize>, stored: &[u8]) -> Result<()> {
        let first = blocks.start;
        blocks.try_for_each(|block| self.verify_block(block, self.block(block, first, stored)))
    }

    /// Checks that the stored bytes of a block are those that were written.
    fn verify_block(&self, block: usize, stored: &[u8]) -> Result<()> {
        let entry = &self.index[block * INDEX_ENTRY..][..INDEX_ENTRY];
        if encode::index_entry(stored) == entry {
            Ok(())
        } else {
            Err(Error::corrupt(format!(
                "block {block} of its state does not match its checksum"
            )))
        }
    }

    /// Verifies stored bytes that hold the blocks in `range`, and returns their state.
    pub(crate) fn read_blocks(&self, range: Range<usize>, stored: &[u8]) -> Result<Vec<u8>> {
        let len = self.state_len(range.clone());
        let mut state = plausible(len, stored.len())?;
        state.resize(len, 0);
        self.fill_blocks(range, &mut state, stored)?;
        Ok(state)
    }

    /// Returns the range of some blocks in the object, with what stands before the first block and
    /// after the last one.
    pub(crate) fn framed(&self, blocks: &Range<usize>) -> Range<u64> {
        let stored = self.stored(blocks.clone());
        let start = if blocks.start == 0 { 0 } else { stored.start };
        let end = if blocks.end == self.blocks() {
            self.footer.member
        } else {
            stored.end
        };
        start..end
    }

    /// Returns the stored bytes of some blocks out of those of [`Self::framed`], whose frame it
    /// verifies.
    pub(crate) fn unframed<'a>(&self, blocks: &Range<usize>, framed: &'a [u8]) -> Result<&'a [u8]> {
        let outer = self.framed(blocks);
        let stored = self.stored(blocks.clone());
        let (head, rest) = framed.split_at((stored.start - outer.start) as usize);
        let (stored, tail) = rest.split_at((stored.end - stored.start) as usize);
        if blocks.start == 0 {
            self.verify_head(head)?;
        }
        if blocks.end == self.blocks() {
            self.verify_tail(tail)?;
        }
        Ok(stored)
    }

    /// Bytes of state in some blocks.
    fn state_len(&self, blocks: Range<usize>) -> usize {
        blocks.map(|block| self.block_len(block)).sum()
    }

    /// Verifies blocks, whose bytes are `stored`, and puts their state where it belongs.
    fn fill_blocks(&self, range: Range<usize>, state: &mut [u8], stored: &[u8]) -> Result<()> {
        let first = range.start;
        let fill = |(block, state): (usize, &mut [u8])| {
            let stored = self.block(block, first, stored);
            self.verify_block(block, stored)?;
            inflate(stored, state).ok_or_else(|| {
                Error::corrupt(format!("block {block} of its state does not decompress"))
            })
        };
        match range.len() {
            ..=1 => range.zip(state.chunks_mut(BLOCK)).try_for_each(fill),
            _ => pool::run(|| {
                let blocks = range.into_par_iter().zip(state.par_chunks_mut(BLOCK));
                blocks.try_for_each(fill)
            }),
        }
    }

    /// Compares what stands before and after the blocks of a state member with what must be there.
    pub(crate) fn verify_frame(&self, head: &[u8], tail: &[u8]) -> Result<()> {
        self.verify_head(head)?;
        self.verify_tail(tail)
    }

    /// Compares what stands before the blocks of a state member with what must be there.
    pub(crate) fn verify_head(&self, head: &[u8]) -> Result<()> {
        if head != STATE_HEADER {
            return Err(Error::corrupt("the beginning of its state is damaged"));
        }
        Ok(())
    }

    /// Compares what stands after the blocks of a state member with what must be there.
    pub(crate) fn verify_tail(&self, tail: &[u8]) -> Result<()> {
        if tail != copy_of(self).state_end() {
            return Err(Error::corrupt("the end of its state is damaged"));
        }
        Ok(())
    }

    /// Returns the information about the version, with `name` and `version` from the key; these are
    /// the authority.
    pub(crate) fn info(&self, name: &str, version: Version) -> Info {
        Info {
            name: name.into(),
            version,
            ..self
                .metadata
                .clone()
                .into_info(self.is_tombstone(), self.footer.object)
        }
    }
}

/// Returns true for text of `len` lower-case hex digits, which is what [`crate::hex::hex`] writes.
fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Room for `len` bytes of state, which `stored` bytes say that they hold: a claim, until they are
/// read.
fn plausible(len: usize, stored: usize) -> Result<Vec<u8>> {
    let mut state = Vec::new();
    if len > stored.saturating_mul(MAX_RATIO) {
        return Err(Error::corrupt(
            "its trailer claims a larger state than its bytes can hold",
        ));
    }
    match state.try_reserve_exact(len) {
        Ok(()) => Ok(state),
        Err(error) => {
            let what = format!("out of memory for a state of {len} bytes");
            Err(storage::Error::new(storage::ErrorKind::NoSpace, what)
                .with_source(error)
                .into())
        }
    }
}

/// Decompresses a block into exactly the room that its state needs.
fn inflate(stored: &[u8], state: &mut [u8]) -> Option<()> {
    let mut inflate = Decompress::new(false);
    let mut pour = |from: &[u8], to: &mut [u8]| {
        let status = inflate.decompress(from, to, FlushDecompress::None).ok()?;
        // A block that says that it is the last would end the state for gzip.
        let goes_on = status != Status::StreamEnd;
        goes_on.then_some((inflate.total_in(), inflate.total_out()))
    };
    let (mut read, mut written) = pour(stored, state)?;
    // What is left is the empty block that a flush ends with: it must add nothing.
    let rest = stored.get(usize::try_from(read).ok()?..)?;
    if !rest.is_empty() {
        (read, written) = pour(rest, &mut [0])?;
    }
    (read == stored.len() as u64 && written == state.len() as u64).then_some(())
}

/// A whole state, as far as its blocks were read.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: Vec<u8>,
    /// The sums of the state before `unsummed`.
    sums: Sums,
    unsummed: usize,
}

impl Decoder {
    pub(crate) fn new(trailer: &Trailer) -> Result<Self> {
        let len = usize::try_from(trailer.metadata.size).unwrap_or(usize::MAX);
        let member = usize::try_from(trailer.footer.member).unwrap_or(usize::MAX);
        Ok(Self {
            state: plausible(len, member)?,
            sums: Sums::default(),
            unsummed: 0,
        })
    }

    /// Verifies and adds the blocks that follow, whose bytes are those of [`Trailer::framed`].
    /// While they are read, the ones before them are summed.
    pub(crate) fn add(
        mut self,
        trailer: &Trailer,
        blocks: Range<usize>,
        framed: &[u8],
    ) -> Result<Self> {
        let stored = trailer.unframed(&blocks, framed)?;
        let begin = self.state.len();
        self.state
            .resize(begin + trailer.state_len(blocks.clone()), 0);
        let (before, state) = self.state.split_at_mut(begin);
        let unsummed = &before[self.unsummed..];
        let sums = self.sums;
        let read = || trailer.fill_blocks(blocks, state, stored);
        let sum = || sums.and(unsummed);
        let (read, sums) = if unsummed.is_empty() {
            (read(), sum())
        } else {
            pool::run(|| rayon::join(read, sum))
        };
        read?;
        self.sums = sums;
        self.unsummed = begin;
        Ok(self)
    }

    /// Returns the state, if its sums are those that were written.
    pub(crate) fn finish(self, trailer: &Trailer) -> Result<Vec<u8>> {
        let sums = self.sums.and(&self.state[self.unsummed..]);
        sums.verify(&trailer.metadata)?;
        Ok(self.state)
    }
}

/// Returns true if the extra field of a gzip member is one of a trailer or footer.
pub(crate) fn is_of_trailer(extra: &[u8]) -> bool {
    let mut extra = Cursor::new(extra);
    let id = extra.array();
    let len = extra.u16();
    [Some(TRAILER_ID), Some(FOOTER_ID)].contains(&id) && len.map(usize::from) == Some(extra.0.len())
}

/// Returns the offsets in the object where each block begins, and where the last one ends.
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
    use crate::snapshot::Compression;
    use crate::snapshot::format::encode::{Encoded, Encoder, TrailerFields};

    fn trailer_fields(labels: &[(String, String)]) -> TrailerFields<'_> {
        TrailerFields {
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
        let (member, encoded) = Encoder::encode(state, Compression::Default);
        assemble(member, &encoded)
    }

    fn assemble(mut member: Vec<Bytes>, encoded: &Encoded) -> Vec<u8> {
        let labels = [("turn".to_owned(), "17".to_owned())];
        member.push(encoded.build_trailer(&trailer_fields(&labels)).0);
        member.concat()
    }

    fn read(file: &[u8]) -> Result<(Trailer, Vec<u8>)> {
        let footer = Footer::find(file).ok_or_else(|| Error::corrupt("no footer"))?;
        let footer = footer.check(file.len() as u64)?;
        let (member, trailer) = file.split_at(footer.member as usize);
        let trailer = Trailer::parse(trailer, footer)?;
        let decoder = Decoder::new(&trailer)?.add(&trailer, 0..trailer.blocks(), member)?;
        let state = decoder.finish(&trailer)?;
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
    fn hashes_and_nonces_that_are_not_hex_are_corrupt() {
        let zeros = "0".repeat(64);
        let fits = |sha256: &str, parent_sha256: &str, nonce: &str| {
            let (mut member, mut encoded) = Encoder::encode(b"state", Compression::Default);
            encoded.sha256 = sha256.into();
            let forged = TrailerFields {
                parent_sha256: Some(parent_sha256.into()),
                nonce,
                ..trailer_fields(&[])
            };
            member.push(encoded.build_trailer(&forged).0);
            let file = member.concat();
            let footer = Footer::find(&file).expect("a footer");
            let footer = footer.check(file.len() as u64).expect("fits");
            Trailer::parse(&file[footer.member as usize..], footer).is_ok()
        };
        let nonce = "00112233445566778899aabbccddeeff";
        assert!(fits(&zeros, &zeros, nonce));
        let escapes = format!("\u{1b}]0;title\u{7}{}", &zeros[12..]);
        for bad in ["", "0", &zeros[1..], &escapes, &zeros.replace('0', "A")] {
            assert!(!fits(bad, &zeros, nonce), "{bad:?}");
            assert!(!fits(&zeros, bad, nonce), "{bad:?}");
            assert!(!fits(&zeros, &zeros, bad), "{bad:?}");
        }
        assert!(!fits(&zeros, &zeros, "0011223344556677\n8899aabbccddeef"));
    }

    #[test]
    fn pieces_make_the_same_file_as_the_whole() {
        for len in [0, 1, 4 * BLOCK, 9 * BLOCK + 17] {
            let state = text(len);
            let mut encoder = Encoder::new(Compression::Default);
            let mut member = Vec::new();
            // Pieces that are no divisors of anything.
            for mut piece in state.chunks(777_777) {
                while !piece.is_empty() {
                    piece = encoder.fill(piece);
                    if encoder.is_full() {
                        member.extend(encoder.compress());
                    }
                }
            }
            let (rest, encoded) = encoder.finish();
            member.extend(rest);
            assert!(assemble(member, &encoded) == file(&state), "{len} bytes");
        }
    }

    #[test]
    fn compression_changes_nothing_but_the_stored_bytes() {
        let json: Vec<u8> = (0..60_000_u64)
            .flat_map(|n| format!("{{\"id\":{n},\"at\":{}}},", n * n % 7919).into_bytes())
            .collect();
        assert!(json.len() > BLOCK, "{}", json.len());
        // Each costs nine bits at the fastest level, and none repeats.
        let wide: Vec<u8> = noise(100_000).iter().map(|byte| byte | 0x90).collect();
        for state in [text(0), text(1), json.clone(), noise(BLOCK + 5), wide] {
            let metadata = Compression::ALL.map(|compression| {
                let (member, encoded) = Encoder::encode(&state, compression);
                let file = assemble(member, &encoded);
                let (trailer, found) = read(&file).expect("reads");
                assert!(found == state, "{compression}");
                let mut unzipped = Vec::new();
                flate2::read::MultiGzDecoder::new(&file[..])
                    .read_to_end(&mut unzipped)
                    .expect("gzip");
                assert!(unzipped == state, "{compression}");
                trailer.metadata
            });
            assert!(metadata.iter().all(|one| *one == metadata[0]));
        }
        let len = |compression| Encoder::encode(&json, compression).1.member;
        let [none, fast, default, best] = Compression::ALL.map(len);
        assert!(none > json.len() as u64, "{none}");
        assert!(fast < none && default < fast && best <= fast);
        // Threads keep a compressor, which must be one of the level that is asked for.
        assert_eq!(Compression::ALL.map(len), [none, fast, default, best]);
    }

    #[test]
    fn blocks_are_read_alone() {
        let state = text(9 * BLOCK + 17);
        let file = file(&state);
        let (trailer, _) = read(&file).expect("reads");
        for range in [0..1, 3..7, 9..10] {
            let at = trailer.stored(range.clone());
            let blocks =
                trailer.read_blocks(range.clone(), &file[at.start as usize..at.end as usize]);
            let end = state.len().min(range.end * BLOCK);
            assert!(
                blocks.expect("reads") == state[range.start * BLOCK..end],
                "{range:?}"
            );
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

    /// zlib-rs 0.6 panicked on some of these when a block had just the room of its state.
    #[test]
    fn noise_of_any_length_is_stored() {
        for len in (0..300)
            .map(|n| n * 677)
            .chain((4..20).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1]))
        {
            let state = noise(len);
            let (_, back) = read(&file(&state)).expect("reads");
            assert!(back == state, "{len} bytes");
        }
    }

    #[test]
    fn a_block_that_is_mostly_noise_still_shrinks_by_the_rest() {
        let state = [noise(BLOCK - 150_000), text(150_000)].concat();
        let file = file(&state);
        assert!(file.len() < BLOCK - 100_000, "{}", file.len());
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
        let (_, encoded) = Encoder::new(Compression::Default).finish();
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
        let (bytes, _) = encoded.build_trailer(&trailer_fields(&[]));
        let size = encoded.member + bytes.len() as u64;
        let footer = Footer::find(&bytes)
            .expect("a footer")
            .check(size)
            .expect("lengths hold");
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
            let member = Footer::find(&later).expect("a footer").member;
            let sum = checksum(&later[member as usize..]);
            later[footer + CHECKSUM_AT..][..CHECKSUM].copy_from_slice(&sum);
            let error = read(&later).expect_err("a later format");
            assert!(
                matches!(&error, Error::Unsupported { what, .. } if what.contains(word)),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_that_is_not_a_snapshot_is_refused() {
        for foreign in [&b""[..], b"hello", &[0; 4096], &STATE_HEADER] {
            assert!(matches!(read(foreign), Err(Error::Corrupt { .. })));
        }
    }
}
