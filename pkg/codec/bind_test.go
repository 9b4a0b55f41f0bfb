package codec

import (
	"context"
	"errors"
	"math/big"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

func bind(t testing.TB, c *Codec, def TypeDef) *Binding {
	t.Helper()
	b, err := c.Bind(context.Background(), def)
	if err != nil {
		t.Fatalf("Bind: %v", err)
	}
	return b
}

func inspect(t testing.TB, c *Codec, typ string, value []byte) Payload {
	t.Helper()
	p, err := c.Inspect(context.Background(), typ, value)
	if err != nil {
		t.Fatalf("Inspect: %v", err)
	}
	return p
}

func TestAStructComesBackAsItWas(t *testing.T) {
	t.Parallel()
	c := New(NewStaticReader(register(t, 7, "order.Placed", 1, orderPlacedV1)), Config{})
	b := bind(t, c, placedDef())
	want := ordinary()
	value, err := b.Append([]byte("kept"), want)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(value), "kept\x00\x00\x00\x00\x07") {
		t.Fatalf("got % x, want what was there, then the header of schema 7", value[:9])
	}
	got, err := b.Decode(inspect(t, c, "order.Placed", value[4:]))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// TestAppendForgetsTheValueBefore: the pooled copy must not leak a field into the next value.
func TestAppendForgetsTheValueBefore(t *testing.T) {
	t.Parallel()
	c := New(NewStaticReader(register(t, 7, "order.Placed", 1, orderPlacedV1)), Config{})
	b := bind(t, c, placedDef())
	for _, v := range []placed{ordinary(), {Status: "closed"}, ordinary()} {
		value, err := b.Append(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.Decode(inspect(t, c, "order.Placed", value))
		if err != nil {
			t.Fatal(err)
		}
		if got := got.(placed); got.Customer != v.Customer || len(got.Lines) != len(v.Lines) || (got.Note == nil) != (v.Note == nil) {
			t.Errorf("got %+v, want %+v", got, v)
		}
	}
}

func TestLogicalTypesReachGo(t *testing.T) {
	t.Parallel()
	type all struct {
		At   time.Time     `avro:"at"`
		Day  time.Time     `avro:"day"`
		Took time.Duration `avro:"took"`
		Sum  *big.Rat      `avro:"sum"`
		ID   [16]byte      `avro:"id"`
		Span [12]byte      `avro:"span"`
	}
	text := `{"type":"record","namespace":"x","name":"All","fields":[
		{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
		{"name":"day","type":{"type":"int","logicalType":"date"}},
		{"name":"took","type":{"type":"long","logicalType":"time-micros"}},
		{"name":"sum","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
		{"name":"id","type":{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}},
		{"name":"span","type":{"type":"fixed","name":"D","size":12,"logicalType":"duration"}}]}`
	c := New(NewStaticReader(register(t, 1, "x.All", 1, text)), Config{})
	b := bind(t, c, TypeDef{Name: "x.All", Version: 1, GoType: reflect.TypeFor[all]()})
	want := all{
		At: time.UnixMicro(1_700_000_000_123_456).UTC(), Day: time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC),
		Took: 90 * time.Minute, Sum: big.NewRat(-12345, 100), ID: [16]byte{1, 15: 9}, Span: [12]byte{1, 11: 2},
	}
	value, err := b.Append(nil, want)
	if err != nil {
		t.Fatal(err)
	}
	p := inspect(t, c, "x.All", value)
	got, err := b.Decode(p)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("struct: got %+v, %v, want %+v", got, err, want)
	}
	m, err := c.DecodeMap(p)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"at": want.At, "day": want.Day, "took": want.Took, "sum": want.Sum, "id": want.ID, "span": want.Span[:]} {
		if !reflect.DeepEqual(m[name], want) {
			t.Errorf("map: %s is %T %v, want %T %v", name, m[name], m[name], want, want)
		}
	}
}

func TestBindFindsWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	type lacks struct {
		N int32 `avro:"n"`
	}
	type mistyped struct {
		N string `avro:"n"`
		Q struct {
			A bool `avro:"a"`
		} `avro:"q"`
	}
	type tooMuch struct {
		N int32 `avro:"n"`
		Q struct {
			A bool `avro:"a"`
		} `avro:"q"`
		Extra string `avro:"extra"`
	}
	type nested struct {
		N int32                `avro:"n"`
		Q *struct{ Wrong int } `avro:"q"`
	}
	text := `{"type":"record","namespace":"x","name":"T","fields":[{"name":"n","type":"int"},
		{"name":"q","type":["null",{"type":"record","name":"Q","fields":[{"name":"a","type":"boolean"}]}],"default":null}]}`
	reg, err := RegisterText(1, "x.T", 1, event.KindEvent, text)
	if err != nil {
		t.Fatal(err)
	}
	c := New(NewStaticReader(reg), Config{})
	for _, row := range []struct {
		name string
		def  TypeDef
		want string
	}{
		{"missing field", TypeDef{GoType: reflect.TypeFor[lacks](), Version: 1}, "schema field x.T.q has no field in Go struct codec.lacks: add one with the tag `avro:\"q\"`"},
		{"missing nested field", TypeDef{GoType: reflect.TypeFor[nested](), Version: 1}, "schema field x.T.q.a has no field"},
		{"wrong Go type", TypeDef{GoType: reflect.TypeFor[mistyped](), Version: 1}, "cannot hold"},
		{"tag that is not in the schema", TypeDef{GoType: reflect.TypeFor[tooMuch](), Version: 1}, "Go field codec.tooMuch.Extra has the tag `avro:\"extra\"`, which x.T does not have"},
		{"no struct", TypeDef{GoType: reflect.TypeFor[int](), Version: 1}, "bind to a struct"},
		{"another kind", TypeDef{Kind: event.KindCommand, Version: 1}, "the program says command, version 1 is registered as event"},
		{"upcaster beyond", TypeDef{Version: 1, Upcasters: map[int]Upcaster{1: nil}}, "cannot lead to version 1"},
	} {
		row.def.Name = "x.T"
		_, err := c.Bind(context.Background(), row.def)
		if !errors.Is(err, ErrBinding) || errors.Is(err, ErrBadData) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want ErrBinding and %q", row.name, err, row.want)
		}
	}
	if _, err := c.Bind(context.Background(), TypeDef{Name: "x.T", Version: 2}); !errors.Is(err, ErrUnknownSchema) {
		t.Errorf("version that is not registered: got %v, want ErrUnknownSchema", err)
	}
}

func TestBindTakesWhatFits(t *testing.T) {
	t.Parallel()
	type Base struct {
		N int64 `avro:"n"`
	}
	type embedding struct {
		Base
		Q      any `avro:"q"`
		Hidden int `avro:"-"`
		local  string
	}
	type list struct {
		Next *list `avro:"next"`
	}
	_ = embedding{local: ""}
	union := register(t, 1, "x.U", 1, `{"type":"record","namespace":"x","name":"U","fields":[{"name":"n","type":"long"},{"name":"q","type":["null","int","string",{"type":"array","items":"int"}]}]}`)
	recursive := register(t, 2, "x.L", 1, `{"type":"record","namespace":"x","name":"L","fields":[{"name":"next","type":["null","L"]}]}`)
	moment := register(t, 3, "x.M", 1, `{"type":"record","namespace":"x","name":"M","fields":[{"name":"at","type":"string"}]}`)
	c := New(NewStaticReader(union, recursive, moment), Config{})
	type textual struct {
		At time.Time `avro:"at"`
	}
	for name, goType := range map[string]reflect.Type{
		"x.U": reflect.TypeFor[embedding](), "x.L": reflect.TypeFor[list](), "x.M": reflect.TypeFor[textual](),
	} {
		if _, err := c.Bind(context.Background(), TypeDef{Name: name, Version: 1, GoType: goType}); err != nil {
			t.Errorf("%s: got %v, want it to bind", name, err)
		}
	}
}

func TestNothingIsWrittenThatTheGuardWouldRefuse(t *testing.T) {
	t.Parallel()
	c := New(NewStaticReader(register(t, 7, "order.Placed", 1, orderPlacedV1)), Config{Limits: Limits{BytesMax: 4096}})
	b := bind(t, c, placedDef())
	for name, change := range map[string]func(*placed){
		"invalid UTF-8":  func(p *placed) { p.Customer = "\xff" },
		"too large":      func(p *placed) { p.Customer = strings.Repeat("x", 5000) },
		"year 300000":    func(p *placed) { p.At = 1 << 62 },
		"unknown symbol": func(p *placed) { p.Status = "lost" },
	} {
		v := ordinary()
		change(&v)
		got, err := b.Append([]byte("kept"), v)
		var typed *Error
		if !errors.As(err, &typed) || typed.Op != OpEncode || !errors.Is(err, ErrBadData) || string(got) != "kept" {
			t.Errorf("%s: got %q, %v, want an encode error and dst as it was", name, got, err)
		}
	}
	if _, err := b.Append(nil, &placed{}); !errors.Is(err, ErrBadData) {
		t.Errorf("pointer: got %v, want an error", err)
	}
}

func TestMapsAreBoundWhereThereIsNoStruct(t *testing.T) {
	t.Parallel()
	c := New(NewStaticReader(register(t, 7, "order.Counted", 1, counted)), Config{})
	b := bind(t, c, TypeDef{Name: "order.Counted", Version: 1})
	value, err := b.Append(nil, map[string]any{"n": 3})
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Decode(inspect(t, c, "order.Counted", value))
	if err != nil || !reflect.DeepEqual(got, map[string]any{"n": int32(3)}) {
		t.Errorf("got %v, %v, want n = 3", got, err)
	}
	if _, err := b.Append(nil, map[string]any{"m": 3}); !errors.Is(err, ErrBadData) {
		t.Errorf("missing key: got %v, want an error", err)
	}
}

func TestABindingRefusesAnotherTypesPayload(t *testing.T) {
	t.Parallel()
	other := register(t, 8, "order.Other", 1, `{"type":"record","namespace":"order","name":"Other","fields":[]}`)
	c := New(NewStaticReader(register(t, 7, "order.Counted", 1, counted), other), Config{})
	b := bind(t, c, TypeDef{Name: "order.Counted", Version: 1})
	if _, err := b.Decode(inspect(t, c, "order.Other", AppendConfluent(nil, 8))); !errors.Is(err, ErrTypeMismatch) {
		t.Errorf("got %v, want ErrTypeMismatch", err)
	}
	if _, err := b.Decode(Payload{}); !errors.Is(err, ErrBinding) {
		t.Errorf("empty payload: got %v, want ErrBinding", err)
	}
}

func TestBindingsServeManyGoroutines(t *testing.T) {
	t.Parallel()
	c := New(NewStaticReader(register(t, 7, "order.Placed", 1, orderPlacedV1)), Config{})
	b := bind(t, c, placedDef())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				want := ordinary()
				want.Total = int64(i*1000 + j)
				value, err := b.Append(nil, want)
				if err != nil {
					t.Error(err)
					return
				}
				p, err := c.Inspect(context.Background(), "order.Placed", value)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := b.Decode(p); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("got %+v, %v, want %+v", got, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}
