//go:build !wasip1

package persist

import (
	"sync"
	"testing"

	store "example.com/persist/guest-sdk/go/internal/bindings/persist_snapshot_store"
	types "example.com/persist/guest-sdk/go/internal/bindings/persist_snapshot_types"
	witTypes "example.com/persist/guest-sdk/go/internal/wit/types"
)

// TestHost is the store in memory that the calls of this package use outside WebAssembly. It has the rules of a host. What it
// lacks is a disk, compression and pruning.
type TestHost struct{}

// NewTestHost has a test begin with nothing saved, and end so. All tests of a process share the store, so they cannot be
// parallel.
//
//	func TestNotesAreKept(t *testing.T) {
//		persist.NewTestHost(t)
//		…
//	}
func NewTestHost(t testing.TB) TestHost {
	t.Helper()
	forget := func() {
		store.Reset()
		maxInline = sync.OnceValue(readMaxInline)
	}
	forget()
	t.Cleanup(forget)
	return TestHost{}
}

// SetLimits has the host answer and enforce these limits until the test ends.
func (TestHost) SetLimits(limits Limits) {
	store.SetLimits(types.GuestLimits(limits))
	maxInline = sync.OnceValue(readMaxInline)
}

// FailNext makes the next call fail with a code, and change nothing. Calls of a Reader or a Writer count. Conflict and
// UnknownOutcome name version 1.
func (TestHost) FailNext(code Code) {
	failures := map[Code]types.Error{
		Conflict:       types.MakeErrorConflict(witTypes.Some(uint64(1))),
		NotFound:       types.MakeErrorNotFound(),
		Denied:         types.MakeErrorDenied("save"),
		TooLarge:       types.MakeErrorTooLarge(1),
		QuotaExceeded:  types.MakeErrorQuotaExceeded(types.Quota{Limit: "versions-at-rest", Max: 1}),
		Invalid:        types.MakeErrorInvalid("a test asked for it"),
		Corrupt:        types.MakeErrorCorrupt("a test asked for it"),
		Throttled:      types.MakeErrorThrottled(witTypes.None[uint64]()),
		Unavailable:    types.MakeErrorUnavailable("a test asked for it"),
		Timeout:        types.MakeErrorTimeout(),
		UnknownOutcome: types.MakeErrorUnknownOutcome(1),
	}
	failure, known := failures[code]
	if !known {
		failure = types.MakeErrorOther(types.Failure{Code: string(code), Message: "a test asked for it"})
	}
	store.FailNext(failure)
}
