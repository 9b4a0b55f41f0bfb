package projection

import (
	"errors"
	"fmt"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// The key columns of an append view, in this order: the stream (category and id), the version of
// the event that a row comes from, and the row's place among those of its event, from 1.
const (
	CategoryColumn = "category"
	StreamColumn   = "stream"
	PlaceColumn    = "n"
)

// EventRowsMax is how many rows one event may append. An event with more is at fault.
const EventRowsMax = 10_000

// AppendSpec defines an append view over rows of type R, a struct with `db` tags as in EntitySpec.
//
//	type Movement struct {
//		Account string    `db:"account"`
//		Cents   int64     `db:"cents"`
//		At      time.Time `db:"at"`
//	}
//
// The key columns category, stream, version and n are added by the view, so R has none of them.
type AppendSpec[R any] struct {
	Name    string
	Version int // of the view; raise it with every change of the definition
	On      []codec.TypeDef
	Indexes []Index // beside that of the key
	// Rows returns what one event of a registered type appends: no row, one, or up to EventRowsMax.
	// They are numbered 1, 2, 3 … in the column n, and never change again.
	// An error, as a panic, parks the event and the later ones of its stream.
	Rows func(e Event) ([]R, error)
}

// Append makes a view of rows that are written once, each keyed by its event and the place in it.
func Append[R any](spec AppendSpec[R]) View {
	plan, faults := planOf[R](false)
	v := View{
		Name: spec.Name, Version: spec.Version, Kind: KindAppend, Types: spec.On,
		Key: appendKey(), Columns: plan.columns,
		Categories: categoriesOf(spec.On), Indexes: spec.Indexes, faults: faults,
	}
	if spec.Rows == nil {
		v.faults = append(v.faults, errors.New("Rows is nil"))
	}
	v.rows = func(e Event) (rows []Row, err error) {
		err = guard(spec.Name, e, func() error {
			made, err := spec.Rows(e)
			if err != nil {
				return err
			}
			rows, err = appendRows(plan, e, made)
			return err
		})
		return rows, err
	}
	return v
}

func appendKey() []Column {
	return []Column{
		{Name: CategoryColumn, Type: "text", Wire: "text"},
		{Name: StreamColumn, Type: "text", Wire: "text"},
		{Name: VersionColumn, Type: "bigint", Wire: "bigint"},
		{Name: PlaceColumn, Type: "integer", Wire: "bigint"},
	}
}

func appendRows[R any](plan *plan, e Event, made []R) ([]Row, error) {
	if err := checkCount(e, len(made)); err != nil {
		return nil, err
	}
	rows := make([]Row, len(made))
	for i := range made {
		var err error
		if rows[i], err = plan.encode(&made[i]); err != nil {
			return nil, err
		}
	}
	return keyedRows(e, rows)
}

func checkCount(e Event, rows int) error {
	if rows > EventRowsMax {
		return fmt.Errorf("event %s of %s at version %d appends %d rows, the limit is %d", e.Type, e.Stream, e.Version, rows, EventRowsMax)
	}
	return nil
}

// keyedRows puts the key before the columns of an event's rows.
func keyedRows(e Event, columns []Row) ([]Row, error) {
	if err := checkCount(e, len(columns)); err != nil {
		return nil, err
	}
	rows := make([]Row, len(columns))
	for i := range columns {
		key := AppendKey(e.Stream, e.Version, i+1)
		rows[i] = append(append(make(Row, 0, len(key)+len(columns[i])), key...), columns[i]...)
	}
	return rows, nil
}

// AppendKey is the key of an append view's row: the place counts from 1. KeyOf turns it into the
// key of Table.Rows.
func AppendKey(stream event.StreamID, version event.Version, place int) Row {
	return Row{stream.Category, stream.ID, int64(version), int64(place)}
}

// Rows returns what one event appends to an append view: rows of key and columns, in the order of
// Key and Columns. A panic comes back as an error; the error wraps ErrValue when Postgres could
// not hold a value.
func (v View) Rows(e Event) ([]Row, error) {
	if v.rows == nil {
		return nil, fmt.Errorf("view %s is of kind %q and appends no rows", v.Name, v.Kind)
	}
	return v.rows(e)
}
