//! Checksums that verify that a state that is read in pieces is, as a whole, the one that was
//! saved.

use sha2::{Digest as _, Sha256};

use super::Metadata;
use crate::hex::hex;
use crate::snapshot::{Error, Result};

/// The sums of a state, as far as it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    sha256: Sha256,
    crc32: crc32fast::Hasher,
}

impl Sums {
    /// The sums of what came before and `piece`.
    pub(crate) fn and(mut self, piece: &[u8]) -> Self {
        self.sha256.update(piece);
        self.crc32.update(piece);
        self
    }

    /// Compares the sums of a whole state with what was written of it.
    pub(crate) fn verify(self, metadata: &Metadata) -> Result<()> {
        if hex(&self.sha256.finalize()) == metadata.sha256
            && self.crc32.finalize() == metadata.crc32
        {
            Ok(())
        } else {
            Err(Error::corrupt("its SHA-256 or CRC-32 does not match"))
        }
    }
}
