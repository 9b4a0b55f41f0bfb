package codec

import (
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/avro"
)

// CheckCompatible says what keeps the reader's schema (the new one) from reading what was
// written with the writer's (an old one). Nil means that it can. It is stricter than Avro's own
// resolution where that would misread in silence: a logical type may not change, since a
// timestamp in milliseconds would pass for one in microseconds.
func CheckCompatible(reader, writer *Schema) []Fault {
	c := compatibility{seen: map[nodePair]bool{}}
	path := reader.Name()
	if path == "" {
		path = reader.root.kind.String()
	}
	c.node(reader.root, writer.root, path)
	if len(c.faults) == 0 {
		c.libraryOpinion(reader, writer)
	}
	return c.faults
}

type nodePair struct{ reader, writer *node }

type compatibility struct {
	seen   map[nodePair]bool
	faults []Fault
}

func (c *compatibility) fault(path, remedy, message string, args ...any) {
	c.faults = append(c.faults, Fault{Path: path, Message: fmt.Sprintf(message, args...), Remedy: remedy})
}

// libraryOpinion has the last word: the pair is decoded by the library, so it must agree.
func (c *compatibility) libraryOpinion(reader, writer *Schema) {
	err := avro.CheckCompatibility(writer.avro, reader.avro)
	var theirs *avro.CompatibilityError
	switch {
	case err == nil:
	case errors.As(err, &theirs):
		c.fault(theirs.Path, "", "%s (reader %s, writer %s)", theirs.Detail, theirs.ReaderType, theirs.WriterType)
	default:
		c.fault(reader.Name(), "", "%v", err)
	}
}

const remedyNewField = "keep the field as it is and add another one with a default"

func (c *compatibility) node(reader, writer *node, path string) {
	pair := nodePair{reader, writer}
	if c.seen[pair] {
		return
	}
	c.seen[pair] = true
	switch {
	case writer.kind == kindUnion:
		c.fromUnion(reader, writer, path)
	case reader.kind == kindUnion:
		c.toUnion(reader, writer, path)
	case reader.kind != writer.kind && !promotes(writer.kind, reader.kind):
		c.fault(path, remedyNewField, "changes from %s to %s", writer.kind, reader.kind)
	default:
		c.same(reader, writer, path)
	}
}

func (c *compatibility) fromUnion(reader, writer *node, path string) {
	for _, branch := range writer.children {
		switch {
		case reader.kind == kindUnion:
			c.toUnion(reader, branch, path)
		case branch.kind == kindNull && reader.kind != kindNull:
			c.fault(path, "keep it nullable; check in the program", "changes from nullable to required")
		default:
			c.node(reader, branch, path)
		}
	}
}

func (c *compatibility) toUnion(reader, writer *node, path string) {
	for _, matches := range []func(r, w *node) bool{sameType, sameShortType, func(r, w *node) bool { return promotes(w.kind, r.kind) }} {
		for _, branch := range reader.children {
			if matches(branch, writer) {
				c.node(branch, writer, path)
				return
			}
		}
	}
	what := writer.kind.String()
	if writer.name != "" {
		what += " " + writer.name
	}
	c.fault(path, "keep the branch", "no longer takes %s", what)
}

func sameType(r, w *node) bool {
	return r.kind == w.kind && (!r.kind.named() || r.name == w.name || slices.Contains(r.aliases, w.name))
}

func sameShortType(r, w *node) bool {
	return r.kind == w.kind && r.kind.named() && unqualified(r.name) == unqualified(w.name)
}

func (c *compatibility) same(reader, writer *node, path string) {
	if reader.kind.named() && !sameType(reader, writer) && !sameShortType(reader, writer) {
		c.fault(path, "keep the name, or list the old one under aliases", "changes its name from %s to %s", writer.name, reader.name)
		return
	}
	c.logical(reader, writer, path)
	switch reader.kind {
	case kindRecord:
		c.record(reader, writer, path)
	case kindEnum:
		c.enum(reader, writer, path)
	case kindFixed:
		if reader.size != writer.size {
			c.fault(path, remedyNewField, "changes from %d to %d bytes", writer.size, reader.size)
		}
	case kindArray, kindMap:
		c.node(reader.item, writer.item, path+"[]")
	}
}

func (c *compatibility) logical(reader, writer *node, path string) {
	switch {
	case reader.logical != writer.logical:
		c.fault(path, remedyNewField, "changes its logical type from %s to %s", orNone(writer.logical), orNone(reader.logical))
	case reader.logical == "decimal" && (reader.precision != writer.precision || reader.scale != writer.scale):
		c.fault(path, remedyNewField, "changes from decimal(%d,%d) to decimal(%d,%d)", writer.precision, writer.scale, reader.precision, reader.scale)
	}
}

func orNone(logical string) string {
	if logical == "" {
		return "none"
	}
	return logical
}

func (c *compatibility) record(reader, writer *node, path string) {
	for i, f := range reader.fields {
		j := slices.IndexFunc(writer.fields, func(w field) bool { return w.name == f.name })
		if j < 0 {
			j = slices.IndexFunc(writer.fields, func(w field) bool { return slices.Contains(f.aliases, w.name) })
		}
		switch {
		case j >= 0:
			c.node(reader.children[i], writer.children[j], path+"."+f.name)
		case !f.hasDefault:
			c.fault(path+"."+f.name, "give it a default", "is new and has no default")
		}
	}
}

func (c *compatibility) enum(reader, writer *node, path string) {
	for _, symbol := range writer.symbols {
		if !slices.Contains(reader.symbols, symbol) && !reader.enumElse {
			c.fault(path, "keep the symbol, or give the enum a default", "no longer has the symbol %s", symbol)
		}
	}
}

// promotes says whether Avro reads a writer's primitive as another one.
func promotes(writer, reader kind) bool {
	switch writer {
	case kindInt:
		return reader == kindLong || reader == kindFloat || reader == kindDouble
	case kindLong:
		return reader == kindFloat || reader == kindDouble
	case kindFloat:
		return reader == kindDouble
	case kindString:
		return reader == kindBytes
	case kindBytes:
		return reader == kindString
	}
	return false
}
