package projection

import (
	"errors"
	"fmt"

	"github.com/foldstream/foldstream/pkg/codec"
)

// Merge says how a delta joins a measure. All of them commute, so that events of different
// partitions may arrive in any order.
type Merge string

// The merges.
const (
	MergeAdd Merge = "add"
	MergeMin Merge = "min"
	MergeMax Merge = "max"
)

// MetricSpec defines a metric view over deltas of type R, a struct with `db` tags that name each
// field's part:
//
//	type PerDay struct {
//		Day    time.Time `db:"day,key"`
//		Orders int64     `db:"orders,add"`
//		Last   time.Time `db:"last_at,max"`
//	}
//
// Measures with add are int, int32, int64 or float64 and start at zero. Those with min or max are
// numbers, strings or times and start as null; a nil pointer or a zero time adds nothing to them.
// Sums of float64 depend on the order of addition in their last digits: prefer integers.
type MetricSpec[R any] struct {
	Name    string
	Version int // of the view; raise it with every change of the definition
	On      []codec.TypeDef
	Indexes []Index // beside that of the key
	// Deltas returns what one event of a registered type adds. Deltas of one event may have the
	// same key. An error, as a panic, parks the event and the later ones of its stream.
	Deltas func(e Event) ([]R, error)
}

// Metric makes a view of commuting sums, minima and maxima.
func Metric[R any](spec MetricSpec[R]) View {
	plan, faults := planOf[R](true)
	keys := plan.keys()
	v := View{
		Name: spec.Name, Version: spec.Version, Kind: KindMetric, Types: spec.On,
		Key: plan.columns[:keys:keys], Columns: plan.columns[keys:],
		Categories: categoriesOf(spec.On), Indexes: spec.Indexes, faults: faults,
	}
	if spec.Deltas == nil {
		v.faults = append(v.faults, errors.New("Deltas is nil"))
	}
	v.deltas = func(e Event) (rows []Row, err error) {
		err = guard(spec.Name, e, func() error {
			deltas, err := spec.Deltas(e)
			for i := 0; i < len(deltas) && err == nil; i++ {
				var row Row
				row, err = plan.encode(&deltas[i])
				rows = append(rows, row)
			}
			return err
		})
		return rows, err
	}
	return v
}

// MergeInto joins a delta's measures into those of a row of the same key, as the upsert does in
// Postgres. Both have the view's key and columns. A sum beyond int64 wraps ErrValue, and leaves
// the row as it was.
func (v View) MergeInto(row, delta Row) error {
	merged := make(Row, len(v.Columns))
	for i, c := range v.Columns {
		var err error
		at := len(v.Key) + i
		if merged[i], err = mergeValue(c.Merge, row[at], delta[at]); err != nil {
			return fmt.Errorf("view %s, column %s: %w", v.Name, c.Name, err)
		}
	}
	copy(row[len(v.Key):], merged)
	return nil
}

func mergeValue(merge Merge, a, b any) (any, error) {
	switch {
	case b == nil:
		return a, nil
	case a == nil:
		return b, nil
	case merge == MergeAdd:
		return add(a, b)
	}
	order, err := compareValues(b, a)
	if err != nil {
		return nil, err
	}
	if (merge == MergeMin && order < 0) || (merge == MergeMax && order > 0) {
		return b, nil
	}
	return a, nil
}

func add(a, b any) (any, error) {
	switch a := a.(type) {
	case int64:
		b := b.(int64)
		sum := a + b
		if (b > 0 && sum < a) || (b < 0 && sum > a) {
			return nil, fmt.Errorf("%w: sum exceeds bigint", ErrValue)
		}
		return sum, nil
	case float64:
		return a + b.(float64), nil
	default:
		return nil, fmt.Errorf("cannot add %T", a)
	}
}
