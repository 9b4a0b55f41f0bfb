package engine

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/schemas/avro"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestMain lets more tests run beside each other than there are cores: they wait for brokers, group
// sessions and ticks far more than they compute.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", itoa(max(8, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	os.Exit(testkit.Main(m))
}

// The test's domain: an account that takes deposits and refuses to be overdrawn.
type (
	deposit struct {
		Amount int64  `avro:"amount"`
		Note   string `avro:"note"`
	}
	deposited struct {
		Amount int64  `avro:"amount"`
		Note   string `avro:"note"`
	}
	account struct {
		Balance int64 `avro:"balance"`
		Count   int64 `avro:"count"`
	}
	noted struct {
		Text string `avro:"text"`
	}
)

const recordSchema = `{"type":"record","namespace":%q,"name":%q,"fs.kind":%q,"fields":[%s]}`

const amountFields = `{"name":"amount","type":"long"},{"name":"note","type":"string","default":""}`

// Ids of the test's schemas.
const (
	idAppend = iota + 1
	idReply
	idDeposit
	idDeposited
	idState
	idNoted
	idSnapshot
	idCheckpoint
	idAppend2
	idAppendBatch
)

func testRegistry(t testing.TB) *codec.StaticReader {
	t.Helper()
	versioned := func(id int32, typ string, version int, kind event.Kind, text string) *codec.Registered {
		reg, err := codec.RegisterText(id, typ, version, kind, text)
		if err != nil {
			t.Fatal(err)
		}
		return reg
	}
	one := func(id int32, typ string, kind event.Kind, text string) *codec.Registered {
		return versioned(id, typ, 1, kind, text)
	}
	file := func(name string) string {
		text, err := avro.Files.ReadFile("foldstream/" + name + ".avsc")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	system := func(name string) string { return file(name + ".v1") }
	return codec.NewStaticReader(
		one(idAppend, codec.TypeAppend, event.KindSystem, system("Append")),
		versioned(idAppend2, codec.TypeAppend, 2, event.KindSystem, file("Append.v2")),
		one(idAppendBatch, codec.TypeAppendBatch, event.KindSystem, system("AppendBatch")),
		one(idReply, codec.TypeReply, event.KindSystem, system("Reply")),
		one(idDeposit, "account.Deposit", event.KindCommand, fmt.Sprintf(recordSchema, "account", "Deposit", "command", amountFields)),
		one(idDeposited, "account.Deposited", event.KindEvent, fmt.Sprintf(recordSchema, "account", "Deposited", "event", amountFields)),
		one(idState, "account.State", event.KindState, fmt.Sprintf(recordSchema, "account", "State", "state", `{"name":"balance","type":"long"},{"name":"count","type":"long"}`)),
		one(idSnapshot, snapshot.TypeSnapshot, event.KindSystem, system("Snapshot")),
		one(idCheckpoint, snapshot.TypeCheckpoint, event.KindSystem, system("Checkpoint")),
		one(idNoted, "note.Noted", event.KindEvent, fmt.Sprintf(recordSchema, "note", "Noted", "event", `{"name":"text","type":"string"}`)),
	)
}

var accounts = decider.Spec[account]{
	Category: "account", StateVersion: 1,
	Types: decider.Types{decider.Command[deposit]("account.Deposit", 1), decider.Event[deposited]("account.Deposited", 1)},
	Decide: func(s account, c decider.Message) (decider.Decision, error) {
		d := c.Data.(deposit)
		switch {
		case d.Amount == 0:
			return decider.Emit()
		case s.Balance+d.Amount < 0:
			return decider.Rejectf("overdrawn", "the balance is %d", s.Balance)
		}
		return decider.Emit(deposited(d))
	},
	Evolve: func(s account, e decider.Message) account {
		s.Balance += e.Data.(deposited).Amount
		s.Count++
		return s
	},
}

// world is a broker with the topics of a small project, and what tests do to it.
type world struct {
	t          testing.TB
	kafka      *testkit.Kafka
	ns         string
	partitions int32
	registry   *codec.StaticReader
	codec      *codec.Codec
	client     *kgo.Client
	bindings   map[string]*codec.Binding
	mu         sync.Mutex
	replies    map[string][]codec.Reply
	replied    chan struct{}
}

func onBrokers(t *testing.T, test func(t *testing.T, w *world)) {
	t.Parallel()
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, k))
		})
	}
}

func newWorld(t testing.TB, k *testkit.Kafka) *world {
	w := &world{t: t, kafka: k, ns: testkit.Namespace(t), partitions: 2, registry: testRegistry(t), bindings: map[string]*codec.Binding{},
		replies: map[string][]codec.Reply{}, replied: make(chan struct{}, 1)}
	w.codec = codec.New(w.registry, codec.Config{})
	w.client = k.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	layout := topics.Layout{
		Namespace: w.ns, ReplicationFactor: 1, DefaultPartitions: w.partitions,
		Categories: []topics.Category{{Name: "account", Mode: topics.ModeDecider}, {Name: "note", Mode: topics.ModeAppend}},
	}
	adm := kadm.NewClient(w.client)
	plan, err := topics.MakePlan(t.Context(), adm, layout.Specs())
	if err == nil {
		_, err = topics.Apply(t.Context(), adm, plan)
	}
	if err != nil {
		t.Fatalf("topics: %v", err)
	}
	def := accounts.Definition()
	for _, d := range append(def.Types, codec.AppendDef(), codec.ReplyDef()) {
		if w.bindings[d.Name], err = w.codec.Bind(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	noted, err := w.codec.Bind(t.Context(), decider.Event[noted]("note.Noted", 1))
	if err != nil {
		t.Fatal(err)
	}
	w.bindings["note.Noted"] = noted
	w.readReplies()
	return w
}

// config is that of an instance; change may change it.
func (w *world) config(change ...func(*Config)) Config {
	def := accounts.Definition()
	level := slog.LevelError + 4
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	cfg := Config{
		Namespace: w.ns, Categories: []Category{{Name: "account", Decider: &def}, {Name: "note"}},
		Kafka: []kgo.Opt{kgo.SeedBrokers(w.kafka.Seeds()...), kgo.MetadataMinAge(50 * time.Millisecond)}, Registry: w.registry,
		CommitInterval: 50 * time.Millisecond, HeartbeatInterval: 200 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(testWriter{w.t}, &slog.HandlerOptions{Level: level})),
	}
	for _, c := range change {
		c(&cfg)
	}
	return cfg
}

type testWriter struct{ t testing.TB }

func (t testWriter) Write(p []byte) (int, error) { os.Stderr.Write(p); return len(p), nil }

// onKfake runs a test on an embedded broker of its own, whose answers it may falsify.
func onKfake(t *testing.T) *world {
	t.Parallel()
	return newWorld(t, testkit.WrapKfake(testkit.StartKfake(t)))
}

// quiet takes the log of what a test breaks on purpose.
var quiet = slog.New(slog.DiscardHandler)

// instance is a running engine.
type instance struct {
	w      *world
	engine *Engine
	link   *link // nil for one on the plain network
	cancel context.CancelFunc
	done   chan error
	told   *told
}

// told collects what Config.OnOutcome is told.
type told struct {
	mu       sync.Mutex
	outcomes []toldOutcome
	changed  chan struct{}
}

type toldOutcome struct {
	category  string
	partition int32
	offset    int64
	Outcome
}

func (d *told) hear(category string, partition int32, offset int64, o Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outcomes = append(d.outcomes, toldOutcome{category, partition, offset, o})
	close(d.changed)
	d.changed = make(chan struct{})
}

// list returns what was told so far and a channel that is closed at the next telling.
func (d *told) list() ([]toldOutcome, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]toldOutcome(nil), d.outcomes...), d.changed
}

// tells waits until an instance has told n outcomes and returns them.
func (i *instance) tells(n int) []toldOutcome {
	i.w.t.Helper()
	deadline := time.After(waitMax)
	for {
		outcomes, changed := i.told.list()
		if len(outcomes) >= n {
			return outcomes
		}
		select {
		case <-changed:
		case <-deadline:
			i.w.t.Fatalf("outcomes told: got %d (%+v), want %d", len(outcomes), outcomes, n)
		}
	}
}

// waitMax bounds every wait of a test; a test that meets it fails.
const waitMax = 30 * time.Second

func (w *world) start(change ...func(*Config)) *instance {
	w.t.Helper()
	heard := &told{changed: make(chan struct{})}
	hear := func(c *Config) { c.OnOutcome = heard.hear }
	e, err := New(w.t.Context(), w.config(append([]func(*Config){hear}, change...)...))
	if err != nil {
		w.t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	i := &instance{w: w, engine: e, cancel: cancel, done: make(chan error, 1), told: heard}
	go func() { i.done <- e.Run(ctx) }()
	w.t.Cleanup(func() { i.stop() })
	return i
}

// serving waits until the instance serves n partitions.
func (i *instance) serving(n int) *instance {
	i.w.t.Helper()
	i.w.eventually(fmt.Sprintf("%d partitions served", n), func() bool {
		owned := 0
		for _, p := range i.engine.Owned() {
			owned += len(p)
		}
		return owned == n
	})
	return i
}

func (i *instance) stop() error {
	i.cancel()
	select {
	case err := <-i.done:
		i.done <- err
		return err
	case <-time.After(waitMax):
		i.w.t.Errorf("the engine did not stop within %s", waitMax)
		return nil
	}
}

// eventually polls a condition: for what no signal tells.
func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(waitMax)
	for !condition() {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited %s in vain for: %s", waitMax, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// request is a command as a client sends it.
type request struct {
	category  string
	stream    string
	typ       string
	id        string
	data      any    // encoded by the type's binding
	value     []byte // instead of data
	expected  string
	partition int32 // -1: the stream's own
	headers   []event.Header
	noReply   bool
}

func (w *world) deposit(stream string, amount int64) request {
	return request{category: "account", stream: stream, typ: "account.Deposit", id: uuid.NewString(), data: deposit{Amount: amount}, partition: -1}
}

func (w *world) note(stream, text string) request {
	return request{category: "note", stream: stream, typ: "note.Noted", id: uuid.NewString(), data: noted{Text: text}, partition: -1}
}

func (w *world) record(r request) *kgo.Record {
	w.t.Helper()
	value := r.value
	if r.data != nil {
		var err error
		if value, err = w.bindings[r.typ].Append(nil, r.data); err != nil {
			w.t.Fatal(err)
		}
	}
	rec := &kgo.Record{Topic: topics.Commands(w.ns, r.category), Key: []byte(r.stream), Value: value, Partition: r.partition}
	if r.partition < 0 {
		rec.Partition = topics.Partition(rec.Key, w.partitions)
	}
	add := func(name, value string) {
		if value != "" {
			rec.Headers = append(rec.Headers, event.Header{Key: name, Value: []byte(value)})
		}
	}
	add(event.HeaderID, r.id)
	add(event.HeaderType, r.typ)
	add(event.HeaderTime, event.FormatTime(time.Now()))
	add(event.HeaderExpectedVersion, r.expected)
	if !r.noReply {
		add(event.HeaderReplyTo, topics.Replies(w.ns))
	}
	rec.Headers = append(rec.Headers, r.headers...)
	return rec
}

// send puts requests on the commands topic, in order.
func (w *world) send(requests ...request) []*kgo.Record {
	w.t.Helper()
	var records []*kgo.Record
	for _, r := range requests {
		records = append(records, w.record(r))
	}
	if err := w.client.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatalf("send: %v", err)
	}
	return records
}

// ask sends a request and waits for its answer.
func (w *world) ask(r request) codec.Reply {
	w.t.Helper()
	before := len(w.repliesOf(r.id))
	w.send(r)
	return w.await(r.id, before+1)[before]
}

func (w *world) repliesOf(id string) []codec.Reply {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]codec.Reply(nil), w.replies[id]...)
}

// await waits until a request has n answers.
func (w *world) await(id string, n int) []codec.Reply {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%d answers to %s", n, id), func() bool { return len(w.repliesOf(id)) >= n })
	return w.repliesOf(id)
}

func (w *world) readReplies() {
	consumer := w.kafka.Client(w.t, kgo.ConsumeTopics(topics.Replies(w.ns)), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	go func() {
		for {
			fetches := consumer.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			fetches.EachRecord(func(rec *kgo.Record) {
				payload, err := w.codec.Inspect(context.Background(), codec.TypeReply, rec.Value)
				if err != nil {
					w.t.Errorf("reply at offset %d: %v", rec.Offset, err)
					return
				}
				decoded, err := w.bindings[codec.TypeReply].Decode(payload)
				if err != nil {
					w.t.Errorf("reply at offset %d: %v", rec.Offset, err)
					return
				}
				reply := decoded.(codec.Reply)
				w.mu.Lock()
				w.replies[reply.RequestID] = append(w.replies[reply.RequestID], reply)
				w.mu.Unlock()
			})
		}
	}()
}

// log reads a whole topic, in offset order per partition.
func (w *world) log(topic string) []*kgo.Record {
	w.t.Helper()
	adm := kadm.NewClient(w.client)
	ends, err := adm.ListEndOffsets(w.t.Context(), topic)
	if err != nil || ends.Error() != nil {
		w.t.Fatalf("end offsets of %s: %v %v", topic, err, ends.Error())
	}
	want := 0
	from := map[int32]kgo.Offset{}
	last := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			from[o.Partition], last[o.Partition] = kgo.NewOffset().AtStart(), o.Offset-1
			want++
		}
	})
	if want == 0 {
		return nil
	}
	reader := w.kafka.Client(w.t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.FetchMaxWait(100*time.Millisecond))
	defer reader.Close()
	var records []*kgo.Record
	ctx, cancel := context.WithTimeout(w.t.Context(), waitMax)
	defer cancel()
	for want > 0 {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			w.t.Fatalf("reading %s: %v", topic, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			records = append(records, rec)
			if rec.Offset == last[rec.Partition] {
				want--
			}
		})
	}
	return records
}

// events reads the valid events of a category, by stream, and fails on any gap (invariant 2).
func (w *world) events(category string) map[string][]event.Recorded {
	w.t.Helper()
	lineages := map[int32]*event.Lineage{}
	streams := map[string][]event.Recorded{}
	for _, rec := range w.log(topics.Events(w.ns, category)) {
		if lineages[rec.Partition] == nil {
			lineages[rec.Partition] = &event.Lineage{}
		}
		if lineages[rec.Partition].Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers) != event.VerdictEvent {
			continue
		}
		e, err := event.ParseRecorded(category, rec)
		if err != nil {
			w.t.Fatal(err)
		}
		if got, want := rec.Partition, topics.Partition(rec.Key, w.partitions); got != want {
			w.t.Errorf("stream %s stands on partition %d, want %d", e.Stream, got, want)
		}
		if got, want := e.Version, event.Version(len(streams[e.Stream.ID])+1); got != want {
			w.t.Errorf("stream %s: version %d where %d is due", e.Stream, got, want)
		}
		streams[e.Stream.ID] = append(streams[e.Stream.ID], e)
	}
	return streams
}

func wantOutcome(t testing.TB, got codec.Reply, outcome OutcomeKind, code string) {
	t.Helper()
	if got.Outcome != string(outcome) || got.Code != code {
		t.Errorf("outcome: got %s code %q (%s), want %s code %q", got.Outcome, got.Code, got.Message, outcome, code)
	}
}

func wantVersions(t testing.TB, got codec.Reply, first, last int64) {
	t.Helper()
	if got.FirstVersion != first || got.LastVersion != last {
		t.Errorf("versions: got %d..%d, want %d..%d", got.FirstVersion, got.LastVersion, first, last)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
