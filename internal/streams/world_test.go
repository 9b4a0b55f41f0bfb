package streams

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/schemas/avro"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }

// The category of these tests: a decider whose state remembers the order of what it saw.

type deposited struct {
	Amount int64 `avro:"amount"`
}

type renamed struct {
	Name string `avro:"name"`
}

type account struct {
	Balance int64  `avro:"balance"`
	Name    string `avro:"name"`
	Events  int64  `avro:"events"`
	Sum     int64  `avro:"sum"`    // order matters to it
	LastAt  int64  `avro:"lastAt"` // microseconds
}

const (
	depositedSchema = `{"type":"record","namespace":"account","name":"Deposited","fs.kind":"event","fields":[{"name":"amount","type":"long"}]}`
	renamedSchema   = `{"type":"record","namespace":"account","name":"Renamed","fs.kind":"event","fields":[{"name":"name","type":"string"}]}`
	stateSchema     = `{"type":"record","namespace":"account","name":"State","fs.kind":"state","fields":[{"name":"balance","type":"long"},{"name":"name","type":"string"},{"name":"events","type":"long"},{"name":"sum","type":"long"},{"name":"lastAt","type":"long"}]}`
)

var accounts = decider.Spec[account]{
	Category: "account", StateVersion: 1,
	Types:  decider.Types{decider.Event[deposited]("account.Deposited", 1), decider.Event[renamed]("account.Renamed", 1)},
	Decide: func(account, decider.Message) (decider.Decision, error) { return decider.Emit() },
	Evolve: func(s account, m decider.Message) account {
		s.Events++
		s.Sum = s.Sum*31 + int64(m.Version)
		s.LastAt = m.Time.UnixMicro()
		switch e := m.Data.(type) {
		case deposited:
			s.Balance += e.Amount
			s.Sum += e.Amount
		case renamed:
			s.Name = e.Name
		}
		return s
	},
}

func stateDef() codec.TypeDef {
	return codec.TypeDef{Name: "account.State", Version: 1, Kind: event.KindState, GoType: accounts.Definition().StateType}
}

func testCodec(t testing.TB) *codec.Codec {
	t.Helper()
	var regs []*codec.Registered
	add := func(typ string, kind event.Kind, text string) {
		r, err := codec.RegisterText(int32(len(regs)+1), typ, 1, kind, text)
		if err != nil {
			t.Fatalf("register %s: %v", typ, err)
		}
		regs = append(regs, r)
	}
	add("account.Deposited", event.KindEvent, depositedSchema)
	add("account.Renamed", event.KindEvent, renamedSchema)
	add("account.State", event.KindState, stateSchema)
	for _, name := range []string{"Snapshot", "Checkpoint"} {
		text, err := avro.Files.ReadFile("foldstream/" + name + ".v1.avsc")
		if err != nil {
			t.Fatal(err)
		}
		add("foldstream."+name, event.KindSystem, string(text))
	}
	return codec.New(codec.NewStaticReader(regs...), codec.Config{})
}

// world is a log, an index that the test moves on by hand, and what should be read.
type world struct {
	t      testing.TB
	ns     string
	kafka  *testkit.Kafka
	pool   *pgxpool.Pool // nil without Postgres
	codec  *codec.Codec
	format *snapshot.Format
	values map[string]*codec.Binding
	parts  int32

	owner   *kgo.Client // whoever claimed last
	stamp   time.Time   // of claims, and of void records
	topicID string
	last    map[string]event.Version
	log     map[int32][]*kgo.Record // everything written, in order
}

const category = "account"

var t0 = time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)

// everywhere runs a test on every broker, and with every Postgres on one of them.
func everywhere(t *testing.T, test func(w *world)) {
	t.Helper()
	for i, k := range testkit.Kafkas(t) {
		for j, pg := range testkit.Postgreses(t) {
			if i > 0 && j > 0 {
				continue
			}
			t.Run(k.Name+" "+pg.Name, func(t *testing.T) {
				t.Parallel()
				test(newWorld(t, k, pg, 3))
			})
		}
	}
}

// onBrokers runs a test on every broker, without Postgres.
func onBrokers(t *testing.T, test func(w *world)) {
	t.Helper()
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			test(newWorld(t, k, nil, 3))
		})
	}
}

func newWorld(t testing.TB, k *testkit.Kafka, pg *testkit.Postgres, partitions int32) *world {
	t.Helper()
	w := &world{
		t: t, stamp: t0, ns: testkit.Namespace(t), kafka: k, codec: testCodec(t), parts: partitions,
		last: map[string]event.Version{}, log: map[int32][]*kgo.Record{}, values: map[string]*codec.Binding{},
	}
	for _, def := range accounts.Types {
		b, err := w.codec.Bind(t.Context(), def)
		if err != nil {
			t.Fatal(err)
		}
		w.values[def.Name] = b
	}
	var err error
	if w.format, err = snapshot.NewFormat(t.Context(), w.codec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.format.Close)
	w.makeTopic()
	if pg != nil {
		if w.pool, err = pgxpool.New(t.Context(), pg.NewDatabase(t)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.pool.Close)
		if err := projector.MigrateSystemViews(t.Context(), w.pool, w.ns); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) topic() string { return topics.Events(w.ns, category) }

func (w *world) makeTopic() {
	w.t.Helper()
	w.kafka.CreateTopic(w.t, w.topic(), w.parts, nil)
	adm := kadm.NewClient(w.kafka.Client(w.t))
	testkit.Await(w.t, "the topic is there", 30*time.Second, func(ctx context.Context) bool {
		ids, err := topics.IDs(ctx, adm, w.topic())
		if err == nil {
			w.topicID = event.FormatTopicID(ids[w.topic()].ID)
		}
		return err == nil
	})
	w.log, w.last = map[int32][]*kgo.Record{}, map[string]event.Version{}
	w.claim()
}

func (w *world) producer() *kgo.Client {
	return w.kafka.Client(w.t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
}

// claim makes a new owner of all partitions.
func (w *world) claim() {
	w.t.Helper()
	w.owner = w.producer()
	for p := range w.parts {
		w.writeBy(w.owner, &kgo.Record{Topic: w.topic(), Partition: p, Timestamp: w.stamp, Headers: []kgo.RecordHeader{{Key: event.HeaderControl, Value: []byte(event.ControlClaim)}}})
	}
}

func (w *world) writeBy(c *kgo.Client, records ...*kgo.Record) {
	w.t.Helper()
	if err := c.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatalf("produce: %v", err)
	}
	for _, r := range records {
		w.log[r.Partition] = append(w.log[r.Partition], r)
	}
}

func (w *world) partitionOf(id string) int32 { return topics.Partition([]byte(id), w.parts) }

// next makes the next event of a stream: a deposit, but every fifth is a new name.
func (w *world) next(id string) *kgo.Record {
	w.t.Helper()
	w.last[id]++
	return w.record(id, w.last[id])
}

func (w *world) record(id string, v event.Version) *kgo.Record {
	w.t.Helper()
	typ, data := "account.Deposited", any(deposited{Amount: int64(v) * 3})
	if v%5 == 0 {
		typ, data = "account.Renamed", renamed{Name: fmt.Sprintf("%s-%d", id, v)}
	}
	value, err := w.values[typ].Append(nil, data)
	if err != nil {
		w.t.Fatal(err)
	}
	h := func(k, v string) kgo.RecordHeader { return kgo.RecordHeader{Key: k, Value: []byte(v)} }
	at := t0.Add(time.Duration(v) * time.Second)
	rec := &kgo.Record{
		Topic: w.topic(), Partition: w.partitionOf(id), Key: []byte(id), Value: value,
		Timestamp: time.UnixMilli(at.UnixMilli()),
		Headers: []kgo.RecordHeader{
			h(event.HeaderID, fmt.Sprintf("%s@%d", id, v)), h(event.HeaderType, typ), h(event.HeaderSequence, strconv.Itoa(int(v))),
			h(event.HeaderTime, event.FormatTime(at.Add(123456789*time.Nanosecond))), h(event.HeaderCommandID, fmt.Sprintf("c%d", (v+1)/2)),
		},
	}
	if v%3 == 0 {
		rec.Headers = append(rec.Headers, h(event.HeaderUserID, "anna"), h(event.HeaderCorrelationID, "corr"), h("x-tenant", "blue"), kgo.RecordHeader{Key: "x-null"})
	}
	return rec
}

func (w *world) append(ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		w.writeBy(w.owner, w.next(id))
	}
}

// grow appends n events to a stream in one request.
func (w *world) grow(id string, n int) {
	w.t.Helper()
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = w.next(id)
	}
	w.writeBy(w.owner, records...)
}

// voids appends events that nobody may see: by a producer that never claimed.
func (w *world) voids(id string) {
	w.t.Helper()
	records := []*kgo.Record{w.record(id, w.last[id]+1), w.record(id, w.last[id]+7)}
	for _, rec := range records {
		rec.Timestamp = w.stamp
	}
	w.writeBy(w.producer(), records...)
}

// truth is what the log says of a stream, by this test's own reading.
func (w *world) truth(id string) []event.Recorded {
	w.t.Helper()
	var out []event.Recorded
	var lineage event.Lineage
	for _, rec := range w.log[w.partitionOf(id)] {
		if lineage.Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers) != event.VerdictEvent || string(rec.Key) != id {
			continue
		}
		e, err := event.ParseRecorded(category, rec)
		if err != nil {
			w.t.Fatal(err)
		}
		trimToIndex(&e)
		out = append(out, e)
	}
	return out
}

// index moves the index to an offset of each partition, as the projector leaves it; -1 is the end.
func (w *world) index(upTo int64) {
	w.t.Helper()
	for p := range w.parts {
		w.indexPartition(p, upTo)
	}
}

func (w *world) indexPartition(p int32, upTo int64) {
	w.t.Helper()
	batch := &pgx.Batch{}
	exec := func(sql string, args ...any) { batch.Queue(sql, args...) }
	if _, err := w.pool.Exec(w.t.Context(), fmt.Sprintf(`create table if not exists %[1]s_events_v1.rows_2026_03 partition of %[1]s_events_v1.rows for values from ('2026-03-01') to ('2026-04-01')`, w.ns)); err != nil {
		w.t.Fatal(err)
	}
	schema := w.ns + "_events_v1"
	exec(`delete from ` + schema + `.rows where partition = ` + strconv.Itoa(int(p)))
	var lineage event.Lineage
	next := int64(0)
	versions := map[string]int64{}
	for _, rec := range w.log[p] {
		if upTo >= 0 && rec.Offset >= upTo {
			break
		}
		next = rec.Offset + 1
		if lineage.Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers) != event.VerdictEvent {
			continue
		}
		e, err := event.ParseRecorded(category, rec)
		if err != nil {
			w.t.Fatal(err)
		}
		names, values := make([]string, len(e.Extra)), make([][]byte, len(e.Extra))
		for i, h := range e.Extra {
			names[i], values[i] = h.Key, h.Value
		}
		exec(`insert into `+schema+`.rows (category, stream, version, recorded_at, id, type, time, correlation_id, causation_id, user_id, command_id, partition, "offset", header_names, header_values, value)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
			category, e.Stream.ID, int64(e.Version), e.RecordedAt, e.ID, e.Type, e.Time, e.CorrelationID, e.CausationID, e.UserID, e.CommandID, e.Partition, e.Offset, names, values, e.Value)
		versions[e.Stream.ID] = int64(e.Version)
	}
	for id, v := range versions {
		exec(`insert into `+schema+`.stream_versions values ($1, $2, $3) on conflict (category, stream) do update set version = $3`, category, id, v)
	}
	var producer, epoch any
	if lineage.Known {
		producer, epoch = lineage.Claim.ProducerID, lineage.Claim.Epoch
	}
	exec(`insert into `+w.ns+`.offsets (consumer, topic, partition, topic_id, epoch, next_offset, claim_producer_id, claim_epoch) values ('view.events.v1', $1, $2, $3, 1, $4, $5, $6)
		on conflict (consumer, topic, partition) do update set topic_id = $3, next_offset = $4, claim_producer_id = $5, claim_epoch = $6`,
		w.topic(), p, w.topicID, next, producer, epoch)
	// Without a transaction of its own a batch is one.
	if err := w.pool.SendBatch(w.t.Context(), batch).Close(); err != nil {
		w.t.Fatal(err)
	}
}

// foldOf is what the decider makes of events.
func foldOf(events []event.Recorded, c *codec.Codec, values map[string]*codec.Binding) account {
	var s account
	for _, e := range events {
		p, err := c.Inspect(context.Background(), e.Type, e.Value)
		if err != nil {
			panic(err)
		}
		data, err := values[e.Type].Decode(p)
		if err != nil {
			panic(err)
		}
		s = accounts.Evolve(s, decider.Message{Type: e.Type, Stream: e.Stream, Version: e.Version, Time: e.Time, Data: data})
	}
	return s
}

func (w *world) fold(events []event.Recorded) account { return foldOf(events, w.codec, w.values) }

// slot stores a history slot, as the snapshots view keeps it. change may make it lie.
func (w *world) slot(id string, number int, v event.Version, state account, change func(s *snapshot.Snapshot, topicID *string)) {
	w.t.Helper()
	binding, err := w.codec.Bind(w.t.Context(), stateDef())
	if err != nil {
		w.t.Fatal(err)
	}
	encoded, err := binding.Append(nil, state)
	if err != nil {
		w.t.Fatal(err)
	}
	s := snapshot.Snapshot{Version: int64(v), Offset: -1, StateVersion: 1, State: encoded, TakenAt: t0}
	for _, e := range w.truth(id) {
		if e.Version == v {
			s.Offset = e.Offset
		}
	}
	topicID := w.topicID
	if s.EventsTopicID, err = event.ParseTopicID(topicID); err != nil {
		w.t.Fatal(err)
	}
	if change != nil {
		change(&s, &topicID)
	}
	value, compressed, err := w.format.EncodeSnapshot(s)
	if err != nil {
		w.t.Fatal(err)
	}
	encoding := ""
	if compressed {
		encoding = snapshot.EncodingZstd
	}
	w.storeSlot(id, number, s, topicID, encoding, value)
}

func (w *world) storeSlot(id string, number int, s snapshot.Snapshot, topicID, encoding string, value []byte) {
	w.t.Helper()
	_, err := w.pool.Exec(w.t.Context(), `insert into `+w.ns+`_snapshots_v1.rows (category, stream, slot, version, "offset", topic_id, state_version, taken_at, encoding, value)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict (category, stream, slot) do update set version = $4, "offset" = $5, topic_id = $6, state_version = $7, encoding = $9, value = $10`,
		category, id, number, s.Version, s.Offset, topicID, s.StateVersion, t0, encoding, value)
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) config(tune ...func(*Config)) Config {
	d := accounts.Definition()
	cfg := Config{
		Namespace: w.ns, Categories: []string{category}, Deciders: map[string]*decider.Definition{category: &d},
		Kafka: []kgo.Opt{kgo.SeedBrokers(w.kafka.Seeds()...)}, Pool: w.pool, Codec: w.codec, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range tune {
		f(&cfg)
	}
	return cfg
}

func (w *world) store(tune ...func(*Config)) *Store {
	w.t.Helper()
	s, err := New(w.config(tune...))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	return s
}

func stream(id string) event.StreamID { return event.StreamID{Category: category, ID: id} }

func (w *world) load(s *Store, q Query) Page {
	w.t.Helper()
	page, err := s.Load(w.t.Context(), q)
	if err != nil {
		w.t.Fatalf("load %s from %d: %v", q.Stream, q.From, err)
	}
	return page
}

// wantTruth demands that a whole read equals the log.
func (w *world) wantTruth(s *Store, id string) {
	w.t.Helper()
	want := w.truth(id)
	got := w.load(s, Query{Stream: stream(id)})
	if int(got.Version) != len(want) || len(got.Events) != len(want) || got.Next != 0 {
		w.t.Fatalf("stream %s: got version %d, %d events, next %d; want %d events", id, got.Version, len(got.Events), got.Next, len(want))
	}
	for i := range want {
		if g, want := show(got.Events[i]), show(want[i]); g != want {
			w.t.Fatalf("stream %s, event %d:\n got  %s\n want %s", id, i+1, g, want)
		}
	}
}

// show writes all of an event, the same for nil and empty.
func show(e event.Recorded) string {
	text := fmt.Sprintf("%s v%d %s %s at %s recorded %s p%d@%d command %q %q %d %d %s corr %q cause %q user %q %q value %x",
		e.Stream, e.Version, e.ID, e.Type, event.FormatTime(e.Time), event.FormatTime(e.RecordedAt), e.Partition, e.Offset,
		e.CommandID, e.CommandHash, e.CommandOffset, e.DecidedOffset, e.DedupeUntil, e.CorrelationID, e.CausationID, e.UserID, e.Traceparent, e.Value)
	for _, h := range e.Extra {
		text += fmt.Sprintf(" %s=%q(%v)", h.Key, h.Value, h.Value == nil)
	}
	return text
}

func versions(events []event.Recorded) []event.Version {
	var out []event.Version
	for _, e := range events {
		out = append(out, e.Version)
	}
	return out
}

func wantVersions(t testing.TB, got []event.Recorded, want ...event.Version) {
	t.Helper()
	if g := versions(got); !slices.Equal(g, want) {
		t.Errorf("versions: got %v, want %v", g, want)
	}
}

// together runs a function n times at once.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func (w *world) topicIDBytes() []byte {
	w.t.Helper()
	id, err := event.ParseTopicID(w.topicID)
	if err != nil {
		w.t.Fatal(err)
	}
	return id[:]
}
