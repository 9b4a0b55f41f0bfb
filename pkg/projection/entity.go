package projection

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/foldstream/foldstream/pkg/codec"
)

// Change says what an event did to an entity row.
type Change uint8

// The changes.
const (
	Keep   Change = iota // the row stays as it was; what Fold returned is dropped
	Set                  // the row is there, as returned
	Delete               // the row is gone
)

// EntitySpec defines an entity view over rows of type R, a struct with `db` tags.
//
//	type Order struct {
//		Status string    `db:"status"`
//		Total  *float64  `db:"total"`          // nullable
//		Lines  []Line    `db:"lines,jsonb"`    // anything JSON can hold
//		Placed time.Time `db:"placed_at"`
//	}
//
// Go types map to Postgres: string to text, int, int32 and int64 to bigint, bool to boolean,
// float64 to double precision, time.Time to timestamptz, []string to text[]; a pointer makes the
// column nullable. A type may be named after the column (bigint, integer, smallint, jsonb, …).
// A nil slice or map is stored empty, not null.
type EntitySpec[R any] struct {
	Name     string
	Version  int    // of the view; raise it with every change of the definition
	Category string // whose streams the rows are; empty: that of the types in On
	Key      string // name of the key column, which holds the stream id; default "id"
	On       []codec.TypeDef
	Indexes  []Index // beside that of the key
	// Fold folds one event of a registered type into the row; exists is false and row its zero
	// value when there is none. It must not keep the row or anything in it.
	// An error, as a panic, parks the event and the later ones of its stream.
	Fold func(row R, exists bool, e Event) (R, Change, error)
}

// Entity makes a view with one row per stream.
func Entity[R any](spec EntitySpec[R]) View {
	plan, faults := planOf[R](false)
	if spec.Key == "" {
		spec.Key = "id"
	}
	v := View{
		Name: spec.Name, Version: spec.Version, Kind: KindEntity, Types: spec.On,
		Key: []Column{{Name: spec.Key, Type: "text", Wire: "text"}}, Columns: plan.columns,
		Categories: categoriesOf(spec.On), Indexes: spec.Indexes, faults: faults,
	}
	if spec.Category != "" {
		v.Categories = []string{spec.Category}
	}
	if len(v.Categories) > 1 {
		v.faults = append(v.faults, fmt.Errorf("an entity row is fed by one stream, but the types are of %v: use a metric view", v.Categories))
	}
	if spec.Fold == nil {
		v.faults = append(v.faults, errors.New("Fold is nil"))
	}
	v.begin = func(row Row, exists bool) (Folding, error) {
		f := &folding[R]{spec: &spec, plan: plan, exists: exists}
		if exists {
			if err := plan.decode(row, &f.row); err != nil {
				return nil, fmt.Errorf("view %s: %w", spec.Name, err)
			}
		}
		return f, nil
	}
	return v
}

// folding is the Folding of an entity view.
type folding[R any] struct {
	spec   *EntitySpec[R]
	plan   *plan
	row    R
	exists bool
}

func (f *folding[R]) Apply(e Event) error {
	return guard(f.spec.Name, e, func() error {
		row, change, err := f.spec.Fold(f.row, f.exists, e)
		if err != nil {
			return err
		}
		var zero R
		switch change {
		case Set:
			f.row, f.exists = row, true
			f.plan.canonicalise(&f.row)
			return f.plan.check(&f.row, f.plan.json && suspicious(reflect.ValueOf(e.Data)))
		case Delete:
			f.row, f.exists = zero, false
		case Keep:
		default:
			return fmt.Errorf("view %s: Fold returned the unknown change %d", f.spec.Name, change)
		}
		return nil
	})
}

func (f *folding[R]) Row() (Row, bool, error) {
	row, err := f.plan.encode(&f.row)
	return row, f.exists, err
}
