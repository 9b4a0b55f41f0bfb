package declared

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"pgregory.net/rapid"
)

// anyExpr draws expressions of the subset that is compiled to Go, and some that are not.
func anyExpr(t *rapid.T, of form, depth int) string {
	draw := func(of form) string { return anyExpr(t, of, depth-1) }
	pick := func(leaves []string, makers ...func() string) string {
		if depth <= 0 || len(makers) == 0 {
			return rapid.SampledFrom(leaves).Draw(t, "leaf")
		}
		n := rapid.IntRange(0, len(makers)).Draw(t, "maker")
		if n == 0 {
			return rapid.SampledFrom(leaves).Draw(t, "leaf")
		}
		return makers[n-1]()
	}
	choice := func() string { return fmt.Sprintf("(%s ? %s : %s)", draw(formBool), draw(of), draw(of)) }
	switch of {
	case formText:
		return pick([]string{"event.customer", "event.note", "event.address.city", "event.address.zip", "event.price", "event.state", "row.name", "row.note", "meta.user", "stream.id", "item.sku", "''", "'a\\n\"'", "null"},
			choice, func() string { return draw(formText) + " + " + draw(formText) })
	case formInt:
		return pick([]string{"event.total", "event.dueDays", "row.total", "meta.version", "item.cents", "1", "-3", "9223372036854775807"},
			choice, func() string { return "(" + draw(formInt) + " + " + draw(formInt) + ")" },
			func() string { return "(" + draw(formInt) + " - " + draw(formInt) + ")" },
			func() string { return "millis(" + draw(formTime) + " - " + draw(formTime) + ")" })
	case formDouble:
		return pick([]string{"event.rate", "0.5", "-0.0"}, choice)
	case formTime:
		return pick([]string{"event.dueAt", "meta.time", "row.at"}, choice)
	case formBool:
		same := rapid.SampledFrom([]form{formText, formInt, formTime, formBool, formDouble})
		return pick([]string{"event.urgent", "true", "false", "row_exists", "has(event.note)", "has(event.address.zip)", "has(row.note)", "has(event.address)"},
			choice,
			func() string { kind := same.Draw(t, "kind"); return "(" + draw(kind) + " == " + draw(kind) + ")" },
			func() string { kind := same.Draw(t, "kind"); return "(" + draw(kind) + " != " + draw(kind) + ")" },
			func() string {
				kind := rapid.SampledFrom([]form{formText, formInt, formTime}).Draw(t, "kind")
				return "(" + draw(kind) + rapid.SampledFrom([]string{" < ", " <= ", " > ", " >= "}).Draw(t, "order") + draw(kind) + ")"
			},
			func() string { return "(" + draw(formBool) + " && " + draw(formBool) + ")" },
			func() string { return "(" + draw(formBool) + " || " + draw(formBool) + ")" },
			func() string { return "!" + draw(formBool) })
	}
	any := rapid.SampledFrom([]form{formText, formInt, formTime, formBool, formDouble, formMap})
	return pick([]string{"event.tags", "event.labels", "event.lines", "event.address", "event", "item", "{}", "[]", "[event.note]"},
		func() string {
			return fmt.Sprintf("{'b': %s, 'a': %s}", draw(any.Draw(t, "kind")), draw(any.Draw(t, "kind")))
		},
		func() string { kind := any.Draw(t, "kind"); return fmt.Sprintf("[%s, %s]", draw(kind), draw(kind)) })
}

// anyData fills the struct of a shape.
func anyData(t *rapid.T, v reflect.Value, s *shape) {
	texts := rapid.SampledFrom([]string{"", "a", "é", "a\n\"", "nul\x00", "bad\xff"})
	if s.nullable && !s.decimal {
		if rapid.Bool().Draw(t, "null") {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch s.form {
	case formText:
		if s.decimal {
			return // nil is the library's zero
		}
		v.SetString(texts.Draw(t, "text"))
	case formInt:
		v.SetInt(rapid.OneOf(rapid.Int64(), rapid.Int64Range(-5, 5), rapid.Just(int64(math.MinInt64))).Draw(t, "int"))
	case formDouble:
		v.SetFloat(rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 0.5, 1e300, math.NaN(), math.Inf(1)}).Draw(t, "double"))
	case formBool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case formTime:
		v.Set(reflect.ValueOf(time.UnixMicro(rapid.Int64Range(-62135596800000000, 253402300799999999).Draw(t, "time")).UTC()))
	case formList:
		n := rapid.IntRange(0, 2).Draw(t, "items")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			anyData(t, v.Index(i), s.item)
		}
	case formMap:
		v.Set(reflect.MakeMap(v.Type()))
		for range rapid.IntRange(0, 2).Draw(t, "entries") {
			item := reflect.New(v.Type().Elem()).Elem()
			anyData(t, item, s.item)
			v.SetMapIndex(reflect.ValueOf(texts.Draw(t, "key")), item)
		}
	case formRecord:
		for i, f := range s.record.fields {
			anyData(t, v.Field(i), f.shape)
		}
	default:
		t.Fatalf("no data for form %d", s.form)
	}
}

func TestWhatIsCompiledMeansWhatCELSays(t *testing.T) {
	t.Parallel()
	types := someTypes(t)
	issued, _ := types.find("invoice.Issued", 2)
	s, err := types.shapeOf(issued)
	if err != nil {
		t.Fatal(err)
	}
	line := s.record.fields[s.record.byName["lines"]].item
	columns := []*column{
		{columnType: columnTypes[0], title: "name"}, {columnType: columnTypes[0], title: "note", nullable: true},
		{columnType: columnTypes[1], title: "total"}, {columnType: columnTypes[6], title: "at"},
	}
	row := rowTypeOf(columns)
	compared := 0
	rapid.Check(t, func(rt *rapid.T) {
		f := &faults{}
		x, err := newExprEnv(f, s, columns, row)
		if err != nil {
			rt.Fatal(err)
		}
		if x, err = x.withItem(itemShape, line, line.celType()); err != nil {
			rt.Fatal(err)
		}
		kind := rapid.SampledFrom([]form{formText, formInt, formBool, formTime, formDouble, formMap}).Draw(rt, "form")
		source := anyExpr(rt, kind, 3)
		fast := x.compile(text{value: source})
		if fast == nil || fast.node == nil || fast.node.form == formDyn {
			return // CEL refuses it, or it is not of the subset
		}
		slow := *fast
		if x.interpret(&slow) == nil {
			rt.Fatalf("%s: %v", source, f.err())
		}
		data := reflect.New(s.goType).Elem()
		anyData(rt, data, s)
		item := reflect.New(line.goType).Elem()
		anyData(rt, item, line)
		e := projection.Event{
			Stream: event.StreamID{Category: "invoice", ID: "i"}, Version: event.Version(rapid.Int64Range(1, 9).Draw(rt, "version")),
			UserID: "u", Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		}
		sc := &scope{event: &e, data: data, shape: s, rowType: row, item: itemNow{shape: line, data: item}, row: &rowState{
			vals:   []any{"n", rapid.SampledFrom([]any{nil, "note"}).Draw(rt, "note"), int64(7), time.Time{}},
			exists: rapid.Bool().Draw(rt, "exists"),
		}}
		got, gotErr := fast.node.appendJSON(nil, sc)
		var want []byte
		v, wantErr := slow.value(sc)
		if wantErr == nil {
			want, wantErr = appendValue(nil, v)
		}
		if (gotErr == nil) != (wantErr == nil) {
			rt.Fatalf("%s: got error %v, CEL says %v (%s)", source, gotErr, wantErr, want)
		}
		if wantErr == nil && !slices.Equal(got, want) {
			rt.Fatalf("%s: got %s, CEL says %s", source, got, want)
		}
		compared++
	})
	if compared < 20 {
		t.Errorf("compared %d expressions only", compared)
	}
}
