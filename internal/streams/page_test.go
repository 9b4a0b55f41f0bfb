package streams

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// taker counts what it is told, and answers as the test wants.
type taker struct {
	begun  int
	taken  []event.Version
	answer func(v event.Version) error
}

func (t *taker) Begin() {
	t.begun++
	t.taken = nil
}

func (t *taker) Take(e *event.Recorded) error {
	t.taken = append(t.taken, e.Version)
	if t.answer == nil {
		return nil
	}
	return t.answer(e.Version)
}

func TestATakerEndsItsPage(t *testing.T) {
	everywhere(t, func(w *world) {
		w.grow("a", 10)
		w.index(1 + 6) // the claim and six events
		s := w.store()
		for _, c := range []struct {
			q    Query
			full event.Version
			want string
			next event.Version
		}{
			{Query{}, 3, "[1 2 3]", 4},
			{Query{}, 6, "[1 2 3 4 5 6]", 7},
			{Query{}, 8, "[1 2 3 4 5 6 7 8]", 9},
			{Query{From: 2}, 10, "[2 3 4 5 6 7 8 9 10]", 0},
			{Query{Backward: true}, 9, "[10 9]", 8},
			{Query{Backward: true}, 5, "[10 9 8 7 6 5]", 4},
			{Query{Backward: true, From: 3}, 1, "[3 2 1]", 0},
		} {
			c.q.Stream = stream("a")
			got := &taker{answer: func(v event.Version) error {
				if v == c.full {
					return ErrPageFull
				}
				return nil
			}}
			page, err := s.LoadInto(t.Context(), c.q, got)
			if err != nil || fmt.Sprint(got.taken) != c.want || page.Next != c.next || page.Version != 10 || page.Events != nil {
				t.Errorf("%+v full at %d: got %v, next %d, version %d, %v; want %s, next %d", c.q, c.full, got.taken, page.Next, page.Version, err, c.want, c.next)
			}
		}
	})
}

func TestAnErrorOfATakerEndsTheRead(t *testing.T) {
	everywhere(t, func(w *world) {
		w.grow("a", 10)
		w.index(1 + 6)
		s := w.store()
		refusal := errors.New("no")
		for _, at := range []event.Version{1, 6, 9} {
			for _, backward := range []bool{false, true} {
				got := &taker{answer: func(v event.Version) error {
					if v == at {
						return refusal
					}
					return nil
				}}
				_, err := s.LoadInto(t.Context(), Query{Stream: stream("a"), Backward: backward}, got)
				if !errors.Is(err, refusal) || errors.Is(err, ErrUnavailable) || got.taken[len(got.taken)-1] != at {
					t.Errorf("refused at %d, backward %t: got %v after %v", at, backward, err, got.taken)
				}
			}
		}
		w.wantTruth(s, "a") // the store goes on
	})
}

func TestATakerOfAReadThatWaitsBeginsAnew(t *testing.T) {
	everywhere(t, func(w *world) {
		w.append("a", "a")
		w.index(-1)
		s := w.store()
		got := &taker{}
		got.answer = func(v event.Version) error {
			if got.begun == 1 && v == 2 {
				w.append("a") // what the read waits for
			}
			return nil
		}
		page, err := s.LoadInto(t.Context(), Query{Stream: stream("a"), MinVersion: 3, Wait: 30 * time.Second}, got)
		if err != nil || page.Version != 3 || fmt.Sprint(got.taken) != "[1 2 3]" {
			t.Errorf("got %v at version %d after %d beginnings, %v; want 1 to 3", got.taken, page.Version, got.begun, err)
		}
	})
}

// Without statistics, as they are before the first ANALYZE of a month, and with them.
func TestAStreamIsReadInTheOrderOfThePrimaryKey(t *testing.T) {
	everywhere(t, func(w *world) {
		w.grow("a", 200)
		w.index(-1)
		w.slot("a", 0, 100, account{}, nil)
		x := newIndex(w.pool, w.ns, 1)
		for _, analyzed := range []bool{false, true} {
			if analyzed {
				if _, err := w.pool.Exec(t.Context(), "analyze "+w.ns+"_events_v1.rows"); err != nil {
					t.Fatal(err)
				}
			}
			for name, q := range map[string]query{
				"forward":  x.eventsQuery(&eventRows{stream: stream("a")}, 1, 200, 200),
				"backward": x.backwardQuery(&eventRows{stream: stream("a")}, 200, 200),
				"behind":   {sql: x.sql.behind, args: []any{category, "a", 150, 100}},
				"slots":    {sql: x.sql.slots, args: []any{category, "a", 150}},
			} {
				plan := w.explain(q)
				_, events, _ := strings.Cut(plan, "rows_2026_03")
				if strings.Contains(plan, "Bitmap") || !strings.Contains(events, "version") || (name != "slots" && strings.Contains(plan, "Sort\n")) {
					t.Errorf("%s, analyzed %t: the plan does not follow the index:\n%s", name, analyzed, plan)
				}
			}
		}
	})
}

// explain returns the plan of a statement as reads have it.
func (w *world) explain(q query) string {
	w.t.Helper()
	var plan []string
	err := pgx.BeginFunc(w.t.Context(), w.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(w.t.Context(), planSQL); err != nil {
			return err
		}
		rows, err := tx.Query(w.t.Context(), "explain (costs off) "+q.sql, append([]any{pgx.QueryExecModeSimpleProtocol}, q.args...)...)
		if err != nil {
			return err
		}
		plan, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Join(plan, "\n")
}

func TestAStateCostsOneRoundTripToPostgres(t *testing.T) {
	everywhere(t, func(w *world) {
		w.grow("a", 50)
		w.index(41)
		truth := w.truth("a")
		w.slot("a", 0, 20, w.fold(truth[:20]), nil)
		w.slot("a", 1, 30, w.fold(truth[:30]), nil)
		s := w.store()
		s.cool() // it would take connections, too
		for _, c := range []struct {
			at      At
			version event.Version
			slot    event.Version
		}{{At{}, 50, 30}, {At{Version: 35}, 35, 30}, {At{Version: 30}, 30, 30}, {At{Version: 29}, 29, 20}, {At{Version: 7}, 7, 0}} {
			before := w.pool.Stat().AcquireCount()
			st, err := s.State(t.Context(), stream("a"), c.at)
			if err != nil || st.Version != c.version || st.FromSlot != c.slot || st.Value != any(w.fold(truth[:c.version])) {
				t.Errorf("%s: got %+v, %v; want version %d from slot %d", c.at, st, err, c.version, c.slot)
			}
			if got := w.pool.Stat().AcquireCount() - before; got != 1 {
				t.Errorf("%s: got %d connections taken, want one", c.at, got)
			}
		}
	})
}

func TestAStoreConnectsBeforeItIsAsked(t *testing.T) {
	everywhere(t, func(w *world) {
		pool, err := pgxpool.NewWithConfig(t.Context(), w.pool.Config())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		f := w.store(func(c *Config) { c.Pool = pool }).folds[category]
		testkit.Await(t, "a connection to Postgres and the decider's types", 30*time.Second, func(context.Context) bool {
			f.turn <- struct{}{}
			defer func() { <-f.turn }()
			return f.types != nil && pool.Stat().IdleConns() > 0
		})
	})
}
