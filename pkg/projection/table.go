package projection

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

// Table is a view folded in memory: what a test, a what-if or an independent check compares with
// Postgres. It does what the projector does, event by event, without its batches and caches.
// It belongs to one goroutine.
type Table struct {
	view View
	// Rows holds the rows of View.Layout by their key (see KeyOf).
	Rows map[string]Row
	// Versions holds the last version folded, or ignored, of each stream.
	Versions map[event.StreamID]event.Version
	// Parked holds each stream with an event that could not be applied, and why. Its later events
	// are left out.
	Parked map[event.StreamID]error
}

// ErrSequence: a stream's version is not the one after the last.
var ErrSequence = errors.New("stream has a gap")

// NewTable makes an empty table of a view.
func NewTable(v View) *Table {
	return &Table{view: v, Rows: map[string]Row{}, Versions: map[event.StreamID]event.Version{}, Parked: map[event.StreamID]error{}}
}

// Fold folds events, each stream's in order, into a fresh table. The error wraps ErrSequence and
// names stream, version had and version wanted.
func Fold(v View, events ...Event) (*Table, error) {
	t := NewTable(v)
	for _, e := range events {
		if err := t.Apply(e); err != nil {
			return t, err
		}
	}
	return t, nil
}

// Apply folds one event. Events of types that the view ignores advance the stream's version only.
// What cannot be applied goes to Parked; the only error is a gap.
func (t *Table) Apply(e Event) error {
	if !slices.Contains(t.view.Categories, e.Stream.Category) || t.Parked[e.Stream] != nil {
		return nil //nolint:nilerr // parked is no error of this event
	}
	last := t.Versions[e.Stream]
	if e.Version <= last {
		return nil
	}
	if e.Version != last+1 {
		return fmt.Errorf("view %s, stream %s: have version %d, want %d: %w", t.view.Name, e.Stream, e.Version, last+1, ErrSequence)
	}
	e.Time = canonicalTime(e.Time)
	if fault := t.apply(e); fault != nil {
		t.Parked[e.Stream] = fault
		return nil //nolint:nilerr // it is kept in Parked
	}
	t.Versions[e.Stream] = e.Version
	return nil
}

func (t *Table) apply(e Event) error {
	_, known := t.view.TypeDef(e.Type)
	switch {
	case t.view.Kind == KindMetric && known:
		return t.merge(e)
	case t.view.Kind == KindAppend && known:
		return t.append(e)
	case t.view.Kind != KindEntity:
		return nil
	}
	return t.fold(e, known)
}

// append adds an event's rows, all of them or none.
func (t *Table) append(e Event) error {
	rows, err := t.view.Rows(e)
	if err != nil {
		return err
	}
	for _, row := range rows {
		t.Rows[KeyOf(row[:len(t.view.Key)])] = row
	}
	return nil
}

// fold folds an event into its stream's row. One of a type that the view ignores advances the
// row's version.
func (t *Table) fold(e Event, known bool) error {
	key := KeyOf(Row{e.Stream.ID})
	stored, exists := t.Rows[key]
	if !known {
		if exists {
			stored[len(stored)-1] = int64(e.Version)
		}
		return nil
	}
	var columns Row
	if exists {
		columns = stored[1 : len(stored)-1]
	}
	f, err := t.view.Begin(columns, exists)
	if err != nil {
		return err
	}
	if err := f.Apply(e); err != nil {
		return err
	}
	row, exists, err := f.Row()
	if err != nil {
		return err
	}
	if !exists {
		delete(t.Rows, key)
		return nil
	}
	full := append(Row{e.Stream.ID}, row...)
	t.Rows[key] = append(full, int64(e.Version))
	return nil
}

// merge joins an event's deltas, all of them or none.
func (t *Table) merge(e Event) error {
	deltas, err := t.view.Deltas(e)
	if err != nil {
		return err
	}
	changed := map[string]Row{}
	for _, d := range deltas {
		key := KeyOf(d[:len(t.view.Key)])
		row := changed[key]
		if row == nil {
			row = slices.Clone(t.Rows[key])
		}
		if row == nil {
			changed[key] = slices.Clone(d)
			continue
		}
		if err := t.view.MergeInto(row, d); err != nil {
			return err
		}
		changed[key] = row
	}
	maps.Copy(t.Rows, changed)
	return nil
}

// KeyOf is the text under which a row is held in Table.Rows: its key values, each in a form that
// no other value has.
func KeyOf(key Row) string {
	var b strings.Builder
	for i, v := range key {
		if i > 0 {
			b.WriteByte(0)
		}
		if at, ok := v.(time.Time); ok {
			v = at.UTC().Format(time.RFC3339Nano)
		}
		fmt.Fprint(&b, v)
	}
	return b.String()
}

// Sorted returns the rows in the order of KeyOf.
func (t *Table) Sorted() []Row {
	rows := make([]Row, 0, len(t.Rows))
	for _, key := range slices.Sorted(maps.Keys(t.Rows)) {
		rows = append(rows, t.Rows[key])
	}
	return rows
}

// View returns the view whose rows these are.
func (t *Table) View() View { return t.view }

// Diff lists how the rows of got differ from those of want, one line per difference, ordered by
// key; none means equal, row for row. JSON is compared by content.
func Diff(want, got *Table) []string {
	keys := slices.Sorted(maps.Keys(want.Rows))
	for key := range got.Rows {
		if _, both := want.Rows[key]; !both {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var out []string
	for _, key := range keys {
		w, inWant := want.Rows[key]
		g, inGot := got.Rows[key]
		label := fmt.Sprintf("%s %q", want.view.Name, strings.ReplaceAll(key, "\x00", "|"))
		switch {
		case !inGot:
			out = append(out, label+": missing")
		case !inWant:
			out = append(out, label+": unexpected")
		default:
			out = append(out, diffRow(label, want.view.Layout(), w, g)...)
		}
	}
	return out
}

func diffRow(label string, columns []Column, want, got Row) []string {
	var out []string
	for i, c := range columns {
		if !equalValues(want[i], got[i]) {
			out = append(out, fmt.Sprintf("%s: column %s: got %v, want %v", label, c.Name, got[i], want[i]))
		}
	}
	return out
}

func equalValues(a, b any) bool {
	switch a := a.(type) {
	case time.Time:
		other, ok := b.(time.Time)
		return ok && a.Equal(other)
	case JSON:
		other, ok := b.(JSON)
		return ok && a.Canonical() == other.Canonical()
	}
	return reflect.DeepEqual(a, b)
}
