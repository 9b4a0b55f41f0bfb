package streams

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// wantState demands that a state is the fold of the first n events of the log.
func (w *world) wantState(s *Store, id string, at At, n int) State {
	w.t.Helper()
	truth := w.truth(id)
	got, err := s.State(w.t.Context(), stream(id), at)
	if err != nil {
		w.t.Fatalf("state of %s at %s: %v", id, at, err)
	}
	want := w.fold(truth[:n])
	if got.Value != any(want) || int(got.Version) != n || !got.RecordedAt.Equal(truth[n-1].RecordedAt) {
		w.t.Fatalf("state of %s at %s: got %+v of version %d, recorded %s; want %+v of %d, %s (folded %d, from slot %d)",
			id, at, got.Value, got.Version, got.RecordedAt, want, n, truth[n-1].RecordedAt, got.Folded, got.FromSlot)
	}
	if text := fmt.Sprintf(`"events":%d,"sum":%d`, want.Events, want.Sum); !strings.Contains(string(got.JSON), text) {
		w.t.Fatalf("state of %s as JSON: got %s, want %s in it", id, got.JSON, text)
	}
	return got
}

func TestAStateIsFoldedFromTheNearestSlotThatCounts(t *testing.T) {
	everywhere(t, func(w *world) {
		w.grow("a", 60)
		w.index(1 + 50)
		truth := w.truth("a")
		for i, v := range []event.Version{10, 20, 30, 40, 55} { // the last one's event is in the tail
			w.slot("a", i, v, w.fold(truth[:v]), nil)
		}
		s := w.store()
		for _, c := range []struct {
			version, from event.Version
			folded        int
		}{{0, 55, 5}, {60, 55, 5}, {55, 55, 0}, {54, 40, 14}, {40, 40, 0}, {39, 30, 9}, {10, 10, 0}, {9, 0, 9}, {1, 0, 1}} {
			n := int(c.version)
			if n == 0 {
				n = 60
			}
			got := w.wantState(s, "a", At{Version: c.version}, n)
			if got.FromSlot != c.from || got.Folded != c.folded {
				t.Errorf("version %d: folded %d from slot %d, want %d from %d", c.version, got.Folded, got.FromSlot, c.folded, c.from)
			}
		}
	})
}

func TestSlotsThatLieAreSkipped(t *testing.T) {
	everywhere(t, func(w *world) {
		w.grow("a", 30)
		truth := w.truth("a")
		wrong := account{Balance: -1, Name: "wrong"}
		for reason, lie := range map[string]func(s *snapshot.Snapshot, topicID *string){
			"offset":        func(s *snapshot.Snapshot, _ *string) { s.Offset++ },
			"topic":         func(_ *snapshot.Snapshot, topicID *string) { *topicID = strings.Repeat("ab", 16) },
			"state version": func(s *snapshot.Snapshot, _ *string) { s.StateVersion = 2 },
		} {
			for _, upTo := range []int64{-1, 15} {
				w.index(upTo)
				w.slot("a", 0, 10, w.fold(truth[:10]), nil)
				w.slot("a", 1, 20, wrong, lie)
				s := w.store()
				if got := w.wantState(s, "a", At{Version: 25}, 25); got.FromSlot != 10 {
					t.Errorf("%s: began with slot %d, want 10", reason, got.FromSlot)
				}
				if got := testutil.ToFloat64(s.metrics.slotsSkipped.WithLabelValues(reason)); got != 1 {
					t.Errorf("%s: %v slots counted as skipped, want 1", reason, got)
				}
			}
		}
		w.grow("b", 3)
		w.index(-1)
		w.slot("b", 0, 2, wrong, func(s *snapshot.Snapshot, _ *string) { s.Version = 0 })
		empty := w.store()
		w.wantState(empty, "b", At{}, 3)
		if got := testutil.ToFloat64(empty.metrics.slotsSkipped.WithLabelValues("empty")); got != 1 {
			t.Errorf("a slot without a version: %v counted as skipped, want 1", got)
		}
		for name, value := range map[string][]byte{"junk": {0, 0, 0, 0, 4, 255}, "nothing": {}, "another record": truth[0].Value} {
			w.storeSlot("a", 1, snapshot.Snapshot{Version: 20, Offset: truth[19].Offset, StateVersion: 1}, w.topicID, "", value)
			s := w.store()
			if got := w.wantState(s, "a", At{}, 30); got.FromSlot != 10 {
				t.Errorf("%s: began with slot %d, want 10", name, got.FromSlot)
			}
			if got := testutil.ToFloat64(s.metrics.slotsSkipped.WithLabelValues("unreadable")); got != 1 {
				t.Errorf("%s: %v slots counted as unreadable, want 1", name, got)
			}
		}
		// A row whose record is of another version than the row says.
		binding, err := w.codec.Bind(t.Context(), stateDef())
		if err != nil {
			t.Fatal(err)
		}
		state, err := binding.Append(nil, wrong)
		if err != nil {
			t.Fatal(err)
		}
		value, _, err := w.format.EncodeSnapshot(snapshot.Snapshot{Version: 19, Offset: truth[18].Offset, StateVersion: 1, State: state, TakenAt: t0})
		if err != nil {
			t.Fatal(err)
		}
		w.storeSlot("a", 1, snapshot.Snapshot{Version: 20, Offset: truth[19].Offset, StateVersion: 1}, w.topicID, "", value)
		if got := w.wantState(w.store(), "a", At{}, 30); got.FromSlot != 10 {
			t.Errorf("a row and a record that differ: began with slot %d, want 10", got.FromSlot)
		}
	})
}

func TestStatesOfRandomHistoriesAreFoldsOfTheirPrefixes(t *testing.T) {
	for _, k := range testkit.Kafkas(t) {
		histories := uint64(8)
		if k.Name != testkit.Kfake {
			histories = 3
		}
		for _, pg := range testkit.Postgreses(t)[:1] {
			for seed := range histories {
				t.Run(fmt.Sprintf("%s %s %d", k.Name, pg.Name, seed), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, k, pg, 2)
					w.randomHistory(rand.New(rand.NewPCG(seed, 7)))
				})
			}
		}
	}
}

// randomHistory writes claims, void records and events whose stamps go back and forth, indexes some
// of it, stores slots that are true or lie, and compares every state at every version and at the
// times around every stamp.
func (w *world) randomHistory(random *rand.Rand) {
	ids := []string{"a", "b", "c"}
	for range 70 {
		id := ids[random.IntN(len(ids))]
		switch random.IntN(12) {
		case 0:
			w.claim()
		case 1:
			w.voids(id)
		default:
			// A clock that now and then is behind.
			w.stamp = w.stamp.Add(time.Duration(random.IntN(3)) * time.Millisecond)
			rec := w.next(id)
			rec.Timestamp = w.stamp
			if random.IntN(4) == 0 {
				rec.Timestamp = w.stamp.Add(-time.Duration(random.IntN(20)) * time.Millisecond)
			}
			w.writeBy(w.owner, rec)
		}
	}
	for p := range w.parts {
		if n := random.Int64N(int64(len(w.log[p])) + 3); n > 0 {
			w.indexPartition(p, n)
		}
	}
	s := w.store()
	told := map[int]bool{}
	defer func() {
		if len(told) < 10 {
			w.t.Errorf("the times asked for lead to %d versions, want many", len(told))
		}
	}()
	for _, id := range ids {
		truth := w.truth(id)
		for slot := range random.IntN(3) {
			if len(truth) == 0 {
				continue
			}
			v := 1 + random.IntN(len(truth))
			state, lie := w.fold(truth[:v]), func(*snapshot.Snapshot, *string) {}
			if random.IntN(2) == 0 {
				state, lie = account{Name: "wrong"}, func(s *snapshot.Snapshot, _ *string) { s.Offset += int64(1 + random.IntN(3)) }
			}
			w.slot(id, slot, event.Version(v), state, lie)
		}
		for v := range truth {
			w.wantState(s, id, At{Version: event.Version(v + 1)}, v+1)
		}
		for millis := int64(-25); millis < w.stamp.Sub(t0).Milliseconds()+3; millis++ {
			told[w.wantStateAtTime(s, id, t0.Add(time.Duration(millis)*time.Millisecond+time.Duration(random.IntN(1000))*time.Microsecond))] = true
		}
	}
}

// wantStateAtTime is PROTOCOL T1 by its definition: the running maximum over the whole partition.
// It returns the version.
func (w *world) wantStateAtTime(s *Store, id string, at time.Time) int {
	w.t.Helper()
	var highest time.Time
	cut := int64(1 << 62)
	for _, rec := range w.log[w.partitionOf(id)] {
		if rec.Timestamp.After(highest) {
			highest = rec.Timestamp
		}
		if highest.After(at) {
			cut = rec.Offset
			break
		}
	}
	n := 0
	truth := w.truth(id)
	for n < len(truth) && truth[n].Offset < cut {
		n++
	}
	if n == 0 {
		if _, err := s.State(w.t.Context(), stream(id), At{Time: at}); len(truth) > 0 && !errors.Is(err, ErrNoVersion) {
			w.t.Fatalf("state of %s at %s, before its first event: got %v, want %v", id, at, err, ErrNoVersion)
		}
		return 0
	}
	w.wantState(s, id, At{Time: at}, n)
	return n
}

func TestRefusalsOfStates(t *testing.T) {
	everywhere(t, func(w *world) {
		w.append("a", "a")
		s := w.store()
		plain := w.store(func(c *Config) { c.Deciders = nil })
		for name, c := range map[string]struct {
			store *Store
			id    string
			at    At
			want  error
		}{
			"a version to come":        {s, "a", At{Version: 3}, ErrNoVersion},
			"a time before":            {s, "a", At{Time: time.Unix(1, 0)}, ErrNoVersion},
			"a time before all clocks": {s, "a", At{Time: time.Unix(-5, 0)}, ErrNoVersion},
			"no event":                 {s, "b", At{}, ErrNoStream},
			"no decider":               {plain, "a", At{}, ErrNoFold},
		} {
			if _, err := c.store.State(t.Context(), stream(c.id), c.at); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", name, err, c.want)
			}
		}
		if _, err := s.State(t.Context(), stream("a"), At{Version: 1, Time: t0}); err == nil {
			t.Error("version and time together: got no error")
		}
		w.wantState(s, "a", At{Time: time.Now().Add(time.Hour)}, 2)
		w.wantState(s, "a", At{}, 2)
		few := w.store(func(c *Config) { c.FoldEventsMax = 1 })
		var fault *LogError
		if _, err := few.State(t.Context(), stream("a"), At{}); !errors.As(err, &fault) || !strings.Contains(fault.Reason, "needs 2 events") {
			t.Errorf("more events than may be folded: got %v", err)
		}
	})
}

func TestAnEventThatCannotBeFoldedIsNamed(t *testing.T) {
	onBrokers(t, func(w *world) {
		s := w.store()
		for id, change := range map[string]struct {
			value string
			typ   string
			says  string
		}{
			"junk":    {"junk", "account.Deposited", "not framed"},
			"foreign": {"", "account.Closed", "not among the decider's Types"},
		} {
			w.append(id)
			rec := w.next(id)
			if change.value != "" {
				rec.Value = []byte(change.value)
			}
			for i, h := range rec.Headers {
				if h.Key == event.HeaderType {
					rec.Headers[i].Value = []byte(change.typ)
				}
			}
			w.writeBy(w.owner, rec)
			var fault *LogError
			if _, err := s.State(t.Context(), stream(id), At{}); !errors.As(err, &fault) || !strings.Contains(fault.Reason, change.says) || fault.Offset != rec.Offset {
				t.Errorf("%s: got %v, want the offset %d and %q", id, err, rec.Offset, change.says)
			}
			w.wantTruth(s, id) // its events are readable all the same
			w.wantState(s, id, At{Version: 1}, 1)
		}
	})
}
