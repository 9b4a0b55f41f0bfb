package codec

import (
	"reflect"
	"testing"

	"github.com/foldstream/foldstream/pkg/event"
)

const orderPlacedV1 = `{"type":"record","namespace":"order","name":"Placed","fs.kind":"event","fields":[
	{"name":"customer","type":"string"},
	{"name":"total","type":"long"},
	{"name":"paid","type":"boolean"},
	{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
	{"name":"note","type":["null","string"],"default":null},
	{"name":"status","type":{"type":"enum","name":"Status","symbols":["open","closed"],"default":"open"}},
	{"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
		{"name":"sku","type":"string"},{"name":"count","type":"int"},{"name":"weight","type":"double"}]}}},
	{"name":"labels","type":{"type":"map","values":"string"}}
]}`

// compile parses a schema or ends the test.
func compile(t testing.TB, text string) *Schema {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatalf("schema does not parse: %v\n%s", err, text)
	}
	return s
}

// register makes a Registered or ends the test.
func register(t testing.TB, id int32, typ string, version int, text string) *Registered {
	t.Helper()
	reg, err := RegisterText(id, typ, version, "", text)
	if err != nil {
		t.Fatalf("RegisterText: %v", err)
	}
	return reg
}

type line struct {
	SKU    string  `avro:"sku"`
	Count  int32   `avro:"count"`
	Weight float64 `avro:"weight"`
}

type placed struct {
	Customer string            `avro:"customer"`
	Total    int64             `avro:"total"`
	Paid     bool              `avro:"paid"`
	At       int64             `avro:"at"`
	Note     *string           `avro:"note"`
	Status   string            `avro:"status"`
	Lines    []line            `avro:"lines"`
	Labels   map[string]string `avro:"labels"`
}

func placedDef() TypeDef {
	return TypeDef{Name: "order.Placed", Version: 1, Kind: event.KindEvent, GoType: reflect.TypeFor[placed]()}
}

func ordinary() placed {
	note := "leave at the door"
	return placed{
		Customer: "c-1027", Total: 129_900, Paid: true, At: 1_700_000_000_000_000, Note: &note, Status: "open",
		Lines:  []line{{"sku-1", 2, 1.5}, {"sku-2", 1, 0.25}},
		Labels: map[string]string{"channel": "web"},
	}
}
