// Package persist saves and loads the state of a sandboxed WebAssembly agent through a Persist host.
//
// An agent is one function. This one keeps notes:
//
//	package main
//
//	import persist "example.com/persist/guest-sdk/go"
//
//	func init() { persist.Agent(run) }
//
//	func main() {}
//
//	func run(args []string) (string, error) {
//		notes, _, err := persist.Load("notes")
//		if err != nil {
//			return "", err
//		}
//		for _, note := range args {
//			notes = append(notes, note+"\n"...)
//			if _, err := persist.Save("notes", notes); err != nil {
//				return "", err
//			}
//		}
//		return string(notes), nil
//	}
//
// A save never overwrites: it adds a version. The newest version of a name is its head. Where the host keeps them is not the
// agent's business: it can name its own states, and nothing else.
package persist

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	_ "example.com/persist/guest-sdk/go/internal/bindings/export"
	"example.com/persist/guest-sdk/go/internal/bindings/export_wit_world"
	store "example.com/persist/guest-sdk/go/internal/bindings/persist_snapshot_store"
	types "example.com/persist/guest-sdk/go/internal/bindings/persist_snapshot_types"
	witTypes "example.com/persist/guest-sdk/go/internal/wit/types"
)

// Agent says what the agent does: run gets the caller's arguments, and what it returns is the answer, or the reason why there is
// none. Call it in an init function; main is never called.
func Agent(run func(args []string) (string, error)) {
	export_wit_world.Agent = func(args []string) witTypes.Result[string, string] {
		own := make([]string, len(args))
		for i, arg := range args {
			own[i] = strings.Clone(arg)
		}
		answer, err := run(own)
		if err != nil {
			return witTypes.Err[string](reason(err))
		}
		return witTypes.Ok[string, string](text(answer))
	}
}

func reason(err error) string {
	if words := text(err.Error()); words != "" {
		return words
	}
	return "the agent gave no reason"
}

// Version is 1 for the first save of a name, then one more for each save, delete, restore or fork into it. 0 is none.
type Version = uint64

// Info is what is known of one version without reading its state.
type Info struct {
	Name       string
	Version    Version
	Parent     Version // The head when this one was made; 0 for the first.
	Deleted    bool    // A tombstone: the name was deleted here, and Size is 0.
	Size       uint64  // Bytes of state.
	StoredSize uint64  // Bytes at rest, compressed.
	SHA256     string  // Of the state, 64 lower-case hexadecimal digits.
	CreatedAt  uint64  // The host's clock, milliseconds since 1970 UTC. For people: Version is the order.
	MediaType  string  // Empty where none was given.
	Labels     []Label
}

// Label is kept with a version. Each key once; keys under "persist." are the host's.
type Label struct{ Key, Value string }

// Label returns the value of a label.
func (info Info) Label(key string) (string, bool) {
	for _, label := range info.Labels {
		if label.Key == key {
			return label.Value, true
		}
	}
	return "", false
}

// Time returns CreatedAt as a time, in UTC.
func (info Info) Time() time.Time { return time.UnixMilli(int64(info.CreatedAt)).UTC() }

// LabelMap returns the labels as a map.
func (info Info) LabelMap() map[string]string {
	labels := make(map[string]string, len(info.Labels))
	for _, label := range info.Labels {
		labels[label.Key] = label.Value
	}
	return labels
}

// LabelsOf returns the labels of a map for Options, in the order of their keys.
func LabelsOf(labels map[string]string) []Label {
	list := make([]Label, 0, len(labels))
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		list = append(list, Label{key, labels[key]})
	}
	return list
}

// Snapshot is one version with its state.
type Snapshot struct {
	Info  Info
	State []byte // Bit for bit as saved.
}

// Expect is what must be true of a name for a change to be made; else the change fails with Conflict. The zero value is Any.
type Expect struct{ raw types.Expect }

// Any expects nothing. A Writer takes the head when it is opened as what it expects.
func Any() Expect { return Expect{types.MakeExpectAny()} }

// Absent expects that nothing was saved, or that the head is a tombstone.
func Absent() Expect { return Expect{types.MakeExpectAbsent()} }

// Head expects that this version is still the head, or that there still is none where it is 0.
func Head(version Version) Expect {
	if version == 0 {
		return Absent()
	}
	return Expect{types.MakeExpectVersion(version)}
}

// HeadOf expects that the head that name has now is still the head. A tombstone is a head.
func HeadOf(name string) (Expect, error) {
	info, _, err := Stat(name, 0)
	return Head(info.Version), err
}

// Options say how to save. The zero value: whatever the head is, no media type, no labels.
type Options struct {
	Expect    Expect
	MediaType string // Kept, never interpreted.
	Labels    []Label
}

// Limits are those that an agent can plan for. Others are met as QuotaExceeded.
type Limits struct {
	MaxInline uint64 // Bytes of state in one Save or Load; above it, use Writer and Reader.
	MaxChunk  uint32 // Bytes that one call of a stream carries; Writer and Reader see to it.
	MaxState  uint64 // Bytes of one state.
	MaxName   uint32 // Bytes of a name, where one other than a-z 0-9 . _ - and a leading dot count as three.
	MaxPage   uint32 // Items in one page of history or names, which History and Names see to.
}

// GuestLimits says what this host allows this agent.
func GuestLimits() Limits {
	calls.Lock()
	defer calls.Unlock()
	return Limits(store.Limits())
}

// Save saves state as the next version of name, whatever the head is. No bytes are a state.
func Save(name string, state []byte) (Info, error) { return SaveWith(name, state, Options{}) }

// SaveWith saves state with an expectation, a media type or labels.
func SaveWith(name string, state []byte, options Options) (Info, error) {
	raw, err := options.raw(name)
	if err != nil {
		return Info{}, err
	}
	// The host ends an agent that passes much more than one call carries.
	if uint64(len(state)) > maxInline() {
		return Info{}, &Error{Code: TooLarge, Number: uint64(len(state))}
	}
	return made(func() rawInfo { return store.Save(name, state, raw) })
}

var maxInline = sync.OnceValue(readMaxInline)

func readMaxInline() uint64 { return GuestLimits().MaxInline }

// Load loads the state at the head of name. False: nothing was saved, or it was deleted.
func Load(name string) ([]byte, bool, error) {
	snapshot, found, err := LoadVersion(name, 0)
	return snapshot.State, found, err
}

// LoadVersion loads version at of name, or the head where it is 0, with what is known of it.
func LoadVersion(name string, at Version) (Snapshot, bool, error) {
	if err := texts(name); err != nil {
		return Snapshot{}, false, err
	}
	calls.Lock()
	defer calls.Unlock()
	result := store.Load(name, number(at))
	if result.IsErr() {
		return Snapshot{}, false, fromRaw(result.Err())
	}
	if result.Ok().IsNone() {
		return Snapshot{}, false, nil
	}
	loaded := result.Ok().Some()
	return Snapshot{infoOf(loaded.Info), bytes.Clone(loaded.State)}, true, nil
}

// Stat is LoadVersion without the state. A tombstone is found.
func Stat(name string, at Version) (Info, bool, error) {
	if err := texts(name); err != nil {
		return Info{}, false, err
	}
	calls.Lock()
	defer calls.Unlock()
	result := store.Stat(name, number(at))
	if result.IsErr() {
		return Info{}, false, fromRaw(result.Err())
	}
	if result.Ok().IsNone() {
		return Info{}, false, nil
	}
	return infoOf(result.Ok().Some()), true, nil
}

// Delete makes a tombstone the next version; Restore undoes it. NotFound: there is nothing to delete.
func Delete(name string, expect Expect) (Info, error) {
	if err := texts(name); err != nil {
		return Info{}, err
	}
	return made(func() rawInfo { return store.Delete(name, expect.raw) })
}

// Restore saves the state of version again as the next version.
func Restore(name string, version Version, expect Expect) (Info, error) {
	if err := texts(name); err != nil {
		return Info{}, err
	}
	return made(func() rawInfo { return store.Restore(name, version, expect.raw) })
}

// Fork saves the state of name, or of its version at unless that is 0, as the next version of newName.
func Fork(name string, at Version, newName string, expect Expect) (Info, error) {
	if err := texts(name, newName); err != nil {
		return Info{}, err
	}
	return made(func() rawInfo { return store.Fork(name, number(at), newName, expect.raw) })
}

func (options Options) raw(name string) (types.SaveOptions, error) {
	all := []string{name, options.MediaType}
	raw := types.SaveOptions{Expect: options.Expect.raw, MediaType: witTypes.None[string]()}
	if options.MediaType != "" {
		raw.MediaType = witTypes.Some(options.MediaType)
	}
	if len(options.Labels) > mostLabels {
		return raw, &Error{Code: Invalid, Detail: fmt.Sprintf("there are at most %d labels", mostLabels)}
	}
	for _, label := range options.Labels {
		all = append(all, label.Key, label.Value)
		raw.Labels = append(raw.Labels, types.Label{F0: label.Key, F1: label.Value})
	}
	return raw, texts(all...)
}

// The bindings give texts and bytes in memory that the next call is written to. So all of them are copied, in infoOf, fromRaw and
// wherever else; and the call of another goroutine waits until they are.
var calls sync.Mutex

type rawInfo = witTypes.Result[types.Info, types.Error]

func made(call func() rawInfo) (Info, error) {
	calls.Lock()
	defer calls.Unlock()
	result := call()
	if result.IsErr() {
		return Info{}, fromRaw(result.Err())
	}
	return infoOf(result.Ok()), nil
}

func infoOf(raw types.Info) Info {
	labels := make([]Label, len(raw.Labels))
	for i, label := range raw.Labels {
		labels[i] = Label{strings.Clone(label.F0), strings.Clone(label.F1)}
	}
	return Info{
		Name:       strings.Clone(raw.Name),
		Version:    raw.Version,
		Parent:     raw.Parent.SomeOr(0),
		Deleted:    raw.Deleted,
		Size:       raw.Size,
		StoredSize: raw.StoredSize,
		SHA256:     strings.Clone(raw.Sha256),
		CreatedAt:  raw.CreatedAt,
		MediaType:  strings.Clone(raw.MediaType.SomeOr("")),
		Labels:     labels,
	}
}

func number(version Version) witTypes.Option[uint64] {
	if version == 0 {
		return witTypes.None[uint64]()
	}
	return witTypes.Some(version)
}

const (
	longestText = 64 << 10
	mostLabels  = 1024
)

// The host ends an agent that passes bytes that are no UTF-8 for a text, or more than a call carries. It takes far less for a
// text, and says so.
func texts(all ...string) error {
	for _, one := range all {
		if len(one) > longestText {
			return &Error{Code: Invalid, Detail: fmt.Sprintf("a text has %d bytes; at most %d are allowed", len(one), longestText)}
		}
		if !utf8.ValidString(one) {
			return &Error{Code: Invalid, Detail: "a name, label or media type is UTF-8"}
		}
	}
	return nil
}

func text(words string) string { return strings.ToValidUTF8(words, "\uFFFD") }
