package projector

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The cut is that of one moment of the live version, which goes on: while both are written, a
// comparison at the positions of now would differ.
func TestP5TheCutIsThatOfTheLiveVersionsSnapshot(t *testing.T) {
	everywhere(t, twice(probeViews()...), func(w *world) {
		n := 0
		burst := func() (out []*kgo.Record) {
			for range 20 {
				n++
				out = append(out, w.noted(fmt.Sprintf("s%d", n%40), fmt.Sprintf("t%d", n%3), int64(n)))
			}
			return out
		}
		w.write(burst()...)
		w.run(func(c *Config) { c.BatchRecordsMax = 7 })
		w.caughtUp()
		stop := w.load(burst)
		o := w.operator()
		for round := range 3 {
			for _, v := range probeViews() {
				if r := w.mustVerify(o, v.Name); !r.Equal || r.RowsFrom == 0 {
					w.t.Errorf("round %d: %s\n%+v", round, r.Summary(), r.Differences)
				}
			}
		}
		stop()
		w.caughtUp()
		w.wantFold()
	})
}

func TestP5TheSwitchNeedsTheNewVersionAtOrPastTheOldOneEverywhere(t *testing.T) {
	onePartition(t, twice(plainList()), func(w *world) {
		w.write(w.noted("a", "x", 1))
		w.run()
		w.caughtUp()
		o := w.operator(func(c *OperatorConfig) { c.CatchUpTimeout = 300 * time.Millisecond })
		err := pgx.BeginFunc(w.t.Context(), w.pool, func(tx pgx.Tx) error {
			// One record behind in one partition, and nobody to take it further.
			if _, err := tx.Exec(w.t.Context(), `update `+quote(w.ns, "offsets")+` set next_offset = next_offset - 1 where consumer = 'view.plain_list.v2'`); err != nil {
				return err
			}
			all, err := o.versions(w.t.Context(), tx, "plain_list")
			if err != nil {
				return err
			}
			return o.lockLevel(w.t.Context(), tx, all[0], all[1])
		})
		if !errors.Is(err, errStillBehind) {
			w.t.Errorf("one record behind: got %v, want errStillBehind", err)
		}
		if _, err := w.pool.Exec(w.t.Context(), `update `+quote(w.ns, "offsets")+` set epoch = epoch + 1, next_offset = $1 where consumer = 'view.plain_list.v1'`, int64(2*closeRecords)); err != nil {
			w.t.Fatal(err)
		}
		if _, err := o.cutOver(w.t.Context(), "view.switch", "plain_list", 1, 2); !errors.Is(err, ErrBehind) {
			w.t.Errorf("far behind: got %v, want ErrBehind", err)
		}
		if got := scan[int](w.t, w.pool, `select version from `+quote(w.ns, "views")+` where live`); got != 1 {
			w.t.Errorf("live: got version %d, want 1", got)
		}
	})
}

// mended is a version whose handler takes what the other one fails on.
func mended(v projection.View, fold func(noted) error) projection.View {
	switch v.Kind {
	case projection.KindMetric:
		return projection.Metric(projection.MetricSpec[probeStat]{
			Name: v.Name, Version: 2, On: []codec.TypeDef{projection.On[noted]("probe.Noted", 1)},
			Deltas: func(e projection.Event) ([]probeStat, error) {
				d := e.Data.(noted)
				return []probeStat{
					{Text: d.Text, N: d.N, Count: 1, FirstAt: e.Time, LastAt: e.Time},
					{Text: "all", Count: 1, FirstAt: e.Time, LastAt: e.Time},
				}, fold(d)
			},
		})
	default:
		return projection.Append(projection.AppendSpec[probeMark]{
			Name: v.Name, Version: 2, On: []codec.TypeDef{projection.On[noted]("probe.Noted", 1)},
			Rows: func(e projection.Event) ([]probeMark, error) {
				d := e.Data.(noted)
				half := float64(d.N) / 2
				marks := []probeMark{{Text: d.Text, Small: d.N, Ratio: &half, Tags: []string{d.Text, `{",}`}, Doc: map[string]string{d.Text: "x"}, At: e.Time}}
				if d.N%2 == 0 {
					marks = append(marks, probeMark{Text: "even", At: e.Time})
				}
				return marks, fold(d)
			},
		})
	}
}

func TestP5ParkedRecordsAreLeftOutAndListed(t *testing.T) {
	never := func(noted) error { return nil }
	later := func(d noted) error {
		if d.N == 13 {
			return errHandler
		}
		return nil
	}
	for name, fold := range map[string]func(noted) error{"parked in one": never, "parked in both, elsewhere": later} {
		t.Run(name, func(t *testing.T) {
			pair := []projection.View{probeStats(), mended(probeStats(), fold), probeTrail(), mended(probeTrail(), fold)}
			onePartition(t, pair, func(w *world) {
				w.write(w.noted("a", "x", 1), w.noted("b", "x", 2), w.noted("bad", "x", 4), w.noted("bad", "error", 8), w.noted("b", "x", 7),
					w.noted("bad", "x", 16), w.noted("bad", "y", 13), w.noted("bad", "y", 14), w.noted("a", "x", 3))
				w.run()
				w.caughtUp()
				o := w.operator()
				for _, view := range []string{"probe_stats", "probe_trail"} {
					r := w.mustVerify(o, view)
					if !r.Equal || r.RowsFrom == 0 {
						w.t.Errorf("%s: %s\n%+v", view, r.Summary(), r.Differences)
					}
					if !slices.ContainsFunc(r.Parked, func(p ParkedStream) bool { return p.Version == 1 && p.Stream == "bad" && p.Offset == 3 }) {
						w.t.Errorf("%s: parked: got %+v, want stream bad since offset 3 in version 1", view, r.Parked)
					}
				}
				// What is no parked record is a difference still.
				if _, err := w.pool.Exec(w.t.Context(), `update `+quote(w.ns+"_probe_stats_v2", "rows")+` set n = n + 1 where text = 'x'`); err != nil {
					w.t.Fatal(err)
				}
				if r := w.mustVerify(o, "probe_stats"); r.Equal || r.Differing != 1 || r.Differences[0].Key != "(x)" {
					w.t.Errorf("a wrong row: %s\n%+v", r.Summary(), r.Differences)
				}
			})
		})
	}
}

// In bulk, what the log says is new is not looked up; where that is wrong, nothing is lost or doubled.
func TestAStreamThatStandsTwiceInTheLogIsFoldedOnceInBulk(t *testing.T) {
	onePartition(t, twice(probeViews()...), func(w *world) {
		first := w.noted("a", "x", 1)
		again := *first
		w.write(first, w.noted("a", "y", 2), w.noted("b", "error", 3))
		w.run(only(1))
		o := w.operator()
		for _, v := range probeViews() {
			w.mustRebuild(o, v.Name)
		}
		w.write(&again, w.noted("c", "x", 4), w.noted("b", "x", 4))
		for _, v := range probeViews() {
			w.mustRebuild(o, v.Name)
			if r := w.mustVerify(o, v.Name); !r.Equal || r.RowsFrom == 0 {
				w.t.Errorf("verify %s: %s\n%+v", v.Name, r.Summary(), r.Differences)
			}
		}
		w.wantFold()
	})
}
