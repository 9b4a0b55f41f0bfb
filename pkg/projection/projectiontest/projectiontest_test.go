package projectiontest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/projection/projectiontest"
)

type placed struct {
	Total float64 `avro:"total"`
}

type order struct {
	Total float64           `db:"total"`
	Doc   map[string]string `db:"doc,jsonb"`
	At    *time.Time        `db:"at"`
}

var orders = projection.Entity(projection.EntitySpec[order]{
	Name: "orders", Version: 1, On: []codec.TypeDef{projection.On[placed]("order.Placed", 1)},
	Fold: func(o order, _ bool, e projection.Event) (order, projection.Change, error) {
		total := e.Data.(placed).Total
		if total < 0 {
			return o, projection.Keep, fmt.Errorf("total is negative")
		}
		return order{Total: o.Total + total, Doc: map[string]string{"b": "2", "a": "1"}, At: &e.Time}, projection.Set, nil
	},
})

var payments = projection.Append(projection.AppendSpec[order]{
	Name: "payments", Version: 1, On: []codec.TypeDef{projection.On[placed]("order.Placed", 1)},
	Rows: func(e projection.Event) ([]order, error) {
		total := e.Data.(placed).Total
		if total < 0 {
			return nil, fmt.Errorf("total is negative")
		}
		return []order{{Total: total}, {Total: 2 * total}}, nil
	},
})

func TestAppendedRowsAreComparedInTheOrderOfTheirKeys(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	projectiontest.Given(t, payments,
		projectiontest.Of("order.Placed", "o-2", at, placed{5}),
		projectiontest.Of("order.Placed", "o-1", at, placed{1}),
		projectiontest.Of("order.Placed", "o-2", at, placed{-1}),
	).ThenParked(event.StreamID{Category: "order", ID: "o-2"}, "negative",
		projectiontest.Row{"category": "order", "stream": "o-1", "version": 1, "n": 1, "total": 1, "at": nil},
		projectiontest.Row{"stream": "o-1", "version": 1, "n": 2, "total": 2},
		projectiontest.Row{"stream": "o-2", "version": 1, "n": 1, "total": 5},
		projectiontest.Row{"stream": "o-2", "version": 1, "n": 2, "total": 10},
	)
}

// recorder is a testing.TB that notes failures.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func TestThenComparesByValue(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	projectiontest.Given(t, orders,
		projectiontest.Of("order.Placed", "o-1", at, placed{1}),
		projectiontest.Of("order.Placed", "o-2", at, placed{2}),
		projectiontest.Of("order.Placed", "o-1", at, placed{2}),
	).Then(
		projectiontest.Row{"id": "o-1", "total": 3, "doc": `{"a":"1", "b":"2"}`, "at": at.In(time.FixedZone("x", 60)), "version": int32(2)},
		projectiontest.Row{"id": "o-2", "doc": map[string]string{"a": "1", "b": "2"}},
	)
}

func TestThenTellsWhatDiffers(t *testing.T) {
	event := projectiontest.Of("order.Placed", "o-1", time.Time{}.AddDate(1, 0, 0), placed{1})
	for name, c := range map[string]struct {
		rows []projectiontest.Row
		want string
	}{
		"value":          {[]projectiontest.Row{{"id": "o-1", "total": 4}}, "column total: got 1, want 4"},
		"number of rows": {nil, "got 1 rows, want 0"},
		"no such column": {[]projectiontest.Row{{"sum": 1}}, `no column "sum"`},
		"null":           {[]projectiontest.Row{{"at": nil}}, "want null"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{TB: t}
			projectiontest.Given(r, orders, event).Then(c.rows...)
			if len(r.failures) != 1 || !strings.Contains(r.failures[0], c.want) {
				t.Errorf("got failures %q, want one with %q", r.failures, c.want)
			}
		})
	}
}

func TestThenParked(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	bad := projectiontest.Of("order.Placed", "o-1", at, placed{-1})
	projectiontest.Given(t, orders, bad).ThenParked(event.StreamID{Category: "order", ID: "o-1"}, "negative")
	r := &recorder{TB: t}
	projectiontest.Given(r, orders, bad).Then()
	if len(r.failures) != 1 || !strings.Contains(r.failures[0], "parked") {
		t.Errorf("Then hides a parked stream: got failures %q", r.failures)
	}
}
