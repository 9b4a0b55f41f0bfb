package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"
	"pgregory.net/rapid"
)

func TestAScratchTopicIsNoTopicOfAProject(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		name := scratchName("shop")
		category := strings.TrimPrefix(name, "shop.")
		if seen[name] || category == name || topics.ValidateName("category", category) == nil || len(name) > 60 {
			t.Fatalf("got %s: want a new name in the namespace that no category may have", name)
		}
		seen[name] = true
	}
}

func TestBatchesAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var raw []byte
		var wanted []stored
		for range rapid.IntRange(0, 4).Draw(t, "batches") {
			b := batch{
				claim:  event.Claim{ProducerID: rapid.Int64Range(0, 1<<40).Draw(t, "pid"), Epoch: rapid.Int16Range(0, 32767).Draw(t, "epoch")},
				seq:    rapid.Int32Range(0, 1<<30).Draw(t, "seq"),
				values: rapid.SliceOfN(rapid.StringN(0, 200, 300), 1, 5).Draw(t, "values"),
				stamp:  time.UnixMilli(rapid.Int64Range(0, 1<<41).Draw(t, "stamp")),
			}
			raw = append(raw, b.encode()...)
			wanted = append(wanted, stored{claim: b.claim, seq: b.seq, records: int32(len(b.values)), stamp: b.stamp})
		}
		got, err := parse(append(raw, raw[:len(raw)/3]...)[:len(raw)+min(len(raw)/3, batchHeader)])
		if err != nil {
			t.Fatalf("parse: %v", err)
		}
		if d := differences(wanted, got); len(d) > 0 {
			t.Fatalf("got %v, want %v: %v", got, wanted, d)
		}
	})
}

func FuzzParseTakesAnyBytes(f *testing.F) {
	f.Add(batch{claim: event.Claim{ProducerID: 1}, values: []string{"a", "b"}, stamp: time.UnixMilli(1)}.encode())
	f.Add([]byte{})
	f.Add(make([]byte, batchHeader))
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, err := parse(raw)
		if len(all)*batchHeader > len(raw) {
			t.Errorf("got %d batches (%v) from %d bytes", len(all), err, len(raw))
		}
	})
}

func TestDifferencesBetweenWordAndLog(t *testing.T) {
	t.Parallel()
	a := stored{base: 0, claim: event.Claim{ProducerID: 7}, records: 1}
	b := stored{base: 1, claim: event.Claim{ProducerID: 7}, seq: 1, records: 2}
	void := stored{base: 1, claim: event.Claim{ProducerID: 7, Epoch: 9}, records: 1}
	stamped := a
	stamped.stampedByBroker, stamped.stamp = true, time.UnixMilli(5)
	for _, c := range []struct {
		name        string
		acked, have []stored
		want        []string
	}{
		{"none", []stored{a, b}, []stored{stamped, b}, nil},
		{"lost", []stored{a, b}, []stored{a}, []string{"acknowledged and not in the log"}},
		{"refused and stored", []stored{a}, []stored{a, void}, []string{"in the log and never acknowledged"}},
		{"in between", []stored{a, b}, []stored{a, void, b}, []string{"the log has there", "never acknowledged"}},
		{"many", []stored{a, a, a, a, a}, nil, []string{"not in", "not in", "not in"}},
	} {
		got := differences(c.acked, c.have)
		if len(got) != len(c.want) {
			t.Errorf("%s: got %q, want %d differences", c.name, got, len(c.want))
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: got %q, want %q in it", c.name, got[i], want)
			}
		}
	}
}

func TestStampsAreJudgedByWhoseTheyAre(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	for _, c := range []struct {
		name string
		in   stored
		want Verdict
	}{
		{"the broker's", stored{stampedByBroker: true, stamp: now.Add(time.Second)}, Fit},
		{"the broker's, an hour off", stored{stampedByBroker: true, stamp: now.Add(time.Hour)}, Warning},
		{"the writer's", stored{stamp: now.Add(-stampAge)}, Note},
		{"the writer's, said to be the broker's", stored{stampedByBroker: true, stamp: now.Add(-stampAge)}, Note},
	} {
		if got := judgeStamp(c.in, now); got.verdict != c.want {
			t.Errorf("%s: got %s (%s), want %s", c.name, got.verdict, got.saw, c.want)
		}
	}
}

func TestTheWorstFindingIsTheVerdict(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		findings []Verdict
		want     Verdict
	}{
		{nil, Fit},
		{[]Verdict{Fit, Note, Warning, Skipped}, Fit},
		{[]Verdict{Fit, Denied, Warning}, Denied},
		{[]Verdict{Denied, Unfit, Fit}, Unfit},
	} {
		var r Report
		for _, v := range c.findings {
			r.Findings = append(r.Findings, Finding{Verdict: v})
		}
		wantVerdict(t, r, c.want)
	}
}

// quickly runs the quick steps that need no broker, by themselves.
func quickly(t *testing.T, cfg Config) *exam {
	t.Helper()
	cfg.Layout = topics.Layout{Namespace: "shop"}
	x := &exam{cfg: cfg.withDefaults()}
	for _, s := range x.quick() {
		for _, st := range s {
			if st.name == "topics" || st.name == "schemas" || st.name == "postgres" {
				if err := x.play(t.Context(), scenario{st}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return x
}

func TestQuickSteps(t *testing.T) {
	t.Parallel()
	planned := func(changes ...topics.Change) func(context.Context) (topics.Plan, error) {
		return func(context.Context) (topics.Plan, error) { return topics.Plan{Changes: changes}, nil }
	}
	schemas := func(n int, faults []string, err error) func(context.Context) (int, []string, error) {
		return func(context.Context) (int, []string, error) { return n, faults, err }
	}
	postgres := func(version string, err error) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return version, err }
	}
	ok := topics.Change{Topic: "shop.a", Kind: topics.KindNone}
	missing := topics.Change{Topic: "shop.b", Kind: topics.KindCreate}
	for _, c := range []struct {
		name string
		cfg  Config
		want map[string]Verdict
	}{
		{"all well", Config{Plan: planned(ok), Schemas: schemas(3, nil, nil), Postgres: postgres("18.1", nil)}, map[string]Verdict{"topics": Fit, "schemas": Fit, "postgres": Fit}},
		{"nothing set up", Config{Plan: planned(missing), Schemas: schemas(0, nil, errors.New("no topic")), Postgres: postgres("", ErrNotConfigured)}, map[string]Verdict{"topics": Warning, "schemas": Skipped, "postgres": Skipped}},
		{"a topic missing", Config{Plan: planned(ok, missing), Schemas: schemas(2, []string{"order.Placed v1 is not registered"}, nil)}, map[string]Verdict{"topics": Unfit, "schemas": Unfit}},
		{"partitions", Config{Plan: planned(topics.Change{Topic: "shop.a", Kind: topics.KindPartitionsDiffer, Have: "3", Want: "12"})}, map[string]Verdict{"topics": Unfit}},
		{"a setting", Config{Plan: planned(topics.Change{Topic: "shop.a", Kind: topics.KindSetConfig, Key: "retention.ms"})}, map[string]Verdict{"topics": Warning}},
		{"a setting that is not shown", Config{Plan: planned(topics.Change{Topic: "shop.a", Kind: topics.KindSkipped})}, map[string]Verdict{"topics": Fit}},
		{"denied", Config{
			Plan:     func(context.Context) (topics.Plan, error) { return topics.Plan{}, kerr.TopicAuthorizationFailed },
			Schemas:  schemas(0, nil, kerr.TopicAuthorizationFailed),
			Postgres: postgres("", &pgconn.PgError{Code: "28P01"}),
		}, map[string]Verdict{"topics": Denied, "schemas": Denied, "postgres": Denied}},
		{"away", Config{Postgres: postgres("", errors.New("connection refused"))}, map[string]Verdict{"postgres": Unfit}},
		{"old", Config{Postgres: postgres("14.9 (Debian)", nil)}, map[string]Verdict{"postgres": Warning}},
	} {
		x := quickly(t, c.cfg)
		if len(x.report.Findings) != len(c.want) {
			t.Errorf("%s: got %d findings, want %d", c.name, len(x.report.Findings), len(c.want))
		}
		for step, verdict := range c.want {
			f, _ := x.report.Find(step)
			if f.Verdict != verdict || (verdict != Fit && verdict != Skipped) != (f.Do != "") {
				t.Errorf("%s, step %s: got %+v, want %s, and what to do when it is not well", c.name, step, f, verdict)
			}
		}
	}
}
