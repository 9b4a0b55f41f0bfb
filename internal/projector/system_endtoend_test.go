package projector

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// withSystemViews makes a world's projector keep the system views, too.
func (w *world) withSystemViews(categories ...string) (tune func(*Config)) {
	w.t.Helper()
	for _, category := range categories {
		w.kafka.CreateTopic(w.t, topics.Snapshots(w.ns, category), w.parts, map[string]string{"cleanup.policy": "compact"})
	}
	for _, consumer := range SystemConsumers() {
		w.kafka.CreateTopic(w.t, topics.DeadLetters(w.ns, consumer), 1, nil)
	}
	if err := MigrateSystemViews(w.t.Context(), w.pool, w.ns); err != nil {
		w.t.Fatalf("migrate: %v", err)
	}
	return func(c *Config) { c.EventCategories = categories }
}

// logOf reads a category's log by a plain client: every record that is no control record.
func (w *world) logOf(topic string) []*kgo.Record {
	w.t.Helper()
	// A client of its own: another one may remember that the topic was not there.
	ends, err := kadm.NewClient(w.kafka.Client(w.t)).ListEndOffsets(w.t.Context(), topic)
	if err != nil {
		w.t.Fatalf("ends: %v", err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	reader := w.kafka.Client(w.t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(left) > 0 && ctx.Err() == nil {
		reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if event.Control(r.Headers) == "" {
				out = append(out, r)
			}
		})
	}
	if ctx.Err() != nil {
		w.t.Fatalf("log of %s: timed out, %v left", topic, left)
	}
	slices.SortFunc(out, func(a, b *kgo.Record) int {
		if a.Partition != b.Partition {
			return int(a.Partition - b.Partition)
		}
		return int(a.Offset - b.Offset)
	})
	return out
}

// wantTheLog demands that <ns>.events equals the logs, record for record.
func (w *world) wantTheLog(categories ...string) {
	w.t.Helper()
	for _, category := range categories {
		var want []string
		for _, r := range w.logOf(topics.Events(w.ns, category)) {
			want = append(want, indexedLine(category, r))
		}
		got := indexedLines(w.t, w.pool, w.ns, category)
		if len(want) == 0 || len(got) != len(want) {
			w.t.Errorf("%s: the index has %d events, the log %d", category, len(got), len(want))
			continue
		}
		for i := range want {
			if got[i] != want[i] {
				w.t.Errorf("%s: event %d of %d differs:\n got  %s\n want %s", category, i, len(want), got[i], want[i])
				break
			}
		}
	}
}

func (w *world) systemCaughtUp(categories ...string) {
	w.t.Helper()
	for _, category := range categories {
		w.applied(eventsView(nil), topics.Events(w.ns, category))
		w.applied(snapshotsView(nil), topics.Snapshots(w.ns, category))
	}
}

// claim begins a partition as an owner does.
func (w *world) claim(topic string) []*kgo.Record {
	var out []*kgo.Record
	for partition := range w.parts {
		out = append(out, &kgo.Record{Topic: topic, Partition: partition, Headers: []kgo.RecordHeader{header(event.HeaderControl, event.ControlClaim)}})
	}
	return out
}

// wild makes some life of many streams, in several months, with headers and types of all sorts.
func (w *world) wild(random *rand.Rand, events int) []*kgo.Record {
	var out []*kgo.Record
	for range events {
		id := fmt.Sprintf("s%d", random.IntN(40))
		r := w.noted(id, fmt.Sprintf("t%d", random.IntN(9)), random.Int64N(100))
		switch random.IntN(4) {
		case 0:
			r.Headers = append(r.Headers, header("x-tenant", id), header(event.HeaderCommandID, "c-"+id), kgo.RecordHeader{Key: "x-null"})
		case 1:
			r = with(r, event.HeaderType, "probe.NobodyKnows")
			r.Value = []byte{0, 255, 1}
		}
		r.Timestamp = time.UnixMilli(t0.AddDate(0, -random.IntN(4), 0).UnixMilli())
		out = append(out, r)
	}
	return out
}

func TestTheSystemViewsEqualTheLogThroughKills(t *testing.T) {
	everywhere(t, []projection.View{probeStats(), workflowNames()}, func(w *world) {
		random := rand.New(rand.NewPCG(3, 4))
		categories := []string{"probe", "workflow"}
		system := w.withSystemViews(categories...)
		tune := func(c *Config) {
			system(c)
			// Too short for a batch: what is under way at the end is cut off in the middle of it.
			c.BatchRecordsMax, c.DrainTimeout, c.RevokeTimeout, c.RowCacheRowsMax = 25, time.Nanosecond, time.Nanosecond, 10
		}
		slots := map[string]string{}
		burst := func(n int) {
			w.write(w.wild(random, n)...)
			w.write(w.business(random, 0)...)
			for range n / 10 {
				w.writeSlot(random, slots)
			}
		}
		for _, category := range categories {
			w.write(w.claim(topics.Events(w.ns, category))...)
		}
		burst(300)
		for range 4 {
			p := w.run(tune)
			before := w.indexed()
			waitFor(w.t, "the index grows", func() bool { return w.indexed() > before })
			p.stop()
			burst(200)
		}
		first := w.run(tune)
		second := w.run(tune)
		burst(200)
		waitFor(w.t, "both have partitions", func() bool {
			return len(first.part("events.v1").each()) > 0 && len(second.part("events.v1").each()) > 0
		})
		second.stop()
		burst(50)
		w.systemCaughtUp(categories...)
		w.wantTheLog(categories...)
		w.wantSlots(slots)
		if err := first.Ready(); err != nil {
			w.t.Errorf("ready: %v", err)
		}
		if n := scan[int](w.t, w.pool, `select count(*)::int from `+quote(w.ns, "letters")+` where consumer = any($1)`, SystemConsumers()); n != 0 {
			w.t.Errorf("%d letters of the system views", n)
		}
	})
}

// workflowNames is a view over a second category.
func workflowNames() projection.View {
	type name struct {
		At time.Time `db:"at"`
	}
	return projection.Append(projection.AppendSpec[name]{
		Name: "workflow_names", Version: 1, On: views.WorkflowList().Types,
		Rows: func(e projection.Event) ([]name, error) { return []name{{e.Time}}, nil },
	})
}

func (w *world) indexed() int {
	return scan[int](w.t, w.pool, `select count(*)::int from `+quote(w.ns, "events"))
}

// part is the consumer of one view.
func (r *running) part(label string) *consumer {
	for _, c := range r.consumers {
		if c.label == label {
			return c
		}
	}
	r.t.Fatalf("no consumer of %s", label)
	return nil
}

// writeSlot writes a history slot, a tombstone, or something that is none, and keeps in slots what
// should come of it.
func (w *world) writeSlot(random *rand.Rand, slots map[string]string) {
	w.t.Helper()
	format, err := snapshot.NewFormat(w.t.Context(), w.codec)
	if err != nil {
		w.t.Fatal(err)
	}
	defer format.Close()
	id, number := fmt.Sprintf("s%d", random.IntN(10)), random.IntN(snapshot.HistorySlots)
	shot := shotAt(1+random.Int64N(1000), strings.Repeat("x", random.IntN(2000)))
	value, compressed, err := format.EncodeSnapshot(shot)
	if err != nil {
		w.t.Fatal(err)
	}
	r := &kgo.Record{Topic: topics.Snapshots(w.ns, "probe"), Partition: topics.Partition([]byte(id), w.parts), Key: snapshot.HistoryKey(id, number), Value: value}
	if compressed {
		r.Headers = []kgo.RecordHeader{header(snapshot.HeaderEncoding, snapshot.EncodingZstd)}
	}
	key := fmt.Sprintf("%s#%d", id, number)
	switch random.IntN(5) {
	case 0:
		r.Value, r.Headers = nil, nil
		delete(slots, key)
	case 1:
		r.Key = snapshot.LatestKey(id)
	default:
		slots[key] = slotLine(id, number, shot, r)
	}
	w.write(r)
}

func (w *world) wantSlots(slots map[string]string) {
	w.t.Helper()
	var want []string
	for _, line := range slots {
		want = append(want, line)
	}
	slices.Sort(want)
	got := slotLines(w.t, w.pool, w.ns)
	slices.Sort(got)
	if len(want) == 0 {
		w.t.Error("no slot was written")
	}
	wantLines(w.t, "slots", got, want...)
}
