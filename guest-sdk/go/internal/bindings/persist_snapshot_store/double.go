//go:build !wasip1

package persist_snapshot_store

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	types "example.com/persist/guest-sdk/go/internal/bindings/persist_snapshot_types"
	witTypes "example.com/persist/guest-sdk/go/internal/wit/types"
)

// The host in memory, for tests without WebAssembly. It has the functions of the generated bindings, and the rules of a host.

// Bytes of labels and media type together, as a host has it.
const maxLabelBytes = 8 << 10

var defaultLimits = types.GuestLimits{MaxInline: 16 << 20, MaxChunk: 1 << 20, MaxState: 1 << 30, MaxName: 200, MaxPage: 100}

// Version n of a name is item n - 1: nothing is pruned.
type double struct {
	lock    sync.Mutex
	names   map[string][]types.Snapshot
	limits  types.GuestLimits
	failure *types.Error
}

var host = double{names: map[string][]types.Snapshot{}, limits: defaultLimits}

// Reset forgets all that was saved, and takes back SetLimits and FailNext.
func Reset() {
	host.lock.Lock()
	defer host.lock.Unlock()
	host.names, host.limits, host.failure = map[string][]types.Snapshot{}, defaultLimits, nil
}

// SetLimits has the host answer and enforce these limits.
func SetLimits(limits types.GuestLimits) {
	host.lock.Lock()
	defer host.lock.Unlock()
	host.limits = limits
}

// FailNext makes the next call fail.
func FailNext(failure types.Error) {
	host.lock.Lock()
	defer host.lock.Unlock()
	host.failure = &failure
}

// Every call goes through here, so that none escapes FailNext. A failure is a panic with an error of the contract.
func call[T any](answer func() T) (result witTypes.Result[T, types.Error]) {
	host.lock.Lock()
	defer host.lock.Unlock()
	defer func() {
		switch failure := recover().(type) {
		case nil:
		case types.Error:
			result = witTypes.Err[T](failure)
		default:
			panic(failure)
		}
	}()
	if failure := host.failure; failure != nil {
		host.failure = nil
		panic(*failure)
	}
	return witTypes.Ok[T, types.Error](answer())
}

func invalid(format string, values ...any) {
	panic(types.MakeErrorInvalid(fmt.Sprintf(format, values...)))
}

func quota(limit string, max uint64) {
	panic(types.MakeErrorQuotaExceeded(types.Quota{Limit: limit, Max: max}))
}

// The head, or version at; a tombstone too.
func find(name string, at witTypes.Option[uint64]) *types.Snapshot {
	checkName(name)
	versions := host.names[name]
	wanted := at.SomeOr(uint64(len(versions)))
	if at.IsSome() && (wanted == 0 || wanted > uint64(len(versions))) {
		panic(types.MakeErrorNotFound())
	}
	if wanted == 0 {
		return nil
	}
	return &versions[wanted-1]
}

// As find, without tombstones.
func findState(name string, at witTypes.Option[uint64]) *types.Snapshot {
	found := find(name, at)
	if found != nil && found.Info.Deleted {
		return nil
	}
	return found
}

// As findState; none is an error.
func needState(name string, at witTypes.Option[uint64]) *types.Snapshot {
	found := findState(name, at)
	if found == nil {
		panic(types.MakeErrorNotFound())
	}
	return found
}

func headOf(name string) witTypes.Option[uint64] {
	if count := len(host.names[name]); count > 0 {
		return witTypes.Some(uint64(count))
	}
	return witTypes.None[uint64]()
}

// The one place where a version is added.
func commit(name string, options types.SaveOptions, state []byte, deleted bool) types.Info {
	checkExpect(name, options.Expect)
	parent := headOf(name)
	info := types.Info{
		Name: name, Version: parent.SomeOr(0) + 1, Parent: parent, Deleted: deleted,
		Size: uint64(len(state)), StoredSize: uint64(len(state)), Sha256: fmt.Sprintf("%x", sha256.Sum256(state)),
		CreatedAt: uint64(time.Now().UnixMilli()), MediaType: options.MediaType, Labels: slices.Clone(options.Labels),
	}
	host.names[name] = append(host.names[name], types.Snapshot{Info: info, State: slices.Clone(state)})
	return info
}

// How to save a state again: with what its author gave, and where it is from.
func again(saved *types.Snapshot, expect types.Expect, key, value string) types.SaveOptions {
	labels := slices.DeleteFunc(slices.Clone(saved.Info.Labels), func(label types.Label) bool {
		return strings.HasPrefix(label.F0, "persist.")
	})
	labels = append(labels, types.Label{F0: key, F1: value})
	return types.SaveOptions{Expect: expect, MediaType: saved.Info.MediaType, Labels: labels}
}

func checkExpect(name string, expect types.Expect) {
	head := headOf(name)
	holds := true
	switch expect.Tag() {
	case types.Expect_Absent:
		holds = head.IsNone() || host.names[name][head.Some()-1].Info.Deleted
	case types.Expect_Version:
		holds = head.SomeOr(0) == expect.Version()
	}
	if !holds {
		panic(types.MakeErrorConflict(head))
	}
}

// A host counts the bytes of a name in its key, where all but the plainest cost three.
func checkName(name string) {
	if name == "" {
		invalid("a name is empty; the minimum is one byte")
	}
	cost := 0
	for at := range len(name) {
		const plain = "abcdefghijklmnopqrstuvwxyz0123456789_-"
		if strings.IndexByte(plain, name[at]) >= 0 || name[at] == '.' && at > 0 {
			cost++
		} else {
			cost += 3
		}
	}
	for _, character := range name {
		if character < 32 || character >= 127 && character < 160 {
			invalid("a name contains the control character U+%04X", character)
		}
	}
	if cost > int(host.limits.MaxName) {
		invalid("a name is %d bytes long; at most %d are allowed, and every byte except a-z 0-9 . _ - counts as three",
			cost, host.limits.MaxName)
	}
}

func checkOptions(options types.SaveOptions) {
	size := len(options.MediaType.SomeOr(""))
	for _, label := range options.Labels {
		size += len(label.F0) + len(label.F1)
	}
	if size > maxLabelBytes {
		invalid("labels and media type have %d bytes; the maximum is %d", size, maxLabelBytes)
	}
	known := map[string]bool{}
	for _, label := range options.Labels {
		switch {
		case label.F0 == "":
			invalid("the label key %q is empty", label.F0)
		case strings.HasPrefix(label.F0, "persist."):
			invalid("the label key %q is reserved: it starts with persist.", label.F0)
		case known[label.F0]:
			invalid("the label key %q is given twice", label.F0)
		}
		known[label.F0] = true
	}
}

func checkInline(size int) {
	if uint64(size) > host.limits.MaxInline {
		panic(types.MakeErrorTooLarge(uint64(size)))
	}
}

func checkState(size int) {
	if uint64(size) > host.limits.MaxState {
		quota("state-size", host.limits.MaxState)
	}
}

func page(limit uint32) int {
	if limit == 0 {
		invalid("a limit is 0; the minimum is 1")
	}
	return int(min(limit, host.limits.MaxPage))
}

func Limits() types.GuestLimits {
	host.lock.Lock()
	defer host.lock.Unlock()
	return host.limits
}

func Save(name string, state []uint8, options types.SaveOptions) witTypes.Result[types.Info, types.Error] {
	return call(func() types.Info {
		checkName(name)
		checkOptions(options)
		checkInline(len(state))
		checkState(len(state))
		return commit(name, options, state, false)
	})
}

func Load(name string, at witTypes.Option[uint64]) witTypes.Result[witTypes.Option[types.Snapshot], types.Error] {
	return call(func() witTypes.Option[types.Snapshot] {
		found := findState(name, at)
		if found == nil {
			return witTypes.None[types.Snapshot]()
		}
		checkInline(len(found.State))
		return witTypes.Some(*found)
	})
}

func Stat(name string, at witTypes.Option[uint64]) witTypes.Result[witTypes.Option[types.Info], types.Error] {
	return call(func() witTypes.Option[types.Info] {
		if found := find(name, at); found != nil {
			return witTypes.Some(found.Info)
		}
		return witTypes.None[types.Info]()
	})
}

func History(name string, before witTypes.Option[uint64], limit uint32) witTypes.Result[[]types.Info, types.Error] {
	return call(func() []types.Info {
		checkName(name)
		most := page(limit)
		infos := []types.Info{}
		for _, saved := range slices.Backward(host.names[name]) {
			if len(infos) < most && (before.IsNone() || saved.Info.Version < before.Some()) {
				infos = append(infos, saved.Info)
			}
		}
		return infos
	})
}

func Names(prefix string, after witTypes.Option[string], limit uint32) witTypes.Result[[]string, types.Error] {
	return call(func() []string {
		most := page(limit)
		if after.IsSome() {
			checkName(after.Some())
		}
		names := []string{}
		for name := range host.names {
			if strings.HasPrefix(name, prefix) && (after.IsNone() || name > after.Some()) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names[:min(most, len(names))]
	})
}

func Delete(name string, expect types.Expect) witTypes.Result[types.Info, types.Error] {
	return call(func() types.Info {
		checkName(name)
		checkExpect(name, expect)
		needState(name, witTypes.None[uint64]())
		return commit(name, types.SaveOptions{Expect: expect}, nil, true)
	})
}

func Restore(name string, version uint64, expect types.Expect) witTypes.Result[types.Info, types.Error] {
	return call(func() types.Info {
		saved := needState(name, witTypes.Some(version))
		return commit(name, again(saved, expect, "persist.restored-from", fmt.Sprint(version)), saved.State, false)
	})
}

func Fork(name string, at witTypes.Option[uint64], newName string, expect types.Expect) witTypes.Result[types.Info, types.Error] {
	return call(func() types.Info {
		checkName(newName)
		saved := needState(name, at)
		return commit(newName, again(saved, expect, "persist.forked-from", name), saved.State, false)
	})
}

// Writer collects a state. After an error it can only be dropped.
type Writer struct {
	name    string
	options types.SaveOptions
	state   []byte
	failed  bool
}

func WriterOpen(name string, options types.SaveOptions) witTypes.Result[*Writer, types.Error] {
	return call(func() *Writer {
		checkName(name)
		checkOptions(options)
		checkExpect(name, options.Expect)
		if options.Expect.Tag() == types.Expect_Any {
			options.Expect = types.MakeExpectAbsent()
			if head := headOf(name); head.IsSome() {
				options.Expect = types.MakeExpectVersion(head.Some())
			}
		}
		return &Writer{name: name, options: options}
	})
}

func (writer *Writer) check() {
	if writer.failed {
		invalid("a writer cannot continue after an error; drop it and open a new one")
	}
}

func (writer *Writer) Write(chunk []uint8) witTypes.Result[witTypes.Unit, types.Error] {
	result := call(func() witTypes.Unit {
		writer.check()
		if len(chunk) > int(host.limits.MaxChunk) {
			quota("chunk", uint64(host.limits.MaxChunk))
		}
		checkState(len(writer.state) + len(chunk))
		writer.state = append(writer.state, chunk...)
		return witTypes.Unit{}
	})
	writer.failed = writer.failed || result.IsErr()
	return result
}

func WriterFinish(writer *Writer) witTypes.Result[types.Info, types.Error] {
	return call(func() types.Info {
		writer.check()
		return commit(writer.name, writer.options, writer.state, false)
	})
}

func (writer *Writer) Drop() {}

// Reader reads one version.
type Reader struct{ saved types.Snapshot }

func ReaderOpen(name string, at witTypes.Option[uint64]) witTypes.Result[witTypes.Option[*Reader], types.Error] {
	return call(func() witTypes.Option[*Reader] {
		if found := findState(name, at); found != nil {
			return witTypes.Some(&Reader{*found})
		}
		return witTypes.None[*Reader]()
	})
}

func (reader *Reader) Info() types.Info { return reader.saved.Info }

func (reader *Reader) Read(offset uint64, length uint32) witTypes.Result[[]uint8, types.Error] {
	return call(func() []uint8 {
		if length == 0 {
			invalid("a read of 0 bytes; it reads at least 1")
		}
		from := min(offset, uint64(len(reader.saved.State)))
		to := min(from+uint64(min(length, host.limits.MaxChunk)), uint64(len(reader.saved.State)))
		return slices.Clone(reader.saved.State[from:to])
	})
}

func (reader *Reader) Drop() {}
