package projector

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMonthsAreThoseOfUTC(t *testing.T) {
	east := time.FixedZone("east", 2*3600)
	for at, want := range map[time.Time]string{
		time.Date(2026, 11, 30, 23, 59, 59, 999, time.UTC): "rows_2026_11",
		time.Date(2026, 12, 1, 1, 59, 0, 0, east):          "rows_2026_11",
		time.Date(2026, 12, 1, 2, 0, 0, 0, east):           "rows_2026_12",
		time.UnixMilli(-1):                                 "rows_1970_01",
		time.UnixMilli(1 << 62):                            "rows_9998_12",
	} {
		if got := monthOf(recordedAt(at)).table(); got != want {
			t.Errorf("%v: got %s, want %s", at, got, want)
		}
	}
	if got := monthOf(time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)).next().table(); got != "rows_2027_01" {
		t.Errorf("after December: got %s", got)
	}
}

// dated makes an event with a stamp.
func (d *desk) dated(stream string, at time.Time) *kgo.Record {
	r := d.noted(stream, "x", 1)
	r.Timestamp = at
	return r
}

func (d *desk) countIn(table string) int {
	d.t.Helper()
	return scan[int](d.t, d.pool, `select count(*)::int from fs_events_v1.`+quote(table))
}

func TestAMonthThatIsNotThereIsMadeOnDemand(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		at := time.Date(2024, 12, 31, 23, 59, 59, 0, time.UTC)
		records := recs(d.dated("a", at), d.dated("a", at.Add(time.Second)), d.dated("b", at), d.dated("a", time.UnixMilli(-1).UTC()), d.dated("a", time.UnixMilli(1<<62)))
		d.apply(records...)
		for table, want := range map[string]int{"rows_2024_12": 2, "rows_2025_01": 1, "rows_1970_01": 1, "rows_9998_12": 1} {
			if got := d.countIn(table); got != want {
				t.Errorf("%s: got %d rows, want %d", table, got, want)
			}
		}
		if got := scan[int](t, d.pool, `select count(*)::int from fs.events`); got != len(records) {
			t.Errorf("got %d events, want %d", got, len(records))
		}
	})
}

func TestConcurrentMakersOfAMonthDoNotFail(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		var months []month
		for at := t0; len(months) < 5; at = at.AddDate(0, -1, 0) {
			months = append(months, monthOf(at))
		}
		done := make(chan error)
		for range 8 {
			go func() { done <- newMonths("fs").ensure(t.Context(), d.pool, months...) }()
		}
		for range 8 {
			if err := <-done; err != nil {
				t.Errorf("ensure: %v", err)
			}
		}
		for _, m := range months {
			if got := d.countIn(m.table()); got != 0 {
				t.Errorf("%s has %d rows", m.table(), got)
			}
		}
	})
}

func TestMakingAMonthWaitsForNeitherReadersNorWriters(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		d.apply(d.dated("a", t0))
		hold := func(sql string) {
			tx, err := d.pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		hold(`select count(*) from fs.events`)
		hold(`update fs_events_v1.rows set value = '' where stream = 'a'`)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := newMonths("fs").ensure(ctx, d.pool, monthOf(t0.AddDate(-1, 0, 0))); err != nil {
			t.Fatalf("ensure: %v", err)
		}
	})
}

// The other way round: a maker that is stopped before its commit.
func TestReadersDoNotWaitForTheMakingOfAMonth(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		a1 := d.dated("a", t0)
		d.apply(a1)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		stopped := &heldDatabase{database: d.pool, reached: make(chan struct{}), release: make(chan struct{})}
		done := make(chan error, 1)
		go func() { done <- newMonths("fs").ensure(ctx, stopped, monthOf(t0.AddDate(-1, 0, 0))) }()
		<-stopped.reached
		d.wantIndexed(a1)
		a2 := d.dated("a", t0)
		d.apply(a2)
		d.wantIndexed(a1, a2)
		close(stopped.release)
		if err := <-done; err != nil {
			t.Errorf("ensure: %v", err)
		}
	})
}

// heldDatabase holds its transactions before they commit.
type heldDatabase struct {
	database
	reached, release chan struct{}
}

func (h *heldDatabase) Begin(ctx context.Context) (pgx.Tx, error) {
	tx, err := h.database.Begin(ctx)
	return &heldTx{Tx: tx, db: h}, err
}

type heldTx struct {
	pgx.Tx
	db *heldDatabase
}

func (t *heldTx) Commit(ctx context.Context) error {
	close(t.db.reached)
	<-t.db.release
	return t.Tx.Commit(ctx)
}

func TestAMonthThatWasDroppedUnderARunningIndexIsMadeAgain(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		d.apply(d.dated("a", t0))
		if _, err := d.pool.Exec(t.Context(), `drop table fs_events_v1.`+monthOf(t0).table()); err != nil {
			t.Fatal(err)
		}
		a2 := d.dated("a", t0)
		d.apply(a2)
		d.wantIndexed(a2)
		wantLines(t, "letters", d.letterLines())
	})
}

func TestAMonthThatWasDetachedIsNotHidden(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		d.apply(d.dated("a", t0))
		table := monthOf(t0).table()
		if _, err := d.pool.Exec(t.Context(), `alter table fs_events_v1.rows detach partition fs_events_v1.`+table); err != nil {
			t.Fatal(err)
		}
		err := newMonths("fs").ensure(t.Context(), d.pool, monthOf(t0))
		if err == nil || !strings.Contains(err.Error(), "attach it") || !strings.Contains(err.Error(), table) {
			t.Errorf("got %v, want table and remedy named", err)
		}
	})
}
