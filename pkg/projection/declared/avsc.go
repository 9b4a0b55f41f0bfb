package declared

import (
	"encoding/json"
	"fmt"
	"slices"
)

// avsc is one datum of a schema's text, as far as its shape goes. The text was parsed and checked
// by pkg/codec, which alone reads data.
type avsc struct {
	Type      string // a primitive, array, map, union, record, enum, fixed, or a name
	Name      string
	Namespace string
	Logical   string
	Scale     int
	scaled    bool // the scale is written
	Size      int
	Items     *avsc // of an array or a map
	Branches  []*avsc
	Fields    []avscField
}

type avscField struct {
	Name string
	Type *avsc
}

func parseAVSC(text string) (*avsc, error) {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("schema does not parse: %w", err)
	}
	return readAVSC(v)
}

func readAVSC(v any) (*avsc, error) {
	switch v := v.(type) {
	case string:
		return &avsc{Type: v}, nil
	case []any:
		out := &avsc{Type: "union"}
		for _, branch := range v {
			one, err := readAVSC(branch)
			if err != nil {
				return nil, err
			}
			out.Branches = append(out.Branches, one)
		}
		return out, nil
	case map[string]any:
		return readObject(v)
	}
	return nil, fmt.Errorf("schema has a %T where a type belongs", v)
}

func readObject(m map[string]any) (*avsc, error) {
	typ, plain := m["type"].(string)
	if !plain { // {"type": {…}} and {"type": […]} stand for what is inside
		return readAVSC(m["type"])
	}
	out := &avsc{
		Type: typ, Name: textIn(m, "name"), Namespace: textIn(m, "namespace"), Logical: textIn(m, "logicalType"),
		Scale: numberIn(m, "scale"), Size: numberIn(m, "size"),
	}
	_, out.scaled = m["scale"]
	var err error
	switch typ {
	case "array":
		out.Items, err = readAVSC(m["items"])
	case "map":
		out.Items, err = readAVSC(m["values"])
	case "record", "error":
		out.Fields, err = readFields(m["fields"])
	}
	return out, err
}

func readFields(v any) ([]avscField, error) {
	list, _ := v.([]any)
	var out []avscField
	for _, item := range list {
		m, _ := item.(map[string]any)
		typ, err := readFieldType(m)
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", textIn(m, "name"), err)
		}
		out = append(out, avscField{Name: textIn(m, "name"), Type: typ})
	}
	return out, nil
}

// flatKeys are the keys by which a field that is written flat, as goavro takes it, holds its type:
// {"name": "tags", "type": "array", "items": "string"}.
var flatKeys = map[string]string{"array": "items", "map": "values", "enum": "symbols", "fixed": "size", "record": "fields", "error": "fields"}

// readFieldType reads the type of a field as the codec does: it may be written flat, and a logical
// type may stand on the field.
func readFieldType(m map[string]any) (*avsc, error) {
	if kind, plain := m["type"].(string); plain {
		if _, flat := m[flatKeys[kind]]; flat {
			return readObject(m)
		}
	}
	typ, err := readAVSC(m["type"])
	if err == nil {
		typ.lift(m)
	}
	return typ, err
}

// lift applies the logical type that stands on a field to its type, or to the first branch that is
// not null. What is written on the type wins.
func (n *avsc) lift(field map[string]any) {
	logical := textIn(field, "logicalType")
	if logical == "" {
		return
	}
	if n.Type == "union" {
		i := slices.IndexFunc(n.Branches, func(b *avsc) bool { return b.Type != "null" })
		if i < 0 {
			return
		}
		n = n.Branches[i]
	}
	if n.Logical == "" {
		n.Logical = logical
	}
	if n.Logical == "decimal" && !n.scaled {
		n.Scale = numberIn(field, "scale")
	}
}

func textIn(m map[string]any, key string) string {
	text, _ := m[key].(string)
	return text
}

func numberIn(m map[string]any, key string) int {
	n, _ := m[key].(float64)
	return int(n)
}
