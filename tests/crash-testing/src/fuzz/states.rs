//! Any state in, the same state out.

use arbitrary::Unstructured;
use bytes::Bytes;
use persist_host::conformance::noise;
use persist_host::snapshot::{Result, SaveOptions};

use super::readers::place;
use crate::fixture_store::{FixtureStore, Place, zcat};
use crate::malformed_file::BLOCK;

thread_local! {
    static SHELF: FixtureStore = FixtureStore::new().expect("a runtime");
}

/// Longest states, of which the small ones are tried far more often: within a stored piece of
/// deflate, and over one and three blocks.
const LONGEST: [usize; 3] = [70_000, BLOCK + 70_000, 3 * BLOCK + 70_000];

/// A state of noise, runs and text: saved at once and in pieces, and loaded in every way.
pub fn state(data: &[u8]) {
    let mut from = Unstructured::new(data);
    let (Ok(state), Ok(piece)) = (mixed(&mut from), from.int_in_range(1..=BLOCK + 77)) else {
        return;
    };
    let state = Bytes::from(state);
    SHELF.with(|shelf| {
        let first = place();
        let second = Place {
            version: 2,
            ..place()
        };
        let saved = shelf.wait(save_twice(shelf, &state, piece));
        saved.expect("memory takes every state");
        for place in [&first, &second] {
            let loaded = shelf.load(place).expect("loads").expect("was saved");
            assert!(loaded.state == state, "another state");
            let ranged = shelf.read(place, piece).expect("reads").expect("was saved");
            assert!(ranged == state, "ranges differ");
            let file = shelf.file(&place.key().expect("a key")).expect("there");
            assert!(zcat(&file).expect("gzip") == state, "zcat prints more");
            // A header, an index and a trailer; five bytes for each 64 KiB that are stored.
            assert!(file.len() < state.len() + state.len() / 10_000 + 1000);
        }
        for place in [first, second] {
            let removed = shelf.remove(&place.key().expect("a key"));
            removed.expect("memory forgets");
        }
    });
}

async fn save_twice(shelf: &FixtureStore, state: &Bytes, piece: usize) -> Result<()> {
    let scope = shelf.store.scope("bot", None)?;
    // The last round's versions were removed behind the store's back: a look makes it forget them.
    let left = scope.stat("memory", None).await?;
    assert!(left.is_none(), "something was left");
    let at_once = scope.save("memory", state.clone(), SaveOptions::default());
    assert_eq!(at_once.await?.version, 1, "something was left");
    let mut writer = scope.writer("memory", SaveOptions::default()).await?;
    for piece in state.chunks(piece) {
        writer.write(piece).await?;
    }
    writer.finish().await?;
    Ok(())
}

/// Stretches of different kinds, some of which end just where something else ends, too.
fn mixed(from: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let mut state = Vec::new();
    let longest = match from.arbitrary::<u8>()? {
        0..4 => LONGEST[2],
        4..16 => LONGEST[1],
        _ => LONGEST[0],
    };
    while !from.is_empty() && state.len() < longest {
        let len = len(from, state.len())?.min(longest - state.len());
        match from.int_in_range(0..=4)? {
            0 => state.extend_from_slice(&noise(from.arbitrary::<u16>()?.into(), len)),
            1 => state.resize(state.len() + len, from.arbitrary()?),
            2 => state.extend(b"the agent remembers this. ".iter().cycle().take(len)),
            // Noise of few kinds of bytes: shrinks, and not by much.
            3 => {
                let mask = from.arbitrary::<u8>()?;
                let seed = from.arbitrary::<u16>()?.into();
                state.extend(noise(seed, len).iter().map(|byte| byte & mask));
            }
            _ => {
                let len = from.int_in_range(0..=64)?.min(from.len());
                state.extend_from_slice(from.bytes(len)?);
            }
        }
    }
    Ok(state)
}

/// How long a stretch is: mostly short, at times up to the end of a block, or a byte less or more.
fn len(from: &mut Unstructured<'_>, at: usize) -> arbitrary::Result<usize> {
    let to_block = BLOCK - at % BLOCK;
    Ok(match from.int_in_range(0..=31)? {
        0 => to_block - 1,
        1 => to_block,
        2 => to_block + 1,
        3 => from.int_in_range(0..=2 * BLOCK)?,
        4..8 => 1 << from.int_in_range(0..=17)?,
        8..12 => (1 << from.int_in_range(0..=17)?) - 1,
        12..16 => (1 << from.int_in_range(0..=17)?) + 1,
        16..20 => from.int_in_range(0..=70_000)?,
        _ => from.int_in_range(0..=300)?,
    })
}
