//! A state saved piece by piece.

use std::io;

use crate::{Error, Info, SaveOptions, limits, store};

/// Bytes collected before they are sent: fewer calls across the sandbox's wall. More would only
/// cost the agent memory.
const BUFFER: usize = 1 << 20;

/// A state saved piece by piece, up to [`Limits::max_state`](crate::Limits::max_state) bytes.
///
/// Nothing is visible before [`finish`](Writer::finish) returned `Ok`. Dropping it instead, or
/// trapping, saves nothing. Small writes are collected, so it needs no `BufWriter` around it.
///
/// ```
/// use std::io::Write;
/// use persist_guest::{SaveOptions, Writer, load};
///
/// let mut writer = Writer::open("log", &SaveOptions::new())?;
/// for line in 1..=3 {
///     writeln!(writer, "line {line}")?;
/// }
/// assert_eq!(load("log")?, None);
/// writer.finish()?;
/// assert_eq!(load("log")?.unwrap(), b"line 1\nline 2\nline 3\n");
/// # Ok::<(), persist_guest::Error>(())
/// ```
#[derive(Debug)]
pub struct Writer {
    stream: store::Writer,
    buffer: Vec<u8>,
    piece: usize,
    failed: Option<Error>,
}

impl Writer {
    /// Begins the next version of `name`. The media type and labels are given here, the expectation
    /// holds until `finish`.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the expectation does not hold already; [`Error::QuotaExceeded`]
    /// with too many open.
    pub fn open(name: &str, options: &SaveOptions) -> Result<Self, Error> {
        let stream = store::Writer::open(name, options)?;
        let piece = BUFFER.min(limits().max_chunk as usize).max(1);
        Ok(Self {
            stream,
            buffer: Vec::new(),
            piece,
            failed: None,
        })
    }

    /// Saves what was written.
    ///
    /// # Errors
    /// The error of an earlier write, if there was one: a state with a hole is never saved.
    /// [`Error::Conflict`] if another run saved meanwhile, even with
    /// [`Expect::Any`](crate::Expect::Any): what was written cannot be replayed.
    pub fn finish(mut self) -> Result<Info, Error> {
        self.send()?;
        self.stream.finish()
    }

    /// Sends what was collected. A writer that failed stays failed, so that a lost piece cannot be
    /// followed by a commit.
    fn send(&mut self) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        let sent = self.stream.write(&self.buffer);
        self.buffer.clear();
        self.failed = sent.as_ref().err().cloned();
        sent
    }
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed.is_some() || self.buffer.len() >= self.piece {
            self.send()?;
        }
        let taken = bytes.len().min(self.piece - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Sends what was collected to the host. It is still not saved: only [`finish`](Writer::finish)
    /// does that.
    fn flush(&mut self) -> io::Result<()> {
        Ok(self.send()?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{Expect, double, load, save};

    fn open(expect: Expect) -> Result<Writer, Error> {
        Writer::open("memory", &SaveOptions::new().expect(expect))
    }

    #[test]
    fn a_write_of_any_length_is_cut_into_chunks() -> Result<(), Error> {
        let mut small = limits();
        small.max_chunk = 10;
        double::set_limits(small);
        let state: Vec<u8> = (0..=255).collect();
        let mut writer = open(Expect::Any)?;
        writer.write_all(&state[..7])?;
        writer.write_all(&state[7..])?;
        assert_eq!(writer.finish()?.size, 256);
        assert_eq!(load("memory")?, Some(state));
        Ok(())
    }

    #[test]
    fn a_dropped_writer_saves_nothing() -> Result<(), Error> {
        let mut writer = open(Expect::Any)?;
        writer.write_all(b"half")?;
        writer.flush()?;
        drop(writer);
        assert_eq!(load("memory")?, None);
        Ok(())
    }

    #[test]
    fn finish_without_a_write_saves_an_empty_state() -> Result<(), Error> {
        open(Expect::Absent)?.finish()?;
        assert_eq!(load("memory")?, Some(vec![]));
        Ok(())
    }

    #[test]
    fn finish_conflicts_with_a_save_made_meanwhile() -> Result<(), Error> {
        for expect in [Expect::Any, Expect::Absent] {
            double::reset();
            let mut writer = open(expect)?;
            writer.write_all(b"mine")?;
            save("memory", "theirs")?;
            assert_eq!(writer.finish(), Err(Error::Conflict(Some(1))));
            assert_eq!(load("memory")?, Some(b"theirs".to_vec()));
        }
        Ok(())
    }

    #[test]
    fn a_writer_that_failed_can_not_finish() -> Result<(), Error> {
        let mut writer = open(Expect::Any)?;
        writer.write_all(b"lost")?;
        double::fail_next(Error::Timeout);
        assert!(writer.flush().is_err());
        assert!(writer.write(b"more").is_err());
        assert_eq!(writer.finish(), Err(Error::Timeout));
        assert_eq!(load("memory")?, None);
        Ok(())
    }
}
