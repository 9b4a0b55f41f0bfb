package codec

import (
	"errors"
	"testing"

	"github.com/twmb/avro"
)

func TestCompatibilityByChange(t *testing.T) {
	t.Parallel()
	field := func(typ string) string { return xRecord(`{"name":"f","type":` + typ + `}`) }
	for _, row := range []struct {
		name, writer, reader string
		want                 string // "" when the reader can read
	}{
		{"same", field(`"int"`), field(`"int"`), ""},
		{"field dropped", field(`"int"`), xRecord(``), ""},
		{"field added with a default", xRecord(``), xRecord(`{"name":"f","type":"int","default":1}`), ""},
		{"field added without", xRecord(``), field(`"int"`), "is new and has no default"},
		{"field renamed with an alias", field(`"int"`), xRecord(`{"name":"g","aliases":["f"],"type":"int"}`), ""},
		{"field renamed without", field(`"int"`), xRecord(`{"name":"g","type":"int"}`), "is new and has no default"},
		{"widened", field(`"int"`), field(`"long"`), ""},
		{"narrowed", field(`"long"`), field(`"int"`), "changes from long to int"},
		{"made nullable", field(`"int"`), field(`["null","int"]`), ""},
		{"made nullable and widened", field(`"int"`), field(`["null","long"]`), ""},
		{"made required", field(`["null","int"]`), field(`"int"`), "from nullable to required"},
		{"branch added", field(`["null","int"]`), field(`["null","int","string"]`), ""},
		{"branch dropped", field(`["null","int","string"]`), field(`["null","int"]`), "no longer takes string"},
		{"symbol added", field(`{"type":"enum","name":"E","symbols":["A"]}`), field(`{"type":"enum","name":"E","symbols":["A","B"]}`), ""},
		{"symbol dropped with a default", field(`{"type":"enum","name":"E","symbols":["A","B"]}`), field(`{"type":"enum","name":"E","symbols":["A"],"default":"A"}`), ""},
		{"symbol dropped without", field(`{"type":"enum","name":"E","symbols":["A","B"]}`), field(`{"type":"enum","name":"E","symbols":["A"]}`), "no longer has the symbol B"},
		{"record renamed", field(`{"type":"record","name":"Q","fields":[]}`), field(`{"type":"record","name":"P","fields":[]}`), "changes its name from x.Q to x.P"},
		{"record renamed with an alias", field(`{"type":"record","name":"Q","fields":[]}`), field(`{"type":"record","name":"P","aliases":["Q"],"fields":[]}`), ""},
		{"fixed resized", field(`{"type":"fixed","name":"F","size":3}`), field(`{"type":"fixed","name":"F","size":4}`), "changes from 3 to 4 bytes"},
		{"items changed", field(`{"type":"array","items":"string"}`), field(`{"type":"array","items":"int"}`), "changes from string to int"},
		{"values changed", field(`{"type":"map","values":"string"}`), field(`{"type":"map","values":"int"}`), "changes from string to int"},
		{"millis to micros", field(`{"type":"long","logicalType":"timestamp-millis"}`), field(`{"type":"long","logicalType":"timestamp-micros"}`), "logical type from timestamp-millis to timestamp-micros"},
		{"logical type added", field(`"long"`), field(`{"type":"long","logicalType":"timestamp-micros"}`), "logical type from none to timestamp-micros"},
		{"logical type dropped", field(`{"type":"long","logicalType":"timestamp-micros"}`), field(`"long"`), "logical type from timestamp-micros to none"},
		{"logical type changed within a union", field(`["null",{"type":"long","logicalType":"timestamp-millis"}]`), field(`["null",{"type":"long","logicalType":"timestamp-micros"}]`), "logical type from"},
		{"date widened to a timestamp", field(`{"type":"int","logicalType":"date"}`), field(`{"type":"long","logicalType":"timestamp-micros"}`), "logical type from"},
		{"decimal rescaled", field(`{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}`), field(`{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}`), "decimal(9,2) to decimal(9,3)"},
		{"recursive", xRecord(`{"name":"f","type":["null","T"]}`), xRecord(`{"name":"f","type":["null","T"]},{"name":"g","type":"int","default":0}`), ""},
		{"fault inside recursion", xRecord(`{"name":"f","type":["null","T"]},{"name":"n","type":"int"}`), xRecord(`{"name":"f","type":["null","T"]},{"name":"n","type":"string"}`), "changes from int to string"},
	} {
		faults := CheckCompatible(compile(t, row.reader), compile(t, row.writer))
		if row.want == "" {
			if len(faults) > 0 {
				t.Errorf("%s: got %v, want none", row.name, faults)
			}
			if _, err := avro.Resolve(compile(t, row.writer).avro, compile(t, row.reader).avro); err != nil {
				t.Errorf("%s: the library does not resolve what we call compatible: %v", row.name, err)
			}
			continue
		}
		found := false
		for _, f := range faults {
			found = found || hasFault(faults, f.Path, row.want)
		}
		if !found {
			t.Errorf("%s: got %v, want a fault that says %q", row.name, faults, row.want)
		}
	}
}

func TestAllIncompatibilitiesAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	writer := xRecord(`{"name":"a","type":"long"},{"name":"b","type":["null","int"]}`)
	reader := xRecord(`{"name":"a","type":"int"},{"name":"b","type":"int"},{"name":"c","type":"int"}`)
	faults := CheckCompatible(compile(t, reader), compile(t, writer))
	for path, text := range map[string]string{"x.T.a": "from long to int", "x.T.b": "nullable to required", "x.T.c": "no default"} {
		if !hasFault(faults, path, text) {
			t.Errorf("got %v, want a fault at %s that says %q", faults, path, text)
		}
	}
	if len(faults) != 3 {
		t.Errorf("got %d faults, want 3: %v", len(faults), faults)
	}
}

// TestTheLibraryHasTheLastWord: two old fields that both answer to one new field, which only the
// library looks for.
func TestTheLibraryHasTheLastWord(t *testing.T) {
	t.Parallel()
	writer := xRecord(`{"name":"a","type":"int"},{"name":"b","type":"int"}`)
	reader := xRecord(`{"name":"a","aliases":["b"],"type":"int"}`)
	if faults := CheckCompatible(compile(t, reader), compile(t, writer)); len(faults) != 1 {
		t.Errorf("got %v, want the library's fault", faults)
	}
}

func TestCompatibilityErrorsSayWhatAndAgainstWhat(t *testing.T) {
	t.Parallel()
	err := error(&CompatibilityError{Type: "x.T", Version: 3, Against: 1, Faults: []string{"x.T.a: one", "x.T.b: two"}})
	if want := "x.T version 3 cannot read what version 1 wrote: x.T.a: one; x.T.b: two"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if !errors.Is(err, ErrIncompatible) {
		t.Errorf("it does not wrap ErrIncompatible")
	}
}
