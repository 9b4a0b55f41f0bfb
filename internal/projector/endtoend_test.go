package projector

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/schemas/avro"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// world is a projector between a real broker and a real Postgres.
type world struct {
	t        *testing.T
	ns       string
	kafka    *testkit.Kafka
	pool     *pgxpool.Pool
	codec    *codec.Codec
	producer *kgo.Client
	adm      *kadm.Client
	views    []projection.View
	parts    int32
	last     map[event.StreamID]event.Version
	log      []projection.Event // what was written, in order
}

// everywhere runs a test on every broker with every Postgres.
func everywhere(t *testing.T, views []projection.View, test func(w *world)) {
	t.Helper()
	for _, k := range testkit.Kafkas(t) {
		for _, pg := range testkit.Postgreses(t) {
			t.Run(k.Name+" "+pg.Name, func(t *testing.T) {
				t.Parallel()
				test(newWorld(t, k, pg, views))
			})
		}
	}
}

func newWorld(t *testing.T, k *testkit.Kafka, pg *testkit.Postgres, views []projection.View) *world {
	t.Helper()
	return newWorldOf(t, k, pg, views, 3)
}

func newWorldOf(t *testing.T, k *testkit.Kafka, pg *testkit.Postgres, views []projection.View, partitions int32) *world {
	t.Helper()
	w := &world{t: t, ns: testkit.Namespace(t), kafka: k, pool: newPool(t, pg), views: views, parts: partitions, last: map[event.StreamID]event.Version{}}
	w.codec = worldCodec(t)
	w.producer = k.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	w.adm = kadm.NewClient(w.producer)
	made := map[string]bool{}
	for _, v := range views {
		for _, category := range v.Categories {
			if topic := topics.Events(w.ns, category); !made[topic] {
				made[topic] = true
				k.CreateTopic(t, topic, w.parts, nil)
			}
		}
		k.CreateTopic(t, topics.DeadLetters(w.ns, topics.ConsumerView(v.Name, v.Version)), 1, nil)
	}
	if err := Migrate(t.Context(), w.pool, w.ns, views); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	return w
}

func (w *world) hasTopic(topic string) bool {
	_, err := topics.IDs(w.t.Context(), w.adm, topic)
	return err == nil
}

// worldCodec knows the reference domain's schemas and the probe's.
func worldCodec(t testing.TB) *codec.Codec {
	t.Helper()
	var regs []*codec.Registered
	add := func(typ, text string) {
		r, err := codec.RegisterText(int32(len(regs)+1), typ, 1, event.KindEvent, text)
		if err != nil {
			t.Fatalf("register %s: %v", typ, err)
		}
		regs = append(regs, r)
	}
	add("probe.Noted", notedSchema)
	add("probe.Erased", erasedSchema)
	for _, v := range views.All() {
		for _, def := range v.Types {
			if slices.ContainsFunc(regs, func(r *codec.Registered) bool { return r.Type == def.Name }) {
				continue
			}
			text, err := avro.Files.ReadFile(strings.Replace(def.Name, ".", "/", 1) + ".v1.avsc")
			if err != nil {
				t.Fatal(err)
			}
			add(def.Name, string(text))
		}
	}
	regs = append(regs, systemSchemas(t, int32(len(regs)+1))...)
	return codec.New(codec.NewStaticReader(regs...), codec.Config{})
}

// record makes the next event of a stream, as a record for its partition.
func (w *world) record(typ, id string, at time.Time, data any) *kgo.Record {
	w.t.Helper()
	category, _, _ := strings.Cut(typ, ".")
	stream := event.StreamID{Category: category, ID: id}
	w.last[stream]++
	e := projection.Event{Stream: stream, Version: w.last[stream], Type: typ, Time: at, Data: data, ID: fmt.Sprintf("%s@%d", id, w.last[stream])}
	w.log = append(w.log, e)
	r := &kgo.Record{
		Topic: topics.Events(w.ns, category), Partition: topics.Partition([]byte(id), w.parts), Key: []byte(id),
		Headers: headersOf(typ, id, int64(e.Version), at),
	}
	for _, v := range w.views {
		if def, ok := v.TypeDef(typ); ok {
			r.Value = encode(w.t, w.codec, def, data)
		}
	}
	return r
}

func (w *world) noted(id, text string, n int64) *kgo.Record {
	return w.record("probe.Noted", id, t0.Add(time.Duration(len(w.log))*time.Second), noted{Text: text, N: n})
}

func (w *world) write(records ...*kgo.Record) {
	w.t.Helper()
	if err := w.producer.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatalf("produce: %v", err)
	}
}

func (w *world) config(tune ...func(*Config)) Config {
	cfg := Config{
		Namespace: w.ns, Views: w.views, Kafka: []kgo.Opt{kgo.SeedBrokers(w.kafka.Seeds()...)}, Pool: w.pool, Codec: w.codec,
		Logger: quiet(), RetryMin: 5 * time.Millisecond, MirrorInterval: 50 * time.Millisecond,
	}
	for _, f := range tune {
		f(&cfg)
	}
	return cfg
}

// running is a projector at work.
type running struct {
	*Projector
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
}

func (w *world) run(tune ...func(*Config)) *running {
	w.t.Helper()
	p, err := New(w.config(tune...))
	if err != nil {
		w.t.Fatalf("new: %v", err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	r := &running{Projector: p, t: w.t, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- p.Run(ctx) }()
	w.t.Cleanup(r.stop)
	return r
}

// stop ends the projector and waits. Stopping twice is harmless.
func (r *running) stop() {
	r.cancel()
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("run: %v", err)
		}
		r.ended <- nil
	case <-time.After(30 * time.Second):
		r.t.Errorf("the projector does not end")
	}
}

// caughtUp waits until each view has applied all that is in the log.
func (w *world) caughtUp() {
	w.t.Helper()
	for _, v := range w.views {
		for _, category := range v.Categories {
			w.applied(v, topics.Events(w.ns, category))
		}
	}
}

func (w *world) applied(v projection.View, topic string) {
	w.t.Helper()
	ends, err := w.adm.ListEndOffsets(w.t.Context(), topic)
	if err != nil {
		w.t.Fatalf("ends: %v", err)
	}
	var want int64
	ends.Each(func(o kadm.ListedOffset) { want += o.Offset })
	waitFor(w.t, fmt.Sprintf("%s applies %s", v.Name, topic), func() bool {
		return scan[int64](w.t, w.pool, `select coalesce(sum(next_offset) filter (where next_offset > 0), 0)::bigint from `+quote(w.ns, "offsets")+` where consumer = $1 and topic = $2`,
			topics.ConsumerView(v.Name, v.Version), topic) == want
	})
}

// wantFold demands that every view is the fold of what was written.
func (w *world) wantFold() {
	w.t.Helper()
	for _, v := range w.views {
		oracle, err := projection.Fold(v, w.log...)
		if err != nil {
			w.t.Fatalf("fold: %v", err)
		}
		got, err := ReadTable(w.t.Context(), w.pool, w.ns, v)
		if err != nil {
			w.t.Fatal(err)
		}
		if diff := projection.Diff(oracle, got); len(diff) > 0 {
			w.t.Errorf("view %s differs from the fold in %d places:\n%s", v.Name, len(diff), strings.Join(diff[:min(len(diff), 5)], "\n"))
		}
	}
}

// business makes some life of workflows and executions.
func (w *world) business(random *rand.Rand, executions int) []*kgo.Record {
	var out []*kgo.Record
	at := func() time.Time { return t0.Add(time.Duration(len(w.log)) * 7 * time.Minute) }
	for f := range 3 {
		id := fmt.Sprintf("flow-%d", f)
		if w.last[event.StreamID{Category: "workflow", ID: id}] == 0 {
			out = append(out, w.record("workflow.WorkflowCreated", id, at(), workflow.WorkflowCreated{Name: id, Tags: []string{`a,"b"`, `{c}\`, "é"}}))
		}
		node := fmt.Sprintf("n%d", random.IntN(5))
		out = append(out,
			w.record("workflow.NodeAdded", id, at(), workflow.NodeAdded{NodeID: node, Kind: "task", Name: "N", Config: map[string]string{"k": "v"}}),
			w.record("workflow.NodesConnected", id, at(), workflow.NodesConnected{From: node, To: node}),
		)
	}
	first := len(w.log)
	for i := range executions {
		id, flow := fmt.Sprintf("x-%d-%d", first, i), fmt.Sprintf("flow-%d", random.IntN(3))
		out = append(out, w.record("execution.ExecutionStarted", id, at(), execution.ExecutionStarted{WorkflowID: flow}))
		for range random.IntN(6) {
			outcome := []execution.Outcome{execution.OutcomeSucceeded, execution.OutcomeFailed}[random.IntN(2)]
			out = append(out, w.record("execution.NodeRecorded", id, at(), execution.NodeRecorded{WorkflowID: flow, Node: fmt.Sprintf("n%d", random.IntN(5)), Outcome: outcome, DurationMs: random.Int64N(1000)}))
		}
		switch random.IntN(4) {
		case 0:
			out = append(out, w.record("execution.ExecutionCompleted", id, at(), execution.ExecutionCompleted{WorkflowID: flow, StartedAt: t0}))
		case 1:
			out = append(out, w.record("execution.ExecutionFailed", id, at(), execution.ExecutionFailed{WorkflowID: flow, StartedAt: t0}))
		case 2:
			out = append(out, w.record("execution.ExecutionCancelled", id, at(), execution.ExecutionCancelled{WorkflowID: flow, StartedAt: t0}))
		}
	}
	return out
}

func TestTheReferenceViewsFollowTheLog(t *testing.T) {
	everywhere(t, views.All(), func(w *world) {
		random := rand.New(rand.NewPCG(1, 2))
		w.write(w.business(random, 100)...)
		p := w.run(func(c *Config) { c.BatchRecordsMax = 50; c.RowCacheRowsMax = 20 })
		w.caughtUp()
		w.wantFold()
		w.write(w.business(random, 100)...)
		w.caughtUp()
		w.wantFold()
		if err := p.Ready(); err != nil {
			w.t.Errorf("ready: %v", err)
		}
		if n := scan[int](w.t, w.pool, `select count(*)::int from `+quote(w.ns, "letters")); n != 0 {
			w.t.Errorf("%d letters", n)
		}
	})
}

func TestD9PartitionsMoveBetweenProcessesUnderLoad(t *testing.T) {
	everywhere(t, probeViews(), func(w *world) {
		small := func(c *Config) { c.BatchRecordsMax = 20; c.DrainTimeout = 2 * time.Second }
		stream := func(i int) string { return fmt.Sprintf("s%d", i%17) }
		burst := func() {
			var out []*kgo.Record
			for i := range 300 {
				out = append(out, w.noted(stream(i), fmt.Sprintf("t%d", i%7), int64(i)))
			}
			w.write(out...)
		}
		burst()
		first := w.run(small)
		w.caughtUp()
		burst()
		second := w.run(small) // takes some partitions over, and first has them back later (P4)
		burst()
		waitFor(w.t, "the second has partitions", func() bool { return len(second.consumers[0].each()) > 0 })
		burst()
		second.stop()
		burst()
		w.caughtUp()
		first.stop()
		w.run(small)
		burst()
		w.caughtUp()
		w.wantFold()
	})
}

func TestD9TheGroupsCommittedOffsetsAreAMirrorOnly(t *testing.T) {
	everywhere(t, []projection.View{probeStats()}, func(w *world) {
		group := topics.Group(w.ns, topics.ConsumerView("probe_stats", 1))
		for i := range 30 {
			w.write(w.noted(fmt.Sprintf("s%d", i), "x", 1))
		}
		p := w.run()
		w.caughtUp()
		committed := func() (n int64) {
			offsets, err := w.adm.FetchOffsets(w.t.Context(), group)
			if err != nil {
				w.t.Fatal(err)
			}
			offsets.Each(func(o kadm.OffsetResponse) { n += o.At })
			return n
		}
		waitFor(w.t, "progress is mirrored", func() bool { return committed() == 30 })
		p.stop()
		described, err := w.adm.DescribeGroups(w.t.Context(), group)
		if err != nil || len(described[group].Members) != 0 {
			w.t.Errorf("members after the end: %v, %v", described[group].Members, err)
		}
		// Somebody sets them back: the offset rows decide.
		back := kadm.Offsets{}
		for partition := range w.parts {
			back.AddOffset(topics.Events(w.ns, "probe"), partition, 0, -1)
		}
		if err := w.adm.CommitAllOffsets(w.t.Context(), group, back); err != nil {
			w.t.Fatalf("set back: %v", err)
		}
		w.run()
		w.write(w.noted("s1", "x", 1))
		w.caughtUp()
		w.wantFold()
	})
}

func TestLettersKeepTheOriginalBytesInTheirTopic(t *testing.T) {
	everywhere(t, []projection.View{probeList()}, func(w *world) {
		bad := w.noted("a", "error", 1)
		bad.Headers = append(bad.Headers, kgo.RecordHeader{Key: "x-own", Value: []byte("kept")})
		later := w.noted("a", "later", 1)
		w.write(bad, later, w.noted("b", "fine", 1))
		w.run()
		w.caughtUp()
		w.wantFold()
		consumer := topics.ConsumerView("probe_list", 1)
		reader := w.kafka.Client(w.t, kgo.ConsumeTopics(topics.DeadLetters(w.ns, consumer)), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		var letters []*kgo.Record
		for len(letters) < 2 {
			letters = append(letters, reader.PollFetches(w.t.Context()).Records()...)
		}
		for i, original := range []*kgo.Record{bad, later} {
			l := letters[i]
			if string(l.Key) != "a" || string(l.Value) != string(original.Value) {
				w.t.Errorf("letter %d: key or value differ from the record's", i)
			}
			if !slices.EqualFunc(l.Headers[:len(original.Headers)], original.Headers, func(a, b kgo.RecordHeader) bool {
				return a.Key == b.Key && string(a.Value) == string(b.Value)
			}) {
				w.t.Errorf("letter %d: got headers %v, want the record's first", i, l.Headers)
			}
			for name, want := range map[string]string{
				deadletter.HeaderConsumer: consumer, deadletter.HeaderTopic: original.Topic, deadletter.HeaderPartition: fmt.Sprint(original.Partition),
				deadletter.HeaderOffset: fmt.Sprint(original.Offset), deadletter.HeaderReason: []string{"failed", "blocked-by-key"}[i],
				deadletter.HeaderStage: "handle", deadletter.HeaderAttempts: "1",
			} {
				if got, _ := event.HeaderValue(l.Headers, name); string(got) != want {
					w.t.Errorf("letter %d, header %s: got %q, want %q", i, name, got, want)
				}
			}
		}
		row := scan[string](w.t, w.pool, `select format('%s %s', letter_partition, letter_offset) from `+quote(w.ns, "letters")+` where reason = 'failed'`)
		if want := fmt.Sprintf("%d %d", letters[0].Partition, letters[0].Offset); row != want {
			w.t.Errorf("the letter's row says it stands at %q, want %q", row, want)
		}
	})
}

func TestW6OnTheBrokerVoidRecordsAreToldByTheirProducer(t *testing.T) {
	everywhere(t, []projection.View{probeList()}, func(w *world) {
		old := w.producer
		w.write(w.noted("a", "one", 1))
		partition := topics.Partition([]byte("a"), w.parts)
		next := w.kafka.Client(w.t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		w.producer = next
		w.write(&kgo.Record{Topic: topics.Events(w.ns, "probe"), Partition: partition, Headers: []kgo.RecordHeader{{Key: event.HeaderControl, Value: []byte(event.ControlClaim)}}})
		void := w.noted("a", "void", 100)
		w.log, w.last[event.StreamID{Category: "probe", ID: "a"}] = w.log[:1], 1
		w.producer = old
		w.write(void)
		w.producer = next
		w.write(w.noted("a", "two", 2))
		w.run()
		w.caughtUp()
		w.wantFold()
		if got := lines(w.t, w.pool, `select format('%s %s', "offset", reason) from `+quote(w.ns, "letters")); !slices.Equal(got, []string{fmt.Sprintf("%d void", void.Offset)}) {
			w.t.Errorf("letters: got %q, want the void record's alone", got)
		}
	})
}

func TestW9ATopicMadeAgainStopsTheViewLoudly(t *testing.T) {
	everywhere(t, []projection.View{probeList()}, func(w *world) {
		topic := topics.Events(w.ns, "probe")
		for i := range 20 {
			w.write(w.noted(fmt.Sprintf("s%d", i), "x", 1))
		}
		p := w.run()
		w.caughtUp()
		p.stop()
		if _, err := w.adm.DeleteTopics(w.t.Context(), topic); err != nil {
			w.t.Fatal(err)
		}
		waitFor(w.t, "the topic is gone", func() bool { return !w.hasTopic(topic) })
		w.kafka.CreateTopic(w.t, topic, w.parts, nil)
		p = w.run()
		waitFor(w.t, "each partition is stopped", func() bool {
			err := p.Ready()
			return err != nil && strings.Count(err.Error(), "made again") == int(w.parts)
		})
		if err := p.Ready(); !strings.Contains(err.Error(), topic) || !strings.Contains(err.Error(), "rebuild") {
			w.t.Errorf("ready: got %v, want topic and remedy named", err)
		}
	})
}

func TestW9ATopicMadeAgainUnderARunningViewStopsItLoudly(t *testing.T) {
	everywhere(t, []projection.View{probeList()}, func(w *world) {
		topic := topics.Events(w.ns, "probe")
		for i := range 20 {
			w.write(w.noted(fmt.Sprintf("s%d", i), "x", 1))
		}
		p := w.run()
		w.caughtUp()
		if _, err := w.adm.DeleteTopics(w.t.Context(), topic); err != nil {
			w.t.Fatal(err)
		}
		waitFor(w.t, "the topic is gone", func() bool { return !w.hasTopic(topic) })
		w.kafka.CreateTopic(w.t, topic, w.parts, nil)
		waitFor(w.t, "each partition is stopped", func() bool {
			err := p.Ready()
			return err != nil && strings.Count(err.Error(), "made again") == int(w.parts)
		})
	})
}

func TestAGapStopsOnePartitionAndTheOthersGoOn(t *testing.T) {
	everywhere(t, []projection.View{probeList()}, func(w *world) {
		w.write(w.noted("a", "one", 1))
		w.last[event.StreamID{Category: "probe", ID: "a"}]++
		gap := w.noted("a", "two", 1)
		w.write(gap)
		w.log = w.log[:1]
		p := w.run()
		waitFor(w.t, "the partition is stopped", func() bool {
			err := p.Ready()
			return err != nil && strings.Contains(err.Error(), "have version 3, want 2")
		})
		other := ""
		for i := 0; other == ""; i++ {
			if id := fmt.Sprintf("o%d", i); topics.Partition([]byte(id), w.parts) != gap.Partition {
				other = id
			}
		}
		w.write(w.noted(other, "one", 5))
		waitFor(w.t, "another partition goes on", func() bool {
			return scan[int](w.t, w.pool, `select count(*)::int from `+quote(w.ns, "probe_list")) == 2
		})
		w.wantFold()
	})
}

func TestTheLogLosingItsPositionStopsLoudly(t *testing.T) {
	everywhere(t, []projection.View{probeList()}, func(w *world) {
		partition := topics.Partition([]byte("a"), w.parts)
		topic := topics.Events(w.ns, "probe")
		w.write(w.noted("a", "one", 1))
		p := w.run()
		w.caughtUp()
		p.stop()
		w.write(w.noted("a", "two", 1), w.noted("a", "three", 1))
		cut := kadm.Offsets{}
		cut.AddOffset(topic, partition, 2, -1)
		if _, err := w.adm.DeleteRecords(w.t.Context(), cut); err != nil {
			w.t.Fatal(err)
		}
		p = w.run()
		waitFor(w.t, "the partition is stopped", func() bool {
			err := p.Ready()
			return err != nil && strings.Contains(err.Error(), "does not have the position")
		})
	})
}

func TestTheWatchdogTellsOfAHandlerThatHangs(t *testing.T) {
	for _, k := range testkit.Kafkas(t)[:1] {
		gate := make(chan struct{})
		var entered atomic.Bool
		hanging := projection.Metric(projection.MetricSpec[probeStat]{
			Name: "probe_hang", Version: 1, On: []codec.TypeDef{projection.On[noted]("probe.Noted", 1)},
			Deltas: func(projection.Event) ([]probeStat, error) {
				entered.Store(true)
				<-gate
				return []probeStat{{Text: "x", N: 1}}, nil
			},
		})
		w := newWorld(t, k, testkit.Postgreses(t)[0], []projection.View{hanging})
		p := w.run(func(c *Config) { c.Watchdog = 50 * time.Millisecond })
		w.write(w.noted("a", "one", 1))
		waitFor(t, "the partition counts as stalled", func() bool {
			err := p.Ready()
			return entered.Load() && err != nil && strings.Contains(err.Error(), "no progress")
		})
		close(gate)
		waitFor(t, "it recovers", func() bool { return p.Ready() == nil })
		w.caughtUp()
		w.wantFold()
	}
}

func TestARevokedWorkerThatHangsWritesNothingLater(t *testing.T) {
	for _, k := range testkit.Kafkas(t)[:1] {
		gate := make(chan struct{})
		var calls atomic.Int32
		hanging := projection.Metric(projection.MetricSpec[probeStat]{
			Name: "probe_hang", Version: 1, On: []codec.TypeDef{projection.On[noted]("probe.Noted", 1)},
			Deltas: func(projection.Event) ([]probeStat, error) {
				if calls.Add(1) == 1 {
					<-gate
				}
				return []probeStat{{Text: "x", N: 1, Count: 1}}, nil
			},
		})
		w := newWorld(t, k, testkit.Postgreses(t)[0], []projection.View{hanging})
		first := w.run(func(c *Config) { c.DrainTimeout = 50 * time.Millisecond; c.RevokeTimeout = 50 * time.Millisecond })
		w.write(w.noted("a", "one", 1))
		waitFor(t, "the handler hangs", func() bool { return calls.Load() == 1 })
		first.stop()
		w.run()
		w.caughtUp()
		close(gate) // the old worker wakes up
		w.write(w.noted("a", "two", 1))
		w.caughtUp()
		w.wantFold()
	}
}

func TestAStoppedProcessDoesNotKeepItsSuccessorWaiting(t *testing.T) {
	everywhere(t, []projection.View{probeStats()}, func(w *world) {
		// What a process that was stopped inside its transaction leaves: the offset row's lock.
		st, err := newStore(w.pool, w.ns, topics.ConsumerView("probe_stats", 1), w.views[0])
		if err != nil {
			w.t.Fatal(err)
		}
		p := place{topics.Events(w.ns, "probe"), topics.Partition([]byte("a"), w.parts)}
		taken, err := st.take(w.t.Context(), []place{p})
		if err != nil {
			w.t.Fatal(err)
		}
		tx, err := w.pool.Begin(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if _, _, err := st.fence(w.t.Context(), tx, p, taken[p].epoch, taken[p].next, position{next: 1}); err != nil {
			w.t.Fatal(err)
		}
		w.write(w.noted("a", "one", 1))
		w.run()
		w.caughtUp()
		w.wantFold()
	})
}

func TestRunEndsWithAnErrorWhenATypeDoesNotBind(t *testing.T) {
	type wrong struct {
		Text int64 `avro:"text"`
		N    int64 `avro:"n"`
	}
	for _, k := range testkit.Kafkas(t)[:1] {
		v := projection.Metric(projection.MetricSpec[probeStat]{
			Name: "probe_wrong", Version: 1, On: []codec.TypeDef{projection.On[wrong]("probe.Noted", 1)},
			Deltas: func(projection.Event) ([]probeStat, error) { return nil, nil },
		})
		w := newWorld(t, k, testkit.Postgreses(t)[0], nil)
		w.views = []projection.View{v}
		p, err := New(w.config())
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "probe.Noted") {
			t.Errorf("run: got %v, want an error that names the type", err)
		}
	}
}
