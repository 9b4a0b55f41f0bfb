package declared

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/foldstream/foldstream/pkg/projection"
)

// get reads one value; false stands for null.
type get[T any] func(s *scope) (T, bool, error)

// node is an expression compiled to Go functions, without CEL's interpreter: constants, paths,
// comparisons, logic, sums of integers, and maps and lists of those. It means exactly what CEL
// says; what is not in this subset runs in the interpreter. One of the getters is set, by form.
type node struct {
	form     form
	nullable bool

	text     get[string]
	int      get[int64]
	double   get[float64]
	bool     get[bool]
	time     get[time.Time]
	duration get[time.Duration]
	any      get[any] // formDyn: a part of an item of JSON
	// json writes a list, a map or a record; false: it is null.
	json func(dst []byte, s *scope) ([]byte, bool, error)
	// texts is set for a list of texts.
	texts get[[]string]

	constant bool
	path     bool                // a plain path: event.total
	held     func(s *scope) bool // of a path into the event: it is not null
}

// nodes compiles the checked tree of one expression.
type nodes struct {
	env *exprEnv
}

// node returns nil for what the subset does not have.
func (n *nodes) node(e ast.Expr) *node {
	switch e.Kind() {
	case ast.LiteralKind:
		return literal(e)
	case ast.IdentKind, ast.SelectKind:
		return n.pathNode(e)
	case ast.CallKind:
		return n.call(e.AsCall())
	case ast.ListKind:
		return n.list(e.AsList())
	case ast.MapKind:
		return n.mapLiteral(e.AsMap())
	}
	return nil
}

func literal(e ast.Expr) *node {
	switch v := e.AsLiteral().(type) {
	case types.String:
		return &node{form: formText, constant: true, text: constant(string(v))}
	case types.Int:
		return &node{form: formInt, constant: true, int: constant(int64(v))}
	case types.Double:
		return &node{form: formDouble, constant: true, double: constant(float64(v))}
	case types.Bool:
		return &node{form: formBool, constant: true, bool: constant(bool(v))}
	case types.Null:
		return &node{form: formNull, constant: true, nullable: true}
	}
	return nil
}

func constant[T any](v T) get[T] { return func(*scope) (T, bool, error) { return v, true, nil } }

// pathNode compiles event.a.b, row.column, stream.id, meta.time, item.x and has() of them.
func (n *nodes) pathNode(e ast.Expr) *node {
	test := e.Kind() == ast.SelectKind && e.AsSelect().IsTestOnly()
	var names []string
	for e.Kind() == ast.SelectKind {
		sel := e.AsSelect()
		if sel.IsTestOnly() && len(names) > 0 {
			return nil
		}
		names = append(names, sel.FieldName())
		e = sel.Operand()
	}
	if e.Kind() != ast.IdentKind {
		return nil
	}
	slices.Reverse(names)
	found := n.rooted(e.AsIdent(), names)
	if found == nil || !test {
		return found
	}
	return found.present()
}

func (n *nodes) rooted(root string, names []string) *node {
	switch {
	case root == nameEvent:
		return fieldNode(n.env.shape, names, func(s *scope) reflect.Value { return s.data })
	case root == nameItem && n.env.item == itemShape:
		return fieldNode(n.env.itemShape, names, func(s *scope) reflect.Value { return s.item.data })
	case root == nameItem && n.env.item == itemText && len(names) == 0:
		return &node{form: formText, path: true, text: func(s *scope) (string, bool, error) { return s.item.any.(string), true, nil }}
	case root == nameItem && n.env.item == itemJSON:
		return &node{form: formDyn, nullable: true, any: jsonPath(names)}
	case root == nameRowExists && len(names) == 0 && n.env.columns != nil:
		return &node{form: formBool, bool: func(s *scope) (bool, bool, error) { return s.row.exists, true, nil }}
	case len(names) != 1:
	case root == nameRow:
		return n.env.columnNode(names[0])
	case root == nameStream:
		return plainNode(streamFields, names[0])
	case root == nameMeta:
		return plainNode(metaFields, names[0])
	}
	return nil
}

func plainNode(fields []plainField, name string) *node {
	i := slices.IndexFunc(fields, func(f plainField) bool { return f.name == name })
	if i < 0 {
		return nil
	}
	f := fields[i]
	out := &node{form: f.form, path: true}
	switch f.form {
	case formInt:
		out.int = func(s *scope) (int64, bool, error) { return f.num(s.event), true, nil }
	case formTime:
		out.time = func(s *scope) (time.Time, bool, error) { return f.time(s.event), true, nil }
	default:
		out.text = func(s *scope) (string, bool, error) { return f.text(s.event), true, nil }
	}
	return out
}

// fieldNode reads a path of record fields. A path through a record that is null is null.
func fieldNode(s *shape, names []string, root func(*scope) reflect.Value) *node {
	nullable := s.nullable
	var steps []int
	holders := []*shape{s}
	for _, name := range names {
		if s.form != formRecord {
			return nil
		}
		i, known := s.record.byName[name]
		if !known {
			return nil
		}
		s = s.record.fields[i].shape
		nullable = nullable || s.nullable
		steps, holders = append(steps, i), append(holders, s)
	}
	if s.form == formDyn {
		return nil
	}
	read := func(sc *scope) (reflect.Value, bool) {
		v := root(sc)
		for i, step := range steps {
			if holders[i].nullable {
				if v.IsNil() {
					return v, false
				}
				v = v.Elem()
			}
			v = v.Field(step)
		}
		if s.nullable {
			if v.IsNil() {
				return v, false
			}
			if !s.decimal {
				v = v.Elem()
			}
		}
		return v, true
	}
	return shapeNode(s, nullable, read)
}

func shapeNode(s *shape, nullable bool, read func(*scope) (reflect.Value, bool)) *node {
	n := &node{form: s.form, nullable: nullable, path: true, held: func(sc *scope) bool {
		_, there := read(sc)
		return there
	}}
	switch s.form {
	case formText:
		n.text = getter(read, func(v reflect.Value) string {
			if s.decimal {
				return decimalText(v, s.scale)
			}
			return v.String()
		})
	case formInt:
		n.int = getter(read, reflect.Value.Int)
	case formDouble:
		n.double = getter(read, reflect.Value.Float)
	case formBool:
		n.bool = getter(read, reflect.Value.Bool)
	case formTime:
		n.time = getter(read, func(v reflect.Value) time.Time { return v.Interface().(time.Time).UTC() })
	case formDuration:
		n.duration = getter(read, func(v reflect.Value) time.Duration { return time.Duration(v.Int()) })
	default:
		present := *s
		present.nullable = false
		n.json = func(dst []byte, sc *scope) ([]byte, bool, error) {
			v, there := read(sc)
			if !there {
				return dst, false, nil
			}
			dst, err := appendShape(dst, v, &present)
			return dst, true, err
		}
		if s.form == formList && s.item.form == formText && !s.item.nullable && !s.item.decimal {
			n.texts = getter(read, func(v reflect.Value) []string { return v.Interface().([]string) })
		}
	}
	return n
}

func getter[T any](read func(*scope) (reflect.Value, bool), of func(reflect.Value) T) get[T] {
	return func(s *scope) (T, bool, error) {
		v, there := read(s)
		if !there {
			var zero T
			return zero, false, nil
		}
		return of(v), true, nil
	}
}

// jsonPath reads a part of an item of JSON. CEL refuses a part that is not there.
func jsonPath(names []string) get[any] {
	return func(s *scope) (v any, there bool, err error) {
		rest := names
		if len(names) > 0 {
			var found bool
			switch v, found, err = s.item.list.field(names[0]); {
			case errors.Is(err, errNoMap):
				return nil, false, errors.New("no such overload")
			case err == nil && !found:
				return nil, false, fmt.Errorf("no such key: %s", names[0])
			}
			rest = names[1:]
		} else {
			v, err = s.item.list.parsed()
		}
		if err != nil {
			return nil, false, err
		}
		for _, name := range rest {
			m, is := v.(map[string]any)
			if !is {
				return nil, false, errors.New("no such overload")
			}
			if v, is = m[name]; !is {
				return nil, false, fmt.Errorf("no such key: %s", name)
			}
		}
		return v, v != nil, nil
	}
}

// present is has(path).
func (n *node) present() *node {
	if n.form == formDyn {
		return nil // has() of a part of JSON is about the key
	}
	return &node{form: formBool, bool: func(s *scope) (bool, bool, error) {
		there, err := n.there(s)
		return there, true, err
	}}
}

// there says whether the value is not null.
func (n *node) there(s *scope) (there bool, err error) {
	switch {
	case n.held != nil:
		return n.held(s), nil
	case n.text != nil:
		_, there, err = n.text(s)
	case n.int != nil:
		_, there, err = n.int(s)
	case n.double != nil:
		_, there, err = n.double(s)
	case n.bool != nil:
		_, there, err = n.bool(s)
	case n.time != nil:
		_, there, err = n.time(s)
	case n.duration != nil:
		_, there, err = n.duration(s)
	case n.any != nil:
		_, there, err = n.any(s)
	case n.json != nil:
		_, there, err = n.json(nil, s)
	}
	return there, err
}

func (n *nodes) call(c ast.CallExpr) *node {
	if c.IsMemberFunction() {
		return nil
	}
	var args []*node
	for _, a := range c.Args() {
		arg := n.node(a)
		if arg == nil {
			return nil
		}
		args = append(args, arg)
	}
	switch c.FunctionName() {
	case operators.Equals:
		return equal(args[0], args[1], true)
	case operators.NotEquals:
		return equal(args[0], args[1], false)
	case operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		return ordered(c.FunctionName(), args[0], args[1])
	case operators.LogicalAnd:
		return logical(args, false)
	case operators.LogicalOr:
		return logical(args, true)
	case operators.LogicalNot:
		return negated(args[0])
	case operators.Conditional:
		return conditional(args[0], args[1], args[2])
	case operators.Add, operators.Subtract:
		return sum(c.FunctionName(), args[0], args[1])
	case functionMillis:
		return millis(args[0])
	}
	return nil
}

// equal is == or !=. Null equals null alone.
func equal(a, b *node, want bool) *node {
	var same get[bool]
	switch {
	case a.form == formNull || b.form == formNull:
		if a.form == formNull {
			a = b
		}
		same = func(s *scope) (bool, bool, error) {
			there, err := a.there(s)
			return !there, true, err
		}
	case a.form == formDyn && b.form == formText:
		same = equalDynamic(a.any, b.text)
	case b.form == formDyn && a.form == formText:
		same = equalDynamic(b.any, a.text)
	case a.form != b.form:
		return nil
	case a.text != nil:
		same = equalOf(a.text, b.text, func(x, y string) bool { return x == y })
	case a.int != nil:
		same = equalOf(a.int, b.int, func(x, y int64) bool { return x == y })
	case a.double != nil:
		same = equalOf(a.double, b.double, func(x, y float64) bool { return x == y })
	case a.bool != nil:
		same = equalOf(a.bool, b.bool, func(x, y bool) bool { return x == y })
	case a.time != nil:
		same = equalOf(a.time, b.time, time.Time.Equal)
	case a.duration != nil:
		same = equalOf(a.duration, b.duration, func(x, y time.Duration) bool { return x == y })
	default:
		return nil
	}
	return &node{form: formBool, bool: func(s *scope) (bool, bool, error) {
		is, _, err := same(s)
		return is == want, true, err
	}}
}

func equalOf[T any](a, b get[T], same func(x, y T) bool) get[bool] {
	return func(s *scope) (bool, bool, error) {
		x, thereX, err := a(s)
		if err != nil {
			return false, true, err
		}
		y, thereY, err := b(s)
		if err != nil || !thereX || !thereY {
			return !thereX && !thereY, true, err
		}
		return same(x, y), true, nil
	}
}

func equalDynamic(a get[any], b get[string]) get[bool] {
	return equalOf(a, func(s *scope) (any, bool, error) {
		v, there, err := b(s)
		return v, there, err
	}, func(x, y any) bool {
		text, is := x.(string)
		return is && text == y.(string)
	})
}

// ordered is <, <=, > or >=, of values that are never null: CEL refuses those.
func ordered(operator string, a, b *node) *node {
	if a.form != b.form || a.nullable || b.nullable {
		return nil
	}
	holds := func(order int) bool { return order > 0 }
	switch operator {
	case operators.Less:
		holds = func(order int) bool { return order < 0 }
	case operators.LessEquals:
		holds = func(order int) bool { return order <= 0 }
	case operators.GreaterEquals:
		holds = func(order int) bool { return order >= 0 }
	}
	out := &node{form: formBool}
	switch a.form {
	case formText:
		out.bool = both(a.text, b.text, func(x, y string) (bool, error) { return holds(strings.Compare(x, y)), nil })
	case formInt:
		out.bool = both(a.int, b.int, func(x, y int64) (bool, error) { return holds(cmp.Compare(x, y)), nil })
	case formTime:
		out.bool = both(a.time, b.time, func(x, y time.Time) (bool, error) { return holds(x.Compare(y)), nil })
	default:
		return nil
	}
	return out
}

func both[A, R any](a, b get[A], f func(x, y A) (R, error)) get[R] {
	return func(s *scope) (out R, there bool, err error) {
		x, _, err := a(s)
		if err != nil {
			return out, true, err
		}
		y, _, err := b(s)
		if err != nil {
			return out, true, err
		}
		out, err = f(x, y)
		return out, true, err
	}
}

// logical is && (decides false) or || (decides true). As CEL says, a side that decides covers an
// error of the other.
func logical(args []*node, decides bool) *node {
	for _, a := range args {
		if a.form != formBool || a.nullable {
			return nil
		}
	}
	return &node{form: formBool, bool: func(s *scope) (bool, bool, error) {
		var failed error
		for _, a := range args {
			v, _, err := a.bool(s)
			switch {
			case err != nil && failed == nil:
				failed = err
			case err == nil && v == decides:
				return decides, true, nil
			}
		}
		return !decides, true, failed
	}}
}

func negated(a *node) *node {
	if a.form != formBool || a.nullable {
		return nil
	}
	return &node{form: formBool, bool: func(s *scope) (bool, bool, error) {
		v, _, err := a.bool(s)
		return !v, true, err
	}}
}

func conditional(test, yes, no *node) *node {
	if test.form != formBool || test.nullable {
		return nil
	}
	if yes.form == formNull {
		yes = no.null()
	}
	if no.form == formNull {
		no = yes.null()
	}
	if yes.form != no.form {
		return nil
	}
	out := &node{form: yes.form, nullable: yes.nullable || no.nullable}
	switch {
	case yes.text != nil:
		out.text = choose(test.bool, yes.text, no.text)
	case yes.int != nil:
		out.int = choose(test.bool, yes.int, no.int)
	case yes.double != nil:
		out.double = choose(test.bool, yes.double, no.double)
	case yes.bool != nil:
		out.bool = choose(test.bool, yes.bool, no.bool)
	case yes.time != nil:
		out.time = choose(test.bool, yes.time, no.time)
	default:
		return nil
	}
	return out
}

// null is a null of n's form.
func (n *node) null() *node {
	return &node{
		form: n.form, nullable: true,
		text: nothing[string], int: nothing[int64], double: nothing[float64], bool: nothing[bool], time: nothing[time.Time],
	}
}

func nothing[T any](*scope) (v T, there bool, err error) { return v, false, nil }

func choose[T any](test get[bool], yes, no get[T]) get[T] {
	return func(s *scope) (T, bool, error) {
		v, _, err := test(s)
		if err != nil {
			var zero T
			return zero, true, err
		}
		if v {
			return yes(s)
		}
		return no(s)
	}
}

// sum is + or - of integers, + of texts, and - of times.
func sum(operator string, a, b *node) *node {
	if a.form != b.form || a.nullable || b.nullable {
		return nil
	}
	plus := operator == operators.Add
	switch {
	case a.form == formInt && plus:
		return &node{form: formInt, int: both(a.int, b.int, addInts)}
	case a.form == formInt:
		return &node{form: formInt, int: both(a.int, b.int, subtractInts)}
	case a.form == formText && plus:
		return &node{form: formText, text: both(a.text, b.text, func(x, y string) (string, error) { return x + y, nil })}
	case a.form == formTime && !plus:
		return &node{form: formDuration, duration: both(a.time, b.time, subtractTimes)}
	}
	return nil
}

func addInts(x, y int64) (int64, error) {
	z := x + y
	if (y > 0 && z < x) || (y < 0 && z > x) {
		return 0, fmt.Errorf("%w: %d + %d exceeds bigint", projection.ErrValue, x, y)
	}
	return z, nil
}

func subtractInts(x, y int64) (int64, error) {
	z := x - y
	if (y < 0 && z < x) || (y > 0 && z > x) {
		return 0, fmt.Errorf("%w: %d - %d exceeds bigint", projection.ErrValue, x, y)
	}
	return z, nil
}

func millis(a *node) *node {
	if a.form != formDuration || a.nullable {
		return nil
	}
	return &node{form: formInt, int: func(s *scope) (int64, bool, error) {
		d, _, err := a.duration(s)
		return d.Milliseconds(), true, err
	}}
}

// list compiles a list literal.
func (n *nodes) list(l ast.ListExpr) *node {
	if len(l.OptionalIndices()) > 0 {
		return nil
	}
	out := &node{form: formList, constant: len(l.Elements()) == 0}
	var items []*node
	texts := true
	for _, e := range l.Elements() {
		item := n.node(e)
		if item == nil || item.form == formDyn {
			return nil
		}
		texts = texts && item.form == formText && !item.nullable
		items = append(items, item)
	}
	out.json = func(dst []byte, s *scope) ([]byte, bool, error) {
		dst = append(dst, '[')
		for i, item := range items {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = item.appendJSON(dst, s); err != nil {
				return dst, true, err
			}
		}
		return append(dst, ']'), true, nil
	}
	if texts {
		out.texts = func(s *scope) ([]string, bool, error) {
			all := make([]string, len(items))
			for i, item := range items {
				var err error
				if all[i], _, err = item.text(s); err != nil {
					return nil, true, err
				}
			}
			return all, true, nil
		}
	}
	return out
}

// mapLiteral compiles a map literal with constant texts as keys.
func (n *nodes) mapLiteral(m ast.MapExpr) *node {
	type entry struct {
		name  string
		key   []byte
		value *node
	}
	var entries []entry
	for _, e := range m.Entries() {
		pair := e.AsMapEntry()
		if pair.IsOptional() || pair.Key().Kind() != ast.LiteralKind {
			return nil
		}
		name, isText := pair.Key().AsLiteral().(types.String)
		value := n.node(pair.Value())
		if !isText || value == nil || value.form == formDyn {
			return nil
		}
		key, err := appendText(nil, string(name))
		if err != nil || slices.ContainsFunc(entries, func(e entry) bool { return e.name == string(name) }) {
			return nil
		}
		entries = append(entries, entry{string(name), append(key, ':'), value})
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return &node{form: formMap, json: func(dst []byte, s *scope) ([]byte, bool, error) {
		dst = append(dst, '{')
		for i, e := range entries {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = e.value.appendJSON(append(dst, e.key...), s); err != nil {
				return dst, true, err
			}
		}
		return append(dst, '}'), true, nil
	}}
}

// appendJSON writes the value, or null.
func (n *node) appendJSON(dst []byte, s *scope) ([]byte, error) {
	switch {
	case n.text != nil:
		return appendGot(dst, s, n.text, appendText)
	case n.int != nil:
		return appendGot(dst, s, n.int, appendInt)
	case n.double != nil:
		return appendGot(dst, s, n.double, appendDouble)
	case n.bool != nil:
		return appendGot(dst, s, n.bool, appendBool)
	case n.time != nil:
		return appendGot(dst, s, n.time, appendTime)
	case n.duration != nil:
		return appendGot(dst, s, n.duration, appendDuration)
	case n.json != nil:
		start := len(dst)
		dst, there, err := n.json(dst, s)
		if err == nil && !there {
			dst = append(dst[:start], "null"...)
		}
		return dst, err
	}
	return append(dst, "null"...), nil
}

func appendGot[T any](dst []byte, s *scope, read get[T], write func([]byte, T) ([]byte, error)) ([]byte, error) {
	v, there, err := read(s)
	if err != nil {
		return dst, err
	}
	if !there {
		return append(dst, "null"...), nil
	}
	return write(dst, v)
}

// canonicalDouble drops the sign of zero, which Postgres keeps in its text form alone.
func canonicalDouble(f float64) float64 {
	if f == 0 {
		return math.Abs(f)
	}
	return f
}
