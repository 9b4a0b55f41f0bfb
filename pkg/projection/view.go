// Package projection is what a team writes for the read side: views, each a named and versioned
// table and the pure function that folds events into its rows.
//
// There are three kinds. An entity view has one row per stream, and its Fold sees the stream's
// events in order (Entity). A metric view has rows keyed by anything, and each event adds deltas
// to them that commute: sums, minima, maxima (Metric). An append view has rows that are written
// once, keyed by the event that they come from (Append). All are erased to the same View, so that
// the projector, a rebuild, a what-if and a test run the very same code.
//
// The functions of a view are pure: no clock, no I/O, no randomness, no memory of earlier calls.
// One goroutine at a time calls them for a given stream, but different streams are folded at the
// same time. Everything else in this package is a value and may be used from any goroutine, but
// for Table and Folding, which belong to one.
package projection

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
)

// Event is one event on its way into a view.
type Event struct {
	Stream        event.StreamID
	Version       event.Version
	ID            string
	Type          string
	Time          time.Time // business time (ce_time), UTC, cut to microseconds: what Postgres keeps
	CorrelationID string
	CausationID   string
	UserID        string
	Data          any // a value of the Go type that On registered for Type
}

// FromRecorded makes the Event of a record in the log; data is its decoded payload.
func FromRecorded(r event.Recorded, data any) Event {
	return Event{
		Stream: r.Stream, Version: r.Version, ID: r.ID, Type: r.Type, Time: canonicalTime(r.Time),
		CorrelationID: r.CorrelationID, CausationID: r.CausationID, UserID: r.UserID, Data: data,
	}
}

// TypeOption adds to a type's registration.
type TypeOption func(*codec.TypeDef)

// Upcast registers how the generic form of schema version from becomes that of from+1.
func Upcast(from int, f codec.Upcaster) TypeOption {
	return func(t *codec.TypeDef) {
		if t.Upcasters == nil {
			t.Upcasters = map[int]codec.Upcaster{}
		}
		t.Upcasters[from] = f
	}
}

// On registers T, a struct with `avro` tags, for an event type at a schema version.
func On[T any](name string, version int, opts ...TypeOption) codec.TypeDef {
	t := codec.TypeDef{Name: name, Version: version, Kind: event.KindEvent, GoType: reflect.TypeFor[T]()}
	for _, opt := range opts {
		opt(&t)
	}
	return t
}

// Kind says how a view folds.
type Kind string

// The kinds of a view.
const (
	KindEntity Kind = "entity" // one row per stream
	KindMetric Kind = "metric" // rows keyed anywhere, deltas that commute
	KindAppend Kind = "append" // rows written once, keyed by their event
)

// VersionColumn holds the stream's last version in an entity view, and that of the row's event in
// an append view.
const VersionColumn = "version"

// View is one read model with its row type erased. Made by Entity, Metric, Append and
// Define; read-only.
type View struct {
	Name    string
	Version int
	Kind    Kind
	Types   []codec.TypeDef
	// Key has one column for an entity view (the stream id), one or more for a metric view, and
	// category, stream, version and n for an append view.
	Key []Column
	// Columns follow the key. Those of a metric view carry a Merge.
	Columns []Column
	// Categories are the sources, sorted: an entity view has exactly one.
	Categories []string
	// Indexes on the rows, beside that of the key.
	Indexes []Index
	// Source is the canonical text of a view that is declared in a file (Definition); else empty.
	Source string

	begin  func(row Row, exists bool) (Folding, error)
	deltas func(e Event) ([]Row, error)
	rows   func(e Event) ([]Row, error)
	faults []error
}

// Folding is an entity row while events are folded into it. After an error it is of no use:
// begin again from the row as it was. It belongs to one goroutine.
type Folding interface {
	// Apply folds one event. A panic of the view's function comes back as an error.
	Apply(e Event) error
	// Row returns the row's columns after the key, and whether the row is there.
	// The error wraps ErrValue when Postgres could not hold a value.
	Row() (Row, bool, error)
}

// Begin starts folding an entity row from its columns as stored; exists false: there is none.
func (v View) Begin(row Row, exists bool) (Folding, error) {
	if v.begin == nil {
		return nil, fmt.Errorf("view %s is of kind %q and has no rows to fold", v.Name, v.Kind)
	}
	return v.begin(row, exists)
}

// Deltas returns what one event adds to a metric view: rows of key and measures, in the order
// of Key and Columns. A nil measure adds nothing. A panic comes back as an error; the error
// wraps ErrValue when Postgres could not hold a value.
func (v View) Deltas(e Event) ([]Row, error) {
	if v.deltas == nil {
		return nil, fmt.Errorf("view %s is of kind %q and has no deltas", v.Name, v.Kind)
	}
	return v.deltas(e)
}

// TypeDef returns the registration of an event type; false: the view ignores the type.
func (v View) TypeDef(name string) (codec.TypeDef, bool) {
	for _, t := range v.Types {
		if t.Name == name {
			return t, true
		}
	}
	return codec.TypeDef{}, false
}

// Layout returns all columns of the view's stable form: key, columns and, for an entity view,
// the version.
func (v View) Layout() []Column {
	cols := append(slices.Clone(v.Key), v.Columns...)
	if v.Kind == KindEntity {
		cols = append(cols, Column{Name: VersionColumn, Type: "bigint", Wire: "bigint"})
	}
	return cols
}

var nameRule = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// tableNames are those of the system's tables in a namespace's schema, beside topics.Reserved.
var tableNames = []string{"controls", "goose_db_version", "parked", "rebuilds", "views"}

// Validate checks the definition by itself and joins all faults.
func (v View) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("view %q: "+format, append([]any{v.Name}, args...)...))
	}
	if !nameRule.MatchString(v.Name) {
		fault("want a name of [a-z][a-z0-9_]{0,30}")
	}
	if slices.Contains(tableNames, v.Name) || slices.Contains(topics.Reserved(), v.Name) {
		fault("the name is reserved for the system")
	}
	if v.Version < 1 {
		fault("Version is %d; count from 1", v.Version)
	}
	for _, f := range v.faults {
		fault("%w", f)
	}
	for _, category := range v.Categories {
		if !nameRule.MatchString(category) {
			fault("source %q: want a category of [a-z][a-z0-9_]{0,30}", category)
		}
	}
	if len(v.Categories) == 0 {
		fault("no source: name the category, or the event types")
	}
	v.validateTypes(fault)
	v.validateColumns(fault)
	v.validateIndexes(fault)
	return errors.Join(faults...)
}

func (v View) validateTypes(fault func(string, ...any)) {
	if len(v.Types) == 0 {
		fault("On is empty: a view folds at least one event type")
	}
	seen := map[string]bool{}
	for _, t := range v.Types {
		if seen[t.Name] {
			fault("type %s is registered twice", t.Name)
		}
		seen[t.Name] = true
		category, name, found := strings.Cut(t.Name, ".")
		if !found || name == "" || !slices.Contains(v.Categories, category) {
			fault("type %q: want <category>.<Name> with a category of %v", t.Name, v.Categories)
		}
		if t.Version < 1 {
			fault("type %s: schema version is %d; count from 1", t.Name, t.Version)
		}
		if t.GoType != nil && t.GoType.Kind() != reflect.Struct {
			fault("type %s binds to %s, which is no struct", t.Name, t.GoType)
		}
	}
}

func (v View) validateColumns(fault func(string, ...any)) {
	seen := map[string]bool{}
	for _, c := range v.Layout() {
		if !nameRule.MatchString(c.Name) {
			fault("column %q: want a name of [a-z][a-z0-9_]{0,30}", c.Name)
		}
		if strings.HasPrefix(c.Name, "fs_") {
			fault("column %q: the prefix fs_ is reserved for the system", c.Name)
		}
		if seen[c.Name] {
			fault("column %q stands twice (%s)", c.Name, v.ownColumns())
		}
		seen[c.Name] = true
	}
	switch {
	case len(v.Key) == 0:
		fault("no key column")
	case len(v.Columns) == 0:
		fault("no column beside the key")
	}
}

// ownColumns says which columns the view has by itself.
func (v View) ownColumns() string {
	if v.Kind == KindAppend {
		return "an append view has " + strings.Join([]string{CategoryColumn, StreamColumn, VersionColumn, PlaceColumn}, ", ") + " by itself"
	}
	return "an entity view has " + VersionColumn + " by itself"
}

// categoriesOf lists the categories of types, sorted, each once.
func categoriesOf(types []codec.TypeDef) []string {
	var out []string
	for _, t := range types {
		category, _, _ := strings.Cut(t.Name, ".")
		out = append(out, category)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// guard turns a panic of a team's function into an error, so that one event cannot stop a process.
func guard(view string, e Event, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: view %s, event %s of %s at version %d: %v", ErrPanic, view, e.Type, e.Stream, e.Version, p)
		}
	}()
	return f()
}

// Errors that callers branch on.
var (
	// ErrPanic: a view's function panicked.
	ErrPanic = errors.New("view function panicked")
	// ErrValue: a value cannot be stored in Postgres (NUL, invalid UTF-8, out of range).
	ErrValue = errors.New("value cannot be stored")
)
