// An agent that remembers a conversation. It saves its memory after every turn, so whatever stops it, the next run goes on from
// the last turn that was acknowledged. Its memory is that of examples/chat-memory: agents in any language go on with it.
package main

import (
	"errors"
	"fmt"
	persist "example.com/persist/guest-sdk/go"
	"strings"
)

const usage = "usage: say TEXT…            remember each TEXT as a turn of the conversation\n" +
	"       follow LINE…         a conversation, one line each (`Speaker: text` or plain text):\n" +
	"                            go on from the first line that is not remembered\n" +
	"       recall [WORD]        the last turns, or those that hold WORD"

func init() { persist.Agent(run) }

func main() {}

func run(args []string) (string, error) {
	switch {
	case len(args) > 1 && args[0] == "say":
		return say(args[1:])
	case len(args) > 1 && args[0] == "follow":
		return follow(args[1:])
	case len(args) == 1 && args[0] == "recall":
		return recall(nil)
	case len(args) == 2 && args[0] == "recall":
		return recall(&args[1])
	}
	return "", errors.New(usage)
}

func say(texts []string) (string, error) {
	memory, err := loadMemory()
	if err != nil {
		return "", err
	}
	var answers []string
	for _, text := range texts {
		echo := "that is new to me"
		if turn, word := memory.lastAbout(text); turn > 0 {
			echo = fmt.Sprintf("you spoke of \"%s\" before, in turn %d", word, turn)
		}
		if err := memory.add(text); err != nil {
			return "", err
		}
		answers = append(answers, fmt.Sprintf("turn %d: %s", len(memory.turns), echo))
	}
	return strings.Join(answers, "\n"), nil
}

func follow(lines []string) (string, error) {
	memory, err := loadMemory()
	if err != nil {
		return "", err
	}
	known := len(memory.turns)
	if err := memory.checkBeginningOf(lines); err != nil {
		return "", err
	}
	for _, line := range lines[known:] {
		if err := memory.add(line); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("remembered %d turns, added %d", known, len(lines)-known), nil
}

func recall(word *string) (string, error) {
	memory, err := loadMemory()
	if err != nil {
		return "", err
	}
	answer := []string{fmt.Sprintf("I remember %d turns.", len(memory.turns))}
	for at, turn := range memory.turns {
		line := fmt.Sprintf("turn %d: %s", at+1, turn)
		isShown := at >= len(memory.turns)-3
		if word != nil {
			isShown = strings.Contains(strings.ToLower(line), strings.ToLower(*word))
		}
		if isShown {
			answer = append(answer, line)
		}
	}
	return strings.Join(answer, "\n"), nil
}
