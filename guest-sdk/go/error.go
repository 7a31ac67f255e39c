package persist

import (
	"fmt"
	"strings"
	"time"

	types "example.com/persist/guest-sdk/go/internal/bindings/persist_snapshot_types"
)

// Code says why a call failed. It is an error for errors.Is:
//
//	if errors.Is(err, persist.Conflict) { … }
//
// After any but UnknownOutcome, the call has changed nothing.
type Code string

const (
	Conflict       Code = "conflict"        // The expectation does not hold.
	NotFound       Code = "not-found"       // The name or version that the call needs was never saved, or was pruned.
	Denied         Code = "denied"          // This agent lacks a right.
	TooLarge       Code = "too-large"       // More than one call carries: use Writer or Reader.
	QuotaExceeded  Code = "quota-exceeded"  // A limit of this agent was met.
	Invalid        Code = "invalid"         // An argument breaks a rule.
	Corrupt        Code = "corrupt"         // What is stored fails verification, and nothing of it is returned.
	Unreadable     Code = "unreadable"      // The state is not what the agent reads. It is left as it is.
	Throttled      Code = "throttled"       // Later.
	Unavailable    Code = "unavailable"     // Storage cannot be reached or refuses the host.
	Timeout        Code = "timeout"         // The host's time for the call ran out.
	UnknownOutcome Code = "unknown-outcome" // The change may have been made: Stat it and compare before trying again.
	Other          Code = "other"           // Anything else.
)

// Error is the code.
func (code Code) Error() string { return string(code) }

// Error is why a call failed, in all its details. Get it with errors.As.
type Error struct {
	Code Code
	// Conflict: the head, 0 where nothing was saved. UnknownOutcome: the version that the change may have become. Unreadable: the
	// version that was loaded.
	Version Version
	// TooLarge: bytes of the state. QuotaExceeded: the limit's value.
	Number uint64
	// Throttled: how long to wait; 0 if unknown.
	Wait time.Duration
	// Denied: the right. QuotaExceeded: the name of the limit. Other: its code, to be matched on. Else words for people.
	Detail string
	// Unreadable: the name. Other: words for people.
	Message string
}

// Is makes errors.Is(err, Conflict) and the like true.
func (err *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && code == err.Code
}

// Error says what happened, and what helps.
func (err *Error) Error() string {
	switch err.Code {
	case Conflict:
		if err.Version == 0 {
			return "conflict: this change expects a version, and nothing is saved under the name"
		}
		return fmt.Sprintf("conflict: the newest version is %d, not what this change expects; load it and decide again", err.Version)
	case NotFound:
		return "not found: never saved, or pruned; the history lists what there is"
	case Denied:
		return fmt.Sprintf("denied: this agent has no right to %s; the operator can grant it", err.Detail)
	case TooLarge:
		return fmt.Sprintf("too large: the state has %d bytes, more than one call carries; save it with Writer, load it with Reader", err.Number)
	case QuotaExceeded:
		return fmt.Sprintf("quota exceeded: %s is limited to %d; use less, or ask the operator for more", err.Detail, err.Number)
	case Invalid:
		return "invalid argument: " + err.Detail
	case Corrupt:
		return fmt.Sprintf("corrupt: what is stored fails verification (%s); an earlier version may be whole", err.Detail)
	case Unreadable:
		return fmt.Sprintf("unreadable: version %d of %s is not what this agent reads (%s); it is left as it is, "+
			"and an earlier version may be readable", err.Version, err.Message, err.Detail)
	case Throttled:
		if err.Wait == 0 {
			return "throttled: try again later"
		}
		return fmt.Sprintf("throttled: try again in %d ms", err.Wait.Milliseconds())
	case Unavailable:
		return "storage is unavailable, tell the operator: " + err.Detail
	case Timeout:
		return "timeout: the host's time for the call ran out and nothing was changed; try again"
	case UnknownOutcome:
		return fmt.Sprintf("unknown outcome: it may have been saved as version %d; stat that and compare before trying again", err.Version)
	default:
		return fmt.Sprintf("%s (%s)", err.Message, err.Detail)
	}
}

func fromRaw(raw types.Error) error {
	switch raw.Tag() {
	case types.Error_Conflict:
		return &Error{Code: Conflict, Version: raw.Conflict().SomeOr(0)}
	case types.Error_NotFound:
		return &Error{Code: NotFound}
	case types.Error_Denied:
		return &Error{Code: Denied, Detail: strings.Clone(raw.Denied())}
	case types.Error_TooLarge:
		return &Error{Code: TooLarge, Number: raw.TooLarge()}
	case types.Error_QuotaExceeded:
		return &Error{Code: QuotaExceeded, Detail: strings.Clone(raw.QuotaExceeded().Limit), Number: raw.QuotaExceeded().Max}
	case types.Error_Invalid:
		return &Error{Code: Invalid, Detail: strings.Clone(raw.Invalid())}
	case types.Error_Corrupt:
		return &Error{Code: Corrupt, Detail: strings.Clone(raw.Corrupt())}
	case types.Error_Throttled:
		return &Error{Code: Throttled, Wait: time.Duration(raw.Throttled().SomeOr(0)) * time.Millisecond}
	case types.Error_Unavailable:
		return &Error{Code: Unavailable, Detail: strings.Clone(raw.Unavailable())}
	case types.Error_Timeout:
		return &Error{Code: Timeout}
	case types.Error_UnknownOutcome:
		return &Error{Code: UnknownOutcome, Version: raw.UnknownOutcome()}
	default:
		return &Error{Code: Other, Detail: strings.Clone(raw.Other().Code), Message: strings.Clone(raw.Other().Message)}
	}
}
