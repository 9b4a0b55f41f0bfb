package codec

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// checkStruct says what in a Go struct does not fit a schema, all faults at once.
func checkStruct(s *Schema, goType reflect.Type) error {
	if goType.Kind() != reflect.Struct {
		return fmt.Errorf("%w: %s is a %s; bind to a struct with avro tags", ErrBinding, goType, goType.Kind())
	}
	c := structCheck{seen: map[structPair]bool{}}
	c.match(s.root, goType, s.root.name)
	if len(c.faults) > 0 {
		return fmt.Errorf("%w: %w", ErrBinding, errors.Join(c.faults...))
	}
	if c.readsText {
		return nil // its UnmarshalText may well refuse our sample texts
	}
	if err := tryStruct(s, goType); err != nil {
		return fmt.Errorf("%w: %w", ErrBinding, err)
	}
	return nil
}

type structPair struct {
	node   *node
	goType reflect.Type
}

// structCheck walks schema and Go type side by side and compares the names of fields. Whether
// the types of fields fit is tried by tryStruct, since the Avro library alone knows its rules.
type structCheck struct {
	seen      map[structPair]bool
	faults    []error
	readsText bool
}

func (c *structCheck) match(n *node, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	pair := structPair{n, t}
	if c.seen[pair] {
		return
	}
	c.seen[pair] = true
	switch n.kind {
	case kindRecord:
		c.matchRecord(n, t, path)
	case kindUnion:
		for _, branch := range n.children {
			c.match(branch, t, path)
		}
	case kindArray:
		if t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
			c.match(n.item, t.Elem(), path+"[]")
		}
	case kindMap:
		if t.Kind() == reflect.Map {
			c.match(n.item, t.Elem(), path+"[]")
		}
	case kindString, kindEnum:
		c.readsText = c.readsText || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
	}
}

func (c *structCheck) matchRecord(n *node, t reflect.Type, path string) {
	if t.Kind() != reflect.Struct {
		return
	}
	goFields := map[string]goField{}
	collectFields(t, goFields, 0)
	inSchema := map[string]bool{}
	for i, f := range n.fields {
		inSchema[f.name] = true
		held, ok := goFields[f.name]
		if !ok {
			c.faults = append(c.faults, fmt.Errorf("schema field %s.%s has no field in Go struct %s: add one with the tag `avro:%q`", path, f.name, t, f.name))
			continue
		}
		c.match(n.children[i], held.goType, path+"."+f.name)
	}
	for name, held := range goFields {
		if held.tagged && !inSchema[name] {
			c.faults = append(c.faults, fmt.Errorf("Go field %s.%s has the tag `avro:%q`, which %s does not have: correct the tag, or bind to the schema version that has it", t, held.goName, name, path))
		}
	}
}

type goField struct {
	goName string
	goType reflect.Type
	tagged bool
	depth  int
}

// collectFields lists the Avro names of a struct's fields by the Avro library's rules: a tagged
// field wins over an untagged one, then the shallower.
func collectFields(t reflect.Type, into map[string]goField, depth int) {
	const depthMax = 16 // an embedded type may embed itself by pointer
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("avro"), ",")
		if name == "-" {
			continue
		}
		if inlined(f, name, options) {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && depth < depthMax {
				collectFields(inner, into, depth+1)
			}
			continue
		}
		if !f.IsExported() {
			continue
		}
		held := goField{goName: f.Name, goType: f.Type, tagged: name != "", depth: depth}
		if name == "" {
			name = f.Name
		}
		if old, ok := into[name]; !ok || held.tagged && !old.tagged || held.tagged == old.tagged && held.depth < old.depth {
			into[name] = held
		}
	}
}

func inlined(f reflect.StructField, name, options string) bool {
	if f.Anonymous && name == "" {
		return true
	}
	for option := range strings.SplitSeq(options, ",") {
		if option == "inline" {
			return true
		}
	}
	return false
}

// tryStruct decodes sample bodies into the struct and encodes them again, so that a field of a
// wrong Go type is found at start and not at the first event.
func tryStruct(s *Schema, goType reflect.Type) error {
	for variant := range s.variants() {
		sample := appendSample(nil, s.root, variant, sampleDepth)
		v, err := decodeNew(s.avro, sample, goType)
		if err != nil {
			return fmt.Errorf("Go struct %s cannot hold the schema's values: %w", goType, stripped(err))
		}
		p := reflect.New(goType)
		p.Elem().Set(reflect.ValueOf(v))
		if _, err := encode(s.avro, nil, p.Interface()); err != nil {
			return fmt.Errorf("Go struct %s does not encode: %w", goType, stripped(err))
		}
	}
	return nil
}

// stripped takes the mark of bad data off: a program's fault is none.
func stripped(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), ErrBadData.Error()+": "))
}

// variants is the number of samples that show every branch of every union.
func (s *Schema) variants() int {
	n := 1
	for _, node := range s.nodes {
		if node.kind == kindUnion {
			n = max(n, len(node.children))
		}
	}
	return n
}

// sampleDepth bounds recursion in samples.
const sampleDepth = 12

// appendSample appends a small valid datum: unions take the branch with the number of variant
// (or their last), arrays and maps hold one item. Near the bottom the shortest datum is taken.
func appendSample(dst []byte, n *node, variant, depthLeft int) []byte {
	switch n.kind {
	case kindNull:
		return dst
	case kindFloat, kindDouble, kindFixed:
		return append(dst, make([]byte, n.minBytes)...)
	case kindBytes, kindString:
		return appendSampleText(dst, n)
	case kindRecord:
		for _, child := range n.children {
			dst = appendSample(dst, child, variant, depthLeft-1)
		}
		return dst
	case kindUnion:
		i := min(variant, len(n.children)-1)
		if depthLeft <= 0 {
			i = n.shortestBranch()
		}
		return appendSample(binary.AppendVarint(dst, int64(i)), n.children[i], variant, depthLeft-1)
	case kindArray, kindMap:
		if depthLeft <= 0 || n.item.minBytes >= boundless {
			return append(dst, 0)
		}
		dst = append(dst, 2)
		if n.kind == kindMap {
			dst = append(dst, 0)
		}
		return append(appendSample(dst, n.item, variant, depthLeft-1), 0)
	}
	return append(dst, 0)
}

func appendSampleText(dst []byte, n *node) []byte {
	switch {
	case n.rule == ruleBigDecimal:
		return append(dst, 6, 2, 0, 0)
	case n.rule == ruleDecimal:
		return append(dst, 2, 0)
	case n.kind == kindString && n.logical == "uuid":
		const text = "00000000-0000-0000-0000-000000000000"
		return append(append(dst, byte(len(text)<<1)), text...)
	}
	return append(dst, 0)
}

func (n *node) shortestBranch() int {
	shortest := 0
	for i, branch := range n.children {
		if branch.minBytes < n.children[shortest].minBytes {
			shortest = i
		}
	}
	return shortest
}
