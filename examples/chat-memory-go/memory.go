package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	persist "example.com/persist/guest-sdk/go"
	"slices"
	"strings"
	"unicode"
)

// What the agent remembers: one state of this name, JSON, a version for each turn.
const name = "memory"

// The conversation so far, and the version it was loaded from or saved as last.
type memory struct {
	turns []turn
	head  persist.Version
}

type turn struct {
	Speaker *string `json:"speaker,omitempty"`
	Text    *string `json:"text"`
}

func loadMemory() (*memory, error) {
	loaded, found, err := persist.LoadVersion(name, 0)
	if err != nil || !found {
		return &memory{}, err
	}
	turns, err := read(loaded.State)
	if err != nil {
		return nil, fmt.Errorf("unreadable: version %d of %s is not what this agent reads (%w); it is left as it is, "+
			"and an earlier version may be readable", loaded.Info.Version, name, err)
	}
	return &memory{turns, loaded.Info.Version}, nil
}

// Adds one turn and saves. The save is refused if another run saved since: its turns are not ours to overwrite. After any error
// this memory is ahead of what is saved: load it again.
func (m *memory) add(line string) error {
	m.turns = append(m.turns, turnOf(line))
	number := len(m.turns)
	var state bytes.Buffer
	encoder := json.NewEncoder(&state)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(map[string][]turn{"turns": m.turns}); err != nil {
		return err
	}
	info, err := persist.SaveWith(name, bytes.TrimSuffix(state.Bytes(), []byte("\n")), persist.Options{
		Expect:    persist.Head(m.head),
		MediaType: "application/json",
		Labels:    []persist.Label{{Key: "turn", Value: fmt.Sprint(number)}},
	})
	switch {
	case errors.Is(err, persist.Conflict):
		return fmt.Errorf("turn %d was not saved: another run saved a turn meanwhile; run me again", number)
	case errors.Is(err, persist.UnknownOutcome):
		return fmt.Errorf("turn %d may or may not have been saved; run me again, I look first", number)
	case err != nil:
		return fmt.Errorf("turn %d was not saved: %w", number, err)
	}
	m.head = info.Version
	return nil
}

// Refuses a conversation that does not begin with exactly what is remembered.
func (m *memory) checkBeginningOf(lines []string) error {
	for at, known := range m.turns {
		theirs := "it ends before"
		if at < len(lines) {
			if turnOf(lines[at]).String() == known.String() {
				continue
			}
			theirs = fmt.Sprintf("it says \"%s\"", lines[at])
		}
		return fmt.Errorf("this is another conversation: in turn %d I remember \"%s\", %s", at+1, known, theirs)
	}
	return nil
}

// The last turn that shares a word with text, and the longest word they share. Short words say little.
func (m *memory) lastAbout(text string) (int, string) {
	wanted := words(text)
	for at := len(m.turns) - 1; at >= 0; at-- {
		longest := ""
		for _, word := range words(*m.turns[at].Text) {
			if len(word) > 4 && len(word) >= len(longest) && slices.Contains(wanted, word) {
				longest = word
			}
		}
		if longest != "" {
			return at + 1, longest
		}
	}
	return 0, ""
}

// A line of a conversation: "Speaker: text", or only the text.
func turnOf(line string) turn {
	speaker, text, found := strings.Cut(line, ": ")
	if !found {
		return turn{Text: &line}
	}
	return turn{&speaker, &text}
}

func (t turn) String() string {
	if t.Speaker == nil {
		return *t.Text
	}
	return *t.Speaker + ": " + *t.Text
}

func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsNumber(r)
	})
}

// The turns of a saved memory. What this agent does not know is from a later one, which knows more: it is not dropped.
func read(state []byte) ([]turn, error) {
	var saved struct {
		Turns *[]turn `json:"turns"`
	}
	decoder := json.NewDecoder(bytes.NewReader(state))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&saved); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON")
	}
	if saved.Turns == nil {
		return nil, errors.New("there are no turns")
	}
	for _, turn := range *saved.Turns {
		if turn.Text == nil {
			return nil, errors.New("a turn has no text")
		}
	}
	return *saved.Turns, nil
}
