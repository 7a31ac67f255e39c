//! Output of a run: captured up to a limit, and read while the run continues.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::sync::watch;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Bytes of one chunk that a reader gets, at most.
const CHUNK: usize = 64 << 10;

/// A stream that an agent prints to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StdStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StdStream {
    fn other(self) -> Self {
        match self {
            Self::Stdout => Self::Stderr,
            Self::Stderr => Self::Stdout,
        }
    }
}

/// Connects an [`OutputReader`] to a run, with [`RunOptions::output`](super::RunOptions::output).
///
/// The first run that has it in its options uses it up. Other runs are not read.
#[derive(Clone)]
pub struct LiveOutput(Arc<Mutex<Option<watch::Sender<Captured>>>>);

/// Reads the output of a run while the run continues.
///
/// It reads what the run captures anyway, at most [`Limits::output`](super::Limits::output) of each
/// stream. So the agent never waits for a reader, a slow reader misses nothing and takes no memory
/// of its own, and a reader that is dropped changes nothing for the run. A clone reads on from the
/// same place.
#[derive(Clone)]
pub struct OutputReader {
    captured: watch::Receiver<Captured>,
    stdout: usize,
    stderr: usize,
    /// Stream whose bytes come first where both have some.
    next: StdStream,
}

/// Returns both ends of a live output: one for the options of a run, and a reader.
///
/// ```no_run
/// # use persist_host::wasm::{Agent, SnapshotCtx};
/// # async fn example(agent: Agent, guest: SnapshotCtx) -> Result<(), Box<dyn std::error::Error>> {
/// use persist_host::wasm::{RunOptions, live_output};
///
/// let (output, mut reader) = live_output();
/// let shown = tokio::spawn(async move {
///     while let Some((stream, bytes)) = reader.next().await {
///         println!("{stream:?}: {}", String::from_utf8_lossy(&bytes));
///     }
/// });
/// let options = RunOptions::default().args(["hello"]).output(output);
/// let ran = agent.run_with(guest, &options).await;
/// shown.await?;
/// println!("{}", ran.answer?);
/// # Ok(()) }
/// ```
pub fn live_output() -> (LiveOutput, OutputReader) {
    let (sender, captured) = watch::channel(Captured::default());
    let reader = OutputReader {
        captured,
        stdout: 0,
        stderr: 0,
        next: StdStream::Stdout,
    };
    (LiveOutput(Arc::new(Mutex::new(Some(sender)))), reader)
}

impl OutputReader {
    /// Waits for output, and returns up to 64 KiB of it; none when the run has ended and all is
    /// read, and where no run began before the options were dropped.
    ///
    /// A chunk may begin or end in the middle of a character. Chunks of one stream are in order;
    /// the order between the streams is kept only if the reader keeps up. A call that is dropped
    /// loses nothing.
    pub async fn next(&mut self) -> Option<(StdStream, Bytes)> {
        let (stdout, stderr) = (self.stdout, self.stderr);
        let has_more =
            |captured: &Captured| captured.stdout.len() > stdout || captured.stderr.len() > stderr;
        // An error means that the run has ended: what is captured by now is all.
        let _ = self.captured.wait_for(has_more).await;
        let first = self.next;
        [first, first.other()]
            .into_iter()
            .find_map(|stream| self.read(stream))
    }

    fn read(&mut self, stream: StdStream) -> Option<(StdStream, Bytes)> {
        let captured = self.captured.borrow();
        let position = match stream {
            StdStream::Stdout => &mut self.stdout,
            StdStream::Stderr => &mut self.stderr,
        };
        let rest = captured.of(stream).get(*position..).unwrap_or_default();
        let chunk = rest.get(..CHUNK).unwrap_or(rest);
        if chunk.is_empty() {
            return None;
        }
        *position += chunk.len();
        self.next = stream.other();
        Some((stream, Bytes::copy_from_slice(chunk)))
    }
}

impl fmt::Debug for LiveOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveOutput").finish_non_exhaustive()
    }
}

impl fmt::Debug for OutputReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputReader")
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .finish_non_exhaustive()
    }
}

/// Bytes that a run has printed so far.
#[derive(Default)]
struct Captured {
    stdout: BytesMut,
    stderr: BytesMut,
}

impl Captured {
    fn of(&self, stream: StdStream) -> &BytesMut {
        match stream {
            StdStream::Stdout => &self.stdout,
            StdStream::Stderr => &self.stderr,
        }
    }

    fn of_mut(&mut self, stream: StdStream) -> &mut BytesMut {
        match stream {
            StdStream::Stdout => &mut self.stdout,
            StdStream::Stderr => &mut self.stderr,
        }
    }
}

/// The guest's end of a stream. Readers see the end of the output when both pipes of a run, and
/// the copies that its guest has, are dropped.
#[derive(Clone)]
pub(super) struct OutputPipe {
    stream: StdStream,
    max: usize,
    captured: Arc<watch::Sender<Captured>>,
}

impl OutputPipe {
    /// Returns the pipes of a run, which hold `max` bytes each.
    pub(super) fn pair(live: Option<&LiveOutput>, max: usize) -> [Self; 2] {
        let sender = live.and_then(|live| {
            let mut sender = live.0.lock().unwrap_or_else(PoisonError::into_inner);
            sender.take()
        });
        let sender = sender.unwrap_or_else(|| watch::Sender::new(Captured::default()));
        let captured = Arc::new(sender);
        [StdStream::Stdout, StdStream::Stderr].map(|stream| Self {
            stream,
            max,
            captured: Arc::clone(&captured),
        })
    }

    /// Returns a copy of what was printed.
    pub(super) fn contents(&self) -> Bytes {
        let captured = self.captured.borrow();
        Bytes::copy_from_slice(captured.of(self.stream))
    }

    fn left(&self) -> usize {
        let len = self.captured.borrow().of(self.stream).len();
        self.max.saturating_sub(len)
    }

    fn append(&self, bytes: &[u8]) {
        let add = |captured: &mut Captured| captured.of_mut(self.stream).extend_from_slice(bytes);
        self.captured.send_modify(add);
    }
}

impl OutputStream for OutputPipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > self.left() {
            return Err(StreamError::trap("wrote more bytes than were permitted"));
        }
        self.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self.left() {
            // No more bytes will ever be taken.
            0 => Err(StreamError::Closed),
            left => Ok(left),
        }
    }
}

#[async_trait]
impl Pollable for OutputPipe {
    async fn ready(&mut self) {}
}

impl AsyncWrite for OutputPipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = bytes.get(..self.left()).unwrap_or(bytes);
        self.append(taken);
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for OutputPipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for OutputPipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 3 * CHUNK;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(work)
    }

    fn print(pipe: &mut OutputPipe, text: &str) {
        pipe.write(Bytes::copy_from_slice(text.as_bytes()))
            .expect("room");
    }

    #[test]
    fn a_reader_gets_both_streams_and_their_end() {
        block_on(async {
            let (live, mut reader) = live_output();
            let mut late = reader.clone();
            let [mut stdout, mut stderr] = OutputPipe::pair(Some(&live), MAX);
            print(&mut stdout, "out");
            let chunk = reader.next().await.expect("a chunk");
            assert_eq!(chunk, (StdStream::Stdout, Bytes::from_static(b"out")));
            print(&mut stdout, " more");
            print(&mut stderr, "err");
            let chunk = reader.next().await.expect("a chunk");
            assert_eq!(chunk, (StdStream::Stderr, Bytes::from_static(b"err")));
            assert_eq!(stdout.contents(), "out more");
            drop((stdout, stderr));
            let chunk = reader.next().await.expect("a chunk");
            assert_eq!(chunk, (StdStream::Stdout, Bytes::from_static(b" more")));
            assert_eq!(reader.next().await, None);
            let chunk = late.next().await.expect("from the beginning");
            assert_eq!(chunk, (StdStream::Stdout, Bytes::from_static(b"out more")));
        });
    }

    #[test]
    fn a_reader_that_waits_is_woken() {
        block_on(async {
            let (live, mut reader) = live_output();
            let waiting = tokio::spawn(async move { (reader.next().await, reader.next().await) });
            tokio::task::yield_now().await;
            let [mut stdout, stderr] = OutputPipe::pair(Some(&live), MAX);
            print(&mut stdout, "x");
            tokio::task::yield_now().await;
            drop((stdout, stderr));
            let (chunk, end) = waiting.await.expect("no panic");
            assert_eq!(chunk, Some((StdStream::Stdout, Bytes::from_static(b"x"))));
            assert_eq!(end, None);
        });
    }

    #[test]
    fn a_slow_reader_misses_nothing_and_holds_back_no_one() {
        block_on(async {
            let (live, mut reader) = live_output();
            let [mut stdout, stderr] = OutputPipe::pair(Some(&live), MAX);
            let line = "x".repeat(CHUNK / 4 + 1);
            let mut printed = String::new();
            while stdout.check_write().is_ok_and(|left| left >= line.len()) {
                print(&mut stdout, &line);
                printed += &line;
            }
            assert!(printed.len() > 2 * CHUNK);
            drop((stdout, stderr));
            let mut read = Vec::new();
            while let Some((_, chunk)) = reader.next().await {
                assert!(chunk.len() <= CHUNK);
                read.extend_from_slice(&chunk);
            }
            assert!(read == printed.as_bytes());
        });
    }

    #[test]
    fn the_limit_holds_for_each_stream() {
        block_on(async {
            let [mut stdout, mut stderr] = OutputPipe::pair(None, 4);
            print(&mut stdout, "four");
            assert!(matches!(stdout.check_write(), Err(StreamError::Closed)));
            assert!(stdout.write(Bytes::from_static(b"x")).is_err());
            assert_eq!(stderr.check_write().expect("room"), 4);
            let text = b"fives";
            let context = &mut Context::from_waker(std::task::Waker::noop());
            let taken = Pin::new(&mut stderr).poll_write(context, text);
            assert!(matches!(taken, Poll::Ready(Ok(4))));
            assert_eq!(
                (&stdout.contents()[..], &stderr.contents()[..]),
                (&b"four"[..], &b"five"[..])
            );
        });
    }

    #[test]
    fn a_reader_without_a_run_ends() {
        block_on(async {
            let (live, mut reader) = live_output();
            drop(live);
            assert_eq!(reader.next().await, None);
            let (live, mut reader) = live_output();
            let first = OutputPipe::pair(Some(&live), MAX);
            let [mut second, _] = OutputPipe::pair(Some(&live), MAX);
            print(&mut second, "of another run");
            drop(first);
            assert_eq!(reader.next().await, None);
        });
    }
}
