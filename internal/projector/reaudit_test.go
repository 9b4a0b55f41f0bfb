package projector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// indexed adds the index of events to an operator.
func indexedBy(categories ...string) func(*OperatorConfig) {
	return func(c *OperatorConfig) { c.EventCategories = categories }
}

func TestAnAuditFindsEachKindOfDrift(t *testing.T) {
	onePartition(t, probeViews(), func(w *world) {
		index := w.withSystemViews("probe")
		w.run(index)
		for i := range 300 {
			w.write(w.noted(fmt.Sprintf("s%d", i%60), fmt.Sprintf("t%d", i%7), int64(i)))
		}
		w.write(w.noted("bad", "x", 1), w.noted("bad", "error", 1), w.noted("bad", "x", 1))
		w.caughtUp()
		o := w.operator(indexedBy("probe"))
		audit := func(name string, all bool) AuditReport {
			w.t.Helper()
			r, err := o.Audit(w.t.Context(), AuditRequest{Name: name, All: all})
			if err != nil {
				w.t.Fatalf("audit %s: %v", name, err)
			}
			return r
		}
		for _, v := range probeViews() {
			for _, all := range []bool{false, true} {
				if r := audit(v.Name, all); r.Differing != 0 || r.Checked == 0 {
					w.t.Errorf("audit %s, all %v: got %+v, want no difference", v.Name, all, r)
				}
			}
		}
		for _, sql := range []string{
			`update ` + w.ns + `_probe_list_v1.rows set total = total + 1 where id = 's5'`,
			`delete from ` + w.ns + `_probe_list_v1.rows where id = 's6'`,
			`insert into ` + w.ns + `_probe_list_v1.rows select 'stray', text, small, total, ratio, seen, tags, doc, last_at, version, fs_present from ` + w.ns + `_probe_list_v1.rows where id = 's7'`,
			`update ` + w.ns + `_probe_stats_v1.rows set n = n - 1 where text = 't3'`,
			`update ` + w.ns + `_probe_trail_v1.rows set doc = '{"a": 1}' where stream = 's9' and version = 2 and n = 1`,
		} {
			if _, err := w.pool.Exec(w.t.Context(), sql); err != nil {
				w.t.Fatalf("%s: %v", sql, err)
			}
		}
		for name, want := range map[string]string{
			"probe_list":  "changed (s5) [total]; missing (s6) []; extra (stray) []",
			"probe_stats": "changed (t3) [n]",
			"probe_trail": "changed (probe, s9, 2, 1) [doc]",
		} {
			var got []string
			for _, d := range audit(name, true).Differences {
				var columns []string
				for _, c := range d.Columns {
					columns = append(columns, c.Name)
				}
				got = append(got, fmt.Sprintf("%s %s %v", d.Kind, d.Key, columns))
			}
			if text := strings.Join(got, "; "); text != want {
				w.t.Errorf("audit %s: got %s, want %s", name, text, want)
			}
		}
	})
}

func TestAVersionIsCheckedOnSomeStreamsBeforeItIsBuilt(t *testing.T) {
	onePartition(t, []projection.View{probeList(), wrongList()}, func(w *world) {
		index := w.withSystemViews("probe")
		w.run(index, only(1))
		for i := range 40 {
			w.write(w.noted(fmt.Sprintf("s%d", i%10), "x", int64(i)))
		}
		w.applied(w.views[0], w.ns+".probe.events")
		o := w.operator(indexedBy("probe"))
		r, err := o.Audit(w.t.Context(), AuditRequest{Name: "probe_list", By: 2, Streams: []string{"s3", "s7"}})
		if err != nil || r.Checked != 2 || r.Differing != 1 || r.Differences[0].Key != "(s7)" {
			w.t.Errorf("got %+v and %v, want s7 alone to differ", r, err)
		}
	})
}

func TestAPlantedWrongRowIsSeenByTheContinuousAudit(t *testing.T) {
	onePartition(t, []projection.View{plainList()}, func(w *world) {
		registry := prometheus.NewRegistry()
		w.write(w.noted("a", "x", 1), w.noted("b", "x", 2))
		p := w.run(w.withSystemViews("probe"), func(c *Config) { c.AuditInterval = 20 * time.Millisecond; c.Registerer = registry })
		w.caughtUp()
		audited, drift := p.consumers[0].metrics.audited.WithLabelValues("plain_list.v1"), p.consumers[0].metrics.drift.WithLabelValues("plain_list.v1")
		waitFor(w.t, "some streams are audited", func() bool { return testutil.ToFloat64(audited) >= 4 })
		if got := testutil.ToFloat64(drift); got != 0 {
			w.t.Errorf("drift before: got %v, want 0", got)
		}
		if _, err := w.pool.Exec(w.t.Context(), `update `+w.ns+`_plain_list_v1.rows set total = 7 where id = 'a'`); err != nil {
			w.t.Fatal(err)
		}
		waitFor(w.t, "the drift is counted", func() bool { return testutil.ToFloat64(drift) > 0 })
	})
}
