package codec

import (
	"fmt"
	"strings"
	"testing"
)

// The fingerprints are those of Java's SchemaNormalization.parsingFingerprint64, from the Avro
// specification's own test cases.
func TestFingerprintsAreThoseOfTheSpecification(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Fingerprint{
		`"null"`:             0x63dd24e7cc258f8a,
		`{"type":"boolean"}`: 0x9f42fc78a4d4f764,
		`"int"`:              0x7275d51a3f395c8f,
		`"string"`:           0x8f014872634503c7,
		`"bytes"`:            0x4fc016dac3201965,
	} {
		if got := compile(t, text).Fingerprint(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestSchemaTellsNamePropertiesAndCanonicalForm(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"type":"record","namespace":"order","name":"Placed","doc":"x","fs.kind":"event","fs.n":3,"fields":[]}`)
	for what, pair := range map[string][2]string{
		"name":             {s.Name(), "order.Placed"},
		"property":         {s.Prop("fs.kind"), "event"},
		"absent property":  {s.Prop("fs.type"), ""},
		"numeric property": {s.Prop("fs.n"), ""},
		"canonical":        {s.Canonical(), `{"name":"order.Placed","type":"record","fields":[]}`},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %q, want %q", what, pair[0], pair[1])
		}
	}
	if !strings.Contains(s.Text(), `"doc":"x"`) {
		t.Errorf("text lost its doc: %s", s.Text())
	}
}

func TestNamesResolveWithinTheirNamespace(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"type":"record","namespace":"a.b","name":"R","fields":[
		{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},
		{"name":"again","type":"E"},
		{"name":"x","type":["null",{"type":"record","name":"c.Q","fields":[{"name":"r","type":["null","Q","a.b.R"]}]}]},
		{"name":"q","type":"c.Q"}]}`)
	if got := s.root.children[1]; got != s.root.children[0] {
		t.Errorf("E within a.b: got another node than its definition")
	}
	q := s.root.children[2].children[1]
	if q.name != "c.Q" || q.children[0].children[1] != q || q.children[0].children[2] != s.root || s.root.children[3] != q {
		t.Errorf("references of c.Q do not lead to the definitions")
	}
}

func TestOversizedSchemasAreRefused(t *testing.T) {
	t.Parallel()
	var fields []string
	for i := range SchemaNodesMax + 1 {
		fields = append(fields, fmt.Sprintf(`{"name":"f%d","type":"int"}`, i))
	}
	for name, text := range map[string]string{
		"no JSON":         `{`,
		"unknown type":    `{"type":"record","name":"R","fields":[{"name":"a","type":"Nope"}]}`,
		"too many bytes":  `{"type":"string","doc":"` + strings.Repeat("x", SchemaBytesMax) + `"}`,
		"too many fields": `{"type":"record","name":"R","fields":[` + strings.Join(fields, ",") + `]}`,
		"wide decimal":    `{"type":"bytes","logicalType":"decimal","precision":60000,"scale":2}`,
		"fixed decimal":   `{"type":"fixed","name":"F","size":30000,"logicalType":"decimal","precision":9,"scale":2}`,
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%s: parsed, want an error", name)
		}
	}
}
