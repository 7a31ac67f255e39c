//! Data that an upload was given and did not send yet.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Unsent {
    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        self.pieces.push_back(piece);
    }

    /// The first `len` bytes, or all of them if there are fewer.
    pub(super) fn take(&mut self, len: usize) -> Bytes {
        let mut taken = Vec::new();
        let mut missing = len.min(self.len);
        self.len -= missing;
        while missing > 0
            && let Some(mut piece) = self.pieces.pop_front()
        {
            if piece.len() > missing {
                self.pieces.push_front(piece.split_off(missing));
            }
            missing -= piece.len();
            taken.push(piece);
        }
        join(taken)
    }

    /// All of it.
    pub(super) fn take_all(&mut self) -> Bytes {
        self.take(self.len)
    }
}

/// One piece of several; nothing is copied where there is but one.
pub(super) fn join(mut pieces: Vec<Bytes>) -> Bytes {
    pieces.retain(|piece| !piece.is_empty());
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.swap_remove(0),
        _ => {
            let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
            pieces
                .iter()
                .for_each(|piece| joined.extend_from_slice(piece));
            joined.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_bytes_are_in_order_however_they_were_cut() {
        let mut unsent = Unsent::default();
        for piece in ["abc", "", "defg", "h"] {
            unsent.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(unsent.take(2), "ab");
        assert_eq!(unsent.take(3), "cde");
        assert_eq!((unsent.len(), unsent.take(9)), (3, "fgh".into()));
        assert_eq!((unsent.len(), unsent.take_all()), (0, Bytes::new()));
    }
}
