//! flate2 as it comes: gzip of its default level, by its default backend.
//!
//! One build has one flate2 with one backend, and Persist's is zlib-rs. So flate2's own default,
//! miniz_oxide, is called here directly, as flate2's `GzEncoder` and `GzDecoder` call it: a raw
//! deflate stream through a buffer of 32 KiB, and the CRC-32 by crc32fast.

use anyhow::{Result, bail, ensure};
use miniz_oxide::deflate::core::CompressorOxide;
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

/// `flate2::Compression::default()`.
const LEVEL: u8 = 6;
const BUFFER: usize = 32 << 10;
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// CRC-32 and length.
const END: usize = 8;

pub(crate) fn compress(state: &[u8]) -> Result<Vec<u8>> {
    let mut compressor = Box::<CompressorOxide>::default();
    compressor.set_format_and_level(DataFormat::Raw, LEVEL);
    let mut buffer = vec![0; BUFFER];
    let mut file = HEADER.to_vec();
    let mut rest = state;
    loop {
        let step = deflate(&mut compressor, rest, &mut buffer, MZFlush::Finish);
        rest = &rest[step.bytes_consumed..];
        file.extend_from_slice(&buffer[..step.bytes_written]);
        match step.status {
            Ok(MZStatus::StreamEnd) => break,
            Ok(_) => {}
            Err(error) => bail!("miniz_oxide does not compress: {error:?}"),
        }
    }
    file.extend_from_slice(&crc32fast::hash(state).to_le_bytes());
    file.extend_from_slice(&(state.len() as u32).to_le_bytes());
    Ok(file)
}

pub(crate) fn decompress(file: &[u8]) -> Result<Vec<u8>> {
    ensure!(file.len() > HEADER.len() + END, "too short for gzip");
    let (mut rest, end) = file[HEADER.len()..].split_at(file.len() - HEADER.len() - END);
    let mut decompressor = InflateState::new_boxed(DataFormat::Raw);
    let mut buffer = vec![0; BUFFER];
    let mut crc32 = crc32fast::Hasher::new();
    let mut state = Vec::new();
    loop {
        let step = inflate(&mut decompressor, rest, &mut buffer, MZFlush::None);
        rest = &rest[step.bytes_consumed..];
        let written = &buffer[..step.bytes_written];
        crc32.update(written);
        state.extend_from_slice(written);
        match step.status {
            Ok(MZStatus::StreamEnd) => break,
            Ok(_) => {}
            Err(error) => bail!("miniz_oxide does not decompress: {error:?}"),
        }
    }
    ensure!(crc32.finalize().to_le_bytes() == end[..4], "wrong CRC-32");
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Input;
    use std::io::Read as _;

    #[test]
    fn any_gzip_reads_what_is_written_here() -> Result<()> {
        for input in Input::ALL {
            let state = input.state(300_000);
            let file = compress(&state)?;
            assert!(decompress(&file)? == state, "{input:?}");
            let mut read = Vec::new();
            flate2::read::GzDecoder::new(&file[..]).read_to_end(&mut read)?;
            assert!(read == state, "{input:?}");
        }
        Ok(())
    }
}
