package projection

import (
	"errors"
	"fmt"
	"slices"

	"github.com/foldstream/foldstream/pkg/codec"
)

// Index is an index on a view's rows, made with the view's table. It makes reading faster and
// changes no row, so that it may be added or removed under the same version.
type Index struct {
	Columns []string
	// Search makes it an index for finding a part of a text (pg_trgm). It has one column, a text.
	Search bool
}

// Definition is a view whose functions work on rows of columns, without a Go type for the row:
// what a loader of definitions makes (package declared). Teams that write Go use Entity, Metric
// and Append.
type Definition struct {
	Name       string
	Version    int
	Kind       Kind
	Types      []codec.TypeDef
	Key        []Column // as in View; of an append view nil
	Columns    []Column
	Categories []string
	Indexes    []Index
	// Source is the definition in a canonical form: two definitions that fold differently differ
	// in it. A change of it under the same version is refused. It is never empty.
	Source string

	// Begin starts folding a row of an entity view.
	Begin func(row Row, exists bool) (Folding, error)
	// Deltas is the function of a metric view: rows of key and measures.
	Deltas func(e Event) ([]Row, error)
	// Rows is the function of an append view: rows of the columns after the key.
	Rows func(e Event) ([]Row, error)
}

// Define makes the view of a definition. A panic of its functions comes back as an error.
func Define(d Definition) View {
	v := View{
		Name: d.Name, Version: d.Version, Kind: d.Kind, Types: d.Types, Key: d.Key, Columns: d.Columns,
		Categories: d.Categories, Indexes: d.Indexes, Source: d.Source,
	}
	if d.Source == "" {
		v.faults = append(v.faults, errors.New("Source is empty"))
	}
	switch {
	case d.Kind == KindEntity && d.Begin != nil:
		v.begin = func(row Row, exists bool) (Folding, error) {
			f, err := d.Begin(row, exists)
			if err != nil {
				return nil, fmt.Errorf("view %s: %w", d.Name, err)
			}
			return &guarded{Folding: f, view: d.Name}, nil
		}
	case d.Kind == KindMetric && d.Deltas != nil:
		v.deltas = func(e Event) ([]Row, error) { return guardRows(d.Name, e, d.Deltas) }
	case d.Kind == KindAppend && d.Rows != nil:
		v.Key = appendKey()
		v.rows = func(e Event) ([]Row, error) {
			columns, err := guardRows(d.Name, e, d.Rows)
			if err != nil {
				return nil, err
			}
			return keyedRows(e, columns)
		}
	default:
		v.faults = append(v.faults, fmt.Errorf("kind %q without its function", d.Kind))
	}
	return v
}

// guarded is a Folding that does not panic.
type guarded struct {
	Folding
	view string
}

func (g *guarded) Apply(e Event) error {
	return guard(g.view, e, func() error { return g.Folding.Apply(e) })
}

func guardRows(view string, e Event, f func(Event) ([]Row, error)) (rows []Row, err error) {
	err = guard(view, e, func() error {
		rows, err = f(e)
		return err
	})
	return rows, err
}

// validateIndexes checks that indexes are on columns that are there, and of a type for them.
func (v View) validateIndexes(fault func(string, ...any)) {
	layout := v.Layout()
	for _, index := range v.Indexes {
		if len(index.Columns) == 0 || (index.Search && len(index.Columns) > 1) {
			fault("index on %v: want at least one column, and one for a search", index.Columns)
		}
		for _, name := range index.Columns {
			i := slices.IndexFunc(layout, func(c Column) bool { return c.Name == name })
			switch {
			case i < 0:
				fault("index on %v: there is no column %q", index.Columns, name)
			case index.Search && layout[i].Type != "text":
				fault("index on %v: only a text can be searched, %s is %s", index.Columns, name, layout[i].Type)
			case layout[i].Wire == "jsonb":
				fault("index on %v: %s is jsonb, which has no order", index.Columns, name)
			}
		}
	}
}
