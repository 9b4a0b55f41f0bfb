package codec

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
)

// jsonForm is how a datum looks in JSON.
type jsonForm uint8

const (
	formNull jsonForm = iota
	formBoolean
	formInt // also long
	formFloat
	formDouble
	formRecord
	formArray
	formMap
	formMaybe // union of null and one other: null or the value
	formUnion // null or {"branch": value}
	formDuration
	// From here on: strings.
	formString
	formUUID // on a string
	formUUIDFixed
	formEnum
	formBytes
	formFixed
	formDecimal
	formBigDecimal
	formDate
	formTime
	formTimestamp
)

// jsonNode is one datum of a schema, made ready for JSON: a node with its logical type worked
// out, and with everything quoted that is the same in each text.
type jsonNode struct {
	form jsonForm
	want string // what a value of it is, for faults

	low, high int64 // integers, dates, times, timestamps
	isLong    bool  // may also be written as a string
	unit      int64 // times and timestamps: nanoseconds
	isLocal   bool  // timestamps without a zone
	size      int   // fixed; decimals on fixed, 0 on bytes
	precision int
	scale     int

	item     *jsonNode
	fields   []jsonField
	index    map[string]int // of a field, symbol or branch by its name
	symbols  [][]byte       // quoted
	branches []jsonBranch
	null     int // the branch that is null, or -1
	other    int // formMaybe: the branch that is not
}

type jsonField struct {
	name    string
	opening []byte // `{"name":` or `,"name":`
	node    *jsonNode

	hasDefault bool
	body       []byte // the default's
	values     int    // in the default
	tooLarge   bool   // the default is beyond the plan's bounds, so body is not there
}

type jsonBranch struct {
	name    string
	opening []byte // `{"name":`
	node    *jsonNode
}

// jsonPlan is a schema made ready for JSON. It is immutable but for its pool, and lives as long
// as its Schema, so that there are as many as there are schemas.
type jsonPlan struct {
	root *jsonNode
	pool sync.Pool // of *jsonEncoder
}

func (s *Schema) jsonPlan() *jsonPlan {
	if p := s.json.Load(); p != nil {
		return p
	}
	c := jsonCompiler{made: make(map[*node]*jsonNode, len(s.nodes)), left: defaultBudget{bytes: 1 << 20, values: 100_000}}
	s.json.CompareAndSwap(nil, &jsonPlan{root: c.node(s.root)})
	return s.json.Load()
}

func (p *jsonPlan) borrow() *jsonEncoder {
	if e, ok := p.pool.Get().(*jsonEncoder); ok {
		return e
	}
	return &jsonEncoder{}
}

// giveBack keeps an encoder's memory for the next text, unless this one was a giant.
func (p *jsonPlan) giveBack(e *jsonEncoder) {
	const bytesMax, spansMax = 64 << 10, 2 << 10
	e.text, e.out, e.faults = nil, nil, nil
	if cap(e.scratch) <= bytesMax && cap(e.spare) <= bytesMax && cap(e.spans) <= spansMax {
		p.pool.Put(e)
	}
}

// jsonCompiler makes jsonNodes of nodes. left bounds all defaults of a schema together: those of
// a hostile one can hold each other and double with every level.
type jsonCompiler struct {
	made map[*node]*jsonNode
	left defaultBudget
}

func (c *jsonCompiler) node(n *node) *jsonNode {
	if out, ok := c.made[n]; ok {
		return out
	}
	out := &jsonNode{size: n.size}
	c.made[n] = out
	switch n.kind {
	case kindRecord:
		c.record(out, n)
	case kindUnion:
		c.union(out, n)
	case kindArray:
		out.form, out.want, out.item = formArray, "an array", c.node(n.item)
	case kindMap:
		out.form, out.want, out.item = formMap, "an object", c.node(n.item)
	case kindEnum:
		out.enum(n)
	case kindInt, kindLong:
		out.integer(n)
	default:
		out.scalar(n)
	}
	return out
}

func (c *jsonCompiler) record(out *jsonNode, n *node) {
	out.form, out.want = formRecord, "an object"
	out.fields, out.index = make([]jsonField, len(n.fields)), make(map[string]int, len(n.fields))
	for i, f := range n.fields {
		held := &out.fields[i]
		held.name, held.node = f.name, c.node(n.children[i])
		held.opening = opening(i == 0, f.name)
		out.index[f.name] = i
		if held.hasDefault = f.hasDefault; f.hasDefault {
			c.defaultOf(held, n.children[i], f.defaultValue)
		}
	}
}

func (c *jsonCompiler) defaultOf(held *jsonField, n *node, value any) {
	const depthMax = 64
	before := c.left
	body, err := c.left.appendDefault(nil, n, value, depthMax)
	if err != nil {
		c.left, held.tooLarge = before, true
		return
	}
	held.body, held.values = body, before.values-c.left.values
	c.left.bytes -= len(body)
}

func opening(isFirst bool, name string) []byte {
	out := []byte{','}
	if isFirst {
		out[0] = '{'
	}
	return append(appendJSONString(out, []byte(name)), ':')
}

func (c *jsonCompiler) union(out *jsonNode, n *node) {
	out.null, out.index = -1, make(map[string]int, len(n.children))
	for i, branch := range n.children {
		b := jsonBranch{name: branch.kind.String(), node: c.node(branch)}
		if branch.kind.named() {
			b.name = branch.name
		}
		b.opening = opening(true, b.name)
		out.branches = append(out.branches, b)
		if branch.kind == kindNull {
			out.null = i
		} else {
			out.index[b.name] = i
		}
	}
	if len(out.branches) == 2 && out.null >= 0 {
		out.form, out.other = formMaybe, 1-out.null
		out.want = out.branches[out.other].node.want + " or null"
		return
	}
	out.form = formUnion
	out.want = "an object of one member, named " + someOf(slices.Sorted(maps.Keys(out.index)))
	if out.null >= 0 {
		out.want += ", or null"
	}
}

// someOf lists names for a message, not too many.
func someOf(names []string) string {
	const namesMax = 12
	shown := make([]string, 0, namesMax+1)
	for _, name := range names[:min(len(names), namesMax)] {
		shown = append(shown, clip(name))
	}
	if len(names) > namesMax {
		shown = append(shown, "…")
	}
	return strings.Join(shown, ", ")
}

func (n *jsonNode) enum(from *node) {
	n.form, n.want, n.index = formEnum, "one of "+someOf(from.symbols), make(map[string]int, len(from.symbols))
	for i, symbol := range from.symbols {
		n.symbols = append(n.symbols, appendJSONString(nil, []byte(symbol)))
		n.index[symbol] = i
	}
}

func (n *jsonNode) integer(from *node) {
	n.form, n.want, n.low, n.high = formInt, "an integer", math.MinInt32, math.MaxInt32
	if from.kind == kindLong {
		n.want, n.isLong, n.low, n.high = "an integer", true, math.MinInt64, math.MaxInt64
	}
	if from.rule == ruleRange {
		n.low, n.high = from.low, from.high
	}
	if !slices.Contains(logicalBases[from.logical], from.kind) {
		return // of a logical type that is not known, or not on this base, only the number is
	}
	switch from.logical {
	case "date":
		n.form, n.want = formDate, "a date such as 2026-01-31"
	case "time-millis", "time-micros":
		n.form, n.unit, n.want = formTime, unitOf(from.logical), "a time of day such as 15:04:05.25"
	default: // timestamp-… and local-timestamp-…
		n.form, n.unit, n.want = formTimestamp, unitOf(from.logical), "an RFC 3339 time such as 2026-01-31T15:04:05.25Z"
		if n.isLocal = strings.HasPrefix(from.logical, "local-"); n.isLocal {
			n.want = "a local time such as 2026-01-31T15:04:05.25"
		}
	}
}

// unitOf returns the nanoseconds of a time's unit.
func unitOf(logical string) int64 {
	switch logical[strings.LastIndexByte(logical, '-')+1:] {
	case "millis":
		return 1_000_000
	case "micros":
		return 1000
	}
	return 1
}

func (n *jsonNode) scalar(from *node) {
	switch from.kind {
	case kindNull:
		n.form, n.want = formNull, "null"
	case kindBoolean:
		n.form, n.want = formBoolean, "true or false"
	case kindFloat:
		n.form, n.want = formFloat, "a number"
	case kindDouble:
		n.form, n.want = formDouble, "a number"
	case kindString:
		n.form, n.want = formString, "a string"
		if from.logical == "uuid" {
			n.form, n.want = formUUID, "a UUID"
		}
	case kindBytes:
		n.form, n.want = formBytes, "a string of base64"
		switch {
		case from.logical == "decimal" && from.precision > 0:
			n.decimal(from)
			n.size = 0
		case from.logical == "big-decimal":
			n.form, n.want, n.precision = formBigDecimal, `a decimal in a string, such as "12.50"`, DecimalPrecisionMax
		}
	case kindFixed:
		n.fixed(from)
	}
}

func (n *jsonNode) fixed(from *node) {
	n.form, n.want = formFixed, fmt.Sprintf("a string of base64 for %d bytes", from.size)
	switch {
	case from.logical == "decimal" && from.precision > 0:
		n.decimal(from)
	case from.logical == "uuid" && from.size == 16:
		n.form, n.want = formUUIDFixed, "a UUID"
	case from.logical == "duration" && from.size == 12:
		n.form, n.want = formDuration, "an object of months, days and millis"
	}
}

func (n *jsonNode) decimal(from *node) {
	n.form, n.precision, n.scale = formDecimal, from.precision, from.scale
	n.want = fmt.Sprintf(`a decimal in a string, such as "%s"`, string(appendDecimal(nil, 1250, from.scale)))
}

// defaultBudget is what the defaults of a schema may still take.
type defaultBudget struct{ bytes, values int }

// appendDefault encodes a field's default, as the Avro library parsed it: each value has the Go
// type of the branch that it was read for. A record's absent fields take their own defaults.
func (b *defaultBudget) appendDefault(dst []byte, n *node, value any, depthLeft int) ([]byte, error) {
	if b.values--; b.values < 0 || depthLeft == 0 || len(dst) > b.bytes {
		return nil, fmt.Errorf("default is too large")
	}
	switch n.kind {
	case kindUnion:
		return b.defaultBranch(dst, n, value, depthLeft-1)
	case kindRecord:
		if members, ok := value.(map[string]any); ok {
			return b.defaultRecord(dst, n, members, depthLeft-1)
		}
	case kindMap:
		if members, ok := value.(map[string]any); ok {
			return b.defaultMap(dst, n, members, depthLeft-1)
		}
	case kindArray:
		if items, ok := value.([]any); ok {
			return b.defaultArray(dst, n, items, depthLeft-1)
		}
	default:
		if out, ok := appendDefaultScalar(dst, n, value); ok {
			return out, nil
		}
	}
	return nil, fmt.Errorf("default is no %s", n.kind)
}

// defaultBranch takes the first branch that the value fits, as the Avro library does.
func (b *defaultBudget) defaultBranch(dst []byte, n *node, value any, depthLeft int) ([]byte, error) {
	err := fmt.Errorf("default fits no branch")
	for i, branch := range n.children {
		var out []byte
		before := b.values
		if out, err = b.appendDefault(binary.AppendVarint(dst, int64(i)), branch, value, depthLeft); err == nil {
			return out, nil
		}
		if b.values < 0 {
			return nil, err
		}
		b.values = before
	}
	return nil, err
}

func (b *defaultBudget) defaultRecord(dst []byte, n *node, members map[string]any, depthLeft int) ([]byte, error) {
	for i, f := range n.fields {
		value, ok := members[f.name]
		if !ok {
			if !f.hasDefault {
				return nil, fmt.Errorf("default has no field %s", clip(f.name))
			}
			value = f.defaultValue
		}
		var err error
		if dst, err = b.appendDefault(dst, n.children[i], value, depthLeft); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

func (b *defaultBudget) defaultMap(dst []byte, n *node, members map[string]any, depthLeft int) ([]byte, error) {
	if len(members) > 0 {
		dst = binary.AppendVarint(dst, int64(len(members)))
	}
	for _, key := range slices.Sorted(maps.Keys(members)) {
		dst = append(binary.AppendVarint(dst, int64(len(key))), key...)
		var err error
		if dst, err = b.appendDefault(dst, n.item, members[key], depthLeft); err != nil {
			return nil, err
		}
	}
	return append(dst, 0), nil
}

func (b *defaultBudget) defaultArray(dst []byte, n *node, items []any, depthLeft int) ([]byte, error) {
	if len(items) > 0 {
		dst = binary.AppendVarint(dst, int64(len(items)))
	}
	for _, item := range items {
		var err error
		if dst, err = b.appendDefault(dst, n.item, item, depthLeft); err != nil {
			return nil, err
		}
	}
	return append(dst, 0), nil
}

func appendDefaultScalar(dst []byte, n *node, value any) ([]byte, bool) {
	switch v := value.(type) {
	case nil:
		return dst, n.kind == kindNull
	case bool:
		if v {
			return append(dst, 1), n.kind == kindBoolean
		}
		return append(dst, 0), n.kind == kindBoolean
	case int32:
		return binary.AppendVarint(dst, int64(v)), n.kind == kindInt
	case int64:
		return binary.AppendVarint(dst, v), n.kind == kindLong
	case float32:
		return binary.LittleEndian.AppendUint32(dst, math.Float32bits(v)), n.kind == kindFloat
	case float64:
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v)), n.kind == kindDouble
	case []byte:
		if n.kind == kindBytes {
			dst = binary.AppendVarint(dst, int64(len(v)))
		}
		return append(dst, v...), n.kind == kindBytes || n.kind == kindFixed && len(v) == n.size
	case string:
		if n.kind == kindEnum {
			i := slices.Index(n.symbols, v)
			return binary.AppendVarint(dst, int64(i)), i >= 0
		}
		return append(binary.AppendVarint(dst, int64(len(v))), v...), n.kind == kindString
	}
	return nil, false
}
