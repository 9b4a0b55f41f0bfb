package codec_test

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

type orderedInner struct {
	Labels map[string]string `avro:"labels"`
}

type orderedOuter struct {
	Attributes map[string]int64          `avro:"attributes"`
	Nested     map[string]orderedInner   `avro:"nested"`
	List       []orderedInner            `avro:"list"`
	Maybe      *orderedInner             `avro:"maybe"`
	Deep       map[string]map[string]int `avro:"deep"`
	Tail       string                    `avro:"tail"`
}

const orderedSchema = `{"type":"record","namespace":"t","name":"Ordered","fields":[
	{"name":"attributes","type":{"type":"map","values":"long"}},
	{"name":"nested","type":{"type":"map","values":{"type":"record","name":"Inner","fields":[{"name":"labels","type":{"type":"map","values":"string"}}]}}},
	{"name":"list","type":{"type":"array","items":"Inner"}},
	{"name":"maybe","type":["null","Inner"],"default":null},
	{"name":"deep","type":{"type":"map","values":{"type":"map","values":"int"}}},
	{"name":"tail","type":"string"}]}`

func TestEqualValuesHaveEqualBytes(t *testing.T) {
	reg, err := codec.RegisterText(1, "t.Ordered", 1, event.KindEvent, orderedSchema)
	if err != nil {
		t.Fatal(err)
	}
	c := codec.New(codec.NewStaticReader(reg), codec.Config{})
	binding, err := c.Bind(t.Context(), codec.TypeDef{Name: "t.Ordered", Version: 1, Kind: event.KindEvent, GoType: reflect.TypeFor[orderedOuter]()})
	if err != nil {
		t.Fatal(err)
	}
	inner := func(n int) orderedInner {
		labels := map[string]string{}
		for i := range n {
			labels[fmt.Sprintf("k%d", i*7919%n)] = fmt.Sprint(i)
		}
		return orderedInner{Labels: labels}
	}
	one := inner(9)
	value := orderedOuter{
		Attributes: map[string]int64{"b": 2, "a": 1, "": 0, "é": 3, "c": -1, "ab": 7, "long long long key": 5},
		Nested:     map[string]orderedInner{"x": inner(5), "y": inner(0), "w": inner(12)},
		List:       []orderedInner{inner(3), inner(0), inner(8)}, Maybe: &one,
		Deep: map[string]map[string]int{"q": {"2": 2, "1": 1, "3": 3}, "p": {}}, Tail: "end",
	}
	first, err := binding.Append([]byte("before"), value)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(first, []byte("before")) {
		t.Errorf("what stood in dst was changed: %q", first[:6])
	}
	for range 50 {
		again, err := binding.Append([]byte("before"), value)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, again) {
			t.Fatalf("equal values encode differently:\n%x\n%x", first, again)
		}
	}
	payload, err := c.Inspect(t.Context(), "t.Ordered", first[len("before"):])
	if err != nil {
		t.Fatal(err)
	}
	back, err := binding.Decode(payload)
	if err != nil {
		t.Fatal(err)
	}
	got := back.(orderedOuter)
	if fmt.Sprint(got.Attributes, got.Nested, got.List, *got.Maybe, got.Deep, got.Tail) != fmt.Sprint(value.Attributes, value.Nested, value.List, *value.Maybe, value.Deep, value.Tail) {
		t.Errorf("round trip: got %+v, want %+v", got, value)
	}
}
