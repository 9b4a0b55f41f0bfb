package engine

import (
	"reflect"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"pgregory.net/rapid"
)

// Both ways of writing a snapshot say the same, however large state and window are.
func TestSnapshotsSayTheSameByEitherWay(t *testing.T) {
	t.Parallel()
	format, err := snapshot.NewFormat(t.Context(), codec.New(testRegistry(t), codec.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(format.Close)
	encoder, err := newSnapshotEncoder(format)
	if err != nil {
		t.Fatal(err)
	}
	read := func(t *rapid.T, value []byte, compressed bool) snapshot.Snapshot {
		t.Helper()
		var headers []event.Header
		if compressed {
			headers = zstdHeader
		}
		s, err := format.DecodeSnapshot(t.Context(), value, headers)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	key := rapid.Custom(func(t *rapid.T) (k [16]byte) {
		copy(k[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))
		return k
	})
	number := rapid.Int64Range(0, 1<<40)
	entry := rapid.Custom(func(t *rapid.T) remembered {
		return remembered{
			key: key.Draw(t, "command"), hash: key.Draw(t, "hash"), first: event.Version(number.Draw(t, "first")), count: rapid.Int32Range(1, 1_000).Draw(t, "count"),
			offset: rapid.Int64Range(-1, 1<<40).Draw(t, "offset"), at: number.Draw(t, "at"), dedupeUntil: number.Draw(t, "until"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		s := snapshot.Snapshot{
			Version: number.Draw(t, "version"), Offset: number.Draw(t, "offset"), EventsTopicID: key.Draw(t, "topic"),
			TakenAt: time.UnixMicro(number.Draw(t, "taken")).UTC(), StateVersion: rapid.Int32().Draw(t, "state version"),
			State: rapid.SliceOfN(rapid.Byte(), 0, 2*directStateBytesMax).Draw(t, "state"),
		}
		w := &window{entries: rapid.SliceOfN(entry, 0, 20).Draw(t, "window")}
		value, compressed, err := encoder.encode(s, w)
		if err != nil {
			t.Fatal(err)
		}
		got := read(t, value, compressed)
		s.Commands = commandsOf(w)
		if value, compressed, err = format.EncodeSnapshot(s); err != nil {
			t.Fatal(err)
		}
		if want := read(t, value, compressed); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

// What remembers more commands than the codec's limits allow is refused, and so folded from events.
func TestASnapshotBeyondTheLimitsOfTheCodecIsRefused(t *testing.T) {
	t.Parallel()
	format, err := snapshot.NewFormat(t.Context(), codec.New(testRegistry(t), codec.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(format.Close)
	encoder, err := newSnapshotEncoder(format)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := encoder.encode(snapshot.Snapshot{TakenAt: time.Unix(1, 0)}, &window{entries: make([]remembered, 20_000)}); err == nil {
		t.Error("20,000 commands: got no error, want a refusal")
	}
}
