// Package projectiontest tests a view by its rows: given events, then rows. It runs the view's
// pure functions in memory, without Kafka, Avro or Postgres.
//
//	projectiontest.Given(t, view,
//		projectiontest.Of("order.Placed", "o-1", at, Placed{Total: 3}),
//	).Then(
//		projectiontest.Row{"id": "o-1", "total": 3.0, "version": 1},
//	)
package projectiontest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
)

// Of makes an event of a type "<category>.<Name>" on the stream with this id. Given fills in the
// version, counting per stream from 1, and the event's id.
func Of(typ, id string, at time.Time, data any) projection.Event {
	category, _, _ := strings.Cut(typ, ".")
	return projection.Event{Stream: event.StreamID{Category: category, ID: id}, Type: typ, Time: at, Data: data}
}

// Row is an expected row, by column. Numbers may be of any Go integer type; jsonb columns take
// JSON text (projection.JSON or string) or any value that encodes to it. Columns left out are not
// compared.
type Row map[string]any

// World is a view after some events.
type World struct {
	t     testing.TB
	table *projection.Table
}

// Given folds events. Versions are filled in where they are zero. The test fails at once when the
// view is invalid or a stream has a gap.
func Given(t testing.TB, view projection.View, events ...projection.Event) *World {
	t.Helper()
	if err := view.Validate(); err != nil {
		t.Fatalf("view is invalid: %v", err)
	}
	table, err := projection.Fold(view, Numbered(events...)...)
	if err != nil {
		t.Fatalf("fold: %v", err)
	}
	return &World{t: t, table: table}
}

// Numbered fills in versions and ids where they are missing, each stream's from 1.
func Numbered(events ...projection.Event) []projection.Event {
	last := map[event.StreamID]event.Version{}
	out := slices.Clone(events)
	for i := range out {
		e := &out[i]
		if e.Version == 0 {
			e.Version = last[e.Stream] + 1
		}
		last[e.Stream] = e.Version
		if e.ID == "" {
			e.ID = fmt.Sprintf("%s@%d", e.Stream, e.Version)
		}
	}
	return out
}

// Then demands exactly these rows, in the order of their keys, and that no event was parked.
func (w *World) Then(want ...Row) {
	w.t.Helper()
	for stream, err := range w.table.Parked {
		w.t.Errorf("stream %s is parked: %v", stream, err)
	}
	w.compare(want)
}

// ThenParked demands that this stream is parked with an error whose text contains part, and that
// the rows are these.
func (w *World) ThenParked(stream event.StreamID, part string, want ...Row) {
	w.t.Helper()
	err := w.table.Parked[stream]
	if err == nil || !strings.Contains(err.Error(), part) {
		w.t.Errorf("stream %s: got parked with %v, want an error with %q", stream, err, part)
	}
	w.compare(want)
}

// Table returns the folded table for further checks.
func (w *World) Table() *projection.Table { return w.table }

func (w *World) compare(want []Row) {
	w.t.Helper()
	rows := w.table.Sorted()
	if len(rows) != len(want) {
		w.t.Errorf("got %d rows, want %d: %v", len(rows), len(want), rows)
		return
	}
	for i, row := range rows {
		w.compareRow(i, row, want[i])
	}
}

func (w *World) compareRow(at int, row projection.Row, want Row) {
	w.t.Helper()
	seen := map[string]bool{}
	for i, column := range w.table.View().Layout() {
		expected, named := want[column.Name]
		if !named {
			continue
		}
		seen[column.Name] = true
		if got, want := text(row[i], column), text(expected, column); got != want {
			w.t.Errorf("row %d, column %s: got %s, want %s", at, column.Name, got, want)
		}
	}
	for name := range want {
		if !seen[name] {
			w.t.Errorf("row %d: view %s has no column %q", at, w.table.View().Name, name)
		}
	}
}

// text is a value's canonical form for comparing and for messages.
func text(v any, column projection.Column) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case projection.JSON:
		return string(v.Canonical())
	case string:
		if column.Wire == "jsonb" {
			return string(projection.JSON(v).Canonical())
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%v", v)
	}
	return string(projection.JSON(b).Canonical())
}
