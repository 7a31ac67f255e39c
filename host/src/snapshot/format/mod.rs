//! Format 1: a gzip file that ordinary tools open, with more in it.
//!
//! ```text
//! state member     1f 8b 08 00 00000000 00 ff           10 bytes
//!                  block 0 … block n-1                  raw deflate, 1 MiB of state each
//!                  03 00  CRC-32  length                10 bytes
//! trailer members  1f 8b 08 04 00000000 00 ff
//!                  XLEN  'P' 'T'  LEN  payload
//!                  03 00  0  0                          as many as the payload needs
//! footer member    1f 8b 08 04 00000000 00 ff
//!                  XLEN  'P' 'F'  LEN  60 bytes:
//!                    length of the object               u64
//!                    offset of the first trailer member u64
//!                    SHA-256 of all from that offset on, but for these 32 bytes
//!                    kind                               u16: 1 state, 2 tombstone
//!                    format                             u16: 1
//!                    magic                              "PERSISTs"
//!                  03 00  0  0
//! ```
//! All numbers are little-endian. The payload of all trailer members together is the length of the
//! metadata (u32), the metadata (JSON), and 20 bytes for each block: its stored length (u32) and
//! the first 16 bytes of the SHA-256 of its stored bytes.
//!
//! # Why it is shaped so
//! - `zcat` prints the state, and nothing but the state: the members after the first are empty.
//! - Each block ends on a byte, refers to nothing before it and is listed: so blocks are
//!   compressed, read and verified alone, in any order.
//! - What is known of a version is at the end, where one read of a suffix finds it, since a stream
//!   knows it only when it ends.
//! - The footer stays as it is in every later format. So a later format is told from damage by its
//!   checksum: a footer that is intact and names an unknown format or kind is *unsupported*.
//! - Every byte is covered: constants are compared, blocks and trailer are hashed, and CRC and
//!   length of the state member are repeated in the trailer.

mod decode;
mod encode;
mod pool;
mod sums;

pub(crate) use decode::{Decoder, Footer, Trailer, is_of_trailer};
pub(crate) use encode::{Encoded, Encoder, TrailerFields, copy_of};
pub(crate) use sums::Sums;

use serde::{Deserialize, Serialize};

use super::{Info, Version};

/// Bytes of state in a block. Large enough that a block's own dictionary costs 0.3 % of size, small
/// enough that a ranged read is cheap.
pub(crate) const BLOCK: usize = 1 << 20;

/// Every format that this build reads and the one that it writes.
const FORMAT: u16 = 1;

const KIND_STATE: u16 = 1;
const KIND_TOMBSTONE: u16 = 2;

const STATE_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
const EXTRA_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];

/// An empty last block, which ends a deflate stream.
const DEFLATE_END: [u8; 2] = [3, 0];

/// How a member without content ends: an empty deflate stream, its CRC-32 and its length.
const EMPTY_END: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// End of the state member: the end of the deflate stream, CRC-32 and length modulo 2^32.
const STATE_END: usize = 10;

const TRAILER_ID: [u8; 2] = *b"PT";
const FOOTER_ID: [u8; 2] = *b"PF";
const MAGIC: [u8; 8] = *b"PERSISTs";

/// Most bytes of payload in one trailer member: XLEN is a u16, and the subfield's own head takes 4.
const MAX_EXTRA: usize = u16::MAX as usize - 4;

/// Bytes of a member around its payload: header, XLEN, subfield head, end.
const EXTRA_FRAME: usize = EXTRA_HEADER.len() + 2 + 4 + EMPTY_END.len();

const FOOTER_PAYLOAD: usize = 60;

/// Bytes of the footer member, the last of every file.
pub(crate) const FOOTER: usize = EXTRA_FRAME + FOOTER_PAYLOAD;

/// Offset of the checksum in the footer member.
const CHECKSUM_AT: usize = EXTRA_HEADER.len() + 2 + 4 + 16;
const CHECKSUM: usize = 32;

/// Bytes of the index for one block.
const INDEX_ENTRY: usize = 20;

/// Information that a version stores about itself. Unknown fields are left alone: a later build may
/// add some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// The agent that saved it. A file at the key of another agent, session, name or version is not
    /// loaded.
    pub(crate) agent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    pub(crate) name: String,
    pub(crate) version: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Version>,
    /// SHA-256 of the parent's state, where it was known without another read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent_sha256: Option<String>,
    pub(crate) size: u64,
    pub(crate) sha256: String,
    pub(crate) crc32: u32,
    /// Bytes of state in every block but the last.
    pub(crate) block: u64,
    pub(crate) created_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) labels: Vec<(String, String)>,
    /// One for each operation: tells whether a version that is there is the one that we made.
    pub(crate) nonce: String,
}

impl Metadata {
    /// Returns the information about the version: the only place that makes it.
    pub(crate) fn into_info(self, deleted: bool, stored_size: u64) -> Info {
        Info {
            name: self.name,
            version: self.version,
            parent: self.parent,
            deleted,
            size: self.size,
            stored_size,
            sha256: self.sha256,
            created_at: self.created_at,
            media_type: self.media_type,
            labels: self.labels,
        }
    }
}
