package projector

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"
)

// month is the first instant of a calendar month in UTC.
type month struct{ start time.Time }

func monthOf(t time.Time) month {
	year, m, _ := t.UTC().Date()
	return month{time.Date(year, m, 1, 0, 0, 0, 0, time.UTC)}
}

func (m month) next() month { return month{m.start.AddDate(0, 1, 0)} }

// table is the name of the month's partition: rows_2026_11.
func (m month) table() string { return "rows_" + m.start.Format("2006_01") }

// The stamps that a partition is made for. A broker that takes any stamp of its clients could
// otherwise bring one that Postgres cannot hold.
var (
	recordedAtMin = time.Unix(0, 0).UTC()
	recordedAtMax = time.Date(9998, 12, 31, 23, 59, 59, 0, time.UTC)
)

// recordedAt is a record's stamp as a row holds it.
func recordedAt(stamp time.Time) time.Time {
	switch {
	case stamp.Before(recordedAtMin):
		return recordedAtMin
	case stamp.After(recordedAtMax):
		return recordedAtMax
	}
	return stamp.UTC()
}

// months makes the monthly partitions of the events, each before its first row. It may be used
// from any goroutine.
//
// A partition is made outside of the transactions that write rows: they would otherwise hold
// their locks on it until they end. Attaching it takes a lock that neither readers nor writers
// of the other partitions wait for. There is no default partition, which would have to be read
// through, under a lock, each time.
type months struct {
	schema string // <ns>_events_v1
	mu     sync.Mutex
	known  map[month]bool
}

func newMonths(namespace string) *months {
	return &months{schema: SchemaName(namespace, eventsView(nil)), known: map[month]bool{}}
}

// prepare makes the partitions of now's month and the next.
func (m *months) prepare(ctx context.Context, db database, now time.Time) error {
	this := monthOf(now)
	return m.ensure(ctx, db, this, this.next())
}

// ensure makes the partitions that are not there.
func (m *months) ensure(ctx context.Context, db database, wanted ...month) error {
	for _, w := range wanted {
		if m.has(w) {
			continue
		}
		if err := m.create(ctx, db, w); err != nil {
			return fmt.Errorf("make the partition %s.%s: %w", m.schema, w.table(), err)
		}
		m.mu.Lock()
		m.known[w] = true
		m.mu.Unlock()
	}
	return nil
}

func (m *months) has(w month) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[w]
}

// forget makes the next ensure look again, since somebody dropped or detached a partition.
func (m *months) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.known)
}

// create makes one partition, unless another process was first: creators wait for each other.
func (m *months) create(ctx context.Context, db database, w month) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	h := fnv.New64a()
	h.Write([]byte("foldstream.months\x00" + m.schema))
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", int64(h.Sum64())); err != nil {
		return err
	}
	rows, table := quote(m.schema, "rows"), quote(m.schema, w.table())
	var there, attached bool
	err = tx.QueryRow(ctx, `select to_regclass($1) is not null,
		exists (select from pg_inherits where inhrelid = to_regclass($1) and inhparent = to_regclass($2))`, table, rows).Scan(&there, &attached)
	if err != nil {
		return err
	}
	switch {
	case attached:
		return nil
	case there:
		return fmt.Errorf("the table is there but detached from %s: attach it, rename it or drop it, then the events of that month are indexed", rows)
	}
	if _, err := tx.Exec(ctx, "create table "+table+" (like "+rows+" including all)"); err != nil {
		return err
	}
	bounds := fmt.Sprintf("from ('%s') to ('%s')", w.start.Format(time.RFC3339), w.next().start.Format(time.RFC3339))
	if _, err := tx.Exec(ctx, "alter table "+rows+" attach partition "+table+" for values "+bounds); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// makeMonths makes the partitions that a batch of events needs, before its transaction begins.
func (s *store) makeMonths(ctx context.Context, b *batch) error {
	if s.months == nil {
		return nil
	}
	var last month
	for _, st := range b.steps {
		at := recordedAt(st.rec.Timestamp)
		if st.void || st.envelope != nil || (!at.Before(last.start) && at.Before(last.next().start)) {
			continue
		}
		last = monthOf(at)
		if err := s.months.ensure(ctx, s.db, last); err != nil {
			return err
		}
	}
	return nil
}
