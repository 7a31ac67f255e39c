//! Files, honest, damaged and forged, through every way of reading.

use anyhow::Result;
use arbitrary::Unstructured;
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use persist_host::snapshot::{Error, MAX_VERSION, Snapshot};
use persist_host::storage::Key;
use serde_json::{Value, json};

use crate::fixture_store::{FixtureStore, Place, sha256, zcat};
use crate::golden;
use crate::malformed_file::{BLOCK, Forge};

thread_local! {
    static SHELF: FixtureStore = FixtureStore::new().expect("a runtime");
}

/// Bytes of a range: no divisor of a block.
const RANGE: usize = 300_007;

/// The version that is read where a file names none.
pub(super) fn place() -> Place {
    Place {
        agent: "bot".into(),
        session: None,
        name: "memory".into(),
        version: 1,
    }
}

/// Returns the address that the metadata of a file names, at which it is not misplaced.
fn named(metadata: &[u8]) -> Option<Place> {
    let metadata: Value = serde_json::from_slice(metadata).ok()?;
    let text = |field: &str| metadata[field].as_str().map(str::to_owned);
    let place = Place {
        agent: text("agent")?,
        session: text("session"),
        name: text("name")?,
        version: metadata["version"].as_u64()?,
    };
    let is_address = (1..=MAX_VERSION).contains(&place.version) && place.key().is_ok();
    // Files are forked to this name.
    (is_address && place.name != "fork").then_some(place)
}

/// Returns the address at which a file is read.
fn place_of(data: &[u8]) -> Place {
    let forge = Forge::read(data).ok();
    let named = forge.and_then(|forge| named(&forge.metadata));
    named.unwrap_or_else(place)
}

/// Any bytes as the file of a version, read where they say that they were saved: whatever loads is
/// what the file says and what `zcat` prints, however it is read.
pub fn file(data: &[u8]) {
    SHELF.with(|shelf| {
        if let Ok(Some(state)) = read(shelf, &place_of(data), data) {
            let printed = zcat(data).expect("gzip reads what loads");
            assert!(printed == state, "zcat prints something else");
        }
    });
}

/// A file that was written on purpose, and lies in some places: its checksums fit. Without a lie it
/// loads.
pub fn forged(data: &[u8]) {
    let mut from = Unstructured::new(data);
    // Too little is a shorter file.
    let Ok((forge, states)) = honest(&mut from) else {
        return;
    };
    let lying = with_lies(&forge, &mut from);
    SHELF.with(|shelf| {
        let state = read(shelf, &place_of_forged(&lying), &lying.write());
        if lying == forge {
            let state = state.expect("an honest file");
            assert!(state == Some(states.concat().into()), "it loads as it is");
        }
    });
}

fn with_lies(honest: &Forge, from: &mut Unstructured<'_>) -> Forge {
    let mut lying = honest.clone();
    while !from.is_empty() && lie(&mut lying, from).is_ok() {}
    lying
}

/// Returns the address that a forged file names, whatever else is wrong with it.
fn place_of_forged(forge: &Forge) -> Place {
    named(&forge.metadata).unwrap_or_else(place)
}

/// Any bytes as a file at a key of the caller's own, with a trailer or as others write gzip: what
/// loads is what `zcat` prints.
pub fn plain(data: &[u8]) {
    SHELF.with(|shelf| {
        let key = "bot/plain.gz";
        put(shelf, &Key::new(key).expect("a key"), data);
        match shelf.wait(shelf.adapter.load(key)) {
            Ok(state) => {
                let printed = zcat(data).expect("gzip reads what loads");
                assert!(printed == state, "zcat prints something else");
            }
            // A tombstone, which no adapter writes.
            Err(Error::NotFound(_)) => {}
            Err(error) => expected(&error),
        }
    });
}

/// Reads a file in every way. Returns the state where it loads, and none for a tombstone.
fn read(shelf: &FixtureStore, place: &Place, data: &[u8]) -> Result<Option<Bytes>, Error> {
    let key = place.key().expect("a key");
    put(shelf, &key, data);
    let loaded = shelf.load(place);
    let ranged = shelf.read(place, RANGE);
    let forked = shelf.fork(place);
    let verified = shelf.verify(place);
    // The next file may name another address.
    shelf.remove(&key).expect("memory removes it");
    match loaded {
        Ok(Some(Snapshot { info, state, .. })) => {
            assert_eq!(sha256(&state), info.sha256, "another SHA-256");
            assert_eq!(state.len() as u64, info.size, "another size");
            assert_eq!(data.len() as u64, info.stored_size, "another size at rest");
            let ranged = ranged.expect("what loads can be read in ranges");
            assert!(ranged.as_deref() == Some(&*state), "ranges differ");
            let forked = forked.expect("what loads can be forked");
            assert!(forked.as_ref() == Some(&state), "the fork differs");
            let verified = verified.expect("what loads is verified");
            assert!(verified.is_some_and(|v| v.info == info), "info differs");
            Ok(Some(state))
        }
        Ok(None) => {
            assert!(matches!(ranged, Ok(None)), "a tombstone has ranges");
            assert!(matches!(forked, Ok(None)), "a tombstone was forked");
            Ok(None)
        }
        Err(error) => {
            expected(&error);
            match forked {
                // A tombstone has no state to fork, whatever else is wrong with it.
                Ok(state) => assert_eq!(state, None, "what does not load was forked"),
                Err(error) => expected(&error),
            }
            let verified = verified.expect_err("what does not load was verified");
            expected(&verified);
            Err(error)
        }
    }
}

/// That what `read` makes of the file is what it was before anyone changed it, or an error.
#[cfg(test)]
pub(super) fn holds(place: &Place, data: &[u8], read: impl Fn(&Place) -> Result<Option<Bytes>>) {
    let honest = files().expect("golden files");
    if let Ok(Some(_)) = read(place) {
        assert!(honest.iter().any(|file| file == data), "it was changed");
    }
}

/// Asserts that an error may be reported for a file. Any other error means that something was
/// believed too early.
fn expected(error: &Error) {
    assert!(
        matches!(
            error,
            Error::Corrupt { .. }
                | Error::Misplaced { .. }
                | Error::Unsupported { .. }
                | Error::TooLarge { .. }
        ),
        "{error:?}"
    );
}

fn put(shelf: &FixtureStore, key: &Key, data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    shelf.put(key, bytes).expect("memory takes it");
}

/// Golden files of versions.
pub(super) fn files() -> Result<Vec<Vec<u8>>> {
    let files = golden::versions()?;
    Ok(files.iter().map(|golden| golden.bytes.to_vec()).collect())
}

/// Golden files that gzip reads, of any program.
pub(super) fn gzips() -> Result<Vec<Vec<u8>>> {
    let files = golden::all()?.into_iter();
    let small = files.filter(|golden| golden.bytes.len() < 20_000);
    Ok(small.map(|golden| golden.bytes.to_vec()).collect())
}

/// An honest file of a few blocks, and their states.
fn honest(from: &mut Unstructured<'_>) -> arbitrary::Result<(Forge, Vec<Vec<u8>>)> {
    let mut states = Vec::new();
    // Most are small: only the last block of a state may be short.
    if from.ratio(1u8, 16u8)? {
        for _ in 0..from.int_in_range(1..=2)? {
            states.push(vec![from.arbitrary()?; BLOCK]);
        }
    }
    let len = from.int_in_range(0..=200)?;
    let last = from.bytes(len.min(from.len()))?.to_vec();
    states.extend((!last.is_empty()).then_some(last));
    let mut blocks = Vec::new();
    for state in &states {
        blocks.push(if from.ratio(1u8, 4u8)? {
            stored(state)
        } else {
            deflated(state)
        });
    }
    Ok((sealed(blocks, &states.concat()), states))
}

fn sealed(blocks: Vec<Vec<u8>>, state: &[u8]) -> Forge {
    let mut crc = flate2::Crc::new();
    crc.update(state);
    let metadata = json!({
        "agent": "bot", "name": "memory", "version": 1, "size": state.len(),
        "sha256": sha256(state),
        "crc32": crc.sum(), "block": BLOCK, "created_at": 1_780_000_000_000_u64,
        "nonce": "00112233445566778899aabbccddeeff",
    });
    let metadata = metadata.to_string().into_bytes();
    let len = (state.len() as u32).to_le_bytes();
    let mut forge = Forge {
        header: vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff],
        blocks,
        end: [&[3, 0][..], &crc.sum().to_le_bytes(), &len].concat(),
        metadata_len: u32::try_from(metadata.len()).unwrap_or(u32::MAX),
        metadata,
        index: Vec::new(),
        chunk: 65_531,
        kind: 1,
        format: 1,
        object: None,
        member: None,
    };
    forge.list_blocks();
    forge
}

fn stored(state: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for chunk in state.chunks(0xffff) {
        let len = chunk.len() as u16;
        block.push(0);
        block.extend_from_slice(&len.to_le_bytes());
        block.extend_from_slice(&(!len).to_le_bytes());
        block.extend_from_slice(chunk);
    }
    block
}

fn deflated(state: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(2 * state.len() + 1024);
    Compress::new(Compression::fast(), false)
        .compress_vec(state, &mut block, FlushCompress::Full)
        .expect("deflate takes everything");
    block
}

/// Changes something, and makes it look as if it had been meant.
fn lie(forge: &mut Forge, from: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let number = *from.choose(&[
        0,
        1,
        19,
        20,
        0xffff,
        BLOCK as u64,
        BLOCK as u64 + 1,
        2 * BLOCK as u64,
        u64::from(u32::MAX),
        16 << 30,
        1 << 40,
        i64::MAX as u64,
        u64::MAX,
    ])?;
    match from.int_in_range(0..=12)? {
        0 | 1 => {
            let field = *from.choose(&["size", "block", "crc32", "version", "created_at"])?;
            // Metadata that is no JSON any more cannot say it.
            let _ = forge.say(field, json!(number));
        }
        2 => {
            let wrong = [json!(null), json!(-1), json!(0.5), json!("x"), json!([[]])];
            let field = *from.choose(&["size", "sha256", "labels", "session", "parent"])?;
            let _ = forge.say(field, from.choose(&wrong)?.clone());
        }
        3 | 4 => {
            scribble(any_block(forge, from)?, from)?;
            forge.list_blocks();
        }
        5 => scribble(any_block(forge, from)?, from)?,
        6 => scribble(&mut forge.index, from)?,
        7 => scribble(&mut forge.metadata, from)?,
        8 => {
            if from.arbitrary()? {
                forge.metadata_len = number as u32
            } else {
                let _ = forge.say("crc32", json!(number as u32));
                let end = forge.end.get_mut(2..6);
                if let Some(crc32) = end {
                    crc32.copy_from_slice(&(number as u32).to_le_bytes());
                }
            }
        }
        9 => forge.chunk = from.int_in_range(1..=200)?,
        10 => {
            if from.arbitrary()? {
                forge.kind = from.arbitrary()?
            } else {
                forge.format = from.arbitrary()?
            }
        }
        11 => {
            if from.arbitrary()? {
                forge.object = Some(number)
            } else {
                forge.member = Some(number)
            }
        }
        _ => match from.int_in_range(0..=3)? {
            0 => scribble(&mut forge.header, from)?,
            1 => scribble(&mut forge.end, from)?,
            2 => {
                let twice = any_block(forge, from)?.clone();
                forge.blocks.push(twice);
            }
            _ => drop(forge.blocks.pop()),
        },
    }
    Ok(())
}

fn any_block<'a>(
    forge: &'a mut Forge,
    from: &mut Unstructured<'_>,
) -> arbitrary::Result<&'a mut Vec<u8>> {
    let n = from.choose_index(forge.blocks.len().max(1))?;
    forge
        .blocks
        .get_mut(n)
        .ok_or(arbitrary::Error::NotEnoughData)
}

/// Writes a few bytes over others, or between them, or takes some away.
fn scribble(bytes: &mut Vec<u8>, from: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let at = from.int_in_range(0..=bytes.len())?;
    let len = from.int_in_range(0..=8)?.min(from.len());
    let new = from.bytes(len)?.to_vec();
    let end = match from.int_in_range(0..=2)? {
        0 => at,
        1 => (at + len).min(bytes.len()),
        _ => (at + 2 * len).min(bytes.len()),
    };
    bytes.splice(at..end, new);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verify` once compared the SHA-256 alone; found by `forged`.
    #[test]
    fn a_crc32_that_gzip_refuses_is_found_by_whoever_reads_the_whole_file() {
        let state = b"what was saved";
        let mut forge = sealed(vec![stored(state)], state);
        forge.end[2..6].copy_from_slice(&[7, 0, 0, 0]);
        forge.say("crc32", json!(7)).expect("said");
        let file = forge.write();
        zcat(&file).expect_err("another CRC-32");
        SHELF.with(|shelf| read(shelf, &place(), &file).expect_err("corrupt"));
    }

    #[test]
    fn a_block_that_says_that_it_is_the_last_is_refused_as_gzip_would() {
        let state = b"what was saved";
        let mut block = stored(state);
        block[0] |= 1;
        let file = sealed(vec![block], state).write();
        zcat(&file).expect_err("it ends before its checksum");
        SHELF.with(|shelf| read(shelf, &place(), &file).expect_err("corrupt"));
    }

    #[test]
    fn an_adapter_loads_the_bytes_that_gzip_prints() {
        let state = b"what was saved";
        let honest = sealed(vec![stored(state)], state);
        let mut another_sum = honest.clone();
        another_sum
            .say("sha256", json!(sha256(b"another")))
            .expect("said");
        let mut another_end = honest.clone();
        another_end.end[2..6].copy_from_slice(&[7, 0, 0, 0]);
        let load = |file: &[u8]| {
            SHELF.with(|shelf| {
                let key = "bot/adapted.gz";
                put(shelf, &Key::new(key).expect("a key"), file);
                shelf.wait(shelf.adapter.load(key))
            })
        };
        assert_eq!(load(&honest.write()).expect("loads"), &state[..]);
        for forged in [another_sum, another_end] {
            let loaded = load(&forged.write());
            assert!(matches!(loaded, Err(Error::Corrupt { .. })), "{loaded:?}");
        }
    }

    #[test]
    fn a_forged_file_without_a_lie_loads() {
        let state = b"what was saved";
        for block in [stored(state), deflated(state)] {
            let honest = sealed(vec![block], state).write();
            file(&honest);
            let read = SHELF.with(|shelf| read(shelf, &place(), &honest));
            let read = read.expect("loads").expect("a state");
            assert_eq!(read, &state[..]);
        }
    }

    #[test]
    fn seeds_are_read_where_they_were_saved() {
        for golden in golden::versions().expect("golden files") {
            let place = place_of(&golden.bytes);
            assert_eq!(Some(&place), golden.place.as_ref(), "{}", golden.file);
            let read = SHELF.with(|shelf| read(shelf, &place, &golden.bytes));
            assert_eq!(read.expect("loads"), golden.state, "{}", golden.file);
        }
    }

    /// Counts how reading ended.
    #[derive(Debug, Default)]
    struct Ends {
        loaded: u32,
        misplaced: u32,
        refused: u32,
    }

    impl Ends {
        fn count(&mut self, place: &Place, file: &[u8]) {
            match SHELF.with(|shelf| read(shelf, place, file)) {
                Ok(_) => self.loaded += 1,
                Err(Error::Misplaced { .. }) => self.misplaced += 1,
                Err(_) => self.refused += 1,
            }
        }
    }

    #[test]
    fn hardly_any_input_is_refused_as_misplaced() {
        let seeds = files().expect("golden files");
        let mut rng = fastrand::Rng::with_seed(1);
        let mut mutated = Ends::default();
        let mut forged = Ends::default();
        for _ in 0..500 {
            let input = super::super::mutate::input(&mut rng, &seeds);
            mutated.count(&place_of(&input), &input);
            let input: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(300).collect();
            let mut from = Unstructured::new(&input);
            let (honest, _) = honest(&mut from).expect("there are enough bytes");
            let lying = with_lies(&honest, &mut from);
            forged.count(&place_of_forged(&lying), &lying.write());
        }
        for ends in [&mutated, &forged] {
            assert!(ends.misplaced <= 25, "{mutated:?} {forged:?}");
            assert!(ends.refused >= 100, "{mutated:?} {forged:?}");
        }
        assert!(mutated.loaded >= 25, "{mutated:?}");
    }
}
