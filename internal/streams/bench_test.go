package streams

import (
	"testing"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
)

// A stream of ten thousand events: all in the index, as a whole; and its state near the end, from a
// history slot. Reading it by hand, by plain SQL over the same table, is for comparison.
func BenchmarkTenThousandEvents(b *testing.B) {
	const events, version, slot = 10_000, 9_950, 9_900
	w := newWorld(b, testkit.Kafkas(b)[0], testkit.Postgreses(b)[0], 3)
	for range events / 1000 {
		w.grow("a", 1000)
	}
	w.index(-1)
	truth := w.truth("a")
	w.slot("a", 0, slot, w.fold(truth[:slot]), nil)
	if _, err := w.pool.Exec(b.Context(), "vacuum analyze "+w.ns+"_events_v1.rows"); err != nil {
		b.Fatal(err)
	}
	s := w.store()
	b.Run("load", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if page := w.load(s, Query{Stream: stream("a")}); len(page.Events) != events {
				b.Fatalf("got %d events", len(page.Events))
			}
		}
	})
	b.Run("load into a taker", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			var t taker
			if _, err := s.LoadInto(b.Context(), Query{Stream: stream("a")}, &t); err != nil || len(t.taken) != events {
				b.Fatalf("got %d events, %v", len(t.taken), err)
			}
		}
	})
	b.Run("load 100 backward", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			w.load(s, Query{Stream: stream("a"), Backward: true, Limit: 100})
		}
	})
	b.Run("state at a version", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if st, err := s.State(b.Context(), stream("a"), At{Version: version}); err != nil || st.Folded != version-slot {
				b.Fatalf("folded %d: %v", st.Folded, err)
			}
		}
	})
	b.Run("by hand", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			rows, err := w.pool.Query(b.Context(), `select version, id, type, time, "offset", value from `+w.ns+`_events_v1.rows where category = $1 and stream = $2 order by version`, category, "a")
			if err != nil {
				b.Fatal(err)
			}
			for rows.Next() {
				var e event.Recorded
				if err := rows.Scan(&e.Version, &e.ID, &e.Type, &e.Time, &e.Offset, &e.Value); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
