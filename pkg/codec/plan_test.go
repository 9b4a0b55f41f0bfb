package codec

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func person(version int, fields string) string {
	return fmt.Sprintf(`{"type":"record","namespace":"x","name":"Person","doc":"version %d","fields":[%s]}`, version, fields)
}

const (
	personV1 = `{"name":"name","type":"string"}`
	personV2 = `{"name":"name","type":"string"},{"name":"age","type":"int","default":-1}`
	personV3 = `{"name":"first","type":"string","default":""},{"name":"last","type":"string","default":""},{"name":"age","type":"int","default":-1}`
	personV4 = `{"name":"first","type":"string","default":""},{"name":"last","type":"string","default":""},{"name":"age","type":"long","default":-1}`
)

type personStruct struct {
	First string `avro:"first"`
	Last  string `avro:"last"`
	Age   int64  `avro:"age"`
}

func persons(t *testing.T) *Codec {
	t.Helper()
	var regs []*Registered
	for i, fields := range []string{personV1, personV2, personV3, personV4} {
		regs = append(regs, register(t, int32(i+1), "x.Person", i+1, person(i+1, fields)))
	}
	return New(NewStaticReader(regs...), Config{})
}

func splitName(m map[string]any) (map[string]any, error) {
	first, last, _ := strings.Cut(m["name"].(string), " ")
	return map[string]any{"first": first, "last": last, "age": m["age"]}, nil
}

// writePerson writes what version wrote, as a framed value.
func writePerson(t *testing.T, c *Codec, version int, m map[string]any) []byte {
	t.Helper()
	value, err := bind(t, c, TypeDef{Name: "x.Person", Version: version}).Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestOldVersionsAreRaisedStepByStep(t *testing.T) {
	t.Parallel()
	c := persons(t)
	struct4 := TypeDef{Name: "x.Person", Version: 4, GoType: reflect.TypeFor[personStruct]()}
	with := func(ups map[int]Upcaster) TypeDef { def := struct4; def.Upcasters = ups; return def }
	ageOf := func(age int) Upcaster {
		return func(m map[string]any) (map[string]any, error) { m["age"] = age; return m, nil }
	}
	for _, row := range []struct {
		name   string
		writer int
		wrote  map[string]any
		def    TypeDef
		want   personStruct
	}{
		{"own version", 4, map[string]any{"first": "A", "last": "B", "age": 5}, struct4, personStruct{"A", "B", 5}},
		{"resolution alone", 3, map[string]any{"first": "A", "last": "B", "age": 5}, struct4, personStruct{"A", "B", 5}},
		{"an upcaster, then resolution", 2, map[string]any{"name": "A B", "age": 5}, with(map[int]Upcaster{2: splitName}), personStruct{"A", "B", 5}},
		{"resolution, an upcaster, resolution", 1, map[string]any{"name": "A B"}, with(map[int]Upcaster{2: splitName}), personStruct{"A", "B", -1}},
		{"a chain", 1, map[string]any{"name": "A B"}, with(map[int]Upcaster{1: ageOf(7), 2: splitName}), personStruct{"A", "B", 7}},
		{"two chains with resolution between", 1, map[string]any{"name": "A B"},
			with(map[int]Upcaster{1: ageOf(7), 3: ageOf(9)}), personStruct{"", "", 9}},
		{"an upcaster below the writer is left out", 3, map[string]any{"first": "A", "last": "B", "age": 5}, with(map[int]Upcaster{2: splitName}), personStruct{"A", "B", 5}},
	} {
		b := bind(t, c, row.def)
		value := writePerson(t, c, row.writer, row.wrote)
		for range 2 { // the second time from the cached plan
			got, err := b.Decode(inspect(t, c, "x.Person", value))
			if err != nil || got != row.want {
				t.Errorf("%s: got %+v, %v, want %+v", row.name, got, err, row.want)
			}
		}
	}
}

func TestANewerWriterIsResolved(t *testing.T) {
	t.Parallel()
	c := persons(t)
	b := bind(t, c, TypeDef{Name: "x.Person", Version: 1})
	got, err := b.Decode(inspect(t, c, "x.Person", writePerson(t, c, 2, map[string]any{"name": "A", "age": 3})))
	if err != nil || !reflect.DeepEqual(got, map[string]any{"name": "A"}) {
		t.Errorf("got %v, %v, want the fields of version 1", got, err)
	}
}

func TestVersionsThatCannotBeReadAreNamed(t *testing.T) {
	t.Parallel()
	c := persons(t)
	b := bind(t, c, TypeDef{Name: "x.Person", Version: 1})
	value := writePerson(t, c, 4, map[string]any{"first": "A", "last": "B", "age": 5})
	for range 2 {
		_, err := b.Decode(inspect(t, c, "x.Person", value))
		if !errors.Is(err, ErrIncompatible) || !strings.Contains(err.Error(), "x.Person.name: is new and has no default") {
			t.Errorf("got %v, want ErrIncompatible that names the field", err)
		}
	}
}

func TestAnUpcastersFaultIsTheRecords(t *testing.T) {
	t.Parallel()
	c := persons(t)
	boom := errors.New("boom")
	value := writePerson(t, c, 2, map[string]any{"name": "A B", "age": 5})
	for name, row := range map[string]struct {
		up   Upcaster
		want string
	}{
		"error":         {func(map[string]any) (map[string]any, error) { return nil, boom }, "boom"},
		"panic":         {func(map[string]any) (map[string]any, error) { panic("kaboom") }, "kaboom"},
		"nothing":       {func(map[string]any) (map[string]any, error) { return nil, nil }, "no map"},
		"unfit results": {func(m map[string]any) (map[string]any, error) { m["age"] = "old"; return m, nil }, "no version 3"},
	} {
		b := bind(t, c, TypeDef{Name: "x.Person", Version: 4, Upcasters: map[int]Upcaster{2: row.up}})
		_, err := b.Decode(inspect(t, c, "x.Person", value))
		var typed *Error
		if !errors.As(err, &typed) || typed.Op != OpUpcast || !errors.Is(err, ErrUpcast) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want an upcast error with %q", name, err, row.want)
		}
	}
}

func TestAnUpcasterNeedsItsVersionsRegistered(t *testing.T) {
	t.Parallel()
	c := New(NewStaticReader(register(t, 4, "x.Person", 4, person(4, personV4))), Config{})
	_, err := c.Bind(context.Background(), TypeDef{Name: "x.Person", Version: 4, Upcasters: map[int]Upcaster{2: splitName}})
	if !errors.Is(err, ErrUnknownSchema) || !strings.Contains(err.Error(), "upcaster from version 2") {
		t.Errorf("got %v, want ErrUnknownSchema that names the upcaster", err)
	}
}

// panicky is a Go type whose own UnmarshalText panics.
type panicky struct{}

func (*panicky) UnmarshalText([]byte) error { panic("in the user's code") }

func TestAPanicWhileDecodingEndsNothing(t *testing.T) {
	t.Parallel()
	type withPanic struct {
		Name panicky `avro:"name"`
	}
	c := persons(t)
	b := bind(t, c, TypeDef{Name: "x.Person", Version: 1, GoType: reflect.TypeFor[withPanic]()})
	value := writePerson(t, c, 1, map[string]any{"name": "A"})
	if _, err := b.Decode(inspect(t, c, "x.Person", value)); !errors.Is(err, ErrBadData) || !strings.Contains(err.Error(), "in the user's code") {
		t.Errorf("got %v, want bad data that tells the panic", err)
	}
}
