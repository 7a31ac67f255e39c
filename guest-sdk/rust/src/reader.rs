//! One version, read in any order.

use std::io::{self, SeekFrom};

use crate::{Error, Info, Version, limits, store};

/// One version, read in any order. It stays that version whatever is saved meanwhile.
///
/// Each read is a call to the host; put a [`BufReader`](std::io::BufReader) around it for small
/// ones.
///
/// ```
/// use std::io::{Read, Seek, SeekFrom};
/// use persist_guest::{Reader, save};
///
/// save("log", "line 1\nline 2\n")?;
/// let mut reader = Reader::open("log", None)?.expect("it was saved");
/// reader.seek(SeekFrom::End(-7))?;
/// let mut last = String::new();
/// reader.read_to_string(&mut last)?;
/// assert_eq!(last, "line 2\n");
/// # Ok::<(), persist_guest::Error>(())
/// ```
#[derive(Debug)]
pub struct Reader {
    stream: store::Reader,
    info: Info,
    max_chunk: usize,
    position: u64,
}

impl Reader {
    /// Opens the head of `name`, or version `at`. `None`: nothing was saved, or it is a tombstone.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no version `at`.
    pub fn open(name: &str, at: Option<Version>) -> Result<Option<Self>, Error> {
        Ok(store::Reader::open(name, at)?.map(|stream| Self {
            info: stream.info(),
            stream,
            max_chunk: limits().max_chunk as usize,
            position: 0,
        }))
    }

    /// Returns the information about the version.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// At most `len` bytes from the position; none at the end, or for a `len` of 0, which the
    /// contract forbids to ask for.
    fn next_chunk(&mut self, len: usize) -> Result<Vec<u8>, Error> {
        let len = len.min(self.max_chunk);
        if len == 0 {
            return Ok(Vec::new());
        }
        let chunk = self
            .stream
            .read(self.position, u32::try_from(len).unwrap_or(u32::MAX))?;
        self.position += chunk.len() as u64;
        Ok(chunk)
    }
}

impl io::Read for Reader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let chunk = self.next_chunk(bytes.len())?;
        bytes[..chunk.len()].copy_from_slice(&chunk);
        Ok(chunk.len())
    }

    // The default probes with 32 bytes and doubles from there: a call to the host each time.
    fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let before = bytes.len();
        loop {
            let chunk = self.next_chunk(usize::MAX)?;
            if chunk.is_empty() {
                return Ok(bytes.len() - before);
            }
            bytes.extend_from_slice(&chunk);
        }
    }
}

impl io::Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(offset) => (offset, 0),
            SeekFrom::End(by) => (self.info.size, by),
            SeekFrom::Current(by) => (self.position, by),
        };
        self.position = from
            .checked_add_signed(by)
            .ok_or_else(|| Error::Invalid("a seek goes to 0 or later, and below 2^64".into()))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;
    use crate::{Expect, delete, double, save};

    fn open() -> Result<Reader, Error> {
        Reader::open("memory", None)?.ok_or(Error::NotFound)
    }

    #[test]
    fn a_read_of_any_length_is_cut_into_chunks() -> Result<(), Error> {
        let mut small = limits();
        small.max_chunk = 10;
        double::set_limits(small);
        let state: Vec<u8> = (0..=255).collect();
        save("memory", &state)?;
        let mut all = Vec::new();
        assert_eq!(open()?.read_to_end(&mut all)?, 256);
        assert_eq!(all, state);
        let mut exact = [0; 101];
        open()?.read_exact(&mut exact)?;
        assert_eq!(exact, state[..101]);
        Ok(())
    }

    #[test]
    fn a_seek_goes_anywhere_but_before_the_beginning() -> Result<(), Error> {
        save("memory", "0123456789")?;
        let mut reader = open()?;
        let mut two = [0; 2];
        for (to, position, found) in [
            (SeekFrom::Start(4), 4, b"45"),
            (SeekFrom::Current(1), 7, b"78"),
            (SeekFrom::End(-2), 8, b"89"),
        ] {
            assert_eq!(reader.seek(to)?, position);
            reader.read_exact(&mut two)?;
            assert_eq!(&two, found);
        }
        assert_eq!(reader.seek(SeekFrom::End(5))?, 15);
        assert_eq!(reader.read(&mut two)?, 0);
        assert!(reader.seek(SeekFrom::Current(-16)).is_err());
        assert_eq!(reader.stream_position()?, 15);
        Ok(())
    }

    #[test]
    fn an_open_reader_stays_at_its_version() -> Result<(), Error> {
        save("memory", "first")?;
        let mut reader = open()?;
        save("memory", "second")?;
        delete("memory", Expect::Any)?;
        let mut all = Vec::new();
        reader.read_to_end(&mut all)?;
        assert_eq!((all.as_slice(), reader.info().version), (&b"first"[..], 1));
        Ok(())
    }

    #[test]
    fn there_is_no_reader_of_a_tombstone() -> Result<(), Error> {
        save("memory", "first")?;
        delete("memory", Expect::Any)?;
        assert!(Reader::open("memory", None)?.is_none());
        Ok(())
    }
}
