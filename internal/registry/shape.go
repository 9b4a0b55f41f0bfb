package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// The kinds of shapes that are not plain.
const (
	kindRecord = "record"
	kindEnum   = "enum"
	kindFixed  = "fixed"
	kindArray  = "array"
	kindMap    = "map"
	kindUnion  = "union"
)

var plainKinds = []string{"null", "boolean", "int", "long", "float", "double", "bytes", "string"}

// shape is a schema's text as it is meant: names are full, references are resolved, so that a
// record which holds itself is a circle.
type shape struct {
	kind     string
	name     string // full; of a record, enum or fixed
	logical  string // with its parameters, such as decimal(10,2)
	size     string // of a fixed
	symbols  []string
	enumElse string // an enum's default
	item     *shape // of an array or map
	branches []*shape
	fields   []*member
	notes    notes
}

// notes are what no datum depends on.
type notes struct {
	doc     string
	aliases []string
	props   map[string]string // compact JSON
}

// member is a field of a record.
type member struct {
	name  string
	shape *shape
	def   string // compact JSON; empty: none
	order string
	notes notes
}

// alternatives are a union's branches, or the shape alone.
func (s *shape) alternatives() []*shape {
	if s.kind == kindUnion {
		return s.branches
	}
	return []*shape{s}
}

func (s *shape) fieldNames() string {
	names := make([]string, 0, len(s.fields))
	for _, f := range s.fields {
		names = append(names, f.name)
	}
	return strings.Join(names, ", ")
}

// String returns the type in words, such as "array of record order.Line".
func (s *shape) String() string { return s.describe(0) }

// describedDepthMax is how far a description goes into arrays, maps and unions.
const describedDepthMax = 6

func (s *shape) describe(depth int) string {
	if depth > describedDepthMax {
		return "…"
	}
	out := s.kind
	switch s.kind {
	case kindArray, kindMap:
		out += " of " + s.item.describe(depth+1)
	case kindUnion:
		branches := make([]string, 0, len(s.branches))
		for _, b := range s.branches {
			branches = append(branches, b.describe(depth+1))
		}
		out = "[" + strings.Join(branches, " | ") + "]"
	case kindFixed:
		out += "(" + s.size + ") " + s.name
	case kindRecord, kindEnum:
		out += " " + s.name
	}
	if s.logical != "" {
		out += " " + s.logical
	}
	return out
}

// errShape is what a text answers that is no Avro schema.
var errShape = errors.New("the text is no Avro schema")

func shapeOf(text string) (*shape, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, fmt.Errorf("%w: %w", errShape, err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errShape
	}
	s := shaper{named: map[string]*shape{}}
	return s.shape(tree, "")
}

// shaper builds shapes. It is lenient: the text was parsed as a schema before.
type shaper struct{ named map[string]*shape }

func (s *shaper) shape(tree any, namespace string) (*shape, error) {
	switch v := tree.(type) {
	case string:
		return s.reference(v, namespace)
	case []any:
		return s.union(v, namespace)
	case map[string]any:
		return s.object(v, namespace)
	}
	return nil, errShape
}

func (s *shaper) reference(name, namespace string) (*shape, error) {
	if slices.Contains(plainKinds, name) {
		return &shape{kind: name}, nil
	}
	if found := s.named[fullName(name, namespace)]; found != nil {
		return found, nil
	}
	if found := s.named[name]; found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("%w: type %q is not defined in it", errShape, clip(name))
}

func (s *shaper) union(branches []any, namespace string) (*shape, error) {
	out := &shape{kind: kindUnion}
	for _, b := range branches {
		branch, err := s.shape(b, namespace)
		if err != nil {
			return nil, err
		}
		out.branches = append(out.branches, branch)
	}
	return out, nil
}

func (s *shaper) object(o map[string]any, namespace string) (*shape, error) {
	kind, isName := o["type"].(string)
	if !isName {
		return s.shape(o["type"], namespace)
	}
	switch kind {
	case kindArray, kindMap:
		return s.container(o, kind, namespace)
	case "error":
		return s.definition(o, kindRecord, namespace)
	case kindRecord, kindEnum, kindFixed:
		return s.definition(o, kind, namespace)
	}
	out, err := s.reference(kind, namespace)
	if err == nil && out.name == "" {
		out.annotate(o)
	}
	return out, err
}

func (s *shaper) container(o map[string]any, kind, namespace string) (*shape, error) {
	of := map[string]string{kindArray: "items", kindMap: "values"}[kind]
	item, err := s.shape(o[of], namespace)
	if err != nil {
		return nil, err
	}
	out := &shape{kind: kind, item: item}
	out.annotate(o)
	return out, nil
}

func (s *shaper) definition(o map[string]any, kind, namespace string) (*shape, error) {
	if said, there := o["namespace"].(string); there {
		namespace = said
	}
	out := &shape{kind: kind, name: fullName(textOf(o["name"]), namespace), symbols: textsOf(o["symbols"]), enumElse: textOf(o["default"])}
	if kind == kindFixed {
		out.size = fmt.Sprint(o["size"])
	}
	out.annotate(o)
	namespace = strings.TrimSuffix(strings.TrimSuffix(out.name, shortName(out.name)), ".")
	for i, alias := range out.notes.aliases {
		out.notes.aliases[i] = fullName(alias, namespace)
	}
	s.named[out.name] = out
	fields, _ := o["fields"].([]any)
	for _, f := range fields {
		field, err := s.field(f, namespace)
		if err != nil {
			return nil, err
		}
		out.fields = append(out.fields, field)
	}
	return out, nil
}

func (s *shaper) field(tree any, namespace string) (*member, error) {
	o, isObject := tree.(map[string]any)
	if !isObject {
		return nil, errShape
	}
	of, err := s.shape(o["type"], namespace)
	if err != nil {
		return nil, err
	}
	out := &member{name: textOf(o["name"]), shape: of, order: textOf(o["order"]), notes: notesOf(o, fieldKeys)}
	if out.order == "ascending" {
		out.order = ""
	}
	if def, there := o["default"]; there {
		out.def = compact(def)
	}
	return out, nil
}

// Keys with a meaning of their own; every other one is a property.
var (
	fieldKeys = []string{"name", "type", "doc", "aliases", "default", "order"}
	typeKeys  = []string{
		"name", "namespace", "type", "doc", "aliases", "fields", "symbols", "default", "items", "values", "size",
		"logicalType", "precision", "scale",
	}
)

// annotate takes what stands beside the type.
func (s *shape) annotate(o map[string]any) {
	s.logical = textOf(o["logicalType"])
	if s.logical == "decimal" {
		scale := "0"
		if said, there := o["scale"]; there {
			scale = fmt.Sprint(said)
		}
		s.logical = fmt.Sprintf("decimal(%v,%s)", o["precision"], scale)
	}
	s.notes = notesOf(o, typeKeys)
}

func notesOf(o map[string]any, known []string) notes {
	n := notes{doc: textOf(o["doc"]), aliases: textsOf(o["aliases"]), props: map[string]string{}}
	for key, value := range o {
		if !slices.Contains(known, key) {
			n.props[key] = compact(value)
		}
	}
	return n
}

func fullName(name, namespace string) string {
	if namespace == "" || strings.Contains(name, ".") {
		return name
	}
	return namespace + "." + name
}

func textOf(v any) string {
	text, _ := v.(string)
	return text
}

func textsOf(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, item := range list {
		out = append(out, textOf(item))
	}
	return out
}

func compact(v any) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(b.String())
}
