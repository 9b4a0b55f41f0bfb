package engine

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"pgregory.net/rapid"
)

func TestAPackedStreamComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &stream{version: event.Version(rapid.Int64Range(0, 1<<40).Draw(t, "version")), offset: rapid.Int64Range(-1, 1<<50).Draw(t, "offset")}
		if state := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "state"); len(state) > 0 {
			s.state = state
		}
		for range rapid.IntRange(0, 300).Draw(t, "commands") {
			at := rapid.Int64Range(0, 1<<33).Draw(t, "at")
			r := remembered{first: event.Version(rapid.Int64Range(1, 1<<40).Draw(t, "first")), count: rapid.Int32Range(1, 1000).Draw(t, "count"),
				offset: rapid.Int64Range(-1, 1<<50).Draw(t, "commandOffset"), at: at}
			copy(r.key[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))
			copy(r.hash[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "hash"))
			if rapid.Bool().Draw(t, "protected") {
				r.dedupeUntil = at + rapid.Int64Range(0, 1<<20).Draw(t, "until")
				if r.dedupeUntil == 0 {
					r.dedupeUntil = 1
				}
			}
			if r.dedupeUntil != 0 && r.dedupeUntil < at {
				r.dedupeUntil = at
			}
			s.window.add(r)
		}
		back := packedStream(appendPacked(nil, s)).unpack()
		if back.version != s.version || back.offset != s.offset || !bytes.Equal(back.state, s.state) {
			t.Fatalf("got version %d offset %d state %x, want %d, %d, %x", back.version, back.offset, back.state, s.version, s.offset, s.state)
		}
		if len(back.window.entries) != len(s.window.entries) {
			t.Fatalf("got %d commands, want %d", len(back.window.entries), len(s.window.entries))
		}
		for i := range s.window.entries {
			if back.window.entries[i] != s.window.entries[i] {
				t.Fatalf("command %d: got %+v, want %+v", i, back.window.entries[i], s.window.entries[i])
			}
		}
		for i, r := range back.window.entries {
			if at, ok := back.window.position(r.key); !ok || back.window.entries[at].key != r.key {
				t.Fatalf("command %d is not found", i)
			}
		}
	})
}

// The table against a plain map: packing and unpacking must not be seen.
func TestTheStreamTableForgetsNothingWhenItPacks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newStreamTable()
		table.hotMax = rapid.IntRange(1, 5).Draw(t, "hotMax")
		want := map[string]event.Version{}
		pinned := map[string]*stream{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			id := fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "id"))
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				s := table.obtain(id)
				s.version++
				table.setState(s, []byte(id))
				want[id]++
			case 1:
				s := table.get(id)
				if (s == nil) != (want[id] == 0) || s != nil && s.version != want[id] {
					t.Fatalf("stream %s: got %+v, want version %d", id, s, want[id])
				}
				if s != nil && string(s.state) != id {
					t.Fatalf("stream %s has state %q", id, s.state)
				}
			case 2:
				if s := table.get(id); s != nil && pinned[id] == nil {
					s.pending++
					pinned[id] = s
				}
			case 3:
				for id, s := range pinned {
					if table.get(id) != s {
						t.Fatalf("stream %s was packed with a command under way", id)
					}
					s.pending--
				}
				clear(pinned)
			}
		}
		if got := table.len(); got != len(want) {
			t.Errorf("the table has %d streams, want %d", got, len(want))
		}
		for id := range want {
			for _, s := range pinned {
				s.pending = 0
			}
			table.drop(id)
		}
		if table.bytes != 0 || table.len() != 0 || table.newest != nil || table.oldest != nil {
			t.Errorf("after all was dropped: %d bytes, %d streams", table.bytes, table.len())
		}
	})
}

func TestSweepingReachesPackedStreams(t *testing.T) {
	table := newStreamTable()
	table.hotMax = 1
	now := time.Unix(10_000, 0)
	for i := range 3 {
		s := table.obtain(fmt.Sprint(i))
		s.version = 1
		s.window.add(remembered{key: keyOf(fmt.Sprint(i)), first: 1, count: 1, at: 1000})
		table.bytes += rememberedBytesFixed
	}
	table.sweep(windowLimits{idsMax: 128, ageMax: time.Hour}, now)
	for i := range 3 {
		if s := table.get(fmt.Sprint(i)); s.window.len() != 0 {
			t.Errorf("stream %d remembers %d commands of long ago", i, s.window.len())
		}
	}
}

// The cold table against a plain map. Hashes are made to meet, and streams are large enough to fill
// many slabs, so that entries move.
func TestTheColdTableKeepsEveryStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newColdTable()
		table.hashMask = rapid.SampledFrom([]uint64{0, 3, math.MaxUint64}).Draw(t, "hashMask")
		want := map[string]string{}
		put := func(id string) {
			state := strings.Repeat(id, rapid.IntRange(1, 2_000).Draw(t, "size"))
			table.put(id, &stream{version: 1, offset: 1, state: []byte(state)})
			want[id] = state
		}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			id := fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "id"))
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0:
				table.delete(id)
				delete(want, id)
			case 1:
				seen := map[string]bool{}
				again := rapid.Bool().Draw(t, "putWhileWalking")
				table.each(func(id []byte, p packedStream) {
					if seen[string(id)] || string(p.unpack().state) != want[string(id)] {
						t.Fatalf("stream %s is visited twice, or with another state", id)
					}
					seen[string(id)] = true
					if again {
						put(string(id))
					}
				})
				if len(seen) != len(want) {
					t.Fatalf("%d streams were visited, want %d", len(seen), len(want))
				}
			default:
				put(id)
			}
			if table.len() != len(want) {
				t.Fatalf("the table has %d streams, want %d", table.len(), len(want))
			}
			for id, state := range want {
				if p, known := table.get(id); !known || string(p.unpack().state) != state {
					t.Fatalf("stream %s is not as it was put", id)
				}
			}
		}
		current := 0 // what is dead in the slab that is being filled stays there
		if table.current >= 0 {
			current = table.slabs[table.current].dead
		}
		if most := max(table.total/slabShare, slabBytesMin) + current; table.dead > most {
			t.Errorf("%d of %d bytes are dead, want at most %d", table.dead, table.total, most)
		}
	})
}

func TestTheColdTableCountsItsMemory(t *testing.T) {
	table := newColdTable()
	for i := range 10_000 {
		table.put(fmt.Sprint(i%1_000), &stream{version: 1, offset: int64(i), state: make([]byte, i%300)})
	}
	held := 0
	for _, s := range table.slabs {
		held += cap(s.buf)
	}
	if most := int64(held) * 2; table.memory() > most || int64(held) > 2*table.memory() {
		t.Errorf("the table says %d bytes, its slabs have %d", table.memory(), held)
	}
	for i := range 1_000 {
		table.delete(fmt.Sprint(i))
	}
	if table.memory() != 0 || table.len() != 0 {
		t.Errorf("emptied: %d bytes, %d streams, want none", table.memory(), table.len())
	}
}

func TestAStreamThatKeepsAllIsKnownByItsOldestCommand(t *testing.T) {
	limits, now := windowLimits{idsMax: 3, ageMax: time.Hour}, time.Unix(10_000, 0)
	for name, test := range map[string]struct {
		at   []int64
		want bool
	}{
		"no commands":     {nil, false},
		"all are young":   {[]int64{7_000, 9_000}, false},
		"one is too old":  {[]int64{6_399, 9_000}, true},
		"one is too many": {[]int64{9_000, 9_000, 9_000, 9_000}, true},
	} {
		s := &stream{version: 9, offset: 9, state: []byte("state")}
		for i, at := range test.at {
			s.window.add(remembered{first: event.Version(i + 1), count: 1, offset: int64(1000 * i), at: at})
		}
		p := packedStream(appendPacked(nil, s))
		if got := p.mayForget(limits, now); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
