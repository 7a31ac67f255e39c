//! Inputs that are nearly good.

use anyhow::Result;
use fastrand::Rng;

use crate::malformed_file::reseal;

/// Longest input that is made from nothing.
const MAX_NEW: usize = 600;

/// Numbers at which lengths and counters go wrong.
const NUMBERS: [u64; 17] = [
    0,
    1,
    4,
    20,
    86,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 1,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

/// No seeds: every input is made from nothing.
pub(super) fn nothing() -> Result<Vec<Vec<u8>>> {
    Ok(Vec::new())
}

/// A seed with some changes, or something new.
pub(super) fn input(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = match rng.choice(seeds).filter(|_| rng.u8(..16) > 0) {
        Some(seed) => seed.clone(),
        None => new(rng),
    };
    for _ in 0..rng.usize(..=4) {
        change(rng, &mut input, seeds);
    }
    // A checksum that fits lets a change through to what stands behind it.
    if rng.bool() {
        reseal(&mut input);
    }
    input
}

fn new(rng: &mut Rng) -> Vec<u8> {
    let len = rng.usize(..=MAX_NEW);
    let text = rng.bool();
    let byte = || {
        if text {
            rng.u8(b' '..=b'~')
        } else {
            rng.u8(..)
        }
    };
    std::iter::repeat_with(byte).take(len).collect()
}

fn change(rng: &mut Rng, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = place(rng, input.len());
    match rng.u8(..9) {
        0 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
        1 if at < input.len() => input[at] = rng.u8(..),
        2 => input.insert(at, *rng.choice(b"\0\xff~/@.-+Aa0\n\x80").unwrap_or(&0)),
        3 => write_number(rng, input, at),
        4 => input.truncate(at),
        5 => {
            let end = at + some(rng, input.len() - at);
            input.drain(at..end);
        }
        6 => {
            let piece = piece(rng, input);
            input.splice(at..at, piece);
        }
        7 => {
            let piece = piece(rng, input);
            let end = (at + piece.len()).min(input.len());
            input.splice(at..end, piece);
        }
        _ => {
            let other = rng.choice(seeds).cloned().unwrap_or_else(|| new(rng));
            let from = place(rng, other.len());
            input.splice(at.., other[from..].iter().copied());
        }
    }
}

/// An offset below a length: often near an end, where the fields are.
fn place(rng: &mut Rng, len: usize) -> usize {
    let near = rng.usize(..=len.min(100));
    match rng.u8(..4) {
        0 => near,
        1 => len - near,
        _ => rng.usize(..=len),
    }
}

/// A count up to a limit: mostly small.
fn some(rng: &mut Rng, len: usize) -> usize {
    if rng.bool() {
        rng.usize(..=len.min(32))
    } else {
        rng.usize(..=len)
    }
}

fn piece(rng: &mut Rng, input: &[u8]) -> Vec<u8> {
    let from = place(rng, input.len());
    let len = some(rng, input.len() - from);
    input[from..from + len].to_vec()
}

/// Puts a number that is at the edge of something where a number may be.
fn write_number(rng: &mut Rng, input: &mut [u8], at: usize) {
    let number = NUMBERS[rng.usize(..NUMBERS.len())];
    let number = if rng.bool() {
        number
    } else {
        number.wrapping_sub(rng.u64(..3))
    };
    let width = 1 << rng.usize(..4);
    let end = (at + width).min(input.len());
    input[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
}
