package streams

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestReadsSeeEveryAcknowledgedEventWhereverTheIndexIs(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store()
		w.append("a", "b", "a", "c", "a")
		w.voids("a")
		w.wantTruth(s, "a") // the projector has not begun
		w.index(2)
		w.wantTruth(s, "a") // it lags
		w.append("a", "b")
		w.claim()
		w.append("a", "c", "c")
		w.voids("c")
		w.index(4)
		for _, id := range []string{"a", "b", "c"} {
			w.wantTruth(s, id)
		}
		w.index(-1)
		for _, id := range []string{"a", "b", "c"} {
			w.wantTruth(s, id) // it is up to date
		}
		w.append("b", "a")
		w.wantTruth(s, "a")
		w.wantTruth(s, "b")
	})
}

func TestWithoutPostgresTheLogAlonesServes(t *testing.T) {
	onBrokers(t, func(w *world) {
		s := w.store()
		w.append("a", "b", "a")
		w.voids("a")
		w.wantTruth(s, "a")
		w.append("a")
		w.wantTruth(s, "a")
		wantVersions(t, w.load(s, Query{Stream: stream("a"), Backward: true, Limit: 2}).Events, 3, 2)
		small := w.store(func(c *Config) { c.TailRecordsMax = 3 })
		_, err := small.Load(t.Context(), Query{Stream: stream("a")})
		var stale *StaleError
		if !errors.As(err, &stale) || !strings.Contains(stale.Reason, "Postgres is not configured") {
			t.Errorf("a log beyond the limit: got %v, want a StaleError that names Postgres", err)
		}
	})
}

func TestPagesForwardAndBackwardJoinIndexAndTail(t *testing.T) {
	everywhere(t, func(w *world) {
		w.grow("a", 10)
		w.index(1 + 6) // the claim and six events
		s := w.store()
		for _, c := range []struct {
			q    Query
			want []event.Version
			next event.Version
		}{
			{Query{}, []event.Version{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0},
			{Query{Limit: 3}, []event.Version{1, 2, 3}, 4},
			{Query{From: 5, Limit: 4}, []event.Version{5, 6, 7, 8}, 9},
			{Query{From: 7, Limit: 2}, []event.Version{7, 8}, 9},
			{Query{From: 9, Limit: 2}, []event.Version{9, 10}, 0},
			{Query{From: 11}, nil, 0},
			{Query{Backward: true}, []event.Version{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 0},
			{Query{Backward: true, Limit: 2}, []event.Version{10, 9}, 8},
			{Query{Backward: true, From: 8, Limit: 4}, []event.Version{8, 7, 6, 5}, 4},
			{Query{Backward: true, From: 3, Limit: 3}, []event.Version{3, 2, 1}, 0},
			{Query{Backward: true, From: 4, Limit: 3}, []event.Version{4, 3, 2}, 1},
			{Query{Backward: true, From: 99, Limit: 1}, []event.Version{10}, 9},
		} {
			c.q.Stream = stream("a")
			page := w.load(s, c.q)
			wantVersions(t, page.Events, c.want...)
			if page.Next != c.next || page.Version != 10 {
				t.Errorf("%+v: got next %d at version %d, want next %d at version 10", c.q, page.Next, page.Version, c.next)
			}
		}
	})
}

func TestAPageEndsEarlyWhenItHasAsManyBytesAsMayBe(t *testing.T) {
	everywhere(t, func(w *world) {
		w.grow("a", 40)
		w.index(31)
		s := w.store(func(c *Config) { c.PageBytesMax = 1000 })
		var got []event.Recorded
		pages := 0
		for from := event.Version(1); from > 0; pages++ {
			page := w.load(s, Query{Stream: stream("a"), From: from})
			got, from = append(got, page.Events...), page.Next
		}
		if len(got) != 40 || pages < 3 {
			t.Errorf("got %d events in %d pages, want 40 in several", len(got), pages)
		}
		page := w.load(s, Query{Stream: stream("a"), From: 25, Backward: true})
		if page.Next == 0 || page.Next != 25-event.Version(len(page.Events)) {
			t.Errorf("backward: got %d events and next %d, want the page cut", len(page.Events), page.Next)
		}
	})
}

func TestRefusalsSayWhatIsMissing(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store()
		w.append("a")
		for name, c := range map[string]struct {
			stream event.StreamID
			want   error
		}{
			"no event":         {stream("nobody"), ErrNoStream},
			"unknown category": {event.StreamID{Category: "order", ID: "a"}, ErrNoCategory},
			"an impossible id": {stream("a\x00b"), ErrNoStream},
		} {
			if _, err := s.Load(t.Context(), Query{Stream: c.stream}); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", name, err, c.want)
			}
		}
	})
}

func TestAReadWaitsForAVersion(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store()
		w.append("a")
		began := time.Now()
		_, err := s.Load(t.Context(), Query{Stream: stream("a"), MinVersion: 3, Wait: 30 * time.Millisecond})
		var stale *StaleError
		if !errors.As(err, &stale) || stale.Have != 1 || stale.Want != 3 || time.Since(began) < 30*time.Millisecond {
			t.Errorf("a version that does not come: got %v after %s, want a StaleError of 1 and 3", err, time.Since(began))
		}
		type answer struct {
			page Page
			err  error
		}
		waiting := make(chan answer)
		for _, id := range []string{"a", "unborn"} {
			go func() {
				page, err := s.Load(t.Context(), Query{Stream: stream(id), MinVersion: 2, Wait: 30 * time.Second})
				waiting <- answer{page, err}
			}()
		}
		w.append("b", "a", "unborn", "unborn")
		for range 2 {
			if a := <-waiting; a.err != nil || a.page.Version < 2 {
				t.Errorf("a version that comes: got %d, %v", a.page.Version, a.err)
			}
		}
		if _, err := s.Load(t.Context(), Query{Stream: stream("a"), MinVersion: 2}); err != nil {
			t.Errorf("a version that is there, without waiting: %v", err)
		}
	})
}

func TestATailBeyondTheLimitSaysHowFarTheIndexIsBehind(t *testing.T) {
	everywhere(t, func(w *world) {
		w.grow("a", 50)
		w.index(11)
		for name, tune := range map[string]func(*Config){
			"records": func(c *Config) { c.TailRecordsMax = 39 },
			"bytes":   func(c *Config) { c.TailBytesMax = 1 },
		} {
			s := w.store(tune, func(c *Config) { c.Clock = func() time.Time { return t0.Add(time.Hour) } })
			_, err := s.Load(t.Context(), Query{Stream: stream("a")})
			if name == "bytes" && err == nil {
				// One fetch may pass the limit; what comes behind it may not.
				w.grow("a", 1)
				_, err = s.Load(t.Context(), Query{Stream: stream("a")})
			}
			var stale *StaleError
			if !errors.As(err, &stale) || stale.LagRecords < 40 || stale.Behind < 59*time.Minute || stale.Behind > time.Hour {
				t.Errorf("%s: got %v, want a StaleError of 40 records and an hour", name, err)
				continue
			}
			w.index(-1)
			if _, err := s.Load(t.Context(), Query{Stream: stream("a")}); err != nil {
				t.Errorf("%s: after the index caught up: %v", name, err)
			}
			w.index(11)
		}
	})
}

func TestAGapIsNeverPassedOver(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store()
		w.append("a", "a")
		w.index(-1)
		w.last["a"]++ // version 3 is nowhere
		w.append("a")
		wantLogError(t, s, "a", "version 4, 3 should follow")
		w.index(-1)
		wantLogError(t, s, "a", "lacks version 3")
	})
}

func TestRowsThatAreGoneAreMissed(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store()
		w.grow("a", 6)
		w.index(-1)
		for _, c := range []struct {
			version int
			query   Query
		}{
			{3, Query{}}, {1, Query{}}, {6, Query{}}, {3, Query{Backward: true}}, {1, Query{Backward: true}}, {6, Query{Backward: true}},
			{2, Query{From: 2, Limit: 2}}, {6, Query{From: 6}},
		} {
			w.index(-1)
			if _, err := w.pool.Exec(t.Context(), `delete from `+w.ns+`_events_v1.rows where version = $1`, c.version); err != nil {
				t.Fatal(err)
			}
			c.query.Stream = stream("a")
			_, err := s.Load(t.Context(), c.query)
			var fault *LogError
			if !errors.As(err, &fault) {
				t.Errorf("%+v without version %d: got %v, want a LogError", c.query, c.version, err)
			}
		}
	})
}

func TestATopicThatWasMadeAnewIsNoticed(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store(func(c *Config) { c.LeaderAgeMax = time.Millisecond })
		w.append("a", "a", "a")
		w.index(-1)
		w.append("a")
		w.wantTruth(s, "a")
		adm := kadm.NewClient(w.kafka.Client(t))
		if _, err := adm.DeleteTopic(t.Context(), w.topic()); err != nil {
			t.Fatal(err)
		}
		before := w.topicID
		w.awaitGone(adm)
		w.makeTopic()
		if w.topicID == before {
			t.Fatal("the topic has its old id")
		}
		w.grow("a", 9)
		wantLogError(t, s, "a", "deleted and made anew")
		w.index(-1)
		w.wantTruth(s, "a")
	})
}

func (w *world) awaitGone(adm *kadm.Client) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if _, err := topics.IDs(w.t.Context(), adm, w.topic()); err != nil {
			return
		}
		<-tick.C
	}
	w.t.Fatal("the topic is still there")
}

func TestALogThatEndsBeforeTheIndexIsNoticed(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store()
		w.append("a")
		w.index(-1)
		if _, err := w.pool.Exec(t.Context(), `update `+w.ns+`.offsets set next_offset = next_offset + 10`); err != nil {
			t.Fatal(err)
		}
		wantLogError(t, s, "a", "truncated or restored")
	})
}

func TestRetentionAheadOfTheIndexIsNoticed(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store()
		w.grow("a", 10)
		w.index(3)
		offsets := kadm.Offsets{}
		offsets.AddOffset(w.topic(), w.partitionOf("a"), 8, -1)
		if _, err := kadm.NewClient(w.kafka.Client(t)).DeleteRecords(t.Context(), offsets); err != nil {
			t.Fatal(err)
		}
		wantLogError(t, s, "a", "retention deleted")
	})
}

func TestAParkedStreamIsNotTakenForShort(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store()
		w.append("a", "a")
		w.index(-1)
		if _, err := w.pool.Exec(t.Context(), `insert into `+w.ns+`.parked values ('view.events.v1', $1, $2, $3, 7)`, w.topic(), w.partitionOf("a"), []byte("a")); err != nil {
			t.Fatal(err)
		}
		wantLogError(t, s, "a", "is a letter")
		w.append("b")
		w.wantTruth(s, "b")
	})
}

func wantLogError(t testing.TB, s *Store, id, text string) {
	t.Helper()
	_, err := s.Load(t.Context(), Query{Stream: stream(id)})
	var fault *LogError
	if !errors.As(err, &fault) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want a LogError with %q", err, text)
	}
}

func TestReadsOfOnePartitionFetchItsTailOnce(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store()
		w.grow("a", 200)
		w.index(101)
		together(16, func(int) { w.wantTruth(s, "a") })
		if got := testutil.ToFloat64(s.metrics.tailRecords); got != 100 {
			t.Errorf("16 reads at once fetched %v records, want the tail's 100 once", got)
		}
		w.grow("a", 5)
		w.wantTruth(s, "a")
		if got := testutil.ToFloat64(s.metrics.tailRecords); got != 105 {
			t.Errorf("after 5 more: %v records fetched, want 105", got)
		}
		w.index(-1)
		w.wantTruth(s, "a")
		w.index(150) // an index that is rebuilt goes back
		w.wantTruth(s, "a")
		w.index(2)
		w.wantTruth(s, "a")
	})
}

func TestKeptTailsStayWithinTheirLimit(t *testing.T) {
	everywhere(t, func(w *world) {
		const bytesMax = 20_000
		s := w.store(func(c *Config) { c.TailCacheBytesMax = bytesMax })
		for i := range 30 {
			w.grow(fmt.Sprintf("s%d", i), 10)
		}
		for i := range 30 {
			w.wantTruth(s, fmt.Sprintf("s%d", i))
			if got := s.tails.bytes.Load(); got < 0 {
				t.Fatalf("the kept tails have %d bytes", got)
			}
		}
		if n := len(s.tails.byPlace); n > 1 {
			t.Errorf("%d tails are kept, want those beyond the limit dropped", n)
		}
	})
}

func TestReadsWhileTheIndexMovesAndEventsAreAppended(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store()
		random := rand.New(rand.NewPCG(1, 2))
		ids := []string{"a", "b", "c", "d"}
		for range 25 {
			for range random.IntN(8) {
				w.append(ids[random.IntN(len(ids))])
			}
			if random.IntN(5) == 0 {
				w.claim()
			}
			if random.IntN(3) == 0 {
				w.voids(ids[random.IntN(len(ids))])
			}
			if random.IntN(2) == 0 {
				w.index(random.Int64N(40))
			}
			for _, id := range ids {
				if w.last[id] > 0 {
					w.wantTruth(s, id)
				}
			}
		}
	})
}

func TestTheOutcomeOfACommandIsFound(t *testing.T) {
	everywhere(t, func(w *world) {
		w.grow("a", 7) // commands c1 to c4: two events each, c4 one
		w.append("b")
		w.index(1 + 3) // cuts c2 in two
		s := w.store()
		truth := w.truth("a")
		for id, want := range map[string][2]event.Version{"c1": {1, 2}, "c2": {3, 4}, "c3": {5, 6}, "c4": {7, 7}} {
			got, err := s.Command(t.Context(), stream("a"), id)
			if err != nil || got.First != want[0] || got.Last != want[1] || got.Offset != truth[want[1]-1].Offset || got.Partition != w.partitionOf("a") {
				t.Errorf("%s: got %+v, %v, want the versions %v", id, got, err, want)
			}
		}
		for _, id := range []string{"c5", "", "c\x00"} {
			if _, err := s.Command(t.Context(), stream("a"), id); !errors.Is(err, ErrNoCommand) {
				t.Errorf("%q: got %v, want %v", id, err, ErrNoCommand)
			}
		}
		again := w.next("a") // a forgotten id comes again
		for i, h := range again.Headers {
			if h.Key == event.HeaderCommandID {
				again.Headers[i].Value = []byte("c1")
			}
		}
		w.writeBy(w.owner, again)
		if got, err := s.Command(t.Context(), stream("a"), "c1"); err != nil || got.First != 8 || got.Last != 8 {
			t.Errorf("an id that came again: got %+v, %v, want version 8", got, err)
		}
	})
}

func TestABrokerThatIsAwayIsUnavailable(t *testing.T) {
	s, err := New(Config{
		Namespace: "fs", Categories: []string{category}, Codec: testCodec(t),
		Kafka: []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1"), kgo.RetryTimeout(50 * time.Millisecond), kgo.DialTimeout(50 * time.Millisecond)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.Load(ctx, Query{Stream: stream("a")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want %v", err, ErrUnavailable)
	}
}

func TestReadsFollowALeaderThatMoves(t *testing.T) {
	cluster := testkit.StartKfake(t, kfake.NumBrokers(3))
	w := newWorld(t, testkit.WrapKfake(cluster), nil, 3)
	s := w.store(func(c *Config) { c.LeaderAgeMax = time.Hour })
	w.append("a")
	w.wantTruth(s, "a")
	for node := range int32(3) {
		if err := cluster.MoveTopicPartition(w.topic(), w.partitionOf("a"), node); err != nil {
			t.Fatal(err)
		}
		w.append("a")
		w.wantTruth(s, "a")
		w.wantState(s, "a", At{}, int(w.last["a"]))
	}
}

// The topic is made anew between two looks at its id: only the fetch can tell.
func TestATopicMadeAnewUnderAReadIsNoticed(t *testing.T) {
	everywhere(t, func(w *world) {
		s := w.store(func(c *Config) { c.LeaderAgeMax = time.Hour })
		w.append("a")
		w.index(-1)
		w.append("a", "a")
		w.wantTruth(s, "a")
		adm := kadm.NewClient(w.kafka.Client(t))
		if _, err := adm.DeleteTopic(t.Context(), w.topic()); err != nil {
			t.Fatal(err)
		}
		w.awaitGone(adm)
		w.makeTopic()
		w.grow("a", 9)
		wantLogError(t, s, "a", "made anew")
	})
}

func TestAMissingTopicIsNamedAtOnce(t *testing.T) {
	onBrokers(t, func(w *world) {
		s := w.store(func(c *Config) { c.Namespace = "nothere" })
		began := time.Now()
		_, err := s.Load(t.Context(), Query{Stream: stream("a")})
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "nothere.account.events does not exist") || time.Since(began) > 5*time.Second {
			t.Errorf("got %v after %s, want the topic named", err, time.Since(began))
		}
	})
}

func TestConfigFaultsAreJoined(t *testing.T) {
	_, err := New(Config{Namespace: "Bad", Categories: []string{"events"}, TailBytesMax: -1})
	for _, want := range []string{"namespace", "reserved", "Kafka is empty", "Codec is nil", "TailBytesMax"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}
