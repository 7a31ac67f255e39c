//! Format 1, written a second time from its specification (the module page of `snapshot/format`),
//! by a hand that may lie.
//!
//! A bit that flipped by chance fails a checksum. A file that was written on purpose does not: a
//! forged file carries the right checksum over any claim, so that what stands behind the checksum
//! is tried as well.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// State in a block.
pub const BLOCK: usize = 1 << 20;

const STATE_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
const EXTRA_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
const EMPTY_END: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const MAGIC: [u8; 8] = *b"PERSISTs";

/// Bytes of a trailer member before its payload, and around it.
const EXTRA_START: usize = 16;
const EXTRA_FRAME: usize = EXTRA_START + EMPTY_END.len();

/// The last member, and where its fields begin in it.
const FOOTER: usize = EXTRA_FRAME + 60;
const OBJECT: usize = EXTRA_START;
const MEMBER: usize = EXTRA_START + 8;
const CHECKSUM: usize = EXTRA_START + 16;
const KIND: usize = CHECKSUM + 32;

/// All that a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forge {
    /// The first ten bytes.
    pub header: Vec<u8>,
    /// The blocks as they are stored.
    pub blocks: Vec<Vec<u8>>,
    /// The last bytes of the state member: ten, in an honest file.
    pub end: Vec<u8>,
    /// Claimed length of the metadata.
    pub metadata_len: u32,
    /// JSON, in an honest file.
    pub metadata: Vec<u8>,
    /// Twenty bytes for each block, in an honest file.
    pub index: Vec<u8>,
    /// Most bytes of payload in one trailer member.
    pub chunk: usize,
    /// 1 is a state, 2 a tombstone.
    pub kind: u16,
    /// This is format 1.
    pub format: u16,
    /// Claimed length of the file, if the claim is false.
    pub object: Option<u64>,
    /// Claimed length of the state member, if the claim is false.
    pub member: Option<u64>,
}

impl Forge {
    /// Takes an honest file apart.
    ///
    /// # Errors
    /// Where it is none.
    pub fn read(file: &[u8]) -> Result<Self> {
        let footer = file.len().checked_sub(FOOTER).context("it is too short")?;
        let footer = &file[footer..];
        let member = usize::try_from(u64_at(footer, MEMBER)?)?;
        let kind = u64_at(footer, KIND)?.to_le_bytes();
        let members = file.get(member..file.len() - FOOTER);
        let payload = payload_of(members.context("its state has no end")?)?;
        let (len, rest) = payload.split_at_checked(4).context("no length")?;
        let metadata_len = u32::from_le_bytes(len.try_into()?);
        let metadata = rest.split_at_checked(metadata_len as usize);
        let (metadata, index) = metadata.context("no metadata")?;
        let mut at = STATE_HEADER.len();
        let mut blocks = Vec::new();
        for entry in index.chunks_exact(20) {
            let len = u32::from_le_bytes(entry[..4].try_into()?) as usize;
            blocks.push(file.get(at..at + len).context("no block")?.to_vec());
            at += len;
        }
        let end = file.get(at..member).context("no end")?;
        ensure!(file.ends_with(&EMPTY_END), "it does not end as it should");
        Ok(Self {
            header: file[..STATE_HEADER.len()].to_vec(),
            blocks,
            end: end.to_vec(),
            metadata_len,
            metadata: metadata.to_vec(),
            index: index.to_vec(),
            chunk: 65_531,
            kind: u16::from_le_bytes([kind[0], kind[1]]),
            format: u16::from_le_bytes([kind[2], kind[3]]),
            object: None,
            member: None,
        })
    }

    /// The file, with a checksum that is right whatever else is not.
    pub fn write(&self) -> Vec<u8> {
        let blocks = self.blocks.concat();
        let mut file = [&self.header[..], &blocks, &self.end].concat();
        let member = file.len() as u64;
        let len = self.metadata_len.to_le_bytes();
        let payload = [&len[..], &self.metadata, &self.index].concat();
        for chunk in payload.chunks(self.chunk.clamp(1, 65_531)) {
            push_member(&mut file, *b"PT", chunk);
        }
        let object = (file.len() + FOOTER) as u64;
        let mut footer = Vec::with_capacity(60);
        footer.extend_from_slice(&self.object.unwrap_or(object).to_le_bytes());
        footer.extend_from_slice(&self.member.unwrap_or(member).to_le_bytes());
        footer.extend_from_slice(&[0; 32]);
        footer.extend_from_slice(&self.kind.to_le_bytes());
        footer.extend_from_slice(&self.format.to_le_bytes());
        footer.extend_from_slice(&MAGIC);
        push_member(&mut file, *b"PF", &footer);
        sign(&mut file);
        file
    }

    /// How long the state member is, with what stands around its blocks.
    pub fn member_len(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Vec::len).sum();
        self.header.len() + blocks + self.end.len()
    }

    /// Returns the places where a part ends and another begins, including both ends of the file.
    pub fn boundaries(&self) -> Vec<usize> {
        let mut at = self.header.len();
        let mut boundaries = vec![0, at];
        for block in &self.blocks {
            at += block.len();
            boundaries.push(at);
        }
        at += self.end.len();
        boundaries.push(at);
        let mut payload = 4 + self.metadata.len() + self.index.len();
        while payload > 0 {
            let chunk = payload.min(self.chunk);
            payload -= chunk;
            at += chunk + EXTRA_FRAME;
            boundaries.push(at);
        }
        boundaries.push(at + FOOTER);
        boundaries
    }

    /// Says something else in the metadata.
    ///
    /// # Errors
    /// Where the metadata is no JSON object.
    pub fn say(&mut self, field: &str, value: Value) -> Result<()> {
        let mut metadata: Value = serde_json::from_slice(&self.metadata)?;
        let fields = metadata.as_object_mut().context("no object")?;
        fields.insert(field.into(), value);
        self.metadata = serde_json::to_vec(&metadata)?;
        self.metadata_len = u32::try_from(self.metadata.len())?;
        Ok(())
    }

    /// Lists the blocks as they are.
    pub fn list_blocks(&mut self) {
        self.index.clear();
        for block in &self.blocks {
            let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
            self.index.extend_from_slice(&len.to_le_bytes());
            self.index.extend_from_slice(&Sha256::digest(block)[..16]);
        }
    }
}

/// Makes the length and the checksum of a file right again, where it still ends in a footer.
pub fn reseal(file: &mut [u8]) {
    let len = file.len() as u64;
    if let Some(footer) = file.len().checked_sub(FOOTER) {
        file[footer + OBJECT..][..8].copy_from_slice(&len.to_le_bytes());
        sign(file);
    }
}

/// Puts another creation time into the metadata of an honest file, of which these are the last
/// bytes. Nothing moves.
pub fn redate(tail: &mut [u8], created_at: u64) {
    const FIELD: &[u8] = b"\"created_at\":";
    let found = tail.windows(FIELD.len()).rposition(|bytes| bytes == FIELD);
    let Some(start) = found.map(|at| at + FIELD.len()) else {
        return;
    };
    let digits = tail[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let width = digits.count();
    let number = format!("{created_at:width$}");
    if number.len() == width {
        tail[start..start + width].copy_from_slice(number.as_bytes());
        let footer = tail.len() - FOOTER;
        let object = u64_at(&tail[footer..], OBJECT).unwrap_or_default();
        sign_from(tail, object.saturating_sub(tail.len() as u64));
    }
}

/// Puts the right checksum into the footer, where that says of which bytes it is.
fn sign(file: &mut [u8]) {
    sign_from(file, 0);
}

/// Signs a file that is there from byte `start` on.
fn sign_from(file: &mut [u8], start: u64) {
    let footer = file.len() - FOOTER;
    let member = u64_at(&file[footer..], MEMBER).unwrap_or(u64::MAX);
    let member = member.checked_sub(start).map(usize::try_from);
    let Some(member) = member.and_then(Result::ok).filter(|at| *at <= footer) else {
        return;
    };
    let trailer = &file[member..];
    let sum = footer + CHECKSUM - member;
    let checksum = Sha256::new()
        .chain_update(&trailer[..sum])
        .chain_update(&trailer[sum + 32..])
        .finalize();
    file[footer + CHECKSUM..][..32].copy_from_slice(&checksum);
}

fn push_member(out: &mut Vec<u8>, id: [u8; 2], payload: &[u8]) {
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX - 4);
    out.extend_from_slice(&EXTRA_HEADER);
    out.extend_from_slice(&(len + 4).to_le_bytes());
    out.extend_from_slice(&id);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&payload[..len.into()]);
    out.extend_from_slice(&EMPTY_END);
}

fn payload_of(mut members: &[u8]) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    while !members.is_empty() {
        let (start, rest) = members.split_at_checked(EXTRA_START).context("cut off")?;
        let len = usize::from(u16::from_le_bytes([start[14], start[15]]));
        let (chunk, rest) = rest.split_at_checked(len).context("cut off")?;
        payload.extend_from_slice(chunk);
        members = rest.get(EMPTY_END.len()..).context("cut off")?;
    }
    Ok(payload)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let number = bytes.get(at..at + 8).context("too short")?;
    Ok(u64::from_le_bytes(number.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn two_writers_of_the_format_agree() {
        for golden in golden::versions().expect("golden files") {
            let forge = Forge::read(&golden.bytes).expect("an honest file");
            assert!(forge.write() == golden.bytes, "{}", golden.file);
            assert_eq!(forge.boundaries().last(), Some(&golden.bytes.len()));
            let mut listed = forge.clone();
            listed.list_blocks();
            assert!(listed == forge, "{}", golden.file);
        }
    }

    #[test]
    fn a_file_that_is_dated_again_differs_in_its_date_alone() {
        for golden in golden::versions().expect("golden files") {
            let mut dated = golden.bytes.to_vec();
            redate(&mut dated, 7);
            let mut forge = Forge::read(&dated).expect("an honest file");
            let metadata: Value = serde_json::from_slice(&forge.metadata).expect("JSON");
            assert_eq!(metadata["created_at"], 7, "{}", golden.file);
            assert!(forge.write() == dated, "{}", golden.file);
            forge.metadata = Forge::read(&golden.bytes).expect("honest").metadata;
            assert!(forge.write() == golden.bytes, "{}", golden.file);
            let start = golden.bytes.len() - golden.bytes.len().min(100_000);
            let mut tail = golden.bytes[start..].to_vec();
            redate(&mut tail, 7);
            assert!(tail == dated[start..], "{}", golden.file);
        }
    }

    #[test]
    fn a_file_that_is_sealed_again_is_as_it_was() {
        for golden in golden::versions().expect("golden files") {
            let mut file = golden.bytes.to_vec();
            reseal(&mut file);
            assert!(file == golden.bytes, "{}", golden.file);
        }
    }
}
