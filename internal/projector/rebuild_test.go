package projector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
)

// second is the same view under the next version.
func second(v projection.View) projection.View {
	v.Version = 2
	return v
}

// twice has each view in two versions.
func twice(all ...projection.View) []projection.View {
	out := slices.Clone(all)
	for _, v := range all {
		out = append(out, second(v))
	}
	return out
}

// only makes a projector keep these versions.
func only(version int) func(*Config) {
	return func(c *Config) {
		c.Views = slices.DeleteFunc(slices.Clone(c.Views), func(v projection.View) bool { return v.Version != version })
	}
}

// operator works on this world's views, by a pool of its own.
func (w *world) operator(tune ...func(*OperatorConfig)) *Operator {
	w.t.Helper()
	if audit := topics.Audit(w.ns); !w.hasTopic(audit) {
		w.kafka.CreateTopic(w.t, audit, 1, nil)
	}
	pool, err := pgxpool.NewWithConfig(w.t.Context(), w.pool.Config())
	if err != nil {
		w.t.Fatalf("pool: %v", err)
	}
	cfg := OperatorConfig{Config: w.config(), Actor: "tester", LeaseTime: time.Second, CatchUpTimeout: 30 * time.Second}
	cfg.Pool = pool
	for _, f := range tune {
		f(&cfg)
	}
	o, err := NewOperator(cfg)
	if err != nil {
		w.t.Fatalf("new operator: %v", err)
	}
	w.t.Cleanup(o.Close)
	w.t.Cleanup(pool.Close)
	return o
}

// stable reads a column of the stable view, as readers do.
func (w *world) stable(view, expr string) string {
	w.t.Helper()
	return scan[string](w.t, w.pool, "select ("+expr+")::text from "+quote(w.ns, view))
}

func (w *world) mustRebuild(o *Operator, name string) RebuildReport {
	w.t.Helper()
	report, err := o.Rebuild(w.t.Context(), RebuildRequest{Name: name})
	if err != nil {
		w.t.Fatalf("rebuild: %v", err)
	}
	return report
}

func (w *world) mustVerify(o *Operator, name string) Report {
	w.t.Helper()
	report, err := o.Verify(w.t.Context(), VerifyRequest{Name: name})
	if err != nil {
		w.t.Fatalf("verify: %v", err)
	}
	return report
}

// load writes events until stop is called, which returns how many.
func (w *world) load(next func() []*kgo.Record) (stop func() int) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	written := 0
	wg.Go(func() {
		for pause(ctx, 5*time.Millisecond) {
			records := next()
			w.write(records...)
			written += len(records)
		}
	})
	var once sync.Once
	end := func() int {
		once.Do(func() { cancel(); wg.Wait() })
		return written
	}
	w.t.Cleanup(func() { end() })
	return end
}

// readers select from a stable view all the time; stop returns the reads and the first failure.
func (w *world) readers(view string) (stop func() (int64, error)) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	var reads atomic.Int64
	var mu sync.Mutex
	var first error
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				var n int64
				err := w.pool.QueryRow(ctx, "select count(*) from "+quote(w.ns, view)).Scan(&n)
				if err != nil && ctx.Err() == nil {
					mu.Lock()
					first = errors.Join(first, err)
					mu.Unlock()
					return
				}
				reads.Add(1)
			}
		})
	}
	var once sync.Once
	end := func() (int64, error) {
		once.Do(func() { cancel(); wg.Wait() })
		return reads.Load(), first
	}
	w.t.Cleanup(func() { _, _ = end() })
	return end
}

func TestARebuildUnderLoadIsEqualAndSwitchedWithoutAFailedRead(t *testing.T) {
	everywhere(t, twice(views.ExecutionHistory()), func(w *world) {
		const name = "execution_history"
		random := rand.New(rand.NewPCG(3, 4))
		history := func(n int) []*kgo.Record {
			return slices.DeleteFunc(w.business(random, n), func(r *kgo.Record) bool { return !strings.HasSuffix(r.Topic, ".execution.events") })
		}
		w.write(history(300)...)
		w.run(only(1)) // the program as it was
		stopLoad := w.load(func() []*kgo.Record { return history(3) })
		stopReaders := w.readers(name)

		var phases []Phase
		o := w.operator(func(c *OperatorConfig) {
			c.Progress = func(p Progress) {
				if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
					phases = append(phases, p.Phase)
				}
			}
		})
		report := w.mustRebuild(o, name)
		if report.Records < 300 || report.Version != 2 || report.Live != 1 || report.Resumed {
			w.t.Errorf("rebuild: got %+v, want version 2 beside 1 and all records", report)
		}
		if !slices.Contains(phases, PhaseRead) || !slices.Contains(phases, PhaseIndex) {
			w.t.Errorf("progress: got the phases %v, want one that reads and one that indexes", phases)
		}
		w.run() // the program with both versions joins, as in a rolling deploy
		switched, err := o.Switch(w.t.Context(), SwitchRequest{Name: name})
		if err != nil {
			w.t.Fatalf("switch: %v (%s)", err, switched.Verified.Summary())
		}
		if v := switched.Verified; !v.Equal || v.DigestFrom != v.DigestTo || v.RowsTo < 300 {
			w.t.Errorf("verified: got %+v, want equal digests of at least 300 rows", v)
		}
		w.t.Logf("switched in %s; %s", switched.Took, switched.Verified.Summary())
		if got := scan[int](w.t, w.pool, "select version from "+quote(w.ns, "views")+" where live"); got != 2 {
			w.t.Errorf("live: got version %d, want 2", got)
		}
		back, err := o.Rollback(w.t.Context(), name)
		if err != nil {
			w.t.Fatalf("rollback: %v", err)
		}
		w.t.Logf("rolled back in %s, under load", back.Took)
		if _, err := o.Rollback(w.t.Context(), name); err != nil {
			w.t.Fatalf("rollback of the rollback: %v", err)
		}
		written := stopLoad()
		reads, failed := stopReaders()
		if failed != nil || reads == 0 {
			w.t.Errorf("readers: got %d reads and %v, want reads and no failure", reads, failed)
		}
		w.t.Logf("%d events written and %d reads meanwhile", written, reads)
		w.caughtUp()
		w.wantFold() // both versions
	})
}

func TestEachKindOfViewIsRebuiltInBulk(t *testing.T) {
	everywhere(t, twice(probeViews()...), func(w *world) {
		for i := range 400 {
			w.write(w.noted(fmt.Sprintf("s%d", i%90), fmt.Sprintf("t%d", i%7), int64(i)))
		}
		w.run(only(1))
		o := w.operator()
		for _, v := range probeViews() {
			w.mustRebuild(o, v.Name)
			if r := w.mustVerify(o, v.Name); !r.Equal || r.RowsFrom == 0 {
				w.t.Errorf("verify %s: got %+v, want equal", v.Name, r)
			}
		}
		w.run()
		for i := range 100 {
			w.write(w.noted(fmt.Sprintf("s%d", i), "later", int64(i)))
		}
		w.caughtUp()
		w.wantFold()
	})
}

// wrongList folds one text to another total.
func wrongList() projection.View {
	type row struct {
		Text  string `db:"text"`
		Small int64  `db:"small,integer"`
		Total int64  `db:"total"`
		Extra string `db:"extra"`
	}
	return projection.Entity(projection.EntitySpec[row]{
		Name: "probe_list", Version: 2, On: []codec.TypeDef{projection.On[noted]("probe.Noted", 1)},
		Fold: func(r row, _ bool, e projection.Event) (row, projection.Change, error) {
			d := e.Data.(noted)
			r.Text, r.Small, r.Total = d.Text, d.N, r.Total+d.N
			if e.Stream.ID == "s7" {
				r.Total++
			}
			return r, projection.Set, nil
		},
	})
}

func TestAPlantedWrongFoldIsCaughtAndSwitchedToOnAnExplicitWordOnly(t *testing.T) {
	everywhere(t, []projection.View{probeList(), wrongList()}, func(w *world) {
		for i := range 200 {
			w.write(w.noted(fmt.Sprintf("s%d", i%50), "x", int64(i)))
		}
		w.run()
		w.caughtUp()
		o := w.operator()
		report, err := o.Switch(w.t.Context(), SwitchRequest{Name: "probe_list"})
		if !errors.Is(err, ErrDifferent) {
			w.t.Fatalf("switch: got %v, want ErrDifferent", err)
		}
		v := report.Verified
		if v.Equal || v.Differing != 1 || len(v.Differences) != 1 || v.Differences[0].Kind != DifferenceChanged || v.Differences[0].Key != "(s7)" {
			w.t.Fatalf("verified: got %+v, want one changed row s7", v)
		}
		if c := v.Differences[0].Columns; len(c) != 1 || c[0].Name != "total" || *c[0].From == *c[0].To {
			w.t.Errorf("columns: got %+v, want total alone", c)
		}
		if !slices.Contains(v.OnlyTo, "extra") || !slices.Contains(v.OnlyFrom, "doc") || !slices.Contains(v.Columns, "version") {
			w.t.Errorf("columns: got both %v, only from %v, only to %v", v.Columns, v.OnlyFrom, v.OnlyTo)
		}
		if got := w.stable("probe_list", "count(*)"); got != "50" {
			w.t.Errorf("stable view: got %s rows, want 50", got)
		}
		if _, err := o.Switch(w.t.Context(), SwitchRequest{Name: "probe_list", AcceptDifferences: true}); err != nil {
			w.t.Fatalf("switch, accepted: %v", err)
		}
		if got := w.stable("probe_list", "count(extra)"); got != "50" {
			w.t.Errorf("stable view over the new columns: got %s rows, want 50", got)
		}
		if _, err := o.Rollback(w.t.Context(), "probe_list"); err != nil {
			w.t.Fatalf("rollback: %v", err)
		}
		if got := w.stable("probe_list", "count(doc)"); got != "50" {
			w.t.Errorf("stable view over the old columns: got %s rows, want 50", got)
		}
	})
}

// envKilled tells this program, started once more, which rebuild to begin until it is killed.
const envKilled = "FOLDSTREAM_TEST_KILLED_REBUILD"

// killed is what the process that is killed needs to know.
type killed struct {
	Namespace, DSN string
	Seeds          []string
	FromStart      bool
}

// TestKilledRebuildProcess is the other process of the test below, and nothing by itself.
func TestKilledRebuildProcess(t *testing.T) {
	text := os.Getenv(envKilled)
	if text == "" {
		return
	}
	var k killed
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), k.DSN)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOperator(OperatorConfig{
		Config: Config{Namespace: k.Namespace, Views: twice(probeList()), Kafka: []kgo.Opt{kgo.SeedBrokers(k.Seeds...)}, Pool: pool, Codec: worldCodec(t), Logger: quiet()},
		Actor:  "killed",
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Rebuild(t.Context(), RebuildRequest{Name: "probe_list", Rate: 2000, FromStart: k.FromStart})
	t.Fatalf("the rebuild ended before it was killed: %v", err)
}

// killARebuild begins one in a process of its own and kills it once it has committed something.
func (w *world) killARebuild(fromStart bool, at func() int64, all int64) {
	w.t.Helper()
	spec, err := json.Marshal(killed{Namespace: w.ns, DSN: w.pool.Config().ConnString(), Seeds: w.kafka.Seeds(), FromStart: fromStart})
	if err != nil {
		w.t.Fatal(err)
	}
	before := at()
	child := exec.CommandContext(w.t.Context(), os.Args[0], "-test.run", "^TestKilledRebuildProcess$")
	child.Env = append(os.Environ(), envKilled+"="+string(spec))
	var out bytes.Buffer
	child.Stdout, child.Stderr = &out, &out
	if err := child.Start(); err != nil {
		w.t.Fatal(err)
	}
	waitFor(w.t, "the rebuild commits something", func() bool {
		now := at()
		return now > 0 && now < all && now != before
	})
	if err := child.Process.Kill(); err != nil {
		w.t.Errorf("kill: %v", err)
	}
	if err := child.Wait(); child.ProcessState.Exited() {
		w.t.Fatalf("the rebuild was over before it was killed: %v\n%s", err, out.String())
	}
}

func TestARebuildThatWasKilledGoesOnWhereItWas(t *testing.T) {
	everywhere(t, twice(probeList()), func(w *world) {
		const events = 4000
		var all []*kgo.Record
		for i := range events {
			all = append(all, w.noted(fmt.Sprintf("s%d", i%500), "x", int64(i)))
		}
		w.write(all...)
		w.run()
		w.caughtUp()
		o := w.operator()
		at := func() int64 {
			return scan[int64](w.t, w.pool, `select coalesce(sum(greatest(next_offset, 0)), 0)::bigint from `+quote(w.ns, "offsets")+` where consumer = 'view.probe_list.v2'`)
		}
		w.killARebuild(true, at, events)
		w.killARebuild(false, at, events)
		if held := scan[string](w.t, w.pool, `select held_by from `+quote(w.ns, "controls")+` where consumer = 'view.probe_list.v2'`); held == "" {
			w.t.Errorf("the version is held by nobody after a kill, want the rebuild")
		}
		if _, err := o.Verify(w.t.Context(), VerifyRequest{Name: "probe_list"}); !errors.Is(err, ErrRebuilding) {
			w.t.Errorf("verify an unfinished rebuild: got %v, want ErrRebuilding", err)
		}
		var report RebuildReport
		waitFor(w.t, "Postgres has noticed the death", func() (over bool) {
			var err error
			if report, err = o.Rebuild(w.t.Context(), RebuildRequest{Name: "probe_list"}); err != nil && !errors.Is(err, ErrBusy) {
				w.t.Fatalf("rebuild: %v", err)
			}
			return err == nil
		})
		if !report.Resumed || report.Records == 0 || report.Records >= events {
			w.t.Errorf("rebuild: got %+v, want one that goes on", report)
		}
		if r := w.mustVerify(o, "probe_list"); !r.Equal || r.RowsTo != 500 {
			w.t.Errorf("verify: got %s, want 500 equal rows", r.Summary())
		}
		w.caughtUp()
		w.wantFold()
	})
}

func TestARebuildThatIsCancelledEndsAndKeepsWhatItHas(t *testing.T) {
	onePartition(t, twice(plainList()), func(w *world) {
		for i := range 500 {
			w.write(w.noted(fmt.Sprintf("s%d", i), "x", 1))
		}
		ctx, cancel := context.WithCancel(w.t.Context())
		defer cancel()
		o := w.operator(func(c *OperatorConfig) {
			c.Progress = func(p Progress) {
				if p.Done > 0 {
					cancel()
				}
			}
		})
		if _, err := o.Rebuild(ctx, RebuildRequest{Name: "plain_list", Rate: 100}); !errors.Is(err, context.Canceled) {
			w.t.Errorf("got %v, want that it was cancelled", err)
		}
		if n := w.next("view.plain_list.v2"); n <= 0 || n >= 500 {
			w.t.Errorf("offset: got %d, want some of 500", n)
		}
		if r := w.mustRebuild(o, "plain_list"); !r.Resumed {
			w.t.Errorf("got %+v, want it to go on", r)
		}
	})
}

func TestTwoToolsDoNotWorkOnOneVersion(t *testing.T) {
	everywhere(t, twice(plainList()), func(w *world) {
		w.write(w.noted("s", "x", 1))
		w.run()
		w.caughtUp()
		o := w.operator()
		h, err := o.holding(w.t.Context(), "view.plain_list.v2", "test", true)
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.operator().Rebuild(w.t.Context(), RebuildRequest{Name: "plain_list"}); !errors.Is(err, ErrBusy) {
			w.t.Errorf("a second tool: got %v, want ErrBusy", err)
		}
		w.write(w.noted("s", "x", 1))
		w.applied(w.views[0], topics.Events(w.ns, "probe"))
		time.Sleep(3 * controlInterval) // nothing is to happen
		if got := scan[int64](w.t, w.pool, `select max(total) from `+quote(w.ns+"_plain_list_v2", "rows")); got != 1 {
			w.t.Errorf("held version: got total %d, want it left alone at 1", got)
		}
		if err := h.giveBack(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		w.caughtUp()
		w.wantFold()
	})
}

func TestALeaseOfADeadToolEnds(t *testing.T) {
	everywhere(t, twice(plainList()), func(w *world) {
		w.write(w.noted("s", "x", 1))
		w.run()
		w.caughtUp()
		h, err := w.operator().holding(w.t.Context(), "view.plain_list.v2", "test", true)
		if err != nil {
			w.t.Fatal(err)
		}
		h.keep(w.t.Context()) // no renewal any more
		w.write(w.noted("s", "x", 1))
		w.caughtUp()
		w.wantFold()
	})
}

func TestARebuildMakesTheIndexesAgainThatItFound(t *testing.T) {
	everywhere(t, twice(plainList()), func(w *world) {
		rows := quote(w.ns+"_plain_list_v2", "rows")
		if _, err := w.pool.Exec(w.t.Context(), `create index mine on `+rows+` (total) where total > 3`); err != nil {
			w.t.Fatal(err)
		}
		w.write(w.noted("s", "x", 1))
		w.mustRebuild(w.operator(), "plain_list")
		got := lines(w.t, w.pool, `select indexdef from pg_indexes where schemaname = $1 and indexname = 'mine'`, w.ns+"_plain_list_v2")
		if len(got) != 1 || !strings.Contains(got[0], "total > 3") {
			w.t.Errorf("indexes: got %v, want the one that was there", got)
		}
	})
}

func TestADroppedVersionIsLeftAloneUntilItIsRebuilt(t *testing.T) {
	everywhere(t, twice(plainList()), func(w *world) {
		w.write(w.noted("s", "x", 1), w.noted("r", "x", 2))
		p := w.run()
		w.caughtUp()
		o := w.operator()
		if _, err := o.Drop(w.t.Context(), "plain_list", 1, true); !errors.Is(err, ErrLive) {
			w.t.Errorf("drop the live version: got %v, want ErrLive", err)
		}
		there := func() bool {
			return scan[bool](w.t, w.pool, `select to_regclass($1) is not null`, quote(w.ns+"_plain_list_v2", "rows"))
		}
		if _, err := o.Drop(w.t.Context(), "plain_list", 2, false); err != nil || !there() {
			w.t.Errorf("a drop that is only shown: got %v, tables there: %v", err, there())
		}
		if _, err := o.Drop(w.t.Context(), "plain_list", 2, true); err != nil || there() {
			w.t.Fatalf("drop: got %v, tables there: %v", err, there())
		}
		if err := Migrate(w.t.Context(), w.pool, w.ns, w.views); err != nil || there() {
			w.t.Errorf("migrate: got %v, tables there: %v, want the dropped version left out", err, there())
		}
		w.write(w.noted("s", "x", 5))
		w.applied(w.views[0], topics.Events(w.ns, "probe"))
		if err := p.Ready(); err != nil {
			w.t.Errorf("ready beside a dropped version: %v", err)
		}
		w.mustRebuild(o, "plain_list")
		w.write(w.noted("s", "x", 7))
		w.caughtUp()
		w.wantFold()
	})
}
