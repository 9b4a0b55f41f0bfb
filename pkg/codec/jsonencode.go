package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
)

// jsonEncoder turns a JSON text into an Avro body in one pass, each value encoded where it stands
// in the text. A record whose fields came in another order than the schema's, and a map whose
// keys came in another order than their bytes', is put in order when it ends: by copying spans
// of the body, once per level of nesting. A fault makes what was encoded worthless but not the
// reading on, so that one answer can list several.
type jsonEncoder struct {
	jsonScanner
	base       int // where the body begins in out
	limits     Limits
	valuesLeft int
	spans      []span // a stack: of the records and maps around the position
	spare      []byte // where spans are put in order
}

// span is a part of the body: the value of a field, or the entry of a map with its key.
type span struct {
	start, end     int
	keyAt, keyEnds int  // entry
	isThere        bool // field
}

func (e *jsonEncoder) begin(dst, text []byte, limits Limits) {
	e.text, e.pos, e.path, e.faults = text, 0, e.path[:0], nil
	e.out, e.base, e.limits, e.valuesLeft = dst, len(dst), limits, limits.ValuesMax
	e.spans = e.spans[:0]
}

// document reads the whole text.
func (e *jsonEncoder) document(root *jsonNode) bool {
	if textMax := jsonGrowthMax * e.limits.BytesMax; len(e.text) > textMax {
		return e.stop("the text has " + strconv.Itoa(len(e.text)) + " bytes, at most " + strconv.Itoa(textMax) + " are allowed")
	}
	if !e.value(root, e.limits.DepthMax) {
		return false
	}
	if e.peek(); e.pos < len(e.text) {
		return e.stop("text follows the value, from byte " + strconv.Itoa(e.pos) + " on")
	}
	return len(e.faults) == 0
}

// recheck has the guard look at the result: what it refuses, no reader of ours would take.
func (e *jsonEncoder) recheck(s *Schema) {
	err := s.check(e.out[e.base:], e.limits)
	if err == nil {
		return
	}
	fault := JSONFault{Message: err.Error()}
	if refused := (*hostileError)(nil); errors.As(err, &refused) {
		fault = JSONFault{Path: refused.path, Message: refused.reason}
	}
	e.faults = append(e.faults, fault)
}

func (e *jsonEncoder) value(n *jsonNode, depthLeft int) bool {
	if e.valuesLeft--; e.valuesLeft < 0 {
		return e.stop("more than " + strconv.Itoa(e.limits.ValuesMax) + " values")
	}
	if len(e.out)-e.base > e.limits.BytesMax {
		return e.stop("its Avro has more than " + strconv.Itoa(e.limits.BytesMax) + " bytes")
	}
	c := e.peek()
	if n.form >= formString {
		if c != '"' {
			return e.wrong(n.want)
		}
		text, ok := e.str()
		return ok && e.textValue(n, text)
	}
	switch n.form {
	case formInt, formFloat, formDouble:
		return e.numberValue(n, c)
	case formRecord, formArray, formMap, formMaybe, formUnion:
		if depthLeft <= 0 {
			return e.fault("nested deeper than "+strconv.Itoa(e.limits.DepthMax)+" levels") && e.skip()
		}
		return e.container(n, c, depthLeft-1)
	case formNull:
		if c != 'n' {
			return e.wrong(n.want)
		}
		return e.literal("null")
	case formBoolean:
		return e.boolean(n, c)
	}
	return e.duration(n, c)
}

func (e *jsonEncoder) container(n *jsonNode, c byte, depthLeft int) bool {
	switch n.form {
	case formMaybe:
		return e.maybe(n, c, depthLeft)
	case formUnion:
		return e.union(n, c, depthLeft)
	case formArray:
		if c != '[' {
			return e.wrong(n.want)
		}
		return e.array(n, depthLeft)
	}
	if c != '{' {
		return e.wrong(n.want)
	}
	if n.form == formMap {
		return e.entries(n, depthLeft)
	}
	return e.record(n, depthLeft)
}

// record reads the members into spans, one per field of the schema, and puts them in order.
func (e *jsonEncoder) record(n *jsonNode, depthLeft int) bool {
	first := len(e.spans)
	e.spans = slices.Grow(e.spans, len(n.fields))[:first+len(n.fields)]
	clear(e.spans[first:])
	start := len(e.out)
	e.path = append(e.path, pathPart{index: -1})
	ok := e.members(n, first, depthLeft) && e.complete(n, e.spans[first:], start)
	e.path = e.path[:len(e.path)-1]
	e.spans = e.spans[:first]
	return ok
}

func (e *jsonEncoder) members(n *jsonNode, first, depthLeft int) bool {
	if e.isEmpty('}') {
		return true
	}
	part := len(e.path) - 1
	for next, another := 0, true; another; next++ {
		key, ok := e.keyUnder(part)
		if !ok {
			return false
		}
		i := n.fieldIndex(key, next)
		if i < 0 {
			e.path[part].name = string(key)
			if !e.fault("there is no such field") || !e.skip() {
				return false
			}
		} else {
			next = i
			e.path[part].name = n.fields[i].name
			if !e.member(n, i, first, depthLeft) {
				return false
			}
		}
		if another, ok = e.more('}'); !ok {
			return false
		}
	}
	return true
}

// fieldIndex finds a field by its name, first where the schema's order has it.
func (n *jsonNode) fieldIndex(key []byte, next int) int {
	if next < len(n.fields) && string(key) == n.fields[next].name {
		return next
	}
	if i, ok := n.index[string(key)]; ok {
		return i
	}
	return -1
}

func (e *jsonEncoder) member(n *jsonNode, i, first, depthLeft int) bool {
	if e.spans[first+i].isThere {
		return e.fault("the field is there twice") && e.skip()
	}
	start := len(e.out)
	if !e.value(n.fields[i].node, depthLeft) {
		return false
	}
	e.spans[first+i] = span{start: start, end: len(e.out), isThere: true}
	return true
}

// complete fills in defaults and puts a record's fields in order. Most texts need neither.
func (e *jsonEncoder) complete(n *jsonNode, fields []span, start int) bool {
	at, inOrder := start, 0
	for inOrder < len(fields) && fields[inOrder].isThere && fields[inOrder].start == at {
		at = fields[inOrder].end
		inOrder++
	}
	if at == len(e.out) { // the others, if any, are absent
		for i := inOrder; i < len(fields); i++ {
			if !fields[i].isThere && !e.absent(&n.fields[i]) {
				return false
			}
		}
		return true
	}
	e.spare = append(e.spare[:0], e.out[at:]...)
	shift := at
	e.out = e.out[:at]
	for i := inOrder; i < len(fields); i++ {
		if f := fields[i]; f.isThere {
			e.out = append(e.out, e.spare[f.start-shift:f.end-shift]...)
		} else if !e.absent(&n.fields[i]) {
			return false
		}
	}
	return true
}

// absent appends the default of a field that the text does not have.
func (e *jsonEncoder) absent(f *jsonField) bool {
	e.path[len(e.path)-1].name = f.name
	switch {
	case !f.hasDefault:
		return e.fault("the field is missing and has no default")
	case f.tooLarge:
		return e.fault("the field is missing, and its default is too large to be filled in")
	}
	if e.valuesLeft -= f.values; e.valuesLeft < 0 || len(e.out)-e.base > e.limits.BytesMax {
		return e.stop("with the defaults of absent fields it is larger than a body may be")
	}
	e.out = append(e.out, f.body...)
	return true
}

func (e *jsonEncoder) array(n *jsonNode, depthLeft int) bool {
	start := e.openBlock()
	if e.isEmpty(']') {
		return true
	}
	part := len(e.path)
	e.path = append(e.path, pathPart{})
	count := 0
	for another := true; another; count++ {
		e.path[part].index = count
		ok := e.value(n.item, depthLeft)
		if !ok {
			return false
		}
		if another, ok = e.more(']'); !ok {
			return false
		}
	}
	e.path = e.path[:part]
	e.closeBlock(start, count)
	return true
}

// openBlock leaves one byte for the count of items: the end of an empty one.
func (e *jsonEncoder) openBlock() (start int) {
	e.out = append(e.out, 0)
	return len(e.out)
}

// closeBlock writes the count before the items, and the end after them.
func (e *jsonEncoder) closeBlock(start, count int) {
	var buf [binary.MaxVarintLen64]byte
	size := binary.PutVarint(buf[:], int64(count))
	if size > 1 {
		e.out = append(e.out, buf[1:size]...) // to have the room
		copy(e.out[start+size-1:], e.out[start:len(e.out)-size+1])
	}
	copy(e.out[start-1:], buf[:size])
	e.out = append(e.out, 0)
}

func (e *jsonEncoder) entries(n *jsonNode, depthLeft int) bool {
	start := e.openBlock()
	if e.isEmpty('}') {
		return true
	}
	first := len(e.spans)
	part := len(e.path)
	e.path = append(e.path, pathPart{index: -1})
	for another := true; another; {
		ok := e.entry(n, part, depthLeft)
		if !ok {
			return false
		}
		if another, ok = e.more('}'); !ok {
			return false
		}
	}
	ok := e.orderEntries(e.spans[first:], start, part)
	e.closeBlock(start, len(e.spans)-first)
	e.path, e.spans = e.path[:part], e.spans[:first]
	return ok
}

func (e *jsonEncoder) entry(n *jsonNode, part, depthLeft int) bool {
	key, ok := e.keyUnder(part)
	if !ok {
		return false
	}
	s := span{start: len(e.out)}
	e.appendText(key)
	s.keyEnds = len(e.out)
	s.keyAt = s.keyEnds - len(key)
	e.path[part].keyAt, e.path[part].keyEnds = s.keyAt, s.keyEnds
	if !e.value(n.item, depthLeft) {
		return false
	}
	s.end = len(e.out)
	e.spans = append(e.spans, s)
	return true
}

func (e *jsonEncoder) keyOf(s span) []byte { return e.out[s.keyAt:s.keyEnds] }

// orderEntries puts a map's entries, which begin at start, in the order of their keys.
func (e *jsonEncoder) orderEntries(entries []span, start, part int) bool {
	isOrdered := true
	for i := 1; i < len(entries) && isOrdered; i++ {
		isOrdered = bytes.Compare(e.keyOf(entries[i-1]), e.keyOf(entries[i])) < 0
	}
	if isOrdered {
		return true
	}
	slices.SortStableFunc(entries, func(a, b span) int { return bytes.Compare(e.keyOf(a), e.keyOf(b)) })
	for i := 1; i < len(entries); i++ {
		if bytes.Equal(e.keyOf(entries[i-1]), e.keyOf(entries[i])) {
			e.path[part].keyAt, e.path[part].keyEnds = entries[i].keyAt, entries[i].keyEnds
			if !e.fault("the key is there twice") {
				return false
			}
		}
	}
	e.spare = e.spare[:0]
	for _, s := range entries {
		e.spare = append(e.spare, e.out[s.start:s.end]...)
	}
	copy(e.out[start:], e.spare)
	return true
}

func (e *jsonEncoder) maybe(n *jsonNode, c byte, depthLeft int) bool {
	if c == 'n' {
		e.valuesLeft--
		e.out = append(e.out, byte(n.null<<1))
		return e.literal("null")
	}
	e.out = append(e.out, byte(n.other<<1))
	return e.value(n.branches[n.other].node, depthLeft)
}

func (e *jsonEncoder) union(n *jsonNode, c byte, depthLeft int) bool {
	if c == 'n' && n.null >= 0 {
		e.valuesLeft--
		e.out = binary.AppendVarint(e.out, int64(n.null))
		return e.literal("null")
	}
	if c != '{' {
		return e.wrong(n.want)
	}
	if e.isEmpty('}') {
		return e.fault("want " + n.want + ", got an empty object")
	}
	key, ok := e.key()
	if !ok {
		return false
	}
	return e.branch(n, key, depthLeft)
}

// branch reads the value of a union's one member, and steps over others.
func (e *jsonEncoder) branch(n *jsonNode, key []byte, depthLeft int) bool {
	i, ok := n.index[string(key)]
	if ok {
		e.out = binary.AppendVarint(e.out, int64(i))
		e.path = append(e.path, pathPart{name: n.branches[i].name, index: -1})
		ok = e.value(n.branches[i].node, depthLeft)
		e.path = e.path[:len(e.path)-1]
	} else {
		ok = e.fault("want "+n.want+", got another") && e.skip()
	}
	if !ok {
		return false
	}
	another, ok := e.more('}')
	if !another || !ok {
		return ok
	}
	if !e.fault("want " + n.want + ", got more than one") {
		return false
	}
	for another {
		if _, ok = e.key(); !ok || !e.skip() {
			return false
		}
		if another, ok = e.more('}'); !ok {
			return false
		}
	}
	return true
}

func (e *jsonEncoder) appendText(text []byte) {
	e.out = append(binary.AppendVarint(e.out, int64(len(text))), text...)
}
