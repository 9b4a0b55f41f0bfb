package streams

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// project runs a projector that keeps the system views, until stop or the test's end.
func (w *world) project() (stop func()) {
	w.t.Helper()
	p, err := projector.New(projector.Config{
		Namespace: w.ns, EventCategories: []string{category}, Kafka: []kgo.Opt{kgo.SeedBrokers(w.kafka.Seeds()...)},
		Pool: w.pool, Codec: w.codec, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("projector: %v", err)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

// writeSlot puts a history slot into the snapshots topic, as the category's owner does.
func (w *world) writeSlot(id string, number int, version int) {
	w.t.Helper()
	binding, err := w.codec.Bind(w.t.Context(), stateDef())
	if err != nil {
		w.t.Fatal(err)
	}
	truth := w.truth(id)
	state, err := binding.Append(nil, w.fold(truth[:version]))
	if err != nil {
		w.t.Fatal(err)
	}
	shot := snapshot.Snapshot{Version: int64(version), Offset: truth[version-1].Offset, StateVersion: 1, State: state, TakenAt: t0}
	copy(shot.EventsTopicID[:], w.topicIDBytes())
	value, compressed, err := w.format.EncodeSnapshot(shot)
	if err != nil {
		w.t.Fatal(err)
	}
	rec := &kgo.Record{Topic: topics.Snapshots(w.ns, category), Partition: w.partitionOf(id), Key: snapshot.HistoryKey(id, number), Value: value}
	if compressed {
		rec.Headers = []kgo.RecordHeader{{Key: snapshot.HeaderEncoding, Value: []byte(snapshot.EncodingZstd)}}
	}
	if err := w.owner.ProduceSync(w.t.Context(), rec).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// The real projector beside reads: what it has not indexed yet, indexes just now, or has indexed is
// the same to a reader.
func TestReadsBesideTheProjector(t *testing.T) {
	everywhere(t, func(w *world) {
		w.kafka.CreateTopic(t, topics.Snapshots(w.ns, category), w.parts, map[string]string{"cleanup.policy": "compact"})
		for _, consumer := range projector.SystemConsumers() {
			w.kafka.CreateTopic(t, topics.DeadLetters(w.ns, consumer), 1, nil)
		}
		s := w.store()
		random := rand.New(rand.NewPCG(3, 4))
		stop := w.project()
		for round := range 40 {
			id := fmt.Sprintf("s%d", random.IntN(6))
			switch {
			case round == 20:
				stop() // the index stands still from here, until the new one goes on
			case round == 30:
				w.project()
			case random.IntN(8) == 0:
				w.claim()
			case random.IntN(6) == 0:
				w.voids(id)
			}
			w.grow(id, 1+random.IntN(20))
			w.wantTruth(s, id)
			w.wantState(s, id, At{}, int(w.last[id]))
		}
		ended := make(map[int32]int64)
		for p, records := range w.log {
			ended[p] = records[len(records)-1].Offset + 1
		}
		testkit.Await(t, "the index has all", time.Minute, func(ctx context.Context) bool {
			for p, end := range ended {
				var next int64
				err := w.pool.QueryRow(ctx, `select next_offset from `+w.ns+`.offsets where consumer = 'view.events.v1' and partition = $1`, p).Scan(&next)
				if err != nil || next < end {
					return false
				}
			}
			return true
		})
		longest := "s0"
		for id, v := range w.last {
			w.wantTruth(s, id)
			if v > w.last[longest] {
				longest = id
			}
		}
		w.writeSlot(longest, 2, 5)
		testkit.Await(t, "the slot is indexed", time.Minute, func(ctx context.Context) bool {
			st, err := s.State(ctx, stream(longest), At{Version: 6})
			return err == nil && st.FromSlot == 5
		})
		if got := w.wantState(s, longest, At{Version: 6}, 6); got.Folded != 1 {
			t.Errorf("folded %d events behind the slot, want 1", got.Folded)
		}
	})
}
