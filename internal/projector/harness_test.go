package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/schemas/avro"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }

// The probe: a category made to go wrong in every way.

type noted struct {
	Text string `avro:"text"`
	N    int64  `avro:"n"`
}

type erased struct {
	Why string `avro:"why"`
}

const (
	notedSchema   = `{"type":"record","namespace":"probe","name":"Noted","fs.kind":"event","fields":[{"name":"text","type":"string"},{"name":"n","type":"long"}]}`
	erasedSchema  = `{"type":"record","namespace":"probe","name":"Erased","fs.kind":"event","fields":[{"name":"why","type":"string"}]}`
	ignoredSchema = `{"type":"record","namespace":"probe","name":"Ignored","fs.kind":"event","fields":[{"name":"why","type":"string"}]}`
)

// probeRow has a column of every kind.
type probeRow struct {
	Text   string            `db:"text"`
	Small  int64             `db:"small,integer"`
	Total  int64             `db:"total"`
	Ratio  *float64          `db:"ratio"`
	Seen   bool              `db:"seen"`
	Tags   []string          `db:"tags"`
	Doc    map[string]string `db:"doc,jsonb"`
	LastAt time.Time         `db:"last_at"`
}

type probeStat struct {
	Text    string    `db:"text,key"`
	N       int64     `db:"n,add"`
	Count   int64     `db:"count,add"`
	FirstAt time.Time `db:"first_at,min"`
	LastAt  time.Time `db:"last_at,max"`
}

// probeMark is a row that is appended: one for each event, and a second for each with an even N.
type probeMark struct {
	Text  string            `db:"text"`
	Small int64             `db:"small,integer"`
	Ratio *float64          `db:"ratio"`
	Tags  []string          `db:"tags"`
	Doc   map[string]string `db:"doc,jsonb"`
	At    time.Time         `db:"at"`
}

var errHandler = errors.New("the handler says no")

// misbehave lets an event's text choose what the view's function does.
func misbehave(text string) error {
	switch text {
	case "error":
		return errHandler
	case "panic":
		panic("the handler panics")
	case "stop":
		return deadletter.Stopped("asked", errors.New("the handler wants a stop"))
	}
	return nil
}

func probeList() projection.View {
	return projection.Entity(projection.EntitySpec[probeRow]{
		Name: "probe_list", Version: 1,
		On: []codec.TypeDef{projection.On[noted]("probe.Noted", 1), projection.On[erased]("probe.Erased", 1)},
		Fold: func(r probeRow, exists bool, e projection.Event) (probeRow, projection.Change, error) {
			d, ok := e.Data.(noted)
			if !ok {
				return r, projection.Delete, nil
			}
			if err := misbehave(d.Text); err != nil {
				return r, projection.Keep, err
			}
			if r.Doc == nil {
				r.Doc = map[string]string{}
			}
			r.Doc[d.Text] = strconv.FormatInt(d.N, 10) // in place: what a careless team writes
			half := float64(d.N) / 2
			r.Text, r.Small, r.Seen, r.Ratio, r.LastAt = d.Text, d.N, exists, &half, e.Time
			r.Total += d.N
			r.Tags = append(r.Tags, d.Text)
			if len(r.Tags) > 3 {
				r.Tags = r.Tags[1:]
			}
			return r, projection.Set, nil
		},
	})
}

func probeStats() projection.View {
	return projection.Metric(projection.MetricSpec[probeStat]{
		Name: "probe_stats", Version: 1,
		On: []codec.TypeDef{projection.On[noted]("probe.Noted", 1)},
		Deltas: func(e projection.Event) ([]probeStat, error) {
			d := e.Data.(noted)
			if err := misbehave(d.Text); err != nil {
				return nil, err
			}
			return []probeStat{
				{Text: d.Text, N: d.N, Count: 1, FirstAt: e.Time, LastAt: e.Time},
				{Text: "all", Count: 1, FirstAt: e.Time, LastAt: e.Time},
			}, nil
		},
	})
}

func probeTrail() projection.View {
	return projection.Append(projection.AppendSpec[probeMark]{
		Name: "probe_trail", Version: 1,
		On: []codec.TypeDef{projection.On[noted]("probe.Noted", 1)},
		Rows: func(e projection.Event) ([]probeMark, error) {
			d := e.Data.(noted)
			if err := misbehave(d.Text); err != nil {
				return nil, err
			}
			half := float64(d.N) / 2
			marks := []probeMark{{Text: d.Text, Small: d.N, Ratio: &half, Tags: []string{d.Text, `{",}`}, Doc: map[string]string{d.Text: "x"}, At: e.Time}}
			if d.N%2 == 0 {
				marks = append(marks, probeMark{Text: "even", At: e.Time})
			}
			return marks, nil
		},
	})
}

// probeViews has a view of each kind.
func probeViews() []projection.View {
	return []projection.View{probeList(), probeStats(), probeTrail()}
}

func probeCodec(t testing.TB) *codec.Codec {
	t.Helper()
	var regs []*codec.Registered
	for i, text := range []string{notedSchema, erasedSchema, ignoredSchema} {
		r, err := codec.RegisterText(int32(i+1), []string{"probe.Noted", "probe.Erased", "probe.Ignored"}[i], 1, event.KindEvent, text)
		if err != nil {
			t.Fatalf("register: %v", err)
		}
		regs = append(regs, r)
	}
	regs = append(regs, systemSchemas(t, int32(len(regs)+1))...)
	return codec.New(codec.NewStaticReader(regs...), codec.Config{})
}

// systemSchemas registers what a snapshots topic holds.
func systemSchemas(t testing.TB, id int32) []*codec.Registered {
	t.Helper()
	text, err := avro.Files.ReadFile("foldstream/Snapshot.v1.avsc")
	if err != nil {
		t.Fatal(err)
	}
	shot, err := codec.RegisterText(id, snapshot.TypeSnapshot, 1, event.KindSystem, string(text))
	if err != nil {
		t.Fatal(err)
	}
	if text, err = avro.Files.ReadFile("foldstream/Checkpoint.v1.avsc"); err != nil {
		t.Fatal(err)
	}
	checkpoint, err := codec.RegisterText(id+1, snapshot.TypeCheckpoint, 1, event.KindSystem, string(text))
	if err != nil {
		t.Fatal(err)
	}
	return []*codec.Registered{shot, checkpoint}
}

func encode(t testing.TB, c *codec.Codec, def codec.TypeDef, v any) []byte {
	t.Helper()
	b, err := c.Bind(t.Context(), def)
	if err != nil {
		t.Fatalf("bind %s: %v", def.Name, err)
	}
	value, err := b.Append(nil, v)
	if err != nil {
		t.Fatalf("encode %s: %v", def.Name, err)
	}
	return value
}

var t0 = time.Date(2026, 3, 1, 9, 30, 0, 123456000, time.UTC)

// headersOf makes an event's headers as the writer does.
func headersOf(typ, stream string, version int64, at time.Time) []kgo.RecordHeader {
	h := func(k, v string) kgo.RecordHeader { return kgo.RecordHeader{Key: k, Value: []byte(v)} }
	return []kgo.RecordHeader{
		h(event.HeaderID, fmt.Sprintf("%s@%d", stream, version)), h(event.HeaderType, typ),
		h(event.HeaderTime, event.FormatTime(at)), h(event.HeaderSequence, strconv.FormatInt(version, 10)),
		h(event.HeaderSpecVersion, event.SpecVersion),
	}
}

// desk is one worker on a real Postgres, fed by hand: no Kafka, no goroutine.
type desk struct {
	t      testing.TB
	pool   *pgxpool.Pool
	db     *flakyDatabase
	view   projection.View
	codec  *codec.Codec
	sink   *memorySink
	w      *worker
	cfg    Config
	offset int64
	last   map[string]int64
	claim  event.Claim
	fenced []error
}

const deskTopic = "fs.probe.events"

var deskTopicID = [16]byte{1, 2, 3}

// newPool makes a fresh database with a pool.
func newPool(t testing.TB, pg *testkit.Postgres) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), pg.NewDatabase(t))
	if err != nil {
		t.Fatalf("pool: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func newDesk(t testing.TB, pg *testkit.Postgres, view projection.View, tune ...func(*Config)) *desk {
	t.Helper()
	d := &desk{t: t, pool: newPool(t, pg), view: view, codec: probeCodec(t), sink: &memorySink{}, last: map[string]int64{}, claim: event.Claim{ProducerID: 7}}
	d.db = &flakyDatabase{database: d.pool}
	if isSystem(view) {
		if err := MigrateSystemViews(t.Context(), d.pool, "fs"); err != nil {
			t.Fatalf("migrate: %v", err)
		}
	} else if err := Migrate(t.Context(), d.pool, "fs", []projection.View{view}); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	d.cfg = Config{Namespace: "fs", Logger: quiet(), Clock: time.Now, RetryMin: time.Millisecond, RetryMax: 5 * time.Millisecond}.withDefaults()
	for _, f := range tune {
		f(&d.cfg)
	}
	d.w = d.hire()
	d.db.begun = 0
	return d
}

func isSystem(view projection.View) bool {
	return view.Kind == kindEvents || view.Kind == kindSnapshots
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// hire takes the partition over with a new worker, as an assignment does.
func (d *desk) hire() *worker {
	d.t.Helper()
	st, err := newStore(d.db, "fs", topics.ConsumerView(d.view.Name, d.view.Version), d.view)
	if err != nil {
		d.t.Fatalf("store: %v", err)
	}
	dec, err := newDecoder(d.t.Context(), d.codec, d.view)
	if err != nil {
		d.t.Fatalf("decoder: %v", err)
	}
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		d.t.Fatalf("metrics: %v", err)
	}
	p := place{deskTopic, 0}
	taken, err := st.take(d.t.Context(), []place{p})
	if err != nil {
		d.t.Fatalf("take: %v", err)
	}
	w := &worker{
		cfg: &d.cfg, place: p, category: "probe", store: st, decoder: dec, sink: d.sink, metrics: m, view: d.view.Name + ".v1",
		log: quiet(), queue: newQueue(1 << 20), gate: &gate{}, resume: func(place) {}, onFenced: func(_ place, err error) { d.fenced = append(d.fenced, err) },
		epoch: taken[p].epoch, at: taken[p].position, cache: newRowCache(d.cfg.RowCacheRowsMax), done: make(chan struct{}),
	}
	w.status.topicID = event.FormatTopicID(deskTopicID)
	w.hard, w.hardStop = context.WithCancel(d.t.Context())
	w.ctx, w.cancel = context.WithCancel(w.hard)
	d.t.Cleanup(w.hardStop)
	d.t.Cleanup(dec.close)
	return w
}

// rec makes the next record, under the current claim.
func (d *desk) rec(typ, stream string, version int64, value []byte) *kgo.Record {
	r := &kgo.Record{
		Topic: deskTopic, Key: []byte(stream), Value: value, Offset: d.offset, Timestamp: t0,
		Headers:    headersOf(typ, stream, version, t0.Add(time.Duration(d.offset)*time.Second)),
		ProducerID: d.claim.ProducerID, ProducerEpoch: d.claim.Epoch,
	}
	d.offset++
	return r
}

// noted makes the next event of a stream.
func (d *desk) noted(stream, text string, n int64) *kgo.Record {
	d.last[stream]++
	return d.rec("probe.Noted", stream, d.last[stream], encode(d.t, d.codec, projection.On[noted]("probe.Noted", 1), noted{Text: text, N: n}))
}

func (d *desk) erased(stream string) *kgo.Record {
	d.last[stream]++
	return d.rec("probe.Erased", stream, d.last[stream], encode(d.t, d.codec, projection.On[erased]("probe.Erased", 1), erased{Why: "x"}))
}

// ignored makes an event of a type that no view folds; its value is not even Avro.
func (d *desk) ignored(stream string) *kgo.Record {
	d.last[stream]++
	return d.rec("probe.Ignored", stream, d.last[stream], []byte("junk"))
}

func (d *desk) control(kind string) *kgo.Record {
	r := d.rec("", "", 0, nil)
	r.Key, r.Headers = nil, []kgo.RecordHeader{{Key: event.HeaderControl, Value: []byte(kind)}}
	return r
}

// apply applies one batch and demands that it is committed.
func (d *desk) apply(records ...*kgo.Record) {
	d.t.Helper()
	if err := d.w.apply(records); err != nil {
		d.t.Fatalf("apply %d records: %v", len(records), err)
	}
}

// rows reads the view.
func (d *desk) rows() *projection.Table {
	d.t.Helper()
	table, err := ReadTable(d.t.Context(), d.pool, "fs", d.view)
	if err != nil {
		d.t.Fatalf("read table: %v", err)
	}
	return table
}

// column reads one column of one row by its text form; "" when the row is not there.
func (d *desk) column(key, column string) string {
	d.t.Helper()
	row, ok := d.rows().Rows[key]
	if !ok {
		return ""
	}
	for i, c := range d.view.Layout() {
		if c.Name == column {
			return fmt.Sprint(row[i])
		}
	}
	d.t.Fatalf("no column %s", column)
	return ""
}

func (d *desk) want(key, column, want string) {
	d.t.Helper()
	if got := d.column(key, column); got != want {
		d.t.Errorf("row %q, column %s: got %q, want %q", key, column, got, want)
	}
}

// scan reads one value.
func scan[T any](t testing.TB, pool *pgxpool.Pool, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// letterLines lists the letters' rows: offset, reason, stage, class.
func (d *desk) letterLines() []string {
	d.t.Helper()
	return lines(d.t, d.pool, `select format('%s %s %s %s', "offset", reason, stage, class) from fs.letters order by "offset"`)
}

func (d *desk) parkedLines() []string {
	d.t.Helper()
	return lines(d.t, d.pool, `select format('%s %s', convert_from(key, 'UTF8'), first_offset) from fs.parked order by 1`)
}

func lines(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// trail lists the rows of probe_trail in the order of their keys.
func (d *desk) trail() []string {
	d.t.Helper()
	return lines(d.t, d.pool, `select format('%s@%s.%s %s', stream, version, n, text) from fs.probe_trail where category = 'probe' order by stream, version, n`)
}

func (d *desk) nextOffset() int64 {
	d.t.Helper()
	return scan[int64](d.t, d.pool, `select next_offset from fs.offsets`)
}

// memorySink keeps letters, and fails as often as asked.
type memorySink struct {
	mu      sync.Mutex
	fail    int
	letters []deadletter.Letter
}

func (s *memorySink) Produce(_ context.Context, letters ...deadletter.Letter) ([]deadletter.Placed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail > 0 {
		s.fail--
		return nil, errors.New("the broker is away")
	}
	placed := make([]deadletter.Placed, len(letters))
	for i := range letters {
		placed[i].Offset = int64(len(s.letters) + i)
	}
	s.letters = append(s.letters, letters...)
	return placed, nil
}

// flakyDatabase is a Postgres whose connections break when asked.
type flakyDatabase struct {
	database
	mu            sync.Mutex
	failBegin     int    // so many
	breakCommit   bool   // the next COMMIT: its answer is lost
	breakRollback bool   // the next COMMIT: it never arrives
	onBreak       func() // before a broken COMMIT
	begun         int
}

var errBroken = errors.New("connection reset")

func (f *flakyDatabase) Begin(ctx context.Context) (pgx.Tx, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun++
	if f.failBegin > 0 {
		f.failBegin--
		return nil, errBroken
	}
	tx, err := f.database.Begin(ctx)
	return &flakyTx{Tx: tx, db: f}, err
}

type flakyTx struct {
	pgx.Tx
	db *flakyDatabase
}

func (t *flakyTx) Commit(ctx context.Context) error {
	t.db.mu.Lock()
	lost, never := t.db.breakCommit, t.db.breakRollback
	t.db.breakCommit, t.db.breakRollback = false, false
	onBreak := t.db.onBreak
	t.db.mu.Unlock()
	switch {
	case lost:
		if err := t.Tx.Commit(ctx); err != nil {
			return err
		}
		return errBroken
	case never:
		_ = t.Tx.Rollback(ctx)
		if onBreak != nil {
			onBreak()
		}
		return errBroken
	}
	return t.Tx.Commit(ctx)
}

// onPostgres runs a test on every Postgres of the machine.
func onPostgres(t *testing.T, test func(t *testing.T, pg *testkit.Postgres)) {
	t.Helper()
	for _, pg := range testkit.Postgreses(t) {
		t.Run(pg.Name, func(t *testing.T) {
			t.Parallel()
			test(t, pg)
		})
	}
}
