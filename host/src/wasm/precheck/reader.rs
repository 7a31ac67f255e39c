//! Bytes of a component, one thing after the other.

use super::{Refused, Result};

/// Sort of item that an index counts, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Module,
    Component,
    Other,
}

/// Reads what was not validated: everything may be missing.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Result<u8> {
        let (byte, rest) = self.0.split_first().ok_or(Refused::Damaged)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// An unsigned number in LEB128.
    pub(super) fn number(&mut self) -> Result<u32> {
        let mut number: u64 = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).map_err(|_| Refused::Damaged);
            }
        }
        Err(Refused::Damaged)
    }

    pub(super) fn index(&mut self) -> Result<usize> {
        Ok(self.number()? as usize)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Refused::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn text(&mut self) -> Result<()> {
        let len = self.index()?;
        self.take(len).map(drop)
    }

    /// The name of an import or export, with what else it may say of itself.
    pub(super) fn name(&mut self) -> Result<()> {
        match self.byte()? {
            0 | 1 => self.text(),
            2 => {
                self.text()?;
                self.each(|reader| {
                    reader.byte()?;
                    reader.text()
                })
            }
            _ => Err(Refused::Damaged),
        }
    }

    pub(super) fn sort(&mut self) -> Result<Sort> {
        Ok(match self.byte()? {
            0 => match self.byte()? {
                0x11 => Sort::Module,
                _ => Sort::Other,
            },
            4 => Sort::Component,
            _ => Sort::Other,
        })
    }

    /// The sort of an argument.
    pub(super) fn passed(&mut self) -> Result<()> {
        match self.sort()? {
            Sort::Other => Ok(()),
            Sort::Module | Sort::Component => Err(Refused::Passed),
        }
    }

    /// Reads the bound of a type: the part of it that is known.
    pub(super) fn bound(&mut self) -> Result<()> {
        match self.byte()? {
            // A resource, of which nothing is known.
            1 => Ok(()),
            // The same as another.
            _ => self.number().map(drop),
        }
    }

    /// The items of a list.
    pub(super) fn each(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        for _ in 0..self.number()? {
            item(self)?;
        }
        Ok(())
    }

    /// The next section: which, and what is in it.
    pub(super) fn section(&mut self) -> Result<Option<(u8, &'a [u8])>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let id = self.byte()?;
        let len = self.index()?;
        Ok(Some((id, self.take(len)?)))
    }
}
