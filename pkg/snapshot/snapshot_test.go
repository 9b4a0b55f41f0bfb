package snapshot_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/schemas/avro"
	"pgregory.net/rapid"
)

func newFormat(t testing.TB) *snapshot.Format {
	t.Helper()
	var regs []*codec.Registered
	for i, name := range []string{"Snapshot", "Checkpoint"} {
		text, err := avro.Files.ReadFile("foldstream/" + name + ".v1.avsc")
		if err != nil {
			t.Fatal(err)
		}
		reg, err := codec.RegisterText(int32(i+1), "foldstream."+name, 1, event.KindSystem, string(text))
		if err != nil {
			t.Fatal(err)
		}
		regs = append(regs, reg)
	}
	f, err := snapshot.NewFormat(context.Background(), codec.New(codec.NewStaticReader(regs...), codec.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func headersOf(compressed bool) []event.Header {
	if !compressed {
		return nil
	}
	return []event.Header{{Key: snapshot.HeaderEncoding, Value: []byte(snapshot.EncodingZstd)}}
}

func TestSnapshotsComeBackAsTheyWere(t *testing.T) {
	f := newFormat(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 123000, time.UTC)
	for name, s := range map[string]snapshot.Snapshot{
		"append mode": {Version: 3, Offset: 17, TakenAt: at, State: []byte{}, Commands: []snapshot.Command{}},
		"small":       {Version: 1, Offset: 0, EventsTopicID: [16]byte{1}, TakenAt: at, StateVersion: 2, State: []byte("state"), Commands: []snapshot.Command{{Key: [16]byte{2}, Hash: [16]byte{3}, First: 1, Count: 1, Offset: 0, At: 5, DedupeUntil: 6}}},
		"large":       {Version: 100, Offset: 1000, TakenAt: at, StateVersion: 1, State: []byte(strings.Repeat("state ", 1000)), Commands: []snapshot.Command{}},
	} {
		value, compressed, err := f.EncodeSnapshot(s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := len(s.State) > snapshot.CompressBytesMin; compressed != want {
			t.Errorf("%s: compressed is %v, want %v", name, compressed, want)
		}
		if compressed && len(value) > len(s.State)/10 {
			t.Errorf("%s: %d bytes after compression of %d", name, len(value), len(s.State))
		}
		back, err := f.DecodeSnapshot(t.Context(), value, headersOf(compressed))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(back, s) {
			t.Errorf("%s: got %+v, want %+v", name, back, s)
		}
	}
}

func TestCheckpointComesBackAsItWas(t *testing.T) {
	f := newFormat(t)
	c := snapshot.Checkpoint{
		Offset: 41, LastEventOffset: 44, LastEventID: "e", EventsTopicID: [16]byte{9}, CommandsTopicID: [16]byte{8}, HighestCommand: -1, ProducerID: 7, ProducerEpoch: 32767,
		Group: "fs.ingest", TakenAt: time.Unix(1_700_000_000, 0).UTC(), Origins: []snapshot.Origin{{TopicID: [16]byte{8}, Partition: 3, Offset: 12}},
	}
	value, err := f.EncodeCheckpoint(c)
	if err != nil {
		t.Fatal(err)
	}
	back, err := f.DecodeCheckpoint(t.Context(), value, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, c) {
		t.Errorf("got %+v, want %+v", back, c)
	}
}

func TestWhatCannotBeReadSaysSo(t *testing.T) {
	f := newFormat(t)
	value, _, err := f.EncodeSnapshot(snapshot.Snapshot{Version: 1, TakenAt: time.Unix(0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	unknown := append([]byte{0, 0, 0, 0, 99}, value[5:]...)
	for name, test := range map[string]struct {
		value   []byte
		headers []event.Header
	}{
		"empty":            {nil, nil},
		"cut off":          {value[:len(value)-1], nil},
		"unknown schema":   {unknown, nil},
		"not compressed":   {value, headersOf(true)},
		"unknown encoding": {value, []event.Header{{Key: snapshot.HeaderEncoding, Value: []byte("br")}}},
	} {
		if _, err := f.DecodeSnapshot(t.Context(), test.value, test.headers); !errors.Is(err, snapshot.ErrUnreadable) {
			t.Errorf("%s: got %v, want ErrUnreadable", name, err)
		}
	}
}

func TestKeysTellWhatTheyStandFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringMatching(`[^\x00-\x1f\x7f-\x9f]{1,40}`).Draw(t, "id")
		slot := rapid.IntRange(0, snapshot.HistorySlots-1).Draw(t, "slot")
		if kind, got, _ := snapshot.ParseKey(snapshot.LatestKey(id)); kind != snapshot.KeyLatest || got != id {
			t.Errorf("latest key of %q: got kind %d id %q", id, kind, got)
		}
		if kind, got, s := snapshot.ParseKey(snapshot.HistoryKey(id, slot)); kind != snapshot.KeyHistory || got != id || s != slot {
			t.Errorf("history key of %q, slot %d: got kind %d id %q slot %d", id, slot, kind, got, s)
		}
	})
	if kind, _, _ := snapshot.ParseKey(snapshot.CheckpointKey()); kind != snapshot.KeyCheckpoint {
		t.Errorf("checkpoint key: got kind %d", kind)
	}
	for _, key := range []string{"", "\x00claim-1", "a\x009", "a\x0001", "\x001"} {
		if kind, _, _ := snapshot.ParseKey([]byte(key)); kind != snapshot.KeyOther {
			t.Errorf("key %q: got kind %d, want other", key, kind)
		}
	}
}

func TestPolicies(t *testing.T) {
	yes, no := snapshot.PolicyFunc(func(snapshot.Progress) bool { return true }), snapshot.PolicyFunc(func(snapshot.Progress) bool { return false })
	for name, test := range map[string]struct {
		policy   snapshot.Policy
		progress snapshot.Progress
		want     bool
	}{
		"99 events":            {snapshot.Default(), snapshot.Progress{Events: 99}, false},
		"100 events":           {snapshot.Default(), snapshot.Progress{Events: 100}, true},
		"one event, 4 s":       {snapshot.Default(), snapshot.Progress{Events: 1, Dirty: 4 * time.Second}, false},
		"one event, 5 s":       {snapshot.Default(), snapshot.Progress{Events: 1, Dirty: 5 * time.Second}, true},
		"no event, 5 s":        {snapshot.Default(), snapshot.Progress{Dirty: 5 * time.Second}, false},
		"slow to fold":         {snapshot.Default(), snapshot.Progress{Events: 2, FoldTime: time.Second}, true},
		"any of none":          {snapshot.AnyOf(), snapshot.Progress{Events: 1}, false},
		"any of two":           {snapshot.AnyOf(no, yes), snapshot.Progress{}, true},
		"all of none":          {snapshot.AllOf(), snapshot.Progress{}, false},
		"all of two":           {snapshot.AllOf(yes, no), snapshot.Progress{}, false},
		"all of two, both due": {snapshot.AllOf(yes, yes), snapshot.Progress{}, true},
	} {
		if got := test.policy.Due(test.progress); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
