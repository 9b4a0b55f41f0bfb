package declared

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/foldstream/foldstream/pkg/projection"
	"go.yaml.in/yaml/v3"
)

// Limits of a file. They bound what reading and checking one costs.
const (
	FileBytesMax       = 256 << 10
	ColumnsMax         = 500
	TypesMax           = 200
	RulesMax           = 50 // of one event type
	ExpressionsMax     = 2_000
	ExpressionBytesMax = 4_096
)

// reader turns YAML into a definition.
type reader struct {
	*faults
	expressions int
}

// full says that the file is over a limit already. Loops end then: an alias makes a few bytes any
// number of entries.
func (r *reader) full() bool { return r.expressions > ExpressionsMax || r.faults.full() }

// setting reads one key of a mapping.
type setting struct {
	name string
	read func(value *yaml.Node)
}

func at(n *yaml.Node) position { return position{n.Line, n.Column} }

// root returns the mapping that a file holds.
func (r *reader) root(text []byte) (*yaml.Node, bool) {
	start := position{1, 1}
	if len(text) > FileBytesMax {
		r.add(start, "split it", "the file is larger than %d bytes", FileBytesMax)
		return nil, false
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			r.add(start, "write at least view, version, columns and on", "the file is empty")
			return nil, false
		}
		line, problem := yamlError(err)
		r.add(position{line: line}, "", "%s", problem)
		return nil, false
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		r.add(position{line: max(second.Line, 1)}, "write one file per view", "the file holds more than one YAML document")
		return nil, false
	}
	root := deref(doc.Content[0])
	if root.Kind != yaml.MappingNode {
		r.add(at(root), "write `key: value` lines", "want a mapping, got %s", kindOf(root))
		return nil, false
	}
	return root, true
}

// yamlError takes the line out of the YAML parser's "yaml: line 3: …".
func yamlError(err error) (int, string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, found := strings.CutPrefix(text, "line "); found {
		number, problem, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(number); err == nil {
			return line, problem
		}
	}
	return 1, text
}

func deref(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// kindOf shows a node in a message.
func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	}
	return quoteShort(n.Value)
}

func quoteShort(s string) string {
	const shownMax = 64
	if len(s) > shownMax {
		return strconv.Quote(s[:shownMax]) + "…"
	}
	return strconv.Quote(s)
}

type pair struct {
	key   text
	value *yaml.Node
}

// pairs returns a mapping's entries in order, the first of each key.
func (r *reader) pairs(node *yaml.Node, what string) []pair {
	if node.Kind != yaml.MappingNode {
		r.add(at(node), "write `key: value` lines", "%s: want a mapping, got %s", what, kindOf(node))
		return nil
	}
	var pairs []pair
	first := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := deref(node.Content[i])
		if line, twice := first[key.Value]; twice {
			r.add(at(key), "remove one of them", "%s: key %s stands in line %d already", what, quoteShort(key.Value), line)
			continue
		}
		first[key.Value] = key.Line
		pairs = append(pairs, pair{r.scalarText(key), deref(node.Content[i+1])})
	}
	return pairs
}

// mapping reads each key by its setting and refuses the others.
func (r *reader) mapping(node *yaml.Node, what string, settings ...setting) {
	var names []string
	for _, s := range settings {
		names = append(names, s.name)
	}
	for _, p := range r.pairs(node, what) {
		if r.full() {
			return
		}
		i := slices.Index(names, p.key.value)
		if i < 0 {
			r.add(p.key.at, didYouMean(p.key.value, names), "%s: key %s is unknown", what, quoteShort(p.key.value))
			continue
		}
		settings[i].read(p.value)
	}
}

func (r *reader) scalarText(n *yaml.Node) text {
	t := text{value: n.Value, at: at(n)}
	switch n.Style &^ yaml.TaggedStyle {
	case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
		t.inner = 1
	case yaml.LiteralStyle, yaml.FoldedStyle:
		t.block = true
	}
	return t
}

// word reads a text that is a name of something.
func (r *reader) word(n *yaml.Node, what string) text {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "" {
		r.add(at(n), "give it a text", "%s: want a text, got %s", what, kindOf(n))
		return text{at: at(n)}
	}
	return r.scalarText(n)
}

// words reads a text, or a list of them.
func (r *reader) words(n *yaml.Node, what string, most int) []text {
	if n.Kind != yaml.SequenceNode {
		return []text{r.word(n, what)}
	}
	if len(n.Content) == 0 || len(n.Content) > most {
		r.add(at(n), "", "%s: %d entries, want 1 to %d", what, len(n.Content), most)
		return nil
	}
	var out []text
	for _, item := range n.Content {
		out = append(out, r.word(deref(item), what))
	}
	return out
}

// expression reads the text of a CEL expression.
func (r *reader) expression(n *yaml.Node, what string) text {
	if n.Kind != yaml.ScalarNode || strings.TrimSpace(n.Value) == "" && n.Tag != "!!null" || n.Tag == "!!null" && n.Value == "" {
		r.add(at(n), "write a CEL expression such as event.total, or a text as \"'open'\"", "%s: want an expression, got %s", what, kindOf(n))
		return text{at: at(n)}
	}
	t := r.scalarText(n)
	if n.Tag == "!!null" {
		t.value = "null"
	}
	if len(t.value) > ExpressionBytesMax {
		r.add(t.at, "split it over several rules or columns", "%s: the expression has %d bytes, at most %d are allowed", what, len(t.value), ExpressionBytesMax)
		return text{at: t.at}
	}
	if r.expressions++; r.expressions == ExpressionsMax+1 {
		r.add(t.at, "split the view", "more than %d expressions", ExpressionsMax)
	}
	return t
}

func (r *reader) boolean(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		r.add(at(n), "want true or false", "%s: got %s", what, kindOf(n))
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

func (r *reader) integer(n *yaml.Node, what string, high int) int {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || v < 1 || v > high {
		r.add(at(n), "want a whole number from 1 to "+strconv.Itoa(high), "%s: got %s", what, kindOf(n))
		return 0
	}
	return v
}

const versionMax = 99_999

var kinds = []string{string(projection.KindEntity), string(projection.KindMetric), string(projection.KindAppend)}

// definition reads a whole file.
func (r *reader) definition(root *yaml.Node) *definition {
	d := &definition{kind: projection.KindEntity, kindAt: at(root), keyAt: at(root)}
	missing := map[string]bool{"view": true, "version": true, "columns": true, "on": true}
	var keyNode *yaml.Node
	read := func(name string, f func(v *yaml.Node)) setting {
		return setting{name, func(v *yaml.Node) { delete(missing, name); f(v) }}
	}
	r.mapping(root, "the view",
		read("view", func(v *yaml.Node) { d.name = r.word(v, "view") }),
		read("version", func(v *yaml.Node) { d.version = r.integer(v, "version", versionMax) }),
		read("kind", func(v *yaml.Node) { d.kindAt = at(v); d.kind = projection.Kind(r.oneOf(v, "kind", kinds)) }),
		read("source", func(v *yaml.Node) { d.sources = r.words(v, "source", TypesMax) }),
		read("key", func(v *yaml.Node) { keyNode, d.keyAt = v, at(v) }),
		read("columns", func(v *yaml.Node) { d.columns = r.columns(v) }),
		read("indexes", func(v *yaml.Node) { d.indexes = r.indexes(v) }),
		read("on", func(v *yaml.Node) { d.on = r.types(v) }),
	)
	if keyNode != nil {
		d.key = r.key(keyNode, d.kind, "key")
	}
	for _, name := range []string{"view", "version", "columns", "on"} {
		if missing[name] && !r.full() {
			r.add(at(root), "add a line `"+name+": …`", "%s is missing", name)
		}
	}
	return d
}

func (r *reader) oneOf(n *yaml.Node, what string, known []string) string {
	if n.Kind != yaml.ScalarNode || !slices.Contains(known, n.Value) {
		r.add(at(n), didYouMean(n.Value, known), "%s: %s is unknown", what, kindOf(n))
		return ""
	}
	return n.Value
}

// key reads one expression, or a mapping of key columns.
func (r *reader) key(n *yaml.Node, kind projection.Kind, what string) []assignment {
	if n.Kind != yaml.MappingNode {
		a := assignment{expr: r.expression(n, what)}
		if kind == projection.KindEntity {
			a.name = text{value: entityKeyDefault, at: a.expr.at}
		}
		return []assignment{a}
	}
	var out []assignment
	for _, p := range r.pairs(n, what) {
		if r.full() {
			break
		}
		a := assignment{name: p.key}
		if p.value.Kind == yaml.MappingNode {
			r.mapping(p.value, what+"."+p.key.value,
				setting{"value", func(v *yaml.Node) { a.expr = r.expression(v, what+"."+p.key.value) }},
				setting{"type", func(v *yaml.Node) { a.typ = r.word(v, what+"."+p.key.value+".type") }})
			if a.expr.value == "" {
				r.add(p.key.at, "add `value: …`", "%s.%s has no expression", what, p.key.value)
			}
		} else {
			a.expr = r.expression(p.value, what+"."+p.key.value)
		}
		out = append(out, a)
	}
	return out
}

func (r *reader) columns(n *yaml.Node) []columnDef {
	pairs := r.pairs(n, "columns")
	if len(pairs) > ColumnsMax {
		r.add(at(n), "split the view", "%d columns, at most %d are allowed", len(pairs), ColumnsMax)
		return nil
	}
	var out []columnDef
	for _, p := range pairs {
		if r.full() {
			break
		}
		c, what := columnDef{name: p.key}, "column "+p.key.value
		if p.value.Kind != yaml.MappingNode {
			c.typ = r.word(p.value, what)
			out = append(out, c)
			continue
		}
		r.mapping(p.value, what,
			setting{"type", func(v *yaml.Node) { c.typ = r.word(v, what+".type") }},
			setting{"nullable", func(v *yaml.Node) { c.nullable = r.boolean(v, what+".nullable") }},
			setting{"index", func(v *yaml.Node) { c.index = r.boolean(v, what+".index") }},
			setting{"search", func(v *yaml.Node) { c.search = r.boolean(v, what+".search") }})
		if c.typ.at.line == 0 {
			r.add(p.key.at, "add `type: …`", "%s has no type", what)
		}
		out = append(out, c)
	}
	return out
}

const indexesMax = 50

func (r *reader) indexes(n *yaml.Node) []indexDef {
	if n.Kind != yaml.SequenceNode || len(n.Content) > indexesMax {
		r.add(at(n), "write a list of lists of columns, such as [[status, started_at]]", "indexes: want at most %d, got %s", indexesMax, kindOf(n))
		return nil
	}
	var out []indexDef
	for _, item := range n.Content {
		item = deref(item)
		out = append(out, indexDef{at: at(item), columns: r.words(item, "indexes", 16)})
	}
	return out
}

// types reads `on`. The name of a type may pin its schema's version: invoice.Issued@2.
func (r *reader) types(n *yaml.Node) []typeDef {
	pairs := r.pairs(n, "on")
	if len(pairs) > TypesMax {
		r.add(at(n), "split the view", "%d event types, at most %d are allowed", len(pairs), TypesMax)
		return nil
	}
	var out []typeDef
	for _, p := range pairs {
		if r.full() {
			break
		}
		t := typeDef{name: p.key}
		if name, pinned, found := strings.Cut(p.key.value, "@"); found {
			v, err := strconv.Atoi(pinned)
			if err != nil || v < 1 || v > versionMax {
				r.add(p.key.at, "write "+name+"@1, or "+name+" for the latest", "on: %s has no version behind the @", quoteShort(p.key.value))
			}
			t.name.value, t.version = name, v
		}
		t.rules = r.rules(p.value, "on "+t.name.value)
		out = append(out, t)
	}
	return out
}

// rules reads one rule or a list of them.
func (r *reader) rules(n *yaml.Node, what string) []ruleDef {
	if n.Kind != yaml.SequenceNode {
		return []ruleDef{r.rule(n, what)}
	}
	if len(n.Content) == 0 || len(n.Content) > RulesMax {
		r.add(at(n), "", "%s: %d rules, want 1 to %d", what, len(n.Content), RulesMax)
		return nil
	}
	var out []ruleDef
	for _, item := range n.Content {
		if r.full() {
			break
		}
		out = append(out, r.rule(deref(item), what))
	}
	return out
}

func (r *reader) rule(n *yaml.Node, what string) ruleDef {
	d := ruleDef{at: at(n)}
	before := len(r.all)
	op := func(name string) setting {
		return setting{name, func(v *yaml.Node) { r.op(&d, name, v, what+": "+name) }}
	}
	r.mapping(n, what,
		setting{"when", func(v *yaml.Node) { d.when = r.expression(v, what+": when") }},
		setting{"each", func(v *yaml.Node) { d.each = r.expression(v, what+": each") }},
		setting{"row", func(v *yaml.Node) {
			d.rowAt = at(v)
			d.row = rowMode(r.oneOf(v, what+": row", []string{string(rowNew), string(rowRequired)}))
		}},
		setting{"key", func(v *yaml.Node) { d.key = r.key(v, projection.KindMetric, what+": key") }},
		op(opSet), op(opAdd), op(opMin), op(opMax), op(opAppend), op(opDelete))
	if len(d.ops) == 0 && d.row == rowAny && len(r.all) == before && !r.full() {
		r.add(d.at, "say what to set, add, append or delete, or remove the type: types that are not named change nothing but the version", "%s does nothing", what)
	}
	return d
}

func (r *reader) op(d *ruleDef, name string, n *yaml.Node, what string) {
	o := opDef{op: name, at: at(n)}
	if name == opDelete && n.Kind == yaml.ScalarNode {
		if o.row = r.boolean(n, what); !o.row {
			r.add(at(n), "remove the line", "%s: false deletes nothing", what)
		}
		d.ops = append(d.ops, o)
		return
	}
	for _, p := range r.pairs(n, what) {
		if r.full() {
			break
		}
		a := assignment{name: p.key}
		field := what + " " + p.key.value
		if name == opAppend && p.value.Kind == yaml.MappingNode {
			r.mapping(p.value, field,
				setting{"value", func(v *yaml.Node) { a.expr = r.expression(v, field) }},
				setting{"by", func(v *yaml.Node) { a.by = r.words(v, field+".by", 4) }})
			if a.expr.at.line == 0 {
				r.add(p.key.at, "add `value: …`", "%s has no value", field)
			}
		} else {
			a.expr = r.expression(p.value, field)
		}
		o.columns = append(o.columns, a)
	}
	d.ops = append(d.ops, o)
}
