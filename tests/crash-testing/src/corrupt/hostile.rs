//! Files that claim too much, read by a process that may not have more memory than the file
//! justifies.
//!
//! Their checksums are right: what they claim was written on purpose. A claim that is believed
//! before it is compared with the bytes that are there ends the process, or takes more than there
//! is.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use persist_host::conformance::noise;
use serde_json::json;

use crate::Report;
use crate::golden;
use crate::malformed_file::{BLOCK, Forge};

/// Memory in bytes that reading may take besides what the file justifies.
const SLACK: u64 = 8 << 20;

/// Golden files that claims are made of.
const TEXT: &str = "text.gz";
const BLOCKS: &str = "blocks.gz";

/// The row of the report.
const ROW: &str = "claims read within 4 times the file and 8 MiB";

/// A file, and what it claims.
struct Claim {
    what: String,
    /// The golden file that it was made of.
    origin: &'static str,
    file: Vec<u8>,
    /// Bytes of memory that are justified.
    memory: u64,
}

impl Claim {
    fn new(what: impl Into<String>, forge: &Forge) -> Self {
        let file = forge.write();
        Self {
            what: what.into(),
            origin: TEXT,
            memory: 4 * file.len() as u64 + SLACK,
            file,
        }
    }
}

/// Reads every claim in a process of its own.
pub(super) fn run() -> Result<Report> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("claim.gz");
    let mut report = Report::default();
    for claim in claims()? {
        fs::write(&path, &claim.file)?;
        let mut reader = Command::new(reader()?);
        // One arena: more of them reserve unused address space.
        reader.env("MALLOC_ARENA_MAX", "1");
        reader.arg(&path).arg(claim.memory.to_string());
        let read = reader.arg(claim.origin).output()?;
        report.tried(ROW, 1);
        let out = read.stdout.trim_ascii();
        let err = read.stderr.trim_ascii();
        if !read.status.success() || out != b"refused" {
            let said = [out, err].map(String::from_utf8_lossy).join("; ");
            let violation = format!("{}: {}, {said}", claim.what, read.status);
            report.violations.push(violation);
        }
    }
    Ok(report)
}

/// The program that reads one file: it lies beside the laboratory's own, or above its tests.
fn reader() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let name = "crash-testing-read";
    let found = this.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    let found = found.into_iter().find(|program| program.exists());
    found.context("crash-testing-read is not built: run `cargo build -p persist-crash-testing`")
}

fn claims() -> Result<Vec<Claim>> {
    let files = golden::versions()?;
    let honest = |file: &str| {
        let golden = files.iter().find(|golden| golden.file == file);
        Forge::read(&golden.context("no such golden file")?.bytes)
    };
    let text = honest(TEXT)?;
    let blocks = honest(BLOCKS)?;
    let mut claims = numbers(&text)?;
    claims.extend(lengths(&text));
    claims.extend(indexes(&text)?);
    claims.extend(metadata(&text)?);
    claims.extend(plausible(&blocks)?);
    Ok(claims)
}

/// Numbers of the metadata, one at a time.
fn numbers(honest: &Forge) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    let sizes = [0, 1, 1 << 20, (1 << 20) + 1, 1 << 32, 1 << 40, 1 << 63];
    for size in sizes.into_iter().chain([u64::MAX - 1, u64::MAX]) {
        for field in ["size", "block", "crc32"] {
            let mut forge = honest.clone();
            forge.say(field, json!(size))?;
            if forge.metadata != honest.metadata && !(field == "block" && size == 1 << 20) {
                claims.push(Claim::new(format!("{field} is {size}"), &forge));
            }
        }
    }
    for wrong in [json!(-1), json!(1e300), json!("1"), json!(null), json!([])] {
        let mut forge = honest.clone();
        forge.say("size", wrong.clone())?;
        claims.push(Claim::new(format!("size is {wrong}"), &forge));
    }
    Ok(claims)
}

/// Lengths outside the metadata, one at a time.
fn lengths(honest: &Forge) -> Vec<Claim> {
    let mut claims = Vec::new();
    for len in [0, 1, 1 << 17, (1 << 17) + 1, 1 << 31, u32::MAX] {
        let forge = Forge {
            metadata_len: len,
            ..honest.clone()
        };
        claims.push(Claim::new(format!("metadata of {len} bytes"), &forge));
        let mut forge = honest.clone();
        forge.index[..4].copy_from_slice(&len.to_le_bytes());
        claims.push(Claim::new(format!("a block of {len} bytes"), &forge));
    }
    for len in [0, 1, 1 << 26, 1 << 40, u64::MAX] {
        let lie = Some(len);
        let honest = || honest.clone();
        let object = Forge {
            object: lie,
            ..honest()
        };
        let member = Forge {
            member: lie,
            ..honest()
        };
        claims.push(Claim::new(format!("a file of {len} bytes"), &object));
        claims.push(Claim::new(
            format!("a state member of {len} bytes"),
            &member,
        ));
    }
    claims
}

/// Long indexes, whose states would be far larger than the file.
fn indexes(honest: &Forge) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for blocks in [10, 1000, 100_000, 1_000_000] {
        for size in [blocks as u64 * BLOCK as u64, 1] {
            let mut forge = honest.clone();
            forge.blocks = vec![vec![0]; blocks];
            forge.list_blocks();
            forge.say("size", json!(size))?;
            let what = format!("{blocks} blocks of a byte, {size} bytes of state");
            claims.push(Claim::new(what, &forge));
        }
    }
    Ok(claims)
}

/// Metadata that costs more to read than to write.
fn metadata(honest: &Forge) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    let deep = |open: &str, len: usize| open.repeat(len / open.len()).into_bytes();
    let pairs = |pair: &str| format!("[{}{pair}]", format!("{pair},").repeat(16_000)).into_bytes();
    let full = 128 << 10;
    for (what, json) in [
        ("arrays in arrays", deep("[", full)),
        ("objects in objects", deep("{\"a\":", full)),
        ("a string without an end", deep("\"", 1)),
        ("no UTF-8", vec![0xff; full]),
        ("zeros", vec![0; full]),
        ("many labels", pairs("[\"\",\"\"]")),
    ] {
        let mut forge = honest.clone();
        forge.metadata_len = u32::try_from(json.len())?;
        forge.metadata = json;
        claims.push(Claim::new(what, &forge));
    }
    Ok(claims)
}

/// Claims that could be true, as far as anyone can tell before decompressing: these may be
/// allocated.
fn plausible(honest: &Forge) -> Result<Vec<Claim>> {
    let mut forge = honest.clone();
    let state = 64 * BLOCK as u64;
    // Noise that calls itself a state of zeros.
    forge.blocks = (0..64).map(|n| noise(n, 2000).to_vec()).collect();
    forge.list_blocks();
    forge.say("size", json!(state))?;
    forge.end[6..].copy_from_slice(&u32::try_from(state)?.to_le_bytes());
    let mut claim = Claim::new("64 blocks of 2000 bytes that do not decompress", &forge);
    ensure!(claim.file.len() * 1000 > state as usize, "not plausible");
    claim.origin = BLOCKS;
    claim.memory += state;
    Ok(vec![claim])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_sizes_are_not_allocated() {
        let report = run().expect("runs");
        assert_eq!(report.violations, Vec::<String>::new());
    }

    #[test]
    fn a_reader_that_takes_too_much_memory_is_found() {
        let honest = golden::versions().expect("golden files");
        let blocks = honest.iter().find(|golden| golden.file == BLOCKS);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("honest.gz");
        fs::write(&path, &blocks.expect("there").bytes).expect("written");
        let read = |memory: u64| {
            let mut reader = Command::new(reader().expect("built"));
            reader.env("MALLOC_ARENA_MAX", "1").arg(&path);
            let read = reader.arg(memory.to_string()).arg(BLOCKS).output();
            let read = read.expect("starts");
            String::from_utf8_lossy(&read.stdout).trim().to_owned()
        };
        // Three MiB of state.
        assert_eq!(read(64 << 20), "read");
        assert_ne!(read(2 << 20), "read");
    }
}
