package declared

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
)

const (
	issuedV1 = `{"type":"record","namespace":"invoice","name":"Issued","fields":[
		{"name":"total","type":"long"},{"name":"customer","type":"string"}]}`
	issuedV2 = `{"type":"record","namespace":"invoice","name":"Issued","fields":[
		{"name":"total","type":"long"},{"name":"customer","type":"string"},
		{"name":"note","type":["null","string"],"default":null},
		{"name":"dueDays","type":["null","long"],"default":null},
		{"name":"rate","type":"double","default":0},
		{"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2},"default":"\u0000"},
		{"name":"urgent","type":"boolean","default":false},
		{"name":"dueAt","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null},
		{"name":"tags","type":{"type":"array","items":"string"},"default":[]},
		{"name":"labels","type":{"type":"map","values":"string"},"default":{}},
		{"name":"state","type":{"type":"enum","name":"State","symbols":["open","held"]},"default":"open"},
		{"name":"address","type":["null",{"type":"record","name":"Address","fields":[{"name":"city","type":"string"},{"name":"zip","type":["null","string"],"default":null}]}],"default":null},
		{"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[{"name":"sku","type":"string"},{"name":"cents","type":"long"}]}},"default":[]}]}`
	paidV1   = `{"type":"record","namespace":"invoice","name":"Paid","fields":[{"name":"cents","type":"long","default":0}]}`
	voidedV1 = `{"type":"record","namespace":"invoice","name":"Voided","fields":[{"name":"why","type":"string","default":""}]}`
	payV1    = `{"type":"record","namespace":"invoice","name":"Pay","fields":[{"name":"cents","type":"long"}]}`
	shippedV = `{"type":"record","namespace":"parcel","name":"Shipped","fields":[{"name":"invoice","type":"string"}]}`
)

func someTypes(t testing.TB) *Types {
	t.Helper()
	var all []Type
	add := func(name string, version int, kind event.Kind, text string) {
		schema, err := codec.Parse(text)
		if err != nil {
			t.Fatalf("schema of %s: %v", name, err)
		}
		all = append(all, Type{Name: name, Version: version, Kind: kind, Schema: schema})
	}
	add("invoice.Issued", 1, event.KindEvent, issuedV1)
	add("invoice.Issued", 2, event.KindEvent, issuedV2)
	add("invoice.Paid", 1, event.KindEvent, paidV1)
	add("invoice.Voided", 1, "", voidedV1)
	add("invoice.Pay", 1, event.KindCommand, payV1)
	add("parcel.Shipped", 1, event.KindEvent, shippedV)
	return NewTypes(all...)
}

func compiled(t testing.TB, text string) projection.View {
	t.Helper()
	v, err := Compile("v.yaml", []byte(text), someTypes(t))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return v
}

func runTests(t *testing.T, view, tests string) ([]Result, error) {
	t.Helper()
	name := "views/" + compiled(t, view).Name + ".v1"
	return Test(context.Background(), fstest.MapFS{
		name + ".yaml": {Data: []byte(view)}, name + ".test.yaml": {Data: []byte(tests)},
	}, "views", "", someTypes(t))
}

// passes runs the tests of one view, given as YAML beside it.
func passes(t *testing.T, view, tests string) {
	t.Helper()
	results, err := runTests(t, view, tests)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) == 0 {
		t.Error("no test was run")
	}
	for _, r := range results {
		if !r.Passed() {
			t.Errorf("%s:%d: %s:\n\t%s", r.File, r.Line, r.Name, strings.Join(r.Failures, "\n\t"))
		}
	}
}
