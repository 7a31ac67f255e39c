package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	persist "example.com/persist/guest-sdk/go"
)

// Runs scenarios natively, against the double: one a line of the file PERSIST_SCRIPT, its arguments separated by U+001F. The
// answers go to the file of the same name and .out.
func TestScript(t *testing.T) {
	persist.NewTestHost(t)
	script, err := os.Open(os.Getenv("PERSIST_SCRIPT"))
	if err != nil {
		t.Fatal(err)
	}
	defer script.Close()
	var told []string
	for lines := bufio.NewScanner(script); lines.Scan(); {
		answer, err := run(strings.Split(lines.Text(), "\x1f"))
		answer = "ok " + answer
		if err != nil {
			answer = fmt.Sprint("error ", err)
		}
		told = append(told, strings.ReplaceAll(answer, "\n", "\x1e")+"\n")
	}
	if err := os.WriteFile(script.Name()+".out", []byte(strings.Join(told, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}
