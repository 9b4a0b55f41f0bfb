//go:build unix

package real

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
)

// pollInterval is how often Postgres is asked: it has no signal for us.
const pollInterval = 20 * time.Millisecond

// viewPlace is one partition as one view reads it.
type viewPlace struct {
	consumer string
	place    place
}

// viewPlaces lists what the views read.
func (w *world) viewPlaces(of ends) []viewPlace {
	var all []viewPlace
	for _, v := range views.All() {
		for p := range of {
			if slices.Contains(v.Categories, categoryOf(p.topic)) {
				all = append(all, viewPlace{topics.ConsumerView(v.Name, v.Version), p})
			}
		}
	}
	return all
}

// viewOffsets reads how far each view is. A view that has not begun has no rows; before the first
// migration there is no table.
func (w *world) viewOffsets(ctx context.Context) (map[viewPlace]int64, error) {
	table := w.namespace + ".offsets"
	var exists bool
	if err := w.pool.QueryRow(ctx, "select to_regclass($1) is not null", table).Scan(&exists); err != nil || !exists {
		return map[viewPlace]int64{}, err
	}
	rows, err := w.pool.Query(ctx, "select consumer, topic, partition, next_offset from "+table)
	if err != nil {
		return nil, fmt.Errorf("read the views' offsets: %w", err)
	}
	offsets := map[viewPlace]int64{}
	var v viewPlace
	var next int64
	_, err = pgx.ForEachRow(rows, []any{&v.consumer, &v.place.topic, &v.place.partition, &next}, func() error {
		offsets[v] = max(next, 0) // below zero is the start of the log
		return nil
	})
	return offsets, err
}

// untilPostgres asks again and again until a condition holds, or a child that must live ends.
func (w *world) untilPostgres(ctx context.Context, alive *child, holds func(ctx context.Context) (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var ended <-chan struct{}
	if alive != nil {
		ended = alive.done
	}
	for {
		if ok, err := holds(ctx); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ended:
			return alive.early()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waitViews waits until every view has folded every event that is in the log now.
func (w *world) waitViews(ctx context.Context, j *journal, service *child) error {
	end, err := w.endsOf(ctx, w.eventsTopics()...)
	if err != nil {
		return err
	}
	if err := j.reach(ctx, end); err != nil {
		return err
	}
	behind := 0
	err = w.untilPostgres(ctx, service, func(ctx context.Context) (bool, error) {
		behind, err = w.behind(ctx, j, end)
		return behind == 0, err
	})
	if err != nil {
		return fmt.Errorf("views have %d events left to fold: %w", behind, err)
	}
	return nil
}

// behind counts the events before these positions that views have not folded yet, once per view.
func (w *world) behind(ctx context.Context, j *journal, before ends) (int, error) {
	offsets, err := w.viewOffsets(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, v := range w.viewPlaces(before) {
		n += j.eventsWithin(v.place, offsets[v], before[v.place])
	}
	return n, nil
}

// checkViews demands that every view equals a fold of the log in memory, row for row, and that
// no record became a letter.
func (w *world) checkViews(l *eventLog) {
	w.t.Helper()
	c := w.codec()
	for _, v := range views.All() {
		want, err := foldLog(w.ctx, c, v, l)
		if err != nil {
			w.t.Fatalf("fold %s in memory: %v", v.Name, err)
		}
		got, err := projector.ReadTable(w.ctx, w.pool, w.namespace, v)
		if err != nil {
			w.t.Fatal(err)
		}
		f := &faults{what: "view " + v.Name}
		for _, line := range projection.Diff(want, got) {
			f.add("%s", line)
		}
		for stream, err := range want.Parked {
			f.add("the fold in memory parks %s: %v", stream, err)
		}
		w.demand(f)
		if len(got.Rows) == 0 {
			w.t.Errorf("view %s has no rows", v.Name)
		}
		figure("%s: view %s has %d rows, %d differences to the fold of the log", w.t.Name(), v.Name, len(got.Rows), f.count)
	}
	for _, table := range []string{"letters", "parked"} {
		if n := w.count(table); n != 0 {
			w.t.Errorf("table %s has %d rows, want none", table, n)
		}
	}
}

func (w *world) count(table string) int {
	w.t.Helper()
	var n int
	if err := w.pool.QueryRow(w.ctx, "select count(*) from "+w.namespace+"."+table).Scan(&n); err != nil {
		w.t.Fatalf("count %s: %v", table, err)
	}
	return n
}

// foldLog folds the log's valid events by the view's own functions, event by event.
func foldLog(ctx context.Context, c *codec.Codec, v projection.View, l *eventLog) (*projection.Table, error) {
	bindings := map[string]*codec.Binding{}
	for _, def := range v.Types {
		b, err := c.Bind(ctx, def)
		if err != nil {
			return nil, err
		}
		bindings[def.Name] = b
	}
	table := projection.NewTable(v)
	var failed error
	l.each(func(_ string, e event.Recorded) {
		if failed != nil || !slices.Contains(v.Categories, e.Stream.Category) {
			return
		}
		data, err := decode(ctx, c, bindings[e.Type], e)
		if err == nil {
			err = table.Apply(projection.FromRecorded(e, data))
		}
		failed = err
	})
	return table, failed
}

// decode returns nil for a type that the view ignores.
func decode(ctx context.Context, c *codec.Codec, b *codec.Binding, e event.Recorded) (any, error) {
	if b == nil {
		return nil, nil
	}
	payload, err := c.Inspect(ctx, e.Type, e.Value)
	if err != nil {
		return nil, err
	}
	return b.Decode(payload)
}

// dump returns every row of every view as text, in the order of its key, with all columns of the
// live version's table.
func (w *world) dump() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for _, v := range views.All() {
		var keys []string
		for _, k := range v.Key {
			keys = append(keys, `r."`+k.Name+`"`)
		}
		table := projector.SchemaName(w.namespace, v) + ".rows"
		var text string
		query := fmt.Sprintf(`select coalesce(string_agg(r::text, E'\n' order by %s), '') from %s r`, strings.Join(keys, ", "), table)
		if err := w.pool.QueryRow(w.ctx, query).Scan(&text); err != nil {
			w.t.Fatalf("dump %s: %v", table, err)
		}
		all[table] = text
	}
	return all
}
