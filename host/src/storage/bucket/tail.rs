//! The end of an object that is being uploaded.

use bytes::Bytes;

/// Bytes that are kept of the end: more than the trailer of a version takes.
const KEPT: usize = 64 << 10;

/// Length and last bytes of what was written.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    len: u64,
}

impl Tail {
    /// Returns that of a whole object.
    pub(super) fn of(body: &Bytes) -> Self {
        let mut tail = Self::default();
        tail.push(body);
        tail
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        self.len += piece.len() as u64;
        let piece = &piece[piece.len().saturating_sub(KEPT)..];
        let kept = self.bytes.len().min(KEPT - piece.len());
        self.bytes.drain(..self.bytes.len() - kept);
        self.bytes.extend_from_slice(piece);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Length of the whole object so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept_however_they_came() {
        let bytes: Vec<u8> = (0..3 * KEPT + 7).map(|n| (n % 251) as u8).collect();
        for size in [1000, KEPT - 1, KEPT, KEPT + 1, bytes.len()] {
            let mut tail = Tail::default();
            bytes.chunks(size).for_each(|piece| tail.push(piece));
            assert_eq!(tail.len(), bytes.len() as u64);
            assert!(
                tail.bytes() == &bytes[bytes.len() - KEPT..],
                "pieces of {size}"
            );
        }
        let short = Tail::of(&Bytes::from_static(b"short"));
        assert_eq!((short.bytes(), short.len()), (&b"short"[..], 5));
        assert_eq!(Tail::default().bytes(), b"");
    }
}
