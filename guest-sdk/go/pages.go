package persist

import (
	"iter"
	"strings"

	store "example.com/persist/guest-sdk/go/internal/bindings/persist_snapshot_store"
	witTypes "example.com/persist/guest-sdk/go/internal/wit/types"
)

// As many items as a host gives at most, for it answers with fewer where it allows fewer.
const page = 1 << 30

// History goes over all versions of name, newest first, tombstones too. An error is the last item.
//
//	for info, err := range persist.History("memory") {
//		if err != nil {
//			return err
//		}
//		…
//	}
func History(name string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for before := Version(0); ; {
			infos, err := HistoryPage(name, before, page)
			if err != nil {
				yield(Info{}, err)
			}
			if err != nil || len(infos) == 0 {
				return
			}
			for _, info := range infos {
				if !yield(info, nil) {
					return
				}
				before = info.Version
			}
		}
	}
}

// HistoryPage is at most limit versions below before, or of all where it is 0. Only an empty page is the end.
func HistoryPage(name string, before Version, limit uint32) ([]Info, error) {
	if err := texts(name); err != nil {
		return nil, err
	}
	calls.Lock()
	defer calls.Unlock()
	result := store.History(name, number(before), limit)
	if result.IsErr() {
		return nil, fromRaw(result.Err())
	}
	infos := make([]Info, len(result.Ok()))
	for i, raw := range result.Ok() {
		infos[i] = infoOf(raw)
	}
	return infos, nil
}

// Names goes over the names that begin with prefix, those of deleted states too. An error is the last item.
func Names(prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for after := ""; ; {
			names, err := NamesPage(prefix, after, page)
			if err != nil {
				yield("", err)
			}
			if err != nil || len(names) == 0 {
				return
			}
			for _, name := range names {
				if !yield(name, nil) {
					return
				}
				after = name
			}
		}
	}
}

// NamesPage is at most limit names after one, or from the first where that is empty. Only an empty page is the end.
func NamesPage(prefix, after string, limit uint32) ([]string, error) {
	if err := texts(prefix, after); err != nil {
		return nil, err
	}
	from := witTypes.None[string]()
	if after != "" {
		from = witTypes.Some(after)
	}
	calls.Lock()
	defer calls.Unlock()
	result := store.Names(prefix, from, limit)
	if result.IsErr() {
		return nil, fromRaw(result.Err())
	}
	names := make([]string, len(result.Ok()))
	for i, name := range result.Ok() {
		names[i] = strings.Clone(name)
	}
	return names, nil
}
