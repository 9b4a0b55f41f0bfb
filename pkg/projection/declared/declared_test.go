package declared

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
)

// decoded returns an event as a view's types decode it.
func decoded(t testing.TB, v projection.View, typ string, version int, data string) projection.Event {
	t.Helper()
	types := someTypes(t)
	w := newTestWorld(types)
	def, _ := v.TypeDef(typ)
	b, err := w.codec.Bind(context.Background(), def)
	if err != nil {
		t.Fatal(err)
	}
	one, known := types.find(typ, version)
	if !known {
		t.Fatalf("no %s version %d", typ, version)
	}
	value, err := w.decode(context.Background(), one, data, b)
	if err != nil {
		t.Fatal(err)
	}
	return projection.Event{
		Stream: event.StreamID{Category: "invoice", ID: "i1"}, Version: 1, Type: typ, Data: value,
		Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

func folded(t testing.TB, v projection.View, e projection.Event) (projection.Row, error) {
	t.Helper()
	f, err := v.Begin(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(e); err != nil {
		return nil, err
	}
	row, _, err := f.Row()
	return row, err
}

const one = "view: v\nversion: 1\ncolumns: {x: text}\non: {invoice.Issued: {set: {x: \"%s\"}}}"

func oneText(t testing.TB, expression string) projection.View {
	t.Helper()
	return compiled(t, strings.Replace(one, "%s", expression, 1))
}

func TestOldEventsAreReadByTheNewSchemaAndByUpcasters(t *testing.T) {
	t.Parallel()
	v := oneText(t, "has(event.note) ? event.note : 'none of ' + event.customer")
	row, err := folded(t, v, decoded(t, v, "invoice.Issued", 1, `{"total":1,"customer":"Ada"}`))
	if err != nil || row[0] != "none of Ada" {
		t.Errorf("by resolution: got %v, %v", row, err)
	}
	v.Types[0].Upcasters = map[int]codec.Upcaster{1: func(m map[string]any) (map[string]any, error) {
		m["note"] = "from version 1"
		for field, value := range map[string]any{
			"dueDays": nil, "rate": 0.0, "price": []byte{0}, "urgent": false, "dueAt": nil, "tags": []any{}, "labels": map[string]any{},
			"state": "open", "address": nil, "lines": []any{},
		} {
			m[field] = value
		}
		return m, nil
	}}
	row, err = folded(t, v, decoded(t, v, "invoice.Issued", 1, `{"total":1,"customer":"Ada"}`))
	if err != nil || row[0] != "from version 1" {
		t.Errorf("by upcaster: got %v, %v", row, err)
	}
}

func TestAnExpressionThatCostsTooMuchFaultsItsEvent(t *testing.T) {
	t.Parallel()
	v := oneText(t, "string(event.tags.map(a, event.tags.map(b, event.tags.filter(c, c == a + b))).size())")
	tags := `["` + strings.Repeat(`x","`, 200) + `x"]`
	start := time.Now()
	_, err := folded(t, v, decoded(t, v, "invoice.Issued", 2, `{"total":1,"customer":"Ada","tags":`+tags+`}`))
	if err == nil || !strings.Contains(err.Error(), "cost limit") {
		t.Errorf("got error %v, want one of the cost limit", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestMapsAreWalkedInTheOrderOfTheirKeys(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{
		"event.labels.map(k, k + event.labels[k]).join(',')",
		"{'d': 4, 'b': 2, 'a': 1, 'c': 3}.map(k, k).join(',') + event.customer.substring(0, 0)",
	} {
		v := oneText(t, expression)
		e := decoded(t, v, "invoice.Issued", 2, `{"total":1,"customer":"Ada","labels":{"d":"","b":"","a":"","c":""}}`)
		for range 20 {
			if row, err := folded(t, v, e); err != nil || row[0] != "a,b,c,d" {
				t.Fatalf("%s: got %v, %v, want a,b,c,d", expression, row, err)
			}
		}
	}
}

func TestWhatExpressionsMayCall(t *testing.T) {
	t.Parallel()
	const data = `{"total":7,"customer":"Ada","note":null,"dueDays":3,"rate":0.5,"price":"1.50","dueAt":"2026-03-01T09:30:00Z","tags":["b","a"],
		"address":{"city":"Rome"},"lines":[{"sku":"s","cents":2},{"sku":"t","cents":3}]}`
	for expression, want := range map[string]string{
		"event.?note.orValue('none')":                                    "none",
		"event.customer.lowerAscii().replace('a', 'o')":                  "odo",
		"string(int(2.9)) + string(double(3)) + string(event.rate)":      "230.5",
		"string(double(event.price) * 2.0)":                              "3",
		"string(timestamp('2026-01-01T00:00:00Z') < meta.time)":          "false",
		"string(meta.time + duration('90s'))":                            "2026-01-01T00:01:30Z",
		"string(truncate(event.dueAt, duration('24h')))":                 "2026-03-01T00:00:00Z",
		"string(event.dueAt.getHours())":                                 "9",
		"string(millis(duration('1.5s')))":                               "1500",
		"event.lines.filter(l, l.cents > 2)[0].sku":                      "t",
		"string(event.lines.map(l, l.cents).exists(c, c == 3))":          "true",
		"event.tags.sort().join('')":                                     "ab",
		"string(math.greatest(event.total, 3))":                          "7",
		"event.customer.matches('^A') ? 'yes' : 'no'":                    "yes",
		"stream.category + '/' + stream.id + '@' + string(meta.version)": "invoice/i1@1",
		"row.x + 'y'":                             "y",
		"string(event.address == event.address)":  "true",
		"has(event.address.zip) ? 'zip' : 'none'": "none",
		"string(event.dueDays == 3)":              "true",
		"string(event.note == null)":              "true",
	} {
		v := oneText(t, expression)
		row, err := folded(t, v, decoded(t, v, "invoice.Issued", 2, data))
		if err != nil || row[0] != want {
			t.Errorf("%s: got %v, %v, want %q", expression, row, err, want)
		}
	}
}

func TestAnEventOfForeignDataIsAFault(t *testing.T) {
	t.Parallel()
	v := oneText(t, "event.customer")
	for _, data := range []any{nil, map[string]any{"customer": "Ada"}, struct{}{}} {
		e := decoded(t, v, "invoice.Issued", 2, `{"total":1,"customer":"Ada"}`)
		e.Data = data
		if _, err := folded(t, v, e); err == nil || !strings.Contains(err.Error(), "want what a codec decodes") {
			t.Errorf("%T: got error %v", data, err)
		}
	}
}

func TestTextThatPostgresRefusesIsAnErrValue(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{"event.customer", "event.customer.substring(0)", "event.customer + ''"} {
		v := oneText(t, expression)
		_, err := folded(t, v, decoded(t, v, "invoice.Issued", 2, `{"total":1,"customer":"a\u0000b"}`))
		if !errors.Is(err, projection.ErrValue) {
			t.Errorf("%s: got error %v, want ErrValue", expression, err)
		}
	}
}

func TestTheSourceIsWhatFolds(t *testing.T) {
	t.Parallel()
	base := oneText(t, "event.customer").Source
	same := compiled(t, "# other words\nversion: 1\nview: v\ncolumns:\n  x: {type: text, index: true}\non:\n  invoice.Issued:\n    set:\n      x: ' event.customer '").Source
	if base == "" || same != base {
		t.Errorf("got %s, want %s", same, base)
	}
	for name, other := range map[string]string{
		"expression": strings.Replace(one, "%s", "event.customer + ''", 1),
		"guard":      strings.Replace(strings.Replace(one, "%s", "event.customer", 1), "{set", "{when: 'true', set", 1),
		"nullable":   strings.Replace(strings.Replace(one, "%s", "event.customer", 1), "{x: text}", "{x: {type: text, nullable: true}}", 1),
		"row":        strings.Replace(strings.Replace(one, "%s", "event.customer", 1), "{set", "{row: new, set", 1),
		"version":    strings.Replace(strings.Replace(one, "%s", "event.customer", 1), "Issued:", "Issued@2:", 1),
	} {
		if got := compiled(t, other).Source; got == base {
			t.Errorf("%s: the source is the same: %s", name, got)
		}
	}
}

func TestAScaffoldCompilesAndFolds(t *testing.T) {
	t.Parallel()
	text, err := Scaffold("invoice_list", 1, someTypes(t), "invoice.Issued", "invoice.Paid")
	if err != nil {
		t.Fatal(err)
	}
	v := compiled(t, text)
	row, err := folded(t, v, decoded(t, v, "invoice.Issued", 2, `{"total":7,"customer":"Ada","tags":["a"]}`))
	if err != nil || row[0] != int64(7) || row[1] != "Ada" {
		t.Errorf("got %v, %v from\n%s", row, err, text)
	}
	for want, names := range map[string][]string{"did you mean invoice.Issued?": {"invoice.Isued"}, "name at least one": nil} {
		if _, err := Scaffold("v", 1, someTypes(t), names...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got error %v, want %q", names, err, want)
		}
	}
}

func TestFailingTestsSayWhatDiffers(t *testing.T) {
	t.Parallel()
	view := strings.Replace(one, "%s", "event.customer", 1)
	for name, c := range map[string]struct{ tests, want string }{
		"value":        {"{type: invoice.Issued, stream: a, data: {total: 1, customer: Ada}}], then: [{id: a, x: Bob}]", `column x: got "Ada", want "Bob"`},
		"rows":         {"], then: [{id: a}]", "got 0 rows, want 1"},
		"parked":       {"{type: invoice.Issued, stream: a, data: {total: 1, customer: \"a\\0\"}}], then: []", "stream invoice/a is parked"},
		"not parked":   {"{type: invoice.Issued, stream: a, data: {total: 1, customer: Ada}}], then: [{id: a}], parked: {a: x}", "stream invoice/a is not parked"},
		"data":         {"{type: invoice.Issued, stream: a, data: {totl: 1, customer: Ada}}], then: []", "totl"},
		"type":         {"{type: invoice.Isued, stream: a}], then: []", "did you mean invoice.Issued?"},
		"out of order": {"{type: invoice.Issued, stream: a, version: 3, data: {total: 1, customer: Ada}}], then: []", "stream has a gap"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results, err := runTests(t, view, "tests: [{name: n, given: ["+c.tests+"}]")
			if err != nil {
				t.Fatal(err)
			}
			if len(results) != 1 || results[0].Passed() || !strings.Contains(strings.Join(results[0].Failures, "\n"), c.want) {
				t.Errorf("got %+v, want a failure with %q", results, c.want)
			}
		})
	}
	_, err := runTests(t, view, "tests: [{name: n, then: [{y: 1}], gven: []}]")
	for _, want := range []string{"v.v1.test.yaml:1:27: the view has no column \"y\"", "did you mean given?"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, text := range []string{
		head + "  invoice.Issued: {set: {total: event.total}}", metric("add: {n: event.cents}, when: 'true'"),
		strings.Replace(one, "%s", "event.?note.orValue('none')", 1), "a: &a [*a]", "on: {x: {each: event.lines}}", "view: [", "\x00",
		head + "  invoice.Issued: &r {append: {doc: {value: \"{'a': 1}\", by: [a]}}}\n  invoice.Paid: *r",
	} {
		f.Add(text)
	}
	types := someTypes(f)
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		view, err := Compile("v.yaml", []byte(text), types)
		if err == nil && view.Validate() != nil {
			t.Errorf("a view compiles that is invalid: %v", view.Validate())
		}
		for _, fault := range Faults(err) {
			if fault.File != "v.yaml" {
				t.Errorf("a fault is of file %q", fault.File)
			}
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// BenchmarkExpression compares an expression that is compiled to Go with one that is interpreted.
func BenchmarkExpression(b *testing.B) {
	for name, expression := range map[string]string{
		"path": "event.customer", "compiled": "event.total > 5 ? event.customer : 'small'", "interpreted": "event.customer.lowerAscii()",
	} {
		b.Run(name, func(b *testing.B) {
			v := oneText(b, expression)
			e := decoded(b, v, "invoice.Issued", 2, `{"total":7,"customer":"Ada"}`)
			f, err := v.Begin(nil, false)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Apply(e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
