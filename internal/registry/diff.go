package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/foldstream/foldstream/pkg/codec"
)

// ChangeKind says what a Change is.
type ChangeKind string

// The kinds of changes. Doc alone may change in a registered version.
const (
	ChangeAdded     ChangeKind = "added"     // a field; To is its type
	ChangeRemoved   ChangeKind = "removed"   // a field; From was its type
	ChangeRenamed   ChangeKind = "renamed"   // a field or a named type
	ChangePromoted  ChangeKind = "promoted"  // to a type that reads the old one, such as int to long
	ChangeWidened   ChangeKind = "widened"   // a union that takes more, or a type made a union
	ChangeNarrowed  ChangeKind = "narrowed"  // the other way round
	ChangeType      ChangeKind = "type"      // to another type, logical type, or size
	ChangeDefault   ChangeKind = "default"   // of a field or an enum
	ChangeSymbols   ChangeKind = "symbols"   // of an enum
	ChangeOrder     ChangeKind = "order"     // of fields, symbols, or a union's branches; or a field's sort order
	ChangeAliases   ChangeKind = "aliases"   //
	ChangeProperty  ChangeKind = "property"  // one that Avro does not know
	ChangeDoc       ChangeKind = "doc"       // documentation
	ChangeOtherForm ChangeKind = "otherForm" // the same schema, written otherwise
)

// Change is one difference in meaning between two schemas.
type Change struct {
	Path    string     `json:"path"` // as in codec.Fault
	Kind    ChangeKind `json:"kind"`
	From    string     `json:"from,omitempty"`    // a type, or JSON
	To      string     `json:"to,omitempty"`      // a type, or JSON
	Default string     `json:"default,omitempty"` // of a field that was added, as JSON; empty: it has none
}

// String returns the change without its path, such as "type long, was string".
func (c Change) String() string {
	switch c.Kind {
	case ChangeAdded:
		if c.Default == "" {
			return fmt.Sprintf("added: %s, without a default", c.To)
		}
		return fmt.Sprintf("added: %s, default %s", c.To, c.Default)
	case ChangeRemoved:
		return fmt.Sprintf("removed: %s", c.From)
	case ChangeDoc:
		return "doc changed"
	case ChangeOtherForm:
		return "the same, written in another form"
	}
	return fmt.Sprintf("%s: %s, was %s", c.Kind, orNothing(c.To), orNothing(c.From))
}

func orNothing(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// Diff lists what to changes of from, in the order of to's fields; empty when both mean the same.
// White space, the order of keys and the ways of writing a name or a type are no changes.
func Diff(from, to *codec.Schema) ([]Change, error) {
	a, err := shapeOf(from.Text())
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", from.Name(), err)
	}
	b, err := shapeOf(to.Text())
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", to.Name(), err)
	}
	d := differ{seen: map[[2]*shape]bool{}}
	path := to.Name()
	if path == "" {
		path = b.kind
	}
	d.shape(a, b, path)
	return d.changes, nil
}

type differ struct {
	seen    map[[2]*shape]bool
	changes []Change
}

func (d *differ) change(path string, kind ChangeKind, from, to string) {
	d.changes = append(d.changes, Change{Path: path, Kind: kind, From: from, To: to})
}

func (d *differ) ifOther(path string, kind ChangeKind, from, to string) {
	if from != to {
		d.change(path, kind, from, to)
	}
}

func (d *differ) shape(from, to *shape, path string) {
	if d.seen[[2]*shape{from, to}] {
		return
	}
	d.seen[[2]*shape{from, to}] = true
	switch {
	case from.kind == kindUnion || to.kind == kindUnion:
		d.union(from, to, path)
	case from.kind == to.kind:
		d.same(from, to, path)
	case promotion(from, to):
		d.change(path, ChangePromoted, from.String(), to.String())
	default:
		d.change(path, ChangeType, from.String(), to.String())
	}
}

// promotion says whether Avro reads the one plain type as the other.
func promotion(from, to *shape) bool {
	wider := map[string][]string{
		"int": {"long", "float", "double"}, "long": {"float", "double"}, "float": {"double"}, "string": {"bytes"}, "bytes": {"string"},
	}
	return from.logical == to.logical && slices.Contains(wider[from.kind], to.kind)
}

// union compares branches; what is no union counts as one of a single branch.
func (d *differ) union(from, to *shape, path string) {
	before, after := from.alternatives(), to.alternatives()
	pairs, lost := match(before, after)
	gained := len(after) - len(pairs)
	switch {
	case lost > 0 && gained > 0:
		d.change(path, ChangeType, from.String(), to.String())
	case lost > 0:
		d.change(path, ChangeNarrowed, from.String(), to.String())
	case gained > 0:
		d.change(path, ChangeWidened, from.String(), to.String())
	case from.kind != to.kind: // a union of one branch
		d.change(path, ChangeType, from.String(), to.String())
	case !slices.IsSortedFunc(pairs, func(a, b pair) int { return a.before - b.before }):
		d.change(path, ChangeOrder, from.String(), to.String())
	}
	for _, p := range pairs {
		d.shape(before[p.before], after[p.after], path)
	}
}

// pair is a branch of a union before and after, by position.
type pair struct{ before, after int }

// match pairs branches, in the order of after, and counts those of before that are left over.
func match(before, after []*shape) (pairs []pair, lost int) {
	taken := map[int]bool{}
	for j, b := range after {
		i := slices.IndexFunc(before, func(a *shape) bool { return a.kind == b.kind && a.name == b.name })
		if i < 0 && b.name != "" {
			i = slices.IndexFunc(before, func(a *shape) bool { return a.kind == b.kind && shortName(a.name) == shortName(b.name) })
		}
		if i >= 0 && !taken[i] {
			taken[i] = true
			pairs = append(pairs, pair{i, j})
		}
	}
	return pairs, len(before) - len(pairs)
}

// same compares two of one kind.
func (d *differ) same(from, to *shape, path string) {
	d.ifOther(path, ChangeRenamed, from.name, to.name)
	if from.logical != to.logical || from.size != to.size {
		d.change(path, ChangeType, from.String(), to.String())
	}
	d.notes(from.notes, to.notes, path)
	switch to.kind {
	case kindRecord:
		d.fields(from, to, path)
	case kindEnum:
		d.enum(from, to, path)
	case kindArray, kindMap:
		d.shape(from.item, to.item, path+"[]")
	}
}

func (d *differ) notes(from, to notes, path string) {
	d.ifOther(path, ChangeAliases, strings.Join(from.aliases, ", "), strings.Join(to.aliases, ", "))
	names := map[string]string{}
	maps.Copy(names, from.props)
	maps.Copy(names, to.props)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if before, after := from.props[name], to.props[name]; before != after {
			d.change(path, ChangeProperty, withName(name, before), withName(name, after))
		}
	}
	d.ifOther(path, ChangeDoc, from.doc, to.doc)
}

func withName(name, value string) string {
	if value == "" {
		return ""
	}
	return name + " " + value
}

func (d *differ) enum(from, to *shape, path string) {
	before, after := strings.Join(from.symbols, ", "), strings.Join(to.symbols, ", ")
	switch {
	case before == after:
	case slices.Equal(slices.Sorted(slices.Values(from.symbols)), slices.Sorted(slices.Values(to.symbols))):
		d.change(path, ChangeOrder, before, after)
	default:
		d.change(path, ChangeSymbols, before, after)
	}
	d.ifOther(path, ChangeDefault, from.enumElse, to.enumElse)
}

func (d *differ) fields(from, to *shape, path string) {
	var kept []int
	for _, f := range to.fields {
		at := path + "." + f.name
		i := fieldBefore(from, f)
		if i < 0 {
			d.changes = append(d.changes, Change{Path: at, Kind: ChangeAdded, To: f.shape.String(), Default: f.def})
			continue
		}
		kept = append(kept, i)
		d.field(from.fields[i], f, at)
	}
	for i, f := range from.fields {
		if !slices.Contains(kept, i) {
			d.change(path+"."+f.name, ChangeRemoved, f.shape.String(), "")
		}
	}
	if !slices.IsSorted(kept) {
		d.change(path, ChangeOrder, from.fieldNames(), to.fieldNames())
	}
}

// fieldBefore finds what a field was: by its name, else by its aliases. -1: it is new.
func fieldBefore(from *shape, f *member) int {
	i := slices.IndexFunc(from.fields, func(b *member) bool { return b.name == f.name })
	if i < 0 {
		i = slices.IndexFunc(from.fields, func(b *member) bool { return slices.Contains(f.notes.aliases, b.name) })
	}
	return i
}

func (d *differ) field(from, to *member, path string) {
	d.ifOther(path, ChangeRenamed, from.name, to.name)
	d.shape(from.shape, to.shape, path)
	d.ifOther(path, ChangeDefault, from.def, to.def)
	d.ifOther(path, ChangeOrder, from.order, to.order)
	d.notes(from.notes, to.notes, path)
}

func shortName(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }
