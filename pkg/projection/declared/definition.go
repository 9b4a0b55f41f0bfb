package declared

import (
	"slices"

	"github.com/foldstream/foldstream/pkg/projection"
)

// definition is a view's file, read but not yet checked against schemas.
type definition struct {
	name    text
	version int
	kind    projection.Kind
	kindAt  position
	sources []text
	key     []assignment
	keyAt   position
	columns []columnDef
	indexes []indexDef
	on      []typeDef
}

// position is a place in the file.
type position struct{ line, column int }

// text is a scalar with its place. inner is how far the text itself begins behind the place: one
// for a quoted scalar; block scalars begin on the next line.
type text struct {
	value string
	at    position
	inner int
	block bool
}

// assignment is `name: expression`.
type assignment struct {
	name text
	expr text
	typ  text   // key columns: their type, where it is said
	by   []text // append: the fields that order the list and make its items one of a kind
}

type columnDef struct {
	name     text
	typ      text
	nullable bool
	index    bool
	search   bool
}

type indexDef struct {
	at      position
	columns []text
}

// typeDef is one event type under `on`.
type typeDef struct {
	name    text
	version int // the schema's; 0: the latest
	rules   []ruleDef
}

// rowMode says what a rule expects of the row.
type rowMode string

const (
	rowAny      rowMode = ""         // made of defaults where there is none
	rowNew      rowMode = "new"      // begun afresh, whatever it was
	rowRequired rowMode = "required" // none is a fault, and parks the stream
)

// ruleDef is what one event type does.
type ruleDef struct {
	at    position
	when  text
	each  text
	row   rowMode
	rowAt position
	key   []assignment // metric views: in place of the view's
	ops   []opDef
}

func (r *ruleDef) has(op string) (opDef, bool) {
	i := slices.IndexFunc(r.ops, func(o opDef) bool { return o.op == op })
	if i < 0 {
		return opDef{}, false
	}
	return r.ops[i], true
}

// The operations.
const (
	opSet    = "set"
	opAdd    = "add"
	opMin    = "min"
	opMax    = "max"
	opAppend = "append"
	opDelete = "delete"
)

// opDef is one operation of a rule on columns; delete without columns deletes the row.
type opDef struct {
	op      string
	at      position
	columns []assignment
	row     bool // delete: true
}
