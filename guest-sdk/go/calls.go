package persist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Next is what a step decides: an Answer, or a Call for the driver.
type Next struct {
	answer string
	call   func(id string) (string, error)
}

// Answer ends the turn with an answer.
func Answer(text string) Next { return Next{answer: text} }

// Call has the driver make a call of a kind that it knows. params is a struct or a map in JSON; the
// fields call and id are added. The next step gets the reply.
func Call(kind string, params any) (Next, error) {
	text, err := encodeJSON(params)
	if err != nil {
		return Next{}, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		return Next{}, &Error{Code: Invalid, Detail: "the parameters of a call are a JSON object"}
	}
	if members["call"] != nil || members["id"] != nil {
		rule := "the parameters of a call have no call and no id, which are added"
		return Next{}, &Error{Code: Invalid, Detail: rule}
	}
	return Next{call: func(id string) (string, error) {
		head, err := encodeJSON(struct {
			Call string `json:"call"`
			ID   string `json:"id"`
		}{kind, id})
		if len(members) == 0 {
			return string(head), err
		}
		return string(head[:len(head)-1]) + "," + string(text[1:]), err
	}}, nil
}

// Steps say what an agent does with its input. Both change the state, and return Answer or Call.
type Steps[T any] struct {
	Message func(state *T, args []string) (Next, error) // A message of the user.
	Reply   func(state *T, text string) (Next, error)   // The driver's reply to the pending call.
}

// Contents of the snapshot, which are the same in the SDK of every language but C.
type savedCalls[T any] struct {
	State   T            `json:"state"`
	Pending *pendingCall `json:"pending"`
	Waiting [][]string   `json:"waiting"` // Messages that came while a call was pending.
	Last    *lastReply   `json:"last"`
}

type pendingCall struct {
	ID      string   `json:"id"`
	Message []string `json:"message"`
	Call    string   `json:"call"` // As the driver gets it.
}

// The last call that was replied to, and the answer of its turn.
type lastReply struct {
	ID     string `json:"id"`
	Answer string `json:"answer"`
}

// RunCalls takes the arguments of a run, and returns its answer, which may be a call for the
// driver:
//
//	func run(args []string) (string, error) {
//		return persist.RunCalls("chat", args, persist.Steps[Chat]{
//			Message: func(chat *Chat, args []string) (persist.Next, error) {
//				chat.Messages = append(chat.Messages, Message{"user", strings.Join(args, " ")})
//				return persist.Call("model", chat)
//			},
//			Reply: func(chat *Chat, text string) (persist.Next, error) {
//				chat.Messages = append(chat.Messages, Message{"assistant", text})
//				return persist.Answer(text), nil
//			},
//		})
//	}
//
// An agent has no network of its own. It answers with a call, as JSON. The program that runs it,
// the driver, makes the call and runs the agent again with "reply", the call's id and the reply.
// `persist chat --driver PROGRAM` is such a driver.
//
// The state is saved under name with the pending call, before the call is returned. A run that is
// killed, or a driver, loses no turn and doubles none:
//
//   - "reply", ID, TEXT is the reply to a call. A second reply to the same call gets the answer of
//     the first. While another call is pending, that call is returned.
//   - Other arguments are a message. While a call is pending, the same message returns that call
//     again. A different message waits until the call is replied to.
//   - No arguments return the pending call.
//
// The steps may be called again if another run saved meanwhile. An error of theirs ends the run,
// and nothing is saved. An answer that a driver would take for a call is returned with "answer: "
// before it.
func RunCalls[T any](name string, args []string, steps Steps[T]) (string, error) {
	for attempt := 1; ; attempt++ {
		saved, head, err := loadCalls[T](name)
		if err != nil {
			return "", err
		}
		before, err := encodeJSON(saved)
		if err != nil {
			return "", err
		}
		answer, err := saved.take(fmt.Sprint("turn-", head+1), args, steps)
		if err != nil {
			return "", err
		}
		after, err := encodeJSON(saved)
		if err != nil || bytes.Equal(before, after) {
			return answer, err
		}
		_, err = SaveJSON(name, saved, Options{Expect: Head(head)})
		if err == nil || attempt == attempts || !errors.Is(err, Conflict) {
			return answer, err
		}
	}
}

// What is saved, and the version of the head. A tombstone is a head.
func loadCalls[T any](name string) (savedCalls[T], Version, error) {
	for {
		saved, head, found, err := loadJSON[savedCalls[T]](name)
		if err == nil && found && saved.Waiting == nil {
			detail := "it was not saved by RunCalls"
			err = &Error{Code: Unreadable, Version: head, Detail: detail, Message: name}
		}
		if err != nil || found {
			return saved, head, err
		}
		info, found, err := Stat(name, 0)
		// A run that saved in between is loaded.
		if err != nil || !found || info.Deleted {
			return savedCalls[T]{Waiting: [][]string{}}, info.Version, err
		}
	}
}

func (saved *savedCalls[T]) take(id string, args []string, steps Steps[T]) (string, error) {
	pending := saved.Pending
	if len(args) == 3 && args[0] == "reply" {
		switch {
		case pending == nil && saved.Last != nil && saved.Last.ID == args[1]:
			return saved.Last.Answer, nil
		case pending == nil:
			detail := fmt.Sprintf("no call %s is pending", args[1])
			return "", &Error{Code: Invalid, Detail: detail}
		case pending.ID != args[1]:
			return pending.Call, nil
		}
		saved.Pending = nil
		next, err := steps.Reply(&saved.State, args[2])
		if err != nil {
			return "", err
		}
		return saved.proceed(id, next, pending.Message, pending.ID, steps)
	}
	if pending != nil {
		latest := pending.Message
		if len(saved.Waiting) > 0 {
			latest = saved.Waiting[len(saved.Waiting)-1]
		}
		if len(args) > 0 && !slices.Equal(args, latest) {
			saved.Waiting = append(saved.Waiting, args)
		}
		return pending.Call, nil
	}
	if len(args) == 0 {
		return "", &Error{Code: Invalid, Detail: "no call is pending; give a message"}
	}
	next, err := steps.Message(&saved.State, args)
	if err != nil {
		return "", err
	}
	return saved.proceed(id, next, args, "", steps)
}

// Keeps the call that comes next, or answers; then the next message that waits has its turn.
func (saved *savedCalls[T]) proceed(
	id string, next Next, message []string, replied string, steps Steps[T],
) (string, error) {
	for {
		if next.call != nil {
			call, err := next.call(id)
			saved.Pending = &pendingCall{id, message, call}
			return call, err
		}
		answer := told(next.answer)
		if len(saved.Waiting) == 0 {
			if replied != "" {
				saved.Last = &lastReply{replied, answer}
			}
			return answer, nil
		}
		message, saved.Waiting = saved.Waiting[0], saved.Waiting[1:]
		var err error
		if next, err = steps.Message(&saved.State, message); err != nil {
			return "", err
		}
	}
}

// An answer, so that no driver takes it for a call.
func told(answer string) string {
	var members map[string]json.RawMessage
	if !strings.HasPrefix(strings.TrimLeft(answer, " \t\r\n"), "{") {
		return answer
	}
	if json.Unmarshal([]byte(answer), &members) == nil && members["call"] != nil {
		return "answer: " + answer
	}
	return answer
}
