//! Budget that all memories, or all tables, of one run share.

/// An allowance that is used up by growing.
#[derive(Debug)]
pub(super) struct Budget {
    used: usize,
    max: usize,
    /// True if too little was left for what was asked.
    pub(super) refused: bool,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self {
            used: 0,
            max,
            refused: false,
        }
    }

    pub(super) fn grow(&mut self, from: usize, to: usize) -> bool {
        let used = self.used.saturating_add(to.saturating_sub(from));
        let fits = used <= self.max;
        if fits {
            self.used = used;
        }
        self.refused |= !fits;
        fits
    }
}
