package declared

import (
	"context"
	"reflect"
	"testing"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/twmb/avro"
)

const everything = `{"type":"record","name":"Every","namespace":"x","fields":[
 {"name":"b","type":"boolean"},{"name":"i","type":"int"},{"name":"l","type":"long"},
 {"name":"f","type":"float"},{"name":"d","type":"double"},{"name":"s","type":"string"},{"name":"by","type":"bytes"},
 {"name":"fx","type":{"type":"fixed","name":"Fx","size":3}},
 {"name":"en","type":{"type":"enum","name":"En","symbols":["one","two"]}},
 {"name":"date","type":{"type":"int","logicalType":"date"}},
 {"name":"tmi","type":{"type":"int","logicalType":"time-millis"}},
 {"name":"tmc","type":{"type":"long","logicalType":"time-micros"}},
 {"name":"tsm","type":{"type":"long","logicalType":"timestamp-millis"}},
 {"name":"tsu","type":{"type":"long","logicalType":"timestamp-micros"}},
 {"name":"tsn","type":{"type":"long","logicalType":"timestamp-nanos"}},
 {"name":"lts","type":{"type":"long","logicalType":"local-timestamp-micros"}},
 {"name":"dec","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
 {"name":"fdec","type":{"type":"fixed","name":"Fd","size":6,"logicalType":"decimal","precision":9,"scale":2}},
 {"name":"uuid","type":{"type":"string","logicalType":"uuid"}},
 {"name":"fuuid","type":{"type":"fixed","name":"Fu","size":16,"logicalType":"uuid"}},
 {"name":"dur","type":{"type":"fixed","name":"Du","size":12,"logicalType":"duration"}},
 {"name":"arr","type":{"type":"array","items":"long"}},
 {"name":"map","type":{"type":"map","values":["null","double"]}},
 {"name":"rec","type":{"type":"record","name":"Rec","fields":[{"name":"x","type":"string"},{"name":"y","type":["null","En"]}]}},
 {"name":"again","type":["null","Rec"],"default":null},
 {"name":"nb","type":["null","boolean"]},{"name":"nl","type":["long","null"]},{"name":"ns","type":["null","string"]},
 {"name":"ndec","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]},
 {"name":"nts","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
 {"name":"narr","type":["null",{"type":"array","items":"Rec"}]},
 {"name":"nmap","type":["null",{"type":"map","values":"long"}]},
 {"name":"nby","type":["null","bytes"]},
 {"name":"nfx","type":["null","Fx"]},
 {"name":"many","type":["null","long","string"]},
 {"name":"nul","type":"null"},
 {"name":"tree","type":{"type":"record","name":"Tree","fields":[{"name":"v","type":"long"},{"name":"kids","type":{"type":"array","items":"Tree"}}]}},
 {"name":"next","type":["null","Every"],"default":null}
]}`

func registered(t testing.TB, typ string, version int, text string) *codec.Registered {
	t.Helper()
	reg, err := codec.RegisterText(int32(version*1000)+int32(len(typ)), typ, version, event.KindEvent, text)
	if err != nil {
		t.Fatalf("schema of %s: %v", typ, err)
	}
	return reg
}

func TestAStructOfEveryAvroTypeBindsToItsSchema(t *testing.T) {
	t.Parallel()
	s, err := structOf("x.Every", everything)
	if err != nil {
		t.Fatal(err)
	}
	c := codec.New(codec.NewStaticReader(registered(t, "x.Every", 1, everything)), codec.Config{})
	if _, err := c.Bind(context.Background(), codec.TypeDef{Name: "x.Every", Version: 1, Kind: event.KindEvent, GoType: s.goType}); err != nil {
		t.Errorf("bind %s: %v", s.goType, err)
	}
}

func TestEveryAvroTypeHasAFormInJSONAndInExpressions(t *testing.T) {
	t.Parallel()
	const data = `{"b":true,"i":1,"l":-2,"f":0.5,"d":1.25,"s":"x","by":"AQI=","fx":"AQID","en":"two","date":"2026-03-01","tmi":"01:02:03.004","tmc":"01:02:03.000004",
		"tsm":"2026-03-01T09:30:00.001Z","tsu":"2026-03-01T09:30:00.000001Z","tsn":"2026-03-01T09:30:00.000000001Z","lts":"2026-03-01T09:30:00",
		"dec":"12.30","fdec":"-0.05","uuid":"00112233-4455-6677-8899-aabbccddeeff","fuuid":"00112233-4455-6677-8899-aabbccddeeff","dur":{"months":1,"days":2,"millis":3},
		"arr":[1,2],"map":{"k":null,"a":0.5},"rec":{"x":"y","y":"one"},"again":{"x":"z","y":null},"nb":false,"nl":7,"ns":"t","ndec":"1.00","nts":"2026-03-01T09:30:00Z",
		"narr":[{"x":"q","y":null}],"nmap":{"m":1},"nby":"AQ==","nfx":null,"many":{"long":5},"nul":null,"tree":{"v":1,"kids":[{"v":2,"kids":[]}]},"next":null}`
	const want = `{"again":{"x":"z","y":null},"arr":[1,2],"b":true,"by":"AQI=","d":1.25,"date":"2026-03-01T00:00:00Z","dec":"12.30","dur":"AQAAAAIAAAADAAAA","en":"two",` +
		`"f":0.5,"fdec":"-0.05","fuuid":"00112233-4455-6677-8899-aabbccddeeff","fx":"AQID","i":1,"l":-2,"lts":"2026-03-01T09:30:00Z","many":5,"map":{"a":0.5,"k":null},` +
		`"narr":[{"x":"q","y":null}],"nb":false,"nby":"AQ==","ndec":"1.00","next":null,"nfx":null,"nl":7,"nmap":{"m":1},"ns":"t","nts":"2026-03-01T09:30:00Z","nul":null,` +
		`"rec":{"x":"y","y":"one"},"s":"x","tmc":"3723.000004s","tmi":"3723.004s","tree":{"kids":[{"kids":[],"v":2}],"v":1},"tsm":"2026-03-01T09:30:00.001Z",` +
		`"tsn":"2026-03-01T09:30:00.000000001Z","tsu":"2026-03-01T09:30:00.000001Z","uuid":"00112233-4455-6677-8899-aabbccddeeff"}`
	row := rowOfData(t, everything, data)
	for i, how := range []string{"compiled", "interpreted"} {
		if got := row[i]; got != projection.JSON(want) {
			t.Errorf("%s:\ngot  %s\nwant %s", how, got, want)
		}
	}
}

// rowOfData folds one event, which a schema and JSON say, into a row of JSON: compiled, interpreted.
func rowOfData(t testing.TB, text, data string) projection.Row {
	t.Helper()
	schema, err := codec.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	name := schema.Name()
	types := NewTypes(Type{Name: name, Version: 1, Kind: event.KindEvent, Schema: schema})
	v, err := Compile("v.yaml", []byte("view: v\nversion: 1\ncolumns: {compiled: jsonb, interpreted: jsonb}\non: {"+name+": {set: {compiled: event, interpreted: '[event].filter(e, true)[0]'}}}"), types)
	if err != nil {
		t.Fatal(err)
	}
	w := newTestWorld(types)
	b, err := w.codec.Bind(context.Background(), v.Types[0])
	if err != nil {
		t.Fatal(err)
	}
	one, _ := types.find(name, 1)
	value, err := w.decode(context.Background(), one, data, b)
	if err != nil {
		t.Fatal(err)
	}
	row, err := folded(t, v, projection.Event{Stream: event.StreamID{Category: "x", ID: "1"}, Version: 1, Type: name, Data: value})
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// spelled is an event whose types are written in ways that are rarer.
const spelled = `{"type":"record","name":"Spelled","namespace":"x","fields":[
 {"name":"price","type":{"type":"fixed","name":"Money","size":4,"logicalType":"decimal","precision":9,"scale":2}},
 {"name":"again","type":"Money"},
 {"name":"maybe","type":["null","x.Money"]},
 {"name":"id","type":{"type":"fixed","name":"Id","size":16,"logicalType":"uuid"}},
 {"name":"otherId","type":"Id"},
 {"name":"tags","type":"array","items":"string"},
 {"name":"counts","type":"map","values":["null","long"]},
 {"name":"flatFixed","type":"fixed","size":2},
 {"name":"sameFixed","type":"flatFixed"},
 {"name":"flatMoney","type":"fixed","size":3,"logicalType":"decimal","precision":5,"scale":1},
 {"name":"flatEnum","type":"enum","symbols":["one","two"],"default":"one"},
 {"name":"flatRecord","type":"record","fields":[{"name":"deep","type":"array","items":"Money"}]}
]}`

func TestTypesMeanWhatTheCodecTakesThemForHoweverTheyAreWritten(t *testing.T) {
	t.Parallel()
	const uuid = "00112233-4455-6677-8899-aabbccddeeff"
	got := rowOfData(t, spelled, `{"price":"12.30","again":"-0.05","maybe":"1.00","id":"`+uuid+`","otherId":"`+uuid+`","tags":["a"],"counts":{"k":3},
		"flatFixed":"AQI=","sameFixed":"AwQ=","flatMoney":"1.5","flatEnum":"two","flatRecord":{"deep":["0.01"]}}`)
	const want = `{"again":"-0.05","counts":{"k":3},"flatEnum":"two","flatFixed":"AQI=","flatMoney":"1.5","flatRecord":{"deep":["0.01"]},"id":"` + uuid +
		`","maybe":"1.00","otherId":"` + uuid + `","price":"12.30","sameFixed":"AwQ=","tags":["a"]}`
	for i, how := range []string{"compiled", "interpreted"} {
		if got[i] != projection.JSON(want) {
			t.Errorf("%s:\ngot  %s\nwant %s", how, got[i], want)
		}
	}
}

func TestALogicalTypeOnAFieldCountsForItsType(t *testing.T) {
	t.Parallel()
	const text = `{"type":"record","name":"Lifted","namespace":"x","fields":[
	 {"name":"price","type":"bytes","logicalType":"decimal","precision":9,"scale":2},
	 {"name":"maybe","type":["null","bytes"],"logicalType":"decimal","precision":9,"scale":3},
	 {"name":"own","type":{"type":"bytes","logicalType":"decimal","precision":9},"logicalType":"decimal","precision":9,"scale":1},
	 {"name":"at","type":"long","logicalType":"timestamp-micros"},
	 {"name":"seenAt","type":["null","long"],"logicalType":"timestamp-millis"}]}`
	s, err := structOf("x.Lifted", text)
	if err != nil {
		t.Fatal(err)
	}
	library, err := avro.Parse(text) // the guard refuses the data of such decimals, and Lint such schemas
	if err != nil {
		t.Fatal(err)
	}
	data := reflect.New(s.goType)
	body := []byte{4, 4, 0xce, 2, 4, 4, 0xce, 2, 15, 2, 2, 0xd0, 0x0f} // 1230, 1230, 15, 1 µs, 1000 ms
	if rest, err := library.Decode(body, data.Interface()); err != nil || len(rest) > 0 {
		t.Fatalf("decode into %s: %v, %d bytes are left", s.goType, err, len(rest))
	}
	got, err := appendValue(nil, valueOf(data.Elem(), s))
	const want = `{"at":"1970-01-01T00:00:00.000001Z","maybe":"1.230","own":"1.5","price":"12.30","seenAt":"1970-01-01T00:00:01Z"}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}

func TestAListOfNothingIsAnError(t *testing.T) {
	t.Parallel()
	for _, typ := range []string{`"array"`, `"map"`, `{"type":"array"}`, `{"type":"map"}`, `["null",{"type":"array"}]`} {
		if s, err := structOf("x.A", `{"type":"record","name":"A","namespace":"x","fields":[{"name":"f","type":`+typ+`}]}`); err == nil {
			t.Errorf("%s: got %s, want an error", typ, s.goType)
		}
	}
}
