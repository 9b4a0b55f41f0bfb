package declared

import (
	"context"
	"testing"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
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
