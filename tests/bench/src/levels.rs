//! Costs and gains of each level of flate2 with zlib-rs: blocks of 1 MiB on one processor, as the
//! file format has them.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use flate2::{Compress, Compression, FlushCompress};

use crate::inputs::Input;
use crate::measure::{median, time};
use crate::table::Table;
use crate::{MIB, Options};

const SIZE: usize = 8 * MIB;
const LEVELS: std::ops::RangeInclusive<u32> = 1..=9;

/// Returns Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    let head = LEVELS.map(|level| format!("level {level}"));
    let mut table = Table::new(std::iter::once("state".into()).chain(head));
    let rounds = if options.quick { 1 } else { 3 };
    for input in Input::ALL {
        let state = input.state(SIZE);
        let mut cells = vec![input.name().to_owned()];
        for level in LEVELS {
            let mut times = Vec::new();
            let mut stored = 0;
            for _ in 0..rounds {
                let (took, bytes) = time(|| compress(&state, level))?;
                times.push(took);
                stored = bytes;
            }
            let speed = SIZE as f64 / median(&mut times).as_secs_f64() / 1e6;
            cells.push(format!("{speed:.0} / {:.3}", stored as f64 / SIZE as f64));
        }
        table.row(cells);
    }
    let mut text = String::new();
    writeln!(text, "### Levels\n")?;
    writeln!(
        text,
        "MB/s on one processor, and bytes stored for each byte of state: flate2 with zlib-rs, 8 \
         MiB in blocks of 1 MiB.\n\n{table}"
    )?;
    Ok(text)
}

/// Returns the bytes of all blocks.
pub(crate) fn compress(state: &[u8], level: u32) -> Result<usize> {
    let mut compressor = Compress::new(Compression::new(level), false);
    let mut stored = 0;
    // Twice the room: level 1 of zlib-rs 0.6.8 panics where noise does not fit.
    let mut block = Vec::with_capacity(2 * state.len().min(MIB) + 4096);
    for input in state.chunks(MIB) {
        compressor.reset();
        block.clear();
        compressor.compress_vec(input, &mut block, FlushCompress::Full)?;
        ensure!(
            compressor.total_in() == input.len() as u64,
            "a block that did not fit"
        );
        // What does not shrink is stored as it is.
        stored += block.len().min(input.len());
    }
    Ok(stored)
}
