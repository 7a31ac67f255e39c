// One agent for the tests of the Go SDK: its first argument picks a scenario, and the words are those of tests/guest.
// Where a scenario makes up a state, the byte at offset i is byteAt(i).
package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	persist "example.com/persist/guest-sdk/go"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

const mib = 1 << 20

func init() { persist.Agent(run) }

func main() {}

var scenarios = map[string]func(args []string) (string, error){
	"save": save, "save-expect": saveExpect, "save-labels": saveLabels, "big-save": bigSave, "load": load, "stat": stat,
	"history": history, "names": names, "delete": del, "restore": restore, "fork": fork, "limits": limits, "stream": stream,
	"stream-mib": streamMib, "stream-expect": streamExpect, "stream-beside-save": streamBesideSave, "copy": copyStream,
	"read-at": readAt, "unfinished": unfinished, "leaked": leaked, "trap-mid-write": trapMidWrite, "many-writers": manyWriters,
	"trap": trap, "print": print_, "error": fail, "echo": echo, "load-uncaught": loadUncaught, "wasi": wasi,
	"save-deep": saveDeep, "zeros-save": zerosSave, "head": head, "save-at-head": saveAtHead, "update": update,
	"json-info": jsonInfo, "huge-texts": hugeTexts, "load-sizes": loadSizes, "read-all": readAll, "closed": closed,
	"calls": talk,
}

// How many arguments a scenario has at least.
var least = map[string]int{
	"save": 2, "save-expect": 3, "save-labels": 3, "big-save": 2, "load": 1, "stat": 1, "history": 1, "names": 1, "delete": 1,
	"restore": 2, "fork": 2, "stream": 3, "stream-mib": 2, "stream-expect": 3, "stream-beside-save": 1, "copy": 2, "read-at": 3,
	"unfinished": 1, "leaked": 1, "trap-mid-write": 1, "many-writers": 2, "print": 1, "error": 1, "load-uncaught": 1,
	"save-deep": 2, "zeros-save": 2, "head": 1, "save-at-head": 2, "update": 2, "json-info": 1, "huge-texts": 0, "load-sizes": 3, "read-all": 1, "closed": 1,
	"calls": 1,
}

func run(args []string) (string, error) {
	if len(args) == 0 || scenarios[args[0]] == nil || len(args)-1 < least[args[0]] {
		return "", errors.New("usage: a scenario of tests/languages/go, and its arguments")
	}
	answer, err := scenarios[args[0]](args[1:])
	if args[0] != "load-uncaught" {
		err = described(err)
	}
	return answer, err
}

// The error as the contract calls it, with its details.
func described(err error) error {
	var told *persist.Error
	if !errors.As(err, &told) {
		return err
	}
	words := string(told.Code)
	switch told.Code {
	case persist.Conflict:
		if told.Version == 0 {
			words += " none"
		} else {
			words += fmt.Sprint(" ", told.Version)
		}
	case persist.UnknownOutcome:
		words += fmt.Sprint(" ", told.Version)
	case persist.TooLarge:
		words += fmt.Sprint(" ", told.Number)
	case persist.QuotaExceeded:
		words += fmt.Sprint(" ", told.Detail, " ", told.Number)
	case persist.NotFound, persist.Timeout:
	default:
		words += " " + told.Detail
	}
	return errors.New(words)
}

func version(info persist.Info, err error) (string, error) {
	return fmt.Sprint("version ", info.Version), err
}

func expect(text string) persist.Expect {
	switch text {
	case "any":
		return persist.Any()
	case "absent":
		return persist.Absent()
	}
	return persist.Head(number(text))
}

func number(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

func at(args []string, index int) uint64 {
	if len(args) > index {
		return number(args[index])
	}
	return 0
}

func byteAt(i uint64) byte { return byte((i + 1) * 0x9E3779B97F4A7C15 >> 40) }

func madeUp(from, size uint64) []byte {
	bytes := make([]byte, size)
	for i := range bytes {
		bytes[i] = byteAt(from + uint64(i))
	}
	return bytes
}

func describe(info persist.Info) string {
	parent, kind, media, labels := "none", "saved", "none", "none"
	if info.Parent != 0 {
		parent = fmt.Sprint(info.Parent)
	}
	if info.Deleted {
		kind = "deleted"
	}
	if info.MediaType != "" {
		media = info.MediaType
	}
	if len(info.Labels) > 0 {
		var all []string
		for _, label := range info.Labels {
			all = append(all, label.Key+"="+label.Value)
		}
		labels = strings.Join(all, ",")
	}
	return fmt.Sprintf("version %d parent %s %s size %d sha256 %s media-type %s labels %s name %s",
		info.Version, parent, kind, info.Size, info.SHA256, media, labels, info.Name)
}

func save(args []string) (string, error) { return version(persist.Save(args[0], []byte(args[1]))) }

func saveExpect(args []string) (string, error) {
	return version(persist.SaveWith(args[0], []byte(args[2]), persist.Options{Expect: expect(args[1])}))
}

func saveLabels(args []string) (string, error) {
	var options persist.Options
	if args[2] != "-" {
		options.MediaType = args[2]
	}
	for _, label := range args[3:] {
		key, value, _ := strings.Cut(label, "=")
		options.Labels = append(options.Labels, persist.Label{Key: key, Value: value})
	}
	return version(persist.SaveWith(args[0], []byte(args[1]), options))
}

func bigSave(args []string) (string, error) {
	return version(persist.Save(args[0], madeUp(0, number(args[1]))))
}

// As big-save, without the time to make the bytes up.
func zerosSave(args []string) (string, error) {
	return version(persist.Save(args[0], make([]byte, number(args[1]))))
}

func head(args []string) (string, error) {
	expect, err := persist.HeadOf(args[0])
	for version := range persist.Version(9) {
		if expect == persist.Head(version) {
			return strings.Replace(fmt.Sprint(version), "0", "absent", 1), err
		}
	}
	return "another", err
}

func saveAtHead(args []string) (string, error) {
	expect, err := persist.HeadOf(args[0])
	if err != nil {
		return "", err
	}
	return version(persist.SaveWith(args[0], []byte(args[1]), persist.Options{Expect: expect}))
}

func update(args []string) (string, error) {
	beside := ""
	if len(args) > 2 {
		beside = args[2]
	}
	items, err := persist.Update(args[0], func(items *[]string) error {
		if beside != "" {
			if _, err := persist.SaveJSON(args[0], append(slices.Clone(*items), beside), persist.Options{}); err != nil {
				return err
			}
		}
		if beside == "once" {
			beside = ""
		}
		switch args[1] {
		case "throw":
			return errors.New("no luck")
		case "none":
			return nil
		}
		*items = append(*items, args[1])
		return nil
	})
	return strings.Join(items, " "), err
}

// A conversation whose words are quick, throw and race, and replies again and throw.
func talk(args []string) (string, error) {
	races := len(args) == 2 && args[1] == "race"
	taken := func(heard *[]string, text string, kind string) (persist.Next, error) {
		if text == "throw" {
			return persist.Next{}, errors.New("no luck")
		}
		*heard = append(*heard, text)
		if kind != "" && text != "quick" {
			return persist.Call(kind, map[string][]string{"messages": *heard})
		}
		if strings.HasPrefix(text, "{") {
			return persist.Answer(text), nil
		}
		return persist.Answer(fmt.Sprint(len(*heard), " ", text)), nil
	}
	return persist.RunCalls(args[0], args[1:], persist.Steps[[]string]{
		Message: func(heard *[]string, words []string) (persist.Next, error) {
			if races {
				races = false
				if _, err := talk([]string{args[0], "other"}); err != nil {
					return persist.Next{}, err
				}
			}
			return taken(heard, strings.Join(words, " "), "model")
		},
		Reply: func(heard *[]string, text string) (persist.Next, error) {
			if text == "again" {
				return taken(heard, text, "tool")
			}
			return taken(heard, text, "")
		},
	})
}

// A struct with tags, labels of a map and the time, through the functions that are beside the older ones.
func jsonInfo(args []string) (string, error) {
	type plan struct {
		Todo []string `json:"todo"`
	}
	labels := persist.LabelsOf(map[string]string{"b": "2", "a": "1"})
	info, err := persist.SaveJSON(args[0], plan{[]string{"<milk>"}}, persist.Options{Labels: labels})
	if err != nil {
		return "", err
	}
	loaded, found, err := persist.LoadJSON[plan](args[0])
	if err != nil || !found {
		return "none", err
	}
	_, _, unreadable := persist.LoadJSON[[]string](args[0])
	isNow := time.Since(info.Time()).Hours() < 24
	return fmt.Sprintf("%v %v %s %v %v %v", info.Labels, info.LabelMap(), info.MediaType, isNow, loaded, unreadable), nil
}

// Texts that no call carries. Each is to be refused as invalid.
func hugeTexts([]string) (string, error) {
	huge := strings.Repeat("n", 18*mib)
	_, _, loaded := persist.Load(huge)
	_, labelled := persist.SaveWith("k", nil, persist.Options{Labels: []persist.Label{{Key: "a", Value: huge}}})
	_, many := persist.SaveWith("k", nil, persist.Options{Labels: make([]persist.Label, mib)})
	for i, err := range []error{loaded, labelled, many} {
		if !errors.Is(err, persist.Invalid) {
			return "", fmt.Errorf("call %d: %v", i, err)
		}
	}
	return "all refused", nil
}

func load(args []string) (string, error) {
	loaded, found, err := persist.LoadVersion(args[0], at(args, 1))
	if !found {
		return "none", err
	}
	return fmt.Sprint(loaded.Info.Version, " ", string(loaded.State)), err
}

func stat(args []string) (string, error) {
	info, found, err := persist.Stat(args[0], at(args, 1))
	if !found {
		return "none", err
	}
	return describe(info), err
}

func history(args []string) (string, error) {
	var lines []string
	for info, err := range persist.History(args[0]) {
		if err != nil {
			return "", err
		}
		lines = append(lines, describe(info))
	}
	return strings.Join(lines, "\n"), nil
}

func names(args []string) (string, error) {
	var lines []string
	for name, err := range persist.Names(args[0]) {
		if err != nil {
			return "", err
		}
		lines = append(lines, name)
	}
	return strings.Join(lines, "\n"), nil
}

func expectAt(args []string, index int) persist.Expect {
	if len(args) > index {
		return expect(args[index])
	}
	return persist.Any()
}

func del(args []string) (string, error) { return version(persist.Delete(args[0], expectAt(args, 1))) }

func restore(args []string) (string, error) {
	return version(persist.Restore(args[0], number(args[1]), expectAt(args, 2)))
}

func fork(args []string) (string, error) {
	return version(persist.Fork(args[0], at(args, 2), args[1], persist.Any()))
}

func limits([]string) (string, error) {
	l := persist.GuestLimits()
	return fmt.Sprintf("max-inline %d\nmax-chunk %d\nmax-state %d\nmax-name %d\nmax-page %d",
		l.MaxInline, l.MaxChunk, l.MaxState, l.MaxName, l.MaxPage), nil
}

// Opens a writer, lets pieces write to it, and finishes it.
func written(name string, options persist.Options, pieces func(io.Writer) error) (string, error) {
	writer, err := persist.OpenWriter(name, options)
	if err != nil {
		return "", err
	}
	defer writer.Close()
	if err := pieces(writer); err != nil {
		return "", err
	}
	return version(writer.Finish())
}

func stream(args []string) (string, error) {
	size := number(args[2])
	return written(args[0], persist.Options{}, func(writer io.Writer) error {
		for chunk := range number(args[1]) {
			if _, err := writer.Write(madeUp(chunk*size, size)); err != nil {
				return err
			}
		}
		return nil
	})
}

func streamMib(args []string) (string, error) {
	piece := make([]byte, mib)
	for i := range piece {
		piece[i] = byteAt(uint64(i % 4096))
	}
	return written(args[0], persist.Options{}, func(writer io.Writer) error {
		for i := range number(args[1]) {
			piece[0] = byte(i)
			if _, err := writer.Write(piece); err != nil {
				return err
			}
		}
		return nil
	})
}

func streamExpect(args []string) (string, error) {
	return written(args[0], persist.Options{Expect: expect(args[1])}, func(writer io.Writer) error {
		_, err := io.WriteString(writer, args[2])
		return err
	})
}

func streamBesideSave(args []string) (string, error) {
	return written(args[0], persist.Options{}, func(writer io.Writer) error {
		if _, err := io.WriteString(writer, "late"); err != nil {
			return err
		}
		_, err := persist.Save(args[0], []byte("early"))
		return err
	})
}

func copyStream(args []string) (string, error) {
	reader, err := persist.OpenReader(args[0], 0)
	if err != nil || reader == nil {
		return "none", err
	}
	defer reader.Close()
	return written(args[1], persist.Options{}, func(writer io.Writer) error {
		_, err := io.Copy(writer, reader)
		return err
	})
}

func readAt(args []string) (string, error) {
	reader, err := persist.OpenReader(args[0], 0)
	if err != nil || reader == nil {
		return "none", err
	}
	defer reader.Close()
	bytes := make([]byte, number(args[2]))
	read, err := reader.ReadAt(bytes, int64(number(args[1])))
	if err == io.EOF {
		err = nil
	}
	return string(bytes[:read]), err
}

// Opens a writer, and has the host hold something of it.
func halfWritten(name string) (*persist.Writer, error) {
	writer, err := persist.OpenWriter(name, persist.Options{})
	if err != nil {
		return nil, err
	}
	_, err = writer.Write(madeUp(0, 2*mib))
	return writer, err
}

func unfinished(args []string) (string, error) {
	writer, err := halfWritten(args[0])
	if err != nil {
		return "", err
	}
	return "unfinished", writer.Close()
}

// Keeps a writer from the garbage collector, which would close it.
var kept *persist.Writer

func leaked(args []string) (answer string, err error) {
	kept, err = halfWritten(args[0])
	return "leaked", err
}

func trapMidWrite(args []string) (answer string, err error) {
	if kept, err = halfWritten(args[0]); err != nil {
		return "", err
	}
	panic("as asked")
}

func manyWriters(args []string) (string, error) {
	var open []*persist.Writer
	for range number(args[1]) {
		writer, err := persist.OpenWriter(args[0], persist.Options{})
		if err != nil {
			return fmt.Sprint("opened ", len(open), " ", described(err)), nil
		}
		open = append(open, writer)
	}
	return fmt.Sprint("opened ", len(open)), nil
}

func trap([]string) (string, error) { panic("as asked") }

var known = "what the agent knows"

func descend(levels uint64) uint64 {
	if levels == 0 {
		return 0
	}
	return 1 + descend(levels-1)
}

func saveDeep(args []string) (string, error) {
	descend(number(args[1]))
	return version(persist.Save(args[0], []byte(known)))
}

func print_(args []string) (string, error) {
	fmt.Println("out", args[0])
	fmt.Fprintln(os.Stderr, "err", args[0])
	return "printed", nil
}

func fail(args []string) (string, error) { return "", errors.New(args[0]) }

func echo(args []string) (string, error) { return strings.Join(args, "\n"), nil }

// The failure of a call, as the SDK says it to people.
func loadUncaught(args []string) (string, error) {
	_, _, err := persist.LoadVersion(args[0], 99)
	return "", err
}

func wasi([]string) (string, error) {
	random := make([]byte, 4)
	_, err := rand.Read(random)
	return fmt.Sprintf("clock %d random %x", time.Now().Unix(), random), err
}

// Saves states of FROM KiB to TO KiB, and loads each often, with all that calls WASI in between.
func loadSizes(args []string) (string, error) {
	loads := 0
	for size := number(args[1]) << 10; size <= number(args[2])<<10; size += 1000 {
		state := madeUp(size, size)
		if _, err := persist.Save(args[0], state); err != nil {
			return "", err
		}
		for range 40 {
			if loads%8 == 0 {
				fmt.Print(".")
			}
			if loads%16 == 0 {
				runtime.GC()
			}
			loaded, _, err := persist.Load(args[0])
			if err != nil {
				return "", err
			}
			if !bytes.Equal(loaded, state) {
				return "", fmt.Errorf("load %d, of %d bytes, differs", loads, size)
			}
			loads++
		}
	}
	return fmt.Sprint("loads ", loads), nil
}

// Reads what "stream" made, with a buffer that grows.
func readAll(args []string) (string, error) {
	reader, err := persist.OpenReader(args[0], 0)
	if err != nil || reader == nil {
		return "none", err
	}
	defer reader.Close()
	fmt.Println("reading")
	state, err := io.ReadAll(reader)
	if err == nil && !bytes.Equal(state, madeUp(0, uint64(len(state)))) {
		err = errors.New("it differs")
	}
	return fmt.Sprint("size ", len(state)), err
}

// Streams that were closed, and a seek from nowhere. Each is to be refused as invalid.
func closed(args []string) (string, error) {
	finished, err := persist.OpenWriter(args[0], persist.Options{})
	if err != nil {
		return "", err
	}
	if _, err := finished.Finish(); err != nil {
		return "", err
	}
	reader, err := persist.OpenReader(args[0], 0)
	if err != nil {
		return "", err
	}
	_, whence := reader.Seek(0, 9)
	if err := errors.Join(reader.Close(), reader.Close(), finished.Close()); err != nil {
		return "", err
	}
	_, write := finished.Write([]byte("x"))
	_, finish := finished.Finish()
	_, read := reader.Read(make([]byte, 1))
	_, readAt := reader.ReadAt(make([]byte, 1), 0)
	_, seek := reader.Seek(0, io.SeekStart)
	for i, err := range []error{whence, write, finish, read, readAt, seek} {
		if !errors.Is(err, persist.Invalid) {
			return "", fmt.Errorf("call %d: %v", i, err)
		}
	}
	return "all refused", nil
}
