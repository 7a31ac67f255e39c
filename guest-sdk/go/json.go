package persist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const jsonMediaType = "application/json"

// SaveJSON saves value as JSON, with the media type application/json where options have none.
func SaveJSON(name string, value any, options Options) (Info, error) {
	state, err := encodeJSON(value)
	if err != nil {
		return Info{}, err
	}
	if options.MediaType == "" {
		options.MediaType = jsonMediaType
	}
	return SaveWith(name, state, options)
}

// LoadJSON loads the head of name as a value of JSON. False: nothing was saved, or it was deleted. A state that is no T, or has
// fields that T lacks, is Unreadable, and is left as it is.
func LoadJSON[T any](name string) (T, bool, error) {
	value, _, found, err := loadJSON[T](name)
	return value, found, err
}

// Attempts of an update, which are conflicts but for the last.
const attempts = 10

// Update loads the value of JSON at the head of name, has change change it, and saves it, if the head is still what was loaded:
//
//	plan, err := persist.Update("plan", func(plan *Plan) error {
//		plan.Todo = append(plan.Todo, "buy milk")
//		return nil
//	})
//
// Where another run saved meanwhile, it begins again, and change is called again, at most ten times; then it fails with Conflict.
// Where nothing was saved, change gets the zero value. Where the value is the same afterwards, nothing is saved. An error of
// change ends the update, and is returned as it is.
func Update[T any](name string, change func(value *T) error) (T, error) {
	return UpdateWith(name, Options{}, change)
}

// UpdateWith is Update with a media type and labels. The expectation of the options must be Any.
func UpdateWith[T any](name string, options Options, change func(value *T) error) (T, error) {
	var none T
	if options.Expect != Any() && options.Expect != (Expect{}) {
		return none, &Error{Code: Invalid, Detail: "an update expects the head that it loaded"}
	}
	for attempt := 1; ; attempt++ {
		value, head, _, err := loadJSON[T](name)
		if err != nil {
			return none, err
		}
		before, err := encodeJSON(value)
		if err != nil {
			return none, err
		}
		if err := change(&value); err != nil {
			return none, err
		}
		after, err := encodeJSON(value)
		if err != nil {
			return none, err
		}
		if bytes.Equal(before, after) {
			return value, nil
		}
		options.Expect = Head(head)
		_, err = SaveJSON(name, value, options)
		if err == nil {
			return value, nil
		}
		if attempt == attempts || !errors.Is(err, Conflict) {
			return none, err
		}
	}
}

// The value at the head of a name, and the version that has it.
func loadJSON[T any](name string) (value T, head Version, found bool, err error) {
	loaded, found, err := LoadVersion(name, 0)
	if err != nil || !found {
		return value, 0, false, err
	}
	if err := decodeJSON(loaded.State, &value); err != nil {
		var none T
		return none, 0, false, &Error{
			Code: Unreadable, Version: loaded.Info.Version, Detail: err.Error(), Message: loaded.Info.Name,
		}
	}
	return value, loaded.Info.Version, true, nil
}

// A field that is not known is from a later agent, which knows more: it is not dropped.
func decodeJSON(state []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(state))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("something follows the JSON")
	}
	return nil
}

func encodeJSON(value any) ([]byte, error) {
	var state bytes.Buffer
	encoder := json.NewEncoder(&state)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, &Error{Code: Invalid, Detail: fmt.Sprintf("JSON cannot hold this value: %v", err)}
	}
	return bytes.TrimSuffix(state.Bytes(), []byte("\n")), nil
}
