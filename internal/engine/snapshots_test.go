package engine

import (
	"reflect"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// saveAtOnce has every stream saved at every turn, and a checkpoint after it.
func saveAtOnce(c *Config) {
	for i := range c.Categories {
		c.Categories[i].Snapshots = SnapshotConfig{Policy: snapshot.EveryEvents(1), CheckpointInterval: time.Millisecond, ShareMax: 1}
	}
}

// saved is what stands in a category's snapshots topic, newest last.
type saved struct {
	checkpoints map[int32]snapshot.Checkpoint
	latest      map[string]snapshot.Snapshot
	history     map[string]snapshot.Snapshot // by key; tombstoned ones are left out
	all         []snapshot.Snapshot
}

func (w *world) saved(category string) saved {
	w.t.Helper()
	format, err := snapshot.NewFormat(w.t.Context(), w.codec)
	if err != nil {
		w.t.Fatal(err)
	}
	defer format.Close()
	in := saved{checkpoints: map[int32]snapshot.Checkpoint{}, latest: map[string]snapshot.Snapshot{}, history: map[string]snapshot.Snapshot{}}
	for _, rec := range w.log(topics.Snapshots(w.ns, category)) {
		if event.Control(rec.Headers) != "" {
			continue
		}
		kind, id, _ := snapshot.ParseKey(rec.Key)
		if kind == snapshot.KeyCheckpoint {
			c, err := format.DecodeCheckpoint(w.t.Context(), rec.Value, rec.Headers)
			if err != nil {
				w.t.Fatal(err)
			}
			in.checkpoints[rec.Partition] = c
			continue
		}
		if rec.Value == nil {
			delete(in.history, string(rec.Key))
			continue
		}
		s, err := format.DecodeSnapshot(w.t.Context(), rec.Value, rec.Headers)
		if err != nil {
			continue // put there by the test
		}
		in.all = append(in.all, s)
		if kind == snapshot.KeyLatest {
			in.latest[id] = s
		} else {
			in.history[string(rec.Key)] = s
		}
	}
	return in
}

// covered waits until the checkpoint of a stream's partition covers the whole of its events partition.
func (w *world) covered(category, stream string) snapshot.Checkpoint {
	w.t.Helper()
	partition := topics.Partition([]byte(stream), w.partitions)
	var c snapshot.Checkpoint
	w.eventually("a checkpoint over all events of stream "+stream, func() bool {
		events := w.events(category)[stream]
		var known bool
		c, known = w.saved(category).checkpoints[partition]
		return known && c.Offset >= events[len(events)-1].Offset
	})
	return c
}

// deleteEvents deletes the events of a stream's partition up to an offset, so that a restart that
// reads them fails.
func (w *world) deleteEvents(category, stream string, through int64) {
	w.t.Helper()
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topics.Events(w.ns, category), Partition: topics.Partition([]byte(stream), w.partitions), At: through + 1})
	results, err := kadm.NewClient(w.client).DeleteRecords(w.t.Context(), offsets)
	if err != nil || results.Error() != nil {
		w.t.Fatalf("delete records: %v %v", err, results.Error())
	}
}

func TestARestartNeedsNoEventsBelowTheCheckpoint(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		first := w.start(saveAtOnce).serving(4)
		opening := w.deposit("a", 100)
		w.ask(opening)
		for range 20 {
			wantOutcome(t, w.ask(w.deposit("a", 1)), OutcomeAccepted, "")
		}
		c := w.covered("account", "a")
		first.stop()
		w.deleteEvents("account", "a", c.Offset)

		w.start().serving(4)
		wantOutcome(t, w.ask(w.deposit("a", -121)), OutcomeRejected, "overdrawn") // the state is there
		again := w.ask(opening)                                                   // the window is there
		wantOutcome(t, again, OutcomeDuplicate, "")
		wantVersions(t, again, 1, 1)
		reply := w.ask(w.deposit("a", -120))
		wantOutcome(t, reply, OutcomeAccepted, "")
		wantVersions(t, reply, 22, 22) // the version is there
	})
}

func TestAnUnreadableSnapshotHasItsStreamFoldedFromEvents(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		first := w.start(saveAtOnce).serving(4)
		streams := []string{"a", "b", "c", "d"}
		for n, s := range streams {
			w.ask(w.deposit(s, int64(10*(n+1))))
			w.ask(w.deposit(s, 1))
		}
		for _, s := range streams {
			w.covered("account", s)
		}
		first.stop()
		w.foreign(&kgo.Record{
			Topic: topics.Snapshots(w.ns, "account"), Partition: topics.Partition([]byte("b"), w.partitions),
			Key: snapshot.LatestKey("b"), Value: []byte("no snapshot"),
		})
		registry := prometheus.NewRegistry()
		w.start(func(c *Config) { c.Registerer = registry }).serving(4)
		for n, s := range streams {
			reply := w.ask(w.deposit(s, int64(-10*(n+1)-2)))
			wantOutcome(t, reply, OutcomeRejected, "overdrawn")
			reply = w.ask(w.deposit(s, int64(-10*(n+1)-1)))
			wantOutcome(t, reply, OutcomeAccepted, "")
			wantVersions(t, reply, 3, 3)
		}
		if got := counterSum(t, registry, "foldstream_ingest_snapshots_unreadable_total"); got != 1 {
			t.Errorf("unreadable snapshots: got %v, want 1", got)
		}
	})
}

func TestAnotherStateVersionHasAllFoldedFromEvents(t *testing.T) {
	w := newWorld(t, testkit.Kafkas(t)[0])
	first := w.start(saveAtOnce).serving(4)
	w.ask(w.deposit("a", 10))
	w.covered("account", "a")
	first.stop()
	// The next version of the program has a state of another meaning: balances in hundredths.
	def := accounts.Definition()
	reg, err := testRegistry(t).Version(t.Context(), "account.State", 1)
	if err != nil {
		t.Fatal(err)
	}
	second := *reg
	second.ID, second.Version = 99, 2
	def.StateVersion = 2
	def.Evolve = func(state any, e decider.Message) any {
		s := state.(account)
		s.Balance += 100 * e.Data.(deposited).Amount
		return s
	}
	w.start(func(c *Config) {
		c.Registry = w.registry.With(&second)
		c.Categories[0].Decider = &def
	}).serving(4)
	wantOutcome(t, w.ask(w.deposit("a", -1001)), OutcomeRejected, "overdrawn")
	wantOutcome(t, w.ask(w.deposit("a", -1000)), OutcomeAccepted, "")
}

// Every snapshot that was ever written says what the acknowledged log says, whatever the moment.
func TestSnapshotsAreNeverAheadOfTheLog(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start(saveAtOnce).serving(4)
		var ids []string
		for n := range 600 {
			r := w.deposit([]string{"a", "b", "c"}[n%3], 1)
			ids = append(ids, r.id)
			w.send(r)
		}
		for _, id := range ids {
			w.await(id, 1)
		}
		w.covered("account", "a")
		byOffset := map[int32]map[int64]event.Version{}
		for _, events := range w.events("account") {
			for _, e := range events {
				if byOffset[e.Partition] == nil {
					byOffset[e.Partition] = map[int64]event.Version{}
				}
				byOffset[e.Partition][e.Offset] = e.Version
			}
		}
		in := w.saved("account")
		if len(in.all) < 6 {
			t.Fatalf("%d snapshots, want some under load", len(in.all))
		}
		for id, s := range in.latest {
			partition := topics.Partition([]byte(id), w.partitions)
			if got := byOffset[partition][s.Offset]; got != event.Version(s.Version) {
				t.Errorf("stream %s: the snapshot of version %d names offset %d, which has version %d", id, s.Version, s.Offset, got)
			}
			if len(s.Commands) == 0 || s.Commands[len(s.Commands)-1].First > s.Version {
				t.Errorf("stream %s: the snapshot of version %d remembers %d commands, the last of %+v", id, s.Version, len(s.Commands), s.Commands[len(s.Commands)-1])
			}
		}
	})
}

func TestHistorySlotsAreKeptAndExpire(t *testing.T) {
	w := newWorld(t, testkit.Kafkas(t)[0])
	now := &clock{}
	change := func(c *Config) {
		c.Clock = now.now
		c.Categories[0].Snapshots = SnapshotConfig{HistoryEvery: 10, ShareMax: 1}
	}
	w.start(change).serving(4)
	var last string
	for range 75 {
		r := w.deposit("h", 1)
		last = r.id
		w.send(r)
	}
	w.await(last, 1)
	want := map[string]int64{}
	for _, version := range []int64{30, 40, 50, 60, 70} {
		want[string(snapshot.HistoryKey("h", int(version/10%snapshot.HistorySlots)))] = version
	}
	w.eventually("five history slots", func() bool {
		have := w.saved("account").history
		for key, version := range want {
			if have[key].Version != version {
				return false
			}
		}
		return len(have) == len(want)
	})
	now.advance(31 * 24 * time.Hour)
	w.eventually("no history slot after 31 days", func() bool { return len(w.saved("account").history) == 0 })
}

// W9: a log that was restored from elsewhere, or rewritten, is not the one of the snapshots.
func TestW9SnapshotsOfAnotherLogAreThrownAway(t *testing.T) {
	w := newWorld(t, testkit.Kafkas(t)[0])
	first := w.start(saveAtOnce).serving(4)
	w.ask(w.deposit("a", 10))
	c := w.covered("account", "a")
	first.stop()
	partition := topics.Partition([]byte("a"), w.partitions)
	format, err := snapshot.NewFormat(t.Context(), w.codec)
	if err != nil {
		t.Fatal(err)
	}
	defer format.Close()
	// A checkpoint over an event that the log does not have, and a state that it does not give.
	c.LastEventID = "of another log"
	value, err := format.EncodeCheckpoint(c)
	if err != nil {
		t.Fatal(err)
	}
	state, err := w.codec.Bind(t.Context(), codec.TypeDef{Name: "account.State", Version: 1, Kind: event.KindState, GoType: reflect.TypeFor[account]()})
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := state.Append(nil, account{Balance: 1_000_000, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	wrong := w.saved("account").latest["a"]
	wrong.State = encoded
	wrongValue, _, err := format.EncodeSnapshot(wrong)
	if err != nil {
		t.Fatal(err)
	}
	topic := topics.Snapshots(w.ns, "account")
	w.foreign(&kgo.Record{Topic: topic, Partition: partition, Key: snapshot.LatestKey("a"), Value: wrongValue},
		&kgo.Record{Topic: topic, Partition: partition, Key: snapshot.CheckpointKey(), Value: value})
	w.start().serving(4)
	wantOutcome(t, w.ask(w.deposit("a", -11)), OutcomeRejected, "overdrawn")
	wantOutcome(t, w.ask(w.deposit("a", -10)), OutcomeAccepted, "")
}

// W12: a checkpoint stays below the events of commands that the group offset has not passed.
func TestW12CheckpointStaysBelowUnansweredCommands(t *testing.T) {
	w := newWorld(t, testkit.Kafkas(t)[0])
	i, _ := w.startLinked(saveAtOnce, func(c *Config) { c.CommitInterval = time.Hour })
	i.serving(4)
	var last string
	for range 10 {
		r := w.deposit("a", 1)
		last = r.id
		w.send(r)
	}
	w.await(last, 1)
	w.eventually("the stream's snapshot", func() bool { return w.saved("account").latest["a"].Version == 10 })
	partition := topics.Partition([]byte("a"), w.partitions)
	if c, known := w.saved("account").checkpoints[partition]; known && c.Offset > 0 {
		t.Errorf("the checkpoint covers offset %d while no command is committed", c.Offset)
	}
	i.crash()
	w.start(saveAtOnce).serving(4)
	// Every command is answered again, from its event.
	for _, r := range w.await(last, 2) {
		wantOutcome(t, r, OutcomeAccepted, "")
		wantVersions(t, r, 10, 10)
	}
	w.covered("account", "a")
}

// counterSum adds up a counter over its labels.
func counterSum(t *testing.T, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
