package codec

import (
	"fmt"
	"strings"
	"testing"
)

func xRecord(fields string) string {
	return `{"type":"record","namespace":"x","name":"T","fields":[` + fields + `]}`
}

func TestLintNamesWhatIsUnfit(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, schema, path, want string }{
		{"no record", `"string"`, "string", "a registered type is a record"},
		{"no category", `{"type":"record","name":"T","fields":[]}`, "T", "<category>.<Name>"},
		{"two namespaces", `{"type":"record","name":"com.acme.T","fields":[]}`, "com.acme.T", "<category>.<Name>"},
		{"a mapped type without a category", `{"type":"record","name":"com.acme.T","fs.type":"T","fields":[]}`, "com.acme.T", `fs.type "T" is not of the form`},
		{"a mapped type of two namespaces", `{"type":"record","name":"x.T","fs.type":"com.acme.T","fields":[]}`, "x.T", `fs.type "com.acme.T" is not of the form`},
		{"unknown kind", `{"type":"record","name":"x.T","fs.kind":"query","fields":[]}`, "x.T", `fs.kind is "query"`},
		{"enum without default", xRecord(`{"name":"e","type":{"type":"enum","name":"E","symbols":["A"]}}`), "x.T.e", "has no default"},
		{"array of null", xRecord(`{"name":"a","type":{"type":"array","items":"null"}}`), "x.T.a[]", "no bytes"},
		{"array of empty records", xRecord(`{"name":"a","type":{"type":"array","items":{"type":"record","name":"E","fields":[]}}}`), "x.T.a[]", "no bytes"},
		{"array of empty fixed", xRecord(`{"name":"a","type":{"type":"array","items":{"type":"fixed","name":"E","size":0}}}`), "x.T.a[]", "no bytes"},
		{"map of null", xRecord(`{"name":"a","type":{"type":"map","values":"null"}}`), "x.T.a[]", "no bytes"},
		{"record that holds itself", xRecord(`{"name":"t","type":"T"}`), "x.T", "always holds itself"},
		{"records that hold each other", xRecord(`{"name":"u","type":{"type":"record","name":"U","fields":[{"name":"t","type":"T"},{"name":"n","type":"int"}]}}`), "x.T", "always holds itself"},
		{"doubling records", xRecord(`{"name":"d","type":` + doubling(15) + `}`), "x.T", "values, at most"},
		{"logical type on a wrong base", xRecord(`{"name":"d","type":{"type":"string","logicalType":"date"}}`), "x.T.d", "date stands on string"},
		{"logical type with a typing error", xRecord(`{"name":"d","type":{"type":"long","logicalType":"timestamp-micro"}}`), "x.T.d", `"timestamp-micro" is not known`},
		{"logical type on the field", xRecord(`{"name":"d","type":"long","logicalType":"timestamp-micros"}`), "x.T.d", "stands on the field"},
		{"logical type in a union", xRecord(`{"name":"d","type":["null",{"type":"string","logicalType":"date"}]}`), "x.T.d", "date stands on string"},
		{"default of a later branch", xRecord(`{"name":"d","type":["string","null"],"default":null}`), "x.T.d", "first branch"},
	} {
		faults := Lint(compile(t, row.schema))
		if !hasFault(faults, row.path, row.want) {
			t.Errorf("%s: got %v, want a fault at %s that says %q", row.name, faults, row.path, row.want)
		}
		for _, f := range faults {
			if f.Remedy == "" {
				t.Errorf("%s: fault %v has no remedy", row.name, f)
			}
		}
	}
}

func TestLintTakesSaneSchemas(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]string{
		"order":          orderPlacedV1,
		"a foreign name": `{"type":"record","namespace":"com.acme.shop","name":"T","fs.type":"x.T","fields":[{"name":"a","type":"int"}]}`,
		"nullable first": xRecord(`{"name":"d","type":["null","string"],"default":null}`),
		"linked list":    xRecord(`{"name":"next","type":["null","T"],"default":null}`),
		"tree":           xRecord(`{"name":"children","type":{"type":"array","items":{"type":"record","name":"N","fields":[{"name":"t","type":["null","T"]}]}}}`),
		"logical types": xRecord(`{"name":"a","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"b","type":{"type":"int","logicalType":"date"}},
			{"name":"c","type":{"type":"fixed","name":"D","size":12,"logicalType":"duration"}},{"name":"d","type":{"type":"string","logicalType":"uuid"}}`),
		"defaults": xRecord(`{"name":"a","type":["int","null"],"default":3},{"name":"b","type":["string","null"],"default":"x"},
			{"name":"c","type":[{"type":"array","items":"int"},"null"],"default":[]},{"name":"d","type":["bytes","null"],"default":"\u00ff"},{"name":"e","type":["boolean","null"],"default":true}`),
	} {
		if faults := Lint(compile(t, schema)); len(faults) > 0 {
			t.Errorf("%s: got %v, want none", name, faults)
		}
	}
}

func hasFault(faults []Fault, path, text string) bool {
	for _, f := range faults {
		if f.Path == path && strings.Contains(f.Message, text) {
			return true
		}
	}
	return false
}

func TestFaultsTellTheirRemedy(t *testing.T) {
	t.Parallel()
	if got, want := fmt.Sprint(Fault{"a.b", "is wrong", "right it"}), "a.b: is wrong (right it)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := fmt.Sprint(Fault{Path: "a.b", Message: "is wrong"}), "a.b: is wrong"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
