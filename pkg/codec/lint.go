package codec

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/foldstream/foldstream/pkg/event"
)

// minValuesMax is the most values that a schema's smallest datum may have. A sane one has as
// many as it has fields; empty records that hold each other twice double with every level.
const minValuesMax = 10_000

var typeName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}\.[A-Za-z_][A-Za-z0-9_]*$`)

// Lint says what makes a schema unfit to be registered, although it parses: what cannot be
// evolved, what readers in other languages understand differently, what the guard would refuse.
// Nil means fit. A registry calls it before it stores.
func Lint(s *Schema) []Fault {
	l := linter{seen: map[*node]bool{}}
	l.top(s)
	l.node(s.root, l.rootPath(s))
	return l.faults
}

type linter struct {
	seen   map[*node]bool
	faults []Fault
}

func (l *linter) fault(path, remedy, message string, args ...any) {
	l.faults = append(l.faults, Fault{Path: path, Message: fmt.Sprintf(message, args...), Remedy: remedy})
}

func (l *linter) rootPath(s *Schema) string {
	if s.root.name != "" {
		return s.root.name
	}
	return s.root.kind.String()
}

func (l *linter) top(s *Schema) {
	path := l.rootPath(s)
	if !s.IsRecord() {
		l.fault(path, "make it a record", "a registered type is a record, this is a %s", s.root.kind)
	} else if typ := s.Prop("fs.type"); typ != "" && !typeName.MatchString(typ) {
		l.fault(path, "name category and type", "fs.type %q is not of the form <category>.<Name>", clip(typ))
	} else if typ == "" && !typeName.MatchString(s.Name()) {
		l.fault(path, "set namespace to the category and name to the type, or say the type by the property fs.type", "the full name is not of the form <category>.<Name>")
	}
	kinds := []string{"", string(event.KindCommand), string(event.KindEvent), string(event.KindState), string(event.KindSystem)}
	if got := s.Prop("fs.kind"); !slices.Contains(kinds, got) {
		l.fault(path, "use command, event, state or system", "fs.kind is %q", clip(got))
	}
}

func (l *linter) node(n *node, path string) {
	if l.seen[n] {
		return
	}
	l.seen[n] = true
	l.logical(n, path)
	switch n.kind {
	case kindEnum:
		if !n.enumElse {
			l.fault(path, `add "default": one of the symbols`, "enum %s has no default, so no symbol can ever be added", n.name)
		}
	case kindArray, kindMap:
		if n.item.minBytes == 0 {
			l.fault(path+"[]", "give the item a field that takes bytes", "an item may take no bytes, so a few bytes could claim any number of items")
		}
		l.node(n.item, path+"[]")
	case kindUnion:
		for _, branch := range n.children {
			l.node(branch, path)
		}
	case kindRecord:
		l.record(n, path)
	}
}

func (l *linter) record(n *node, path string) {
	switch {
	case n.minBytes >= boundless || n.minValues >= boundless:
		l.fault(path, "make a field on the way nullable", "record %s always holds itself, so no datum of it can end", n.name)
	case n.minValues > minValuesMax:
		l.fault(path, "hold fewer records in each other", "the smallest datum of %s has %d values, at most %d are allowed", n.name, n.minValues, minValuesMax)
	}
	for i, f := range n.fields {
		fieldPath, child := path+"."+f.name, n.children[i]
		if f.logicalOnIt {
			l.fault(fieldPath, `write "type": {"type": …, "logicalType": …}`, "logicalType stands on the field, where other readers ignore it")
		}
		if child.kind == kindUnion && f.hasDefault && !defaultFits(child.children[0], f.defaultValue) {
			l.fault(fieldPath, "put the default's branch first", "the default is not of the union's first branch, as other readers demand")
		}
		l.node(child, fieldPath)
	}
}

// defaultFits says whether a default, as the Avro library read it, may be of this kind. It
// errs on the side of yes: only a different kind of JSON value is a no.
func defaultFits(n *node, value any) bool {
	switch value.(type) {
	case nil:
		return n.kind == kindNull
	case bool:
		return n.kind == kindBoolean
	case int32, int64, float32, float64:
		return n.kind == kindInt || n.kind == kindLong || n.kind == kindFloat || n.kind == kindDouble
	case string:
		return n.kind == kindString || n.kind == kindEnum || n.kind == kindBytes || n.kind == kindFixed
	case []byte:
		return n.kind == kindBytes || n.kind == kindFixed
	case []any:
		return n.kind == kindArray
	case map[string]any:
		return n.kind == kindRecord || n.kind == kindMap
	}
	return true
}

// logicalBases lists the base kinds that each logical type may stand on.
var logicalBases = map[string][]kind{
	"date": {kindInt}, "time-millis": {kindInt}, "time-micros": {kindLong},
	"timestamp-millis": {kindLong}, "timestamp-micros": {kindLong}, "timestamp-nanos": {kindLong},
	"local-timestamp-millis": {kindLong}, "local-timestamp-micros": {kindLong}, "local-timestamp-nanos": {kindLong},
	"decimal": {kindBytes, kindFixed}, "big-decimal": {kindBytes},
	"uuid": {kindString, kindFixed}, "duration": {kindFixed},
}

func (l *linter) logical(n *node, path string) {
	if n.logical == "" {
		return
	}
	bases, known := logicalBases[n.logical]
	switch {
	case !known:
		l.fault(path, "use one of Avro's, or a property of another name", "logicalType %q is not known", clip(n.logical))
	case !slices.Contains(bases, n.kind):
		l.fault(path, "put it on "+kindList(bases), "logicalType %s stands on %s, so every reader ignores it", n.logical, n.kind)
	case n.kind == kindFixed && n.logical == "duration" && n.size != 12:
		l.fault(path, "use a fixed of size 12", "duration on a fixed of size %d", n.size)
	case n.kind == kindFixed && n.logical == "uuid" && n.size != 16:
		l.fault(path, "use a fixed of size 16", "uuid on a fixed of size %d", n.size)
	}
}

func kindList(kinds []kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.String()
	}
	return strings.Join(names, " or ")
}
