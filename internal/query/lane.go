package query

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/jackc/pgx/v5"
)

// Limits of a lane.
const (
	lanesMax  = 2  // statements of one lane that run at once
	laneBatch = 64 // keys of one statement
)

// lane reads rows of one version of a view by their keys. Who asks while nobody else does gets a
// statement to himself; those who ask while statements run are gathered, and the next one reads for
// all of them. So a busy view costs far less than a statement for each row, and nobody waits for
// company.
type lane struct {
	api  *API
	view *view
	sql  string // $1 is an array of keys; the key, then all columns

	mu      sync.Mutex
	running int
	waiting []*keyRead
}

// keyRead is one request for a row. Its text belongs to the lane until done.
type keyRead struct {
	key   string
	route *route
	text  []byte // the row as JSON
	found bool
	err   error
	done  chan struct{} // holds one signal
}

var keyReads = sync.Pool{New: func() any { return &keyRead{done: make(chan struct{}, 1)} }}

func newLane(a *API, v *view) *lane {
	key := v.columns[0].quoted
	sql := "select " + key + ", " + v.selectList(v.all) + " from " + v.table + " where " + key + " = any($1::text[])"
	if v.present != "" {
		sql += " and " + v.present
	}
	return &lane{api: a, view: v, sql: sql}
}

// read appends the row of a key; false: there is none.
func (l *lane) read(c *call, dst []byte, key string) ([]byte, bool, error) {
	k := keyReads.Get().(*keyRead)
	k.key, k.route, k.text, k.found, k.err = key, c.route, k.text[:0], false, nil
	if err := l.enter(c.ctx(), k); err != nil {
		return dst, false, err
	}
	select {
	case <-k.done:
	case <-c.ctx().Done():
		return dst, false, c.ctx().Err() // k stays with the lane
	}
	dst, found, err := append(dst, k.text...), k.found, k.err
	if cap(k.text) <= keptBytesMax {
		keyReads.Put(k)
	}
	return dst, found, err
}

// enter runs a statement, or joins those who wait for the next.
func (l *lane) enter(ctx context.Context, k *keyRead) error {
	l.mu.Lock()
	if l.running >= lanesMax {
		defer l.mu.Unlock()
		if len(l.waiting) >= laneBatch*l.api.cfg.Limits.QueueMax {
			l.api.metrics.Refused.WithLabelValues(codeOverloaded).Inc()
			return overloaded("as many reads wait for the database as may: come again")
		}
		l.waiting = append(l.waiting, k)
		return nil
	}
	l.running++
	l.mu.Unlock()
	l.serve(ctx, []*keyRead{k})
	l.next()
	return nil
}

// next reads for those who came meanwhile.
func (l *lane) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.running--
		return
	}
	n := min(len(l.waiting), laneBatch)
	batch := append([]*keyRead(nil), l.waiting[:n]...)
	rest := copy(l.waiting, l.waiting[n:])
	clear(l.waiting[rest:])
	l.waiting = l.waiting[:rest]
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), l.api.cfg.Limits.StatementTimeout+l.api.cfg.Limits.QueueTimeout)
		defer cancel()
		l.serve(ctx, batch)
		l.next()
	}()
}

// serve reads for a batch and tells each of it.
func (l *lane) serve(ctx context.Context, batch []*keyRead) {
	err := l.readAll(ctx, batch)
	for _, k := range batch {
		if err != nil {
			k.err = err
		}
		k.done <- struct{}{}
	}
}

// readAll runs the statement of a batch. A panic is a fault of the batch: a lane's goroutine has
// nobody above it who would catch one.
func (l *lane) readAll(ctx context.Context, batch []*keyRead) (err error) {
	defer func() {
		if v := recover(); v != nil {
			l.api.metrics.Panics.Inc()
			l.api.log.Error("reading rows panicked: this is a bug, please report it", "view", l.view.name, "kind", fmt.Sprintf("%T", v), "stack", web.PanicFrames(1))
			err = problem(http.StatusInternalServerError, codeBug, "a bug in this server; its log has the place")
		}
	}()
	w := l.view.writer(l.view.all)
	if len(batch) == 1 {
		k := batch[0]
		return l.api.query(ctx, k.route, true, l.view.byKey, []any{k.key}, func(rows pgx.Rows) error {
			if !rows.Next() {
				return nil
			}
			if err := w.begin(rows.FieldDescriptions()); err != nil {
				return err
			}
			return k.take(w, rows.RawValues())
		})
	}
	keys := make([]string, len(batch))
	byKey := make(map[string][]*keyRead, len(batch))
	for i, k := range batch {
		keys[i] = k.key
		byKey[k.key] = append(byKey[k.key], k)
	}
	return l.api.query(ctx, batch[0].route, true, l.sql, []any{keys}, func(rows pgx.Rows) error {
		for rows.Next() {
			if w.appenders == nil {
				if err := w.begin(rows.FieldDescriptions()[1:]); err != nil {
					return err
				}
			}
			raw := rows.RawValues()
			for _, k := range byKey[string(raw[0])] {
				if err := k.take(w, raw[1:]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// take makes a row the answer.
func (k *keyRead) take(w *rowWriter, raw [][]byte) (err error) {
	k.found = true
	k.text, err = w.row(k.text[:0], raw)
	return err
}

// rowOf appends the row of a key, by the lane where that is for such keys.
func (a *API) rowOf(c *call, v *view, dst []byte, key any, fields []int) ([]byte, error) {
	found := false
	var err error
	text, isText := key.(string)
	if isText && len(fields) == len(v.all) {
		dst, found, err = v.lane.read(c, dst, text)
	} else {
		w := v.writer(fields)
		err = a.query(c.ctx(), c.route, true, v.selectByKey(fields), []any{key}, func(rows pgx.Rows) error {
			if found = rows.Next(); !found {
				return nil
			}
			if err := w.begin(rows.FieldDescriptions()); err != nil {
				return err
			}
			dst, err = w.row(dst, rows.RawValues())
			return err
		})
	}
	switch {
	case err != nil:
		return dst, err
	case !found:
		return dst, problem(http.StatusNotFound, codeNoRow, "view "+v.name+" has no row with this key")
	case len(dst) > a.cfg.Limits.ResponseBytesMax:
		return dst, a.rowTooLarge()
	}
	a.metrics.rows.Inc()
	return dst, nil
}
