package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/twmb/avro"
)

// Limits on a schema itself. Parse refuses what is beyond.
const (
	SchemaBytesMax      = 512 << 10
	SchemaNodesMax      = 10_000
	DecimalPrecisionMax = 1000
)

// Fingerprint is the CRC-64-AVRO (Rabin) of a schema's parsing canonical form.
type Fingerprint uint64

// String returns 16 hex digits, most significant first.
func (f Fingerprint) String() string { return fmt.Sprintf("%016x", uint64(f)) }

// Schema is a compiled schema. It is immutable and may be used from any goroutine.
type Schema struct {
	text        string
	canonical   string
	fingerprint Fingerprint
	props       map[string]string
	root        *node
	nodes       []*node // children before parents, but for recursion
	avro        *avro.Schema
	json        atomic.Pointer[jsonPlan] // made at the first use
}

// Parse compiles an .avsc text. References to types outside the text are not known to it.
func Parse(text string) (*Schema, error) {
	if len(text) > SchemaBytesMax {
		return nil, fmt.Errorf("schema has %d bytes, at most %d are allowed", len(text), SchemaBytesMax)
	}
	// Durations stay raw bytes: the library's own Go type for them would reach callers.
	compiled, err := avro.Parse(text, avro.CustomType{LogicalType: "duration", AvroType: "fixed"})
	if err != nil {
		return nil, fmt.Errorf("schema does not parse: %w", err)
	}
	tree := compiled.Root()
	c := compiler{named: map[string]*node{}}
	root, err := c.node(tree, "", "")
	if err != nil {
		return nil, fmt.Errorf("schema does not compile: %w", err)
	}
	s := &Schema{
		text: text, canonical: string(compiled.Canonical()), props: stringProps(tree.Props),
		root: root, nodes: c.nodes, avro: compiled,
		fingerprint: Fingerprint(binary.BigEndian.Uint64(compiled.Fingerprint(avro.NewRabin()))),
	}
	measure(s.nodes)
	markMaps(s.nodes)
	return s, nil
}

// Name returns the full name of the schema's record, enum or fixed; "" for other schemas.
func (s *Schema) Name() string { return s.root.name }

// Text returns the text that was parsed.
func (s *Schema) Text() string { return s.text }

// Canonical returns the parsing canonical form.
func (s *Schema) Canonical() string { return s.canonical }

// Fingerprint returns the CRC-64-AVRO of the canonical form.
func (s *Schema) Fingerprint() Fingerprint { return s.fingerprint }

// Prop returns a top-level string property such as "fs.kind", or "".
func (s *Schema) Prop(name string) string { return s.props[name] }

// IsRecord says whether the schema is a record, as every registered type is.
func (s *Schema) IsRecord() bool { return s.root.kind == kindRecord }

func stringProps(props map[string]any) map[string]string {
	out := map[string]string{}
	for name, value := range props {
		if text, ok := value.(string); ok {
			out[name] = text
		}
	}
	return out
}

type kind uint8

const (
	kindNull kind = iota
	kindBoolean
	kindInt
	kindLong
	kindFloat
	kindDouble
	kindBytes
	kindString
	kindFixed
	kindEnum
	kindArray
	kindMap
	kindUnion
	kindRecord
)

var kindNames = [...]string{
	"null", "boolean", "int", "long", "float", "double", "bytes", "string", "fixed", "enum", "array", "map", "union", "record",
}

func (k kind) String() string { return kindNames[k] }

func (k kind) named() bool { return k == kindRecord || k == kindEnum || k == kindFixed }

func primitiveKind(name string) (kind, bool) {
	for k := kindNull; k <= kindString; k++ {
		if kindNames[k] == name {
			return k, true
		}
	}
	return 0, false
}

// node is one datum of a compiled schema. The guard reads the first lines only.
type node struct {
	kind     kind
	rule     rule    // what a logical type demands of the value
	size     int     // fixed: bytes; enum: symbols; decimal bytes: most bytes
	low      int64   // ruleRange
	high     int64   // ruleRange
	item     *node   // array and map
	children []*node // union branches, record fields

	name      string // full name of a record, enum or fixed
	aliases   []string
	logical   string
	precision int
	scale     int
	fields    []field // beside children
	symbols   []string
	enumElse  bool // the enum has a default

	minBytes  int  // of the shortest datum; boundless when there is none
	minValues int  // in that datum
	holdsMap  bool // it is a map, or has one below it
}

type field struct {
	name         string
	aliases      []string
	hasDefault   bool
	defaultValue any
	logicalOnIt  bool // logicalType stands on the field, not on its type
}

// compiler turns the library's description of a schema into nodes.
type compiler struct {
	named map[string]*node
	nodes []*node
}

// node compiles n. namespace is the enclosing one; lifted is a logical type that stood on the
// field, which the Avro library applies to the field's type.
func (c *compiler) node(n *avro.SchemaNode, namespace, lifted string) (*node, error) {
	logical := n.LogicalType
	if logical == "" {
		logical = lifted
	}
	out := &node{logical: logical, precision: n.Precision, scale: n.Scale}
	if k, ok := primitiveKind(n.Type); ok {
		out.kind = k
		return out, c.finish(out)
	}
	var err error
	switch n.Type {
	case "array":
		out.kind = kindArray
		out.item, err = c.node(n.Items, namespace, "")
	case "map":
		out.kind = kindMap
		out.item, err = c.node(n.Values, namespace, "")
	case "union":
		out.kind = kindUnion
		for i := range n.Branches {
			branch, branchErr := c.node(&n.Branches[i], namespace, "")
			out.children, err = append(out.children, branch), errors.Join(err, branchErr)
		}
	case "record", "error", "enum", "fixed":
		err = c.definition(out, n)
	default:
		return c.reference(n.Type, namespace)
	}
	if err != nil {
		return nil, err
	}
	return out, c.finish(out)
}

func (c *compiler) definition(out *node, n *avro.SchemaNode) error {
	out.name = n.Name
	if !strings.Contains(n.Name, ".") && n.Namespace != "" {
		out.name = n.Namespace + "." + n.Name
	}
	namespace := namespaceOf(out.name)
	for _, alias := range n.Aliases {
		if !strings.Contains(alias, ".") && namespace != "" {
			out.aliases = append(out.aliases, namespace+"."+alias)
		}
		out.aliases = append(out.aliases, alias)
	}
	c.named[out.name] = out
	switch n.Type {
	case "enum":
		out.kind, out.size, out.symbols, out.enumElse = kindEnum, len(n.Symbols), n.Symbols, n.HasEnumDefault
	case "fixed":
		out.kind, out.size = kindFixed, n.Size
	default:
		out.kind = kindRecord
		return c.recordFields(out, n, namespace)
	}
	return nil
}

func (c *compiler) recordFields(out *node, n *avro.SchemaNode, namespace string) error {
	for i := range n.Fields {
		f := &n.Fields[i]
		lifted, _ := f.Props["logicalType"].(string)
		child, err := c.node(&f.Type, namespace, lifted)
		if err != nil {
			return fmt.Errorf("field %s: %w", clip(f.Name), err)
		}
		out.children = append(out.children, child)
		out.fields = append(out.fields, field{
			name: f.Name, aliases: f.Aliases, hasDefault: f.HasDefault, defaultValue: f.Default, logicalOnIt: lifted != "",
		})
	}
	return nil
}

// reference finds a definition by its full name, else within the enclosing namespace.
func (c *compiler) reference(name, namespace string) (*node, error) {
	if namespace != "" && !strings.Contains(name, ".") {
		if n, ok := c.named[namespace+"."+name]; ok {
			return n, nil
		}
	}
	if n, ok := c.named[name]; ok {
		return n, nil
	}
	return nil, fmt.Errorf("type %q is not defined in this schema", clip(name))
}

func (c *compiler) finish(n *node) error {
	c.nodes = append(c.nodes, n)
	if len(c.nodes) > SchemaNodesMax {
		return fmt.Errorf("more than %d types and fields", SchemaNodesMax)
	}
	if n.logical == "decimal" && n.precision > DecimalPrecisionMax {
		return fmt.Errorf("decimal precision %d, at most %d is allowed", n.precision, DecimalPrecisionMax)
	}
	if n.logical == "decimal" && n.kind == kindFixed && n.size > decimalBytes(DecimalPrecisionMax) {
		return fmt.Errorf("decimal on %d fixed bytes, at most %d are allowed", n.size, decimalBytes(DecimalPrecisionMax))
	}
	n.setRule()
	return nil
}

func namespaceOf(fullName string) string {
	if i := strings.LastIndexByte(fullName, '.'); i >= 0 {
		return fullName[:i]
	}
	return ""
}

func unqualified(fullName string) string { return fullName[strings.LastIndexByte(fullName, '.')+1:] }

// boundless stands for more bytes or values than any datum may have.
const boundless = 1 << 40

// measure finds the shortest datum of each node. It starts from "there is none" and shortens
// until nothing changes, so that a record which always holds itself stays boundless.
func measure(nodes []*node) {
	for _, n := range nodes {
		n.minBytes, n.minValues = boundless, boundless
	}
	for changed := true; changed; {
		changed = false
		for _, n := range nodes {
			bytes, values := n.shortest()
			if bytes < n.minBytes || values < n.minValues {
				n.minBytes, n.minValues, changed = min(bytes, n.minBytes), min(values, n.minValues), true
			}
		}
	}
}

func (n *node) shortest() (bytes, values int) {
	switch n.kind {
	case kindNull:
		return 0, 1
	case kindFloat:
		return 4, 1
	case kindDouble:
		return 8, 1
	case kindFixed:
		return n.size, 1
	case kindUnion:
		bytes, values = boundless, boundless
		for _, branch := range n.children {
			bytes, values = min(bytes, branch.minBytes), min(values, branch.minValues)
		}
		return min(boundless, bytes+1), min(boundless, values+1)
	case kindRecord:
		values = 1
		for _, child := range n.children {
			bytes, values = min(boundless, bytes+child.minBytes), min(boundless, values+child.minValues)
		}
		return bytes, values
	}
	return 1, 1
}
