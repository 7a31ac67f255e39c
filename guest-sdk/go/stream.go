package persist

import (
	"io"

	store "example.com/persist/guest-sdk/go/internal/bindings/persist_snapshot_store"
)

// Bytes collected before they are sent: fewer calls across the sandbox's wall. More would only cost the agent memory.
const collected = 1 << 20

// Writer saves a state piece by piece. Nothing of it is visible before Finish returned no error. Small writes are collected, so
// it needs no bufio around it.
//
//	writer, err := persist.OpenWriter("log", persist.Options{})
//	if err != nil {
//		return err
//	}
//	defer writer.Close() // Saves nothing, unless it was finished.
//	if _, err := io.Copy(writer, lines); err != nil {
//		return err
//	}
//	info, err := writer.Finish()
type Writer struct {
	stream *store.Writer
	buffer []byte
	piece  int
	failed error
}

func closed(what string) error { return &Error{Code: Invalid, Detail: what + " before"} }

var (
	errWriterClosed = closed("the writer was closed or finished")
	errReaderClosed = closed("the reader was closed")
)

// OpenWriter begins the next version of name.
func OpenWriter(name string, options Options) (*Writer, error) {
	raw, err := options.raw(name)
	if err != nil {
		return nil, err
	}
	piece := chunk()
	calls.Lock()
	defer calls.Unlock()
	result := store.WriterOpen(name, raw)
	if result.IsErr() {
		return nil, fromRaw(result.Err())
	}
	return &Writer{stream: result.Ok(), piece: piece}, nil
}

// Write appends any number of bytes. A writer that failed stays failed, so that a lost piece cannot be followed by a commit.
func (writer *Writer) Write(bytes []byte) (int, error) {
	taken := 0
	for taken < len(bytes) && writer.failed == nil {
		if writer.buffer == nil {
			writer.buffer = make([]byte, 0, writer.piece)
		}
		now := min(len(bytes)-taken, writer.piece-len(writer.buffer))
		writer.buffer = append(writer.buffer, bytes[taken:taken+now]...)
		taken += now
		if len(writer.buffer) == writer.piece {
			writer.send()
		}
	}
	return taken, writer.failed
}

// Finish saves what was written. Conflict if another run saved meanwhile, even with Any: what was written cannot be
// replayed. The writer is closed, whatever Finish returns.
func (writer *Writer) Finish() (Info, error) {
	if writer.send() != nil {
		err := writer.failed
		writer.Close()
		return Info{}, err
	}
	stream := writer.stream
	writer.stream, writer.failed = nil, errWriterClosed
	return made(func() rawInfo { return store.WriterFinish(stream) })
}

// Close ends the writer. What was not finished is not saved.
func (writer *Writer) Close() error {
	if writer.stream != nil {
		writer.stream.Drop()
		writer.stream, writer.failed = nil, errWriterClosed
	}
	return nil
}

func (writer *Writer) send() error {
	if writer.failed != nil || len(writer.buffer) == 0 {
		return writer.failed
	}
	calls.Lock()
	defer calls.Unlock()
	result := writer.stream.Write(writer.buffer)
	writer.buffer = writer.buffer[:0]
	if result.IsErr() {
		writer.failed = fromRaw(result.Err())
	}
	return writer.failed
}

// Reader reads one version, in any order. It stays that version whatever is saved meanwhile. It is an io.Reader, io.ReaderAt,
// io.Seeker, io.WriterTo and io.Closer.
type Reader struct {
	stream   *store.Reader
	info     Info
	piece    int
	position int64
}

// OpenReader opens the head of name, or version at unless that is 0. Nil: nothing was saved, or it is a tombstone.
func OpenReader(name string, at Version) (*Reader, error) {
	if err := texts(name); err != nil {
		return nil, err
	}
	piece := chunk()
	calls.Lock()
	defer calls.Unlock()
	result := store.ReaderOpen(name, number(at))
	if result.IsErr() {
		return nil, fromRaw(result.Err())
	}
	if result.Ok().IsNone() {
		return nil, nil
	}
	stream := result.Ok().Some()
	return &Reader{stream: stream, info: infoOf(stream.Info()), piece: piece}, nil
}

// Info is what is known of the version.
func (reader *Reader) Info() Info { return reader.info }

// Read reads from the position, and moves it.
func (reader *Reader) Read(bytes []byte) (int, error) {
	read, err := reader.next(bytes, reader.position)
	reader.position += int64(read)
	return read, err
}

// ReadAt reads from an offset, and leaves the position.
func (reader *Reader) ReadAt(bytes []byte, offset int64) (int, error) {
	read := 0
	for read < len(bytes) {
		more, err := reader.next(bytes[read:], offset+int64(read))
		read += more
		if err != nil {
			return read, err
		}
	}
	return read, nil
}

// Seek moves the position.
func (reader *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += reader.position
	case io.SeekEnd:
		offset += int64(reader.info.Size)
	default:
		return reader.position, &Error{Code: Invalid, Detail: "a seek is from the start, the position or the end"}
	}
	if reader.stream == nil {
		return reader.position, errReaderClosed
	}
	if offset < 0 {
		return reader.position, &Error{Code: Invalid, Detail: "a seek goes to 0 or later"}
	}
	reader.position = offset
	return offset, nil
}

// WriteTo writes all from the position, in the largest pieces that there are.
func (reader *Reader) WriteTo(writer io.Writer) (int64, error) {
	buffer, written := make([]byte, reader.piece), int64(0)
	for {
		read, err := reader.Read(buffer)
		if err == io.EOF {
			return written, nil
		}
		if err == nil {
			read, err = writer.Write(buffer[:read])
			written += int64(read)
		}
		if err != nil {
			return written, err
		}
	}
}

// Close gives back what the host holds for the reader.
func (reader *Reader) Close() error {
	if reader.stream != nil {
		reader.stream.Drop()
		reader.stream = nil
	}
	return nil
}

func (reader *Reader) next(bytes []byte, offset int64) (int, error) {
	if reader.stream == nil {
		return 0, errReaderClosed
	}
	if len(bytes) == 0 {
		return 0, nil
	}
	if offset < 0 {
		return 0, &Error{Code: Invalid, Detail: "an offset is 0 or more"}
	}
	calls.Lock()
	defer calls.Unlock()
	result := reader.stream.Read(uint64(offset), uint32(min(len(bytes), reader.piece)))
	if result.IsErr() {
		return 0, fromRaw(result.Err())
	}
	if len(result.Ok()) == 0 {
		return 0, io.EOF
	}
	return copy(bytes, result.Ok()), nil
}

func chunk() int { return int(max(1, min(GuestLimits().MaxChunk, collected))) }
