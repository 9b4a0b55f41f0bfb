package projector

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// without drops a header.
func without(r *kgo.Record, name string) *kgo.Record {
	var kept []kgo.RecordHeader
	for _, h := range r.Headers {
		if h.Key != name {
			kept = append(kept, h)
		}
	}
	r.Headers = kept
	return r
}

func with(r *kgo.Record, name, value string) *kgo.Record {
	without(r, name)
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	return r
}

func TestBadRecordsBecomeLettersAndNeighboursGoOn(t *testing.T) {
	valued := func(value string) func(*desk, string) *kgo.Record {
		return func(d *desk, id string) *kgo.Record {
			r := d.noted(id, "x", 1)
			r.Value = []byte(value)
			return r
		}
	}
	cases := []struct {
		name string
		bad  func(*desk, string) *kgo.Record // of this stream
		want string                          // reason stage class of its letter
	}{
		{"wrong magic", valued("\x07rubbish"), "failed decode framing"},
		{"empty value", valued(""), "failed decode framing"},
		{"unknown schema id", valued("\x00\x00\x00\x00\x63\x02a\x02"), "failed decode unknown-schema"},
		{"another type's schema", valued("\x00\x00\x00\x00\x02\x02a"), "failed decode type-mismatch"},
		{"truncated body", valued("\x00\x00\x00\x00\x01\x0aab"), "failed decode hostile"},
		{"trailing bytes", valued("\x00\x00\x00\x00\x01\x02a\x02\x00"), "failed decode hostile"},
		{"tombstone", func(d *desk, id string) *kgo.Record { r := d.noted(id, "x", 1); r.Value = nil; return r }, "failed decode envelope"},
		{"no type", func(d *desk, id string) *kgo.Record { return without(d.noted(id, "x", 1), event.HeaderType) }, "failed decode envelope"},
		{"no version", func(d *desk, id string) *kgo.Record { return without(d.noted(id, "x", 1), event.HeaderSequence) }, "failed decode envelope"},
		{"version of text", func(d *desk, id string) *kgo.Record { return with(d.noted(id, "x", 1), event.HeaderSequence, "-1") }, "failed decode envelope"},
		{"year 10000", func(d *desk, id string) *kgo.Record {
			return with(d.noted(id, "x", 1), event.HeaderTime, "10000-01-01T00:00:00Z")
		}, "failed decode envelope"},
		{"NUL in text", func(d *desk, id string) *kgo.Record { return d.noted(id, "a\x00b", 1) }, "failed sink value"},
		{"handler error", func(d *desk, id string) *kgo.Record { return d.noted(id, "error", 1) }, "failed handle handler"},
		{"handler panic", func(d *desk, id string) *kgo.Record { return d.noted(id, "panic", 1) }, "failed handle panic"},
	}
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		for _, view := range probeViews() {
			d := newDesk(t, pg, view)
			for i, c := range cases {
				t.Run(view.Name+" "+c.name, func(t *testing.T) {
					bad, good, from := fmt.Sprintf("bad%d", i), fmt.Sprintf("good%d", i), d.offset
					counted := scan[int](t, d.pool, d.countSQL())
					d.apply(d.noted(bad, "first", 1), d.noted(good, "first", 1), c.bad(d, bad), d.noted(good, "second", 2), d.noted(bad, "later", 3))
					wantLines(t, "letters", d.letterLines()[2*i:], fmt.Sprintf("%d %s", from+2, c.want), fmt.Sprintf("%d blocked-by-key handle blocked-by-key", from+4))
					if parked := d.parkedLines(); !slices.Contains(parked, fmt.Sprintf("%s %d", bad, from+2)) {
						t.Errorf("parked: got %q, want %s since %d", parked, bad, from+2)
					}
					if view.Kind == projection.KindEntity {
						d.want(bad, "version", "1")
						d.want(bad, "tags", "[first]")
						d.want(good, "tags", "[first second]")
						return
					}
					if view.Kind == projection.KindAppend {
						wantLines(t, "rows", rowsOf(d.trail(), bad, good), bad+"@1.1 first", good+"@1.1 first", good+"@2.1 second", good+"@2.2 even")
						return
					}
					if got := scan[int](t, d.pool, d.countSQL()); got != counted+3 {
						t.Errorf("events counted: got %d more, want 3", got-counted)
					}
				})
			}
		}
	})
}

// rowsOf keeps the lines of some streams.
func rowsOf(lines []string, streams ...string) []string {
	return slices.DeleteFunc(lines, func(line string) bool {
		stream, _, _ := strings.Cut(line, "@")
		return !slices.Contains(streams, stream)
	})
}

// countSQL counts what a metric view has counted.
func (d *desk) countSQL() string {
	if d.view.Kind != projection.KindMetric {
		return "select 0"
	}
	return `select coalesce(sum(count) filter (where text = 'all'), 0)::int from fs.probe_stats`
}

func TestARecordWithoutAValidIDIsALetterOfItsOwn(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		bad := d.noted("x", "x", 1)
		bad.Key = nil
		long := d.noted("x", "x", 1)
		long.Key = []byte(strings.Repeat("k", 3000))
		d.apply(bad, long, d.noted("good", "one", 1))
		d.want("good", "total", "1")
		wantLines(t, "letters", d.letterLines(), "0 failed decode envelope", "1 failed decode envelope")
		wantLines(t, "parked", d.parkedLines())
	})
}

func TestABadValueThatALaterEventHidesStillParks(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		// In one batch or in three: the same letters.
		d.apply(d.noted("a", "nul\x00", 1), d.erased("a"), d.noted("a", "one", 1))
		d.want("a", "total", "")
		wantLines(t, "parked", d.parkedLines(), "a 0")
	})
}

func TestAHandlerMayAskForAStop(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		wantStop(t, d.w.apply(recs(d.noted("a", "stop", 1))), "wants a stop")
		wantLines(t, "letters", d.letterLines())
	})
}

func TestWhatOnlyPostgresRefusesParksJustTheEventAtFault(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		t.Run("sum beyond bigint", func(t *testing.T) {
			d := newDesk(t, pg, probeStats())
			d.apply(d.noted("s1", "sum", math.MaxInt64-10))
			var batch []*kgo.Record
			for i := range 40 {
				batch = append(batch, d.noted(fmt.Sprintf("n%02d", i), "other", 1))
			}
			batch = append(batch, d.noted("s2", "sum", 3), d.noted("s2", "sum", 100), d.noted("s2", "sum", 1), d.noted("s3", "sum", 2))
			d.apply(batch...)
			d.want("sum", "n", fmt.Sprint(math.MaxInt64-5))
			d.want("other", "n", "40")
			d.want("all", "count", "43")
			wantLines(t, "letters", d.letterLines(), "42 failed sink postgres-22003", "43 blocked-by-key handle blocked-by-key")
		})
		t.Run("sum beyond bigint within a batch", func(t *testing.T) {
			d := newDesk(t, pg, probeStats())
			d.apply(d.noted("s1", "sum", math.MaxInt64-10), d.noted("s2", "sum", 100), d.noted("s3", "sum", 2))
			d.want("sum", "n", fmt.Sprint(math.MaxInt64-8))
			wantLines(t, "parked", d.parkedLines(), "s2 1")
		})
		t.Run("key too long for its index", func(t *testing.T) {
			d := newDesk(t, pg, probeStats())
			long := incompressible(9000)
			d.apply(d.noted("a", "one", 1), d.noted("b", long, 1), d.noted("c", "one", 1), d.noted("a", "one", 1))
			d.want("one", "count", "3")
			wantLines(t, "letters", d.letterLines(), "1 failed sink postgres-54000")
		})
		t.Run("appended rows, with a handler's fault in the same batch", func(t *testing.T) {
			d := newDesk(t, pg, probeTrail())
			if _, err := d.pool.Exec(t.Context(), `alter table fs_probe_trail_v1.rows add check (small < 100)`); err != nil {
				t.Fatal(err)
			}
			d.apply(d.noted("a", "one", 1), d.noted("b", "one", 2), d.noted("b", "two", 100), d.noted("b", "three", 5), d.noted("c", "one", 1), d.noted("c", "error", 1), d.noted("a", "two", 3))
			wantLines(t, "rows", d.trail(), "a@1.1 one", "a@2.1 two", "b@1.1 one", "b@1.2 even", "c@1.1 one")
			wantLines(t, "letters", d.letterLines(), "2 failed sink postgres-23514", "3 blocked-by-key handle blocked-by-key", "5 failed handle handler")
			wantLines(t, "versions", lines(t, d.pool, `select format('%s %s', stream, version) from fs_probe_trail_v1.stream_versions order by 1`), "a 2", "b 1", "c 1")
		})
		t.Run("entity rows, with a handler's fault in the same batch", func(t *testing.T) {
			d := newDesk(t, pg, probeList())
			// What Postgres alone knows: a constraint that somebody added.
			if _, err := d.pool.Exec(t.Context(), `alter table fs_probe_list_v1.rows add check (total < 100)`); err != nil {
				t.Fatal(err)
			}
			d.apply(d.noted("a", "one", 1), d.noted("b", "one", 60), d.noted("b", "two", 39), d.noted("b", "three", 1), d.noted("b", "four", 5),
				d.noted("c", "one", 1), d.noted("c", "error", 1), d.noted("a", "two", 2))
			d.want("a", "total", "3")
			d.want("b", "total", "99")
			d.want("b", "version", "2")
			d.want("c", "total", "1")
			wantLines(t, "letters", d.letterLines(), "3 failed sink postgres-23514", "4 blocked-by-key handle blocked-by-key", "6 failed handle handler")
			d.apply(d.noted("a", "three", 3))
			d.want("a", "total", "6")
		})
	})
}

// incompressible is text that Postgres cannot squeeze below an index row's limit.
func incompressible(n int) string {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = 'a' + byte(x>>24)%26
	}
	return string(b)
}

func TestOutOfRangeValuesAreFoundBeforePostgres(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.apply(d.noted("a", "one", 1), d.noted("a", "two", math.MaxInt32+1), d.noted("b", "one", math.MinInt32))
		d.want("a", "total", "1")
		d.want("b", "small", fmt.Sprint(math.MinInt32))
		wantLines(t, "letters", d.letterLines(), "1 failed sink value")
		if got := d.db.begun; got != 1 {
			t.Errorf("got %d transactions, want 1", got)
		}
	})
}

func TestABatchThatComesToTooManyRowsIsHalved(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		type unit struct {
			Unit bool `db:"unit"`
		}
		d := newDesk(t, pg, projection.Append(projection.AppendSpec[unit]{
			Name: "probe_many", Version: 1, On: []codec.TypeDef{projection.On[noted]("probe.Noted", 1)},
			Rows: func(e projection.Event) ([]unit, error) { return make([]unit, e.Data.(noted).N), nil },
		}))
		most := int64(projection.EventRowsMax)
		d.apply(d.noted("a", "x", most), d.noted("b", "x", most), d.noted("c", "x", most), d.noted("d", "x", most), d.noted("e", "x", most), d.noted("f", "x", most), d.noted("g", "x", most+1))
		if got := scan[int64](t, d.pool, `select count(*) from fs.probe_many`); got != 6*most {
			t.Errorf("got %d rows, want %d", got, 6*most)
		}
		wantLines(t, "letters", d.letterLines(), "6 failed handle handler")
		if got := d.db.begun; got != 3 {
			t.Errorf("got %d transactions, want 3: a try and two halves", got)
		}
	})
}

func TestInfrastructureFaultsAreRetriedAndNeverLettered(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.db.failBegin = 3
		d.apply(d.noted("a", "one", 1))
		d.want("a", "total", "1")
		wantLines(t, "letters", d.letterLines())
		if got := d.db.begun; got != 4 {
			t.Errorf("got %d tries, want 4", got)
		}
	})
}

func TestABatchThatKeepsFailingIsHalved(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.db.failBegin = halveAfter
		d.apply(d.noted("a", "one", 1), d.noted("b", "one", 2), d.noted("a", "two", 3), d.noted("b", "error", 4))
		d.want("a", "total", "4")
		d.want("b", "total", "2")
		wantLines(t, "letters", d.letterLines(), "3 failed handle handler")
		if got := d.db.begun; got != halveAfter+2 {
			t.Errorf("got %d transactions, want %d", got, halveAfter+2)
		}
	})
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := New(Config{Namespace: "Bad", Views: []projection.View{probeList(), probeList()}, RetryMin: time.Second, RetryMax: time.Millisecond, Watchdog: -1})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, part := range []string{"Namespace", "given twice", "Kafka is empty", "Pool is nil", "Codec is nil", "RetryMin", "Watchdog is negative"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not name %q", err, part)
		}
	}
}

func TestParkedKeysAreLimited(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList(), func(c *Config) { c.ParkedKeysMax = 2 })
		d.apply(d.noted("a", "error", 1))
		err := d.w.apply(recs(d.noted("b", "error", 1), d.noted("ok", "one", 1), d.noted("c", "error", 1), d.noted("ok", "two", 1)))
		wantStop(t, err, "offset 3", "limit is 2")
		wantLines(t, "parked", d.parkedLines(), "a 0", "b 1")
		d.want("ok", "total", "1")
		if got := d.nextOffset(); got != 3 {
			t.Errorf("offset row: got %d, want 3", got)
		}
	})
}

func TestLettersOfOneStreamAreLimited(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList(), func(c *Config) { c.LettersPerKeyMax = 3 })
		d.apply(d.noted("a", "error", 1), d.noted("a", "x", 1), d.noted("b", "x", 1))
		err := d.w.apply(recs(d.noted("b", "x", 1), d.noted("a", "x", 1), d.noted("b", "x", 1), d.noted("a", "x", 1), d.noted("b", "x", 1)))
		wantStop(t, err, "offset 6", "3 letters", "the limit is 3")
		if got := d.nextOffset(); got != 6 {
			t.Errorf("offset row: got %d, want 6: what lies before still counts", got)
		}
		d.want("b", "version", "3")
	})
}

func TestLettersSayWhatTheRedriveNeeds(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.offset = 7
		d.apply(d.noted("a", "error", 1), d.noted("a", "one", 1))
		l := d.sink.letters[0]
		if l.Consumer != "view.probe_list.v1" || l.Record.Offset != 7 || l.TopicID != deskTopicID || l.Attempts != 1 || l.Fingerprint == "" {
			t.Errorf("letter: got %+v", l)
		}
		if !strings.Contains(l.Message, errHandler.Error()) {
			t.Errorf("message: got %q, want the handler's", l.Message)
		}
		if m := d.sink.letters[1].Message; !strings.Contains(m, "offset 7") {
			t.Errorf("blocked letter's message: got %q, want the offset of the first", m)
		}
	})
}

// TestAnyBatchingEqualsTheFold is the projector against its independent oracle: whatever the
// batches, caches, restarts and bad records, the rows are those of the event-by-event fold.
func TestAnyBatchingEqualsTheFold(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		for _, view := range probeViews() {
			d := newDesk(t, pg, view)
			checkSome(t, func(rt *rapid.T) { checkAgainstFold(rt, d) })
		}
	})
}

func checkAgainstFold(rt *rapid.T, d *desk) {
	for _, table := range []string{"fs.offsets", "fs.parked", "fs.letters", quote(SchemaName("fs", d.view), "rows")} {
		if _, err := d.pool.Exec(d.t.Context(), "delete from "+table); err != nil {
			rt.Fatal(err)
		}
	}
	if keepsVersions(d.view) {
		if _, err := d.pool.Exec(d.t.Context(), "delete from "+quote(SchemaName("fs", d.view), "stream_versions")); err != nil {
			rt.Fatal(err)
		}
	}
	d.offset, d.last = 0, map[string]int64{}
	d.cfg.RowCacheRowsMax = rapid.IntRange(1, 4).Draw(rt, "cache")
	d.w = d.hire()
	oracle := projection.NewTable(d.view)
	for range rapid.IntRange(1, 6).Draw(rt, "batches") {
		var batch []*kgo.Record
		for range rapid.IntRange(1, 12).Draw(rt, "events") {
			batch = append(batch, d.random(rt, oracle))
		}
		if rapid.IntRange(0, 4).Draw(rt, "restart") == 0 {
			d.w = d.hire()
		}
		if err := d.w.apply(batch); err != nil {
			rt.Fatalf("apply: %v", err)
		}
	}
	got, err := ReadTable(d.t.Context(), d.pool, "fs", d.view)
	if err != nil {
		rt.Fatal(err)
	}
	if diff := projection.Diff(oracle, got); len(diff) > 0 {
		rt.Fatalf("view differs from the fold:\n%s", strings.Join(diff, "\n"))
	}
	if parked := len(d.parkedLines()); parked != len(oracle.Parked) {
		rt.Fatalf("got %d parked streams, want %d", parked, len(oracle.Parked))
	}
}

// random makes an event and folds it into the oracle.
func (d *desk) random(rt *rapid.T, oracle *projection.Table) *kgo.Record {
	stream := rapid.SampledFrom([]string{"a", "b", "c", "d", "é", "f"}).Draw(rt, "stream")
	e := projection.Event{Stream: event.StreamID{Category: "probe", ID: stream}, Version: event.Version(d.last[stream] + 1)}
	var r *kgo.Record
	switch rapid.IntRange(0, 9).Draw(rt, "kind") {
	case 0:
		r = d.ignored(stream)
		e.Type = "probe.Ignored"
	case 1:
		r = d.erased(stream)
		e.Type, e.Data = "probe.Erased", erased{Why: "x"}
	default:
		text := rapid.SampledFrom([]string{"one", "two", `q"\{},`, "", "ünï", "error", "panic", "nul\x00"}).Draw(rt, "text")
		if (text == "error" || text == "panic" || text == "nul\x00") && rapid.IntRange(0, 3).Draw(rt, "spare") > 0 {
			text = "spared"
		}
		n := rapid.Int64Range(-1000, 1000).Draw(rt, "n")
		r = d.noted(stream, text, n)
		e.Type, e.Data = "probe.Noted", noted{Text: text, N: n}
	}
	recorded, err := event.ParseRecorded("probe", r)
	if err != nil {
		rt.Fatal(err)
	}
	e.Time, e.ID = recorded.Time, recorded.ID
	if err := oracle.Apply(e); err != nil {
		rt.Fatal(err)
	}
	return r
}

func TestMigrate(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		pool := newPool(t, pg)
		views := probeViews()
		done := make(chan error)
		for range 4 {
			go func() { done <- Migrate(t.Context(), pool, "fs", views) }()
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Errorf("migrate, four at once: %v", err)
			}
		}
		if err := Migrate(t.Context(), pool, "other", views); err != nil {
			t.Errorf("a second namespace: %v", err)
		}
		t.Run("a changed definition names the remedy", func(t *testing.T) {
			changed := probeList()
			changed.Columns = changed.Columns[1:]
			err := Migrate(t.Context(), pool, "fs", []projection.View{changed})
			if err == nil || !strings.Contains(err.Error(), "raise the view's version") || !strings.Contains(err.Error(), "probe_list") {
				t.Errorf("got %v, want %v", err, ErrDefinitionChanged)
			}
		})
		t.Run("a new version stands beside the live one", func(t *testing.T) {
			next := probeList()
			next.Version, next.Columns = 2, next.Columns[1:]
			next.Types = []codec.TypeDef{next.Types[0]}
			if err := Migrate(t.Context(), pool, "fs", []projection.View{probeList(), next}); err != nil {
				t.Fatal(err)
			}
			wantLines(t, "versions", lines(t, pool, `select format('%s %s', version, live) from fs.views where name = 'probe_list' order by 1`), "1 t", "2 f")
			if n := scan[int](t, pool, `select count(*)::int from fs_probe_list_v2.rows`); n != 0 {
				t.Errorf("new version has %d rows", n)
			}
			// The stable view still has the live version's columns.
			lines(t, pool, `select text from fs.probe_list`)
		})
	})
}

// checkSome runs fewer cases than rapid's hundred: each is some dozens of transactions.
func checkSome(t *testing.T, property func(*rapid.T)) {
	t.Helper()
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		if err := f.Value.Set("20"); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Value.Set(f.DefValue) }()
	}
	rapid.Check(t, property)
}
