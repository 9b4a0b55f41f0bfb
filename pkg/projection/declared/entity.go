package declared

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	"github.com/foldstream/foldstream/pkg/projection"
)

const (
	entityKeyDefault = "id"
	rowTypeName      = "foldstream.row"
)

// rowState is an entity row while it is folded.
type rowState struct {
	vals   []any // by column; a list of JSON that is worked on is a *jsonList
	exists bool
}

// jsonList is a column of JSON cut into its items, of which few are ever read.
type jsonList struct{ items []*listItem }

// listItem is one item: its text, and what was read of it. It never changes.
type listItem struct {
	text string
	read bool
	any  any
	keys []any
}

func (i *listItem) parsed() (any, error) {
	if !i.read {
		v, err := parseJSON(i.text)
		if err != nil {
			return nil, err
		}
		i.any, i.read = v, true
	}
	return i.any, nil
}

// field reads one field of an item that is a map.
func (i *listItem) field(name string) (v any, found bool, err error) {
	if !i.read {
		text, found, plain := topField(i.text, name)
		if plain {
			if found {
				v, err = parseScalar(text)
			}
			return v, found, err
		}
	}
	whole, err := i.parsed()
	if err != nil {
		return nil, false, err
	}
	fields, isMap := whole.(map[string]any)
	if !isMap {
		return nil, false, errNoMap
	}
	v, found = fields[name]
	return v, found, nil
}

var errNoMap = errors.New("an item of the list is no map, so it has no fields")

// keysOf reads the fields that order a list.
func (i *listItem) keysOf(by []string) ([]any, error) {
	if i.keys != nil {
		return i.keys, nil
	}
	keys := make([]any, len(by))
	for at, name := range by {
		v, _, err := i.field(name)
		if err != nil {
			return nil, err
		}
		switch key := v.(type) {
		case string:
			keys[at] = v
		case json.Number:
			n, err := key.Int64()
			if err != nil {
				return nil, fmt.Errorf("the field %q of an item is no whole number", name)
			}
			keys[at] = n
		default:
			return nil, fmt.Errorf("the field %q of an item is neither a text nor a whole number", name)
		}
	}
	i.keys = keys
	return keys, nil
}

// compareItemKeys orders numbers before texts.
func compareItemKeys(a, b []any) int {
	for i := range a {
		x, isText := a[i].(string)
		y, alsoText := b[i].(string)
		var order int
		switch {
		case isText && alsoText:
			order = strings.Compare(x, y)
		case !isText && !alsoText:
			order = cmp.Compare(a[i].(int64), b[i].(int64))
		case isText:
			order = 1
		default:
			order = -1
		}
		if order != 0 {
			return order
		}
	}
	return 0
}

// list returns the column's list, cut into items.
func (r *rowState) list(at int) (*jsonList, error) {
	switch v := r.vals[at].(type) {
	case *jsonList:
		return v, nil
	case projection.JSON:
		texts, err := splitJSON(string(v))
		if err != nil {
			return nil, err
		}
		l := &jsonList{items: make([]*listItem, len(texts))}
		for i, text := range texts {
			l.items[i] = &listItem{text: text}
		}
		return l, nil
	}
	return &jsonList{}, nil // null
}

func (l *jsonList) json() projection.JSON {
	size := 2
	for _, item := range l.items {
		size += len(item.text) + 1
	}
	text := append(make([]byte, 0, size), '[')
	for i, item := range l.items {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, item.text...)
	}
	return projection.JSON(append(text, ']'))
}

// with returns the list with an item: at its place when it is ordered, instead of one with the
// same keys, else at the end.
func (l *jsonList) with(item *listItem, by []string) (*jsonList, error) {
	items := slices.Clone(l.items)
	if by == nil {
		return &jsonList{append(items, item)}, nil
	}
	keys, err := item.keysOf(by)
	if err != nil {
		return nil, err
	}
	var failed error
	at, found := slices.BinarySearchFunc(items, keys, func(have *listItem, want []any) int {
		theirs, err := have.keysOf(by)
		if err != nil {
			failed = err
			return 0
		}
		return compareItemKeys(theirs, want)
	})
	switch {
	case failed != nil:
		return nil, failed
	case found:
		items[at] = item
	default:
		items = slices.Insert(items, at, item)
	}
	return &jsonList{items}, nil
}

// entityStep computes one column from the row as it was before the rule.
type entityStep struct {
	column int
	run    func(s *scope) (any, error)
}

// entityRule is one compiled rule.
type entityRule struct {
	when   get[bool]
	each   func(s *scope, yield func() error) error
	row    rowMode
	delete bool
	steps  []entityStep
}

// entityPlan is a compiled entity view.
type entityPlan struct {
	columns []*column
	rowType *objectType
	initial []any
	types   map[string]*entityType
}

type entityType struct {
	shape *shape
	rules []entityRule
}

// folding is the projection.Folding of a plan.
type folding struct {
	plan    *entityPlan
	row     rowState
	scope   scope
	scratch []any
}

func (p *entityPlan) begin(row projection.Row, exists bool) (projection.Folding, error) {
	f := &folding{plan: p, row: rowState{vals: slices.Clone(p.initial)}}
	if exists {
		if len(row) != len(p.columns) {
			return nil, fmt.Errorf("stored row has %d columns, the definition %d", len(row), len(p.columns))
		}
		f.row.exists = true
		copy(f.row.vals, row)
	}
	f.scope.row, f.scope.rowType = &f.row, p.rowType
	return f, nil
}

// Apply implements projection.Folding.
func (f *folding) Apply(e projection.Event) error {
	t := f.plan.types[e.Type]
	if t == nil {
		return nil
	}
	data, err := dataOf(e, t.shape)
	if err != nil {
		return err
	}
	f.scope.own = e
	f.scope.event, f.scope.data, f.scope.shape, f.scope.item = &f.scope.own, data, t.shape, itemNow{}
	for i := range t.rules {
		rule := &t.rules[i]
		if rule.each == nil {
			err = f.apply(rule)
		} else {
			err = rule.each(&f.scope, func() error { return f.apply(rule) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func dataOf(e projection.Event, s *shape) (reflect.Value, error) {
	data := reflect.ValueOf(e.Data)
	if !data.IsValid() || data.Type() != s.goType {
		return data, errNoData(e, s.goType)
	}
	return data, nil
}

func (f *folding) apply(rule *entityRule) error {
	if rule.when != nil {
		yes, _, err := rule.when(&f.scope)
		if err != nil || !yes {
			return err
		}
	}
	switch {
	case rule.row == rowRequired && !f.row.exists:
		return fmt.Errorf("%s on a stream that has no row yet", f.scope.event.Type)
	case rule.row == rowNew, !f.row.exists:
		f.clear()
	}
	if rule.delete {
		f.clear()
		return nil
	}
	// Every expression of a rule sees the row as it was before the rule.
	f.scratch = f.scratch[:0]
	for i := range rule.steps {
		v, err := rule.steps[i].run(&f.scope)
		if err != nil {
			return err
		}
		f.scratch = append(f.scratch, v)
	}
	for i, v := range f.scratch {
		f.row.vals[rule.steps[i].column] = v
	}
	f.row.exists = true
	return nil
}

// clear makes the row one that was never there.
func (f *folding) clear() {
	copy(f.row.vals, f.plan.initial)
	f.row.exists = false
}

// Row implements projection.Folding.
func (f *folding) Row() (projection.Row, bool, error) {
	out := make(projection.Row, len(f.row.vals))
	for i, v := range f.row.vals {
		if l, ok := v.(*jsonList); ok {
			v = l.json()
			f.row.vals[i] = v
		}
		out[i] = v
	}
	return out, f.row.exists, nil
}

// rowTypeOf is the type of `row`.
func rowTypeOf(columns []*column) *objectType {
	t := &objectType{name: rowTypeName, fields: map[string]objectField{}}
	for i, c := range columns {
		t.names = append(t.names, c.title)
		t.fields[c.title] = objectField{typ: c.celType(), get: func(src any) any { return rowValue(src.(*scope).row.vals[i]) }}
	}
	return t
}

func rowValue(v any) any {
	switch v := v.(type) {
	case nil:
		return types.NullValue
	case []string:
		return types.NewStringList(adapter{}, v)
	case *jsonList:
		return jsonValue(string(v.json()))
	case projection.JSON:
		return jsonValue(string(v))
	}
	return dynamicValue(v)
}

func jsonValue(text string) any {
	v, err := parseJSON(text)
	if err != nil {
		return types.WrapErr(err)
	}
	return dynamicValue(v)
}

// columnNode is row.<column>.
func (x *exprEnv) columnNode(name string) *node {
	at := slices.IndexFunc(x.columns, func(c *column) bool { return c.title == name })
	if at < 0 {
		return nil
	}
	c := x.columns[at]
	n := &node{form: c.form, nullable: c.nullable, path: true}
	switch c.wire {
	case "text":
		n.text = columnGetter[string](at)
	case "bigint":
		n.int = columnGetter[int64](at)
	case "boolean":
		n.bool = columnGetter[bool](at)
	case "double precision":
		n.double = columnGetter[float64](at)
	case "timestamptz":
		n.time = columnGetter[time.Time](at)
	default:
		return nil
	}
	return n
}

func columnGetter[T any](at int) get[T] {
	return func(s *scope) (T, bool, error) {
		v, there := s.row.vals[at].(T)
		return v, there, nil
	}
}

// The compilation of steps.

// step compiles one entry of one operation.
func (x *exprEnv) step(op string, a assignment, at int) (run func(*scope) (any, error)) {
	c := x.columns[at]
	switch op {
	case opSet:
		return x.set(a, c)
	case opAdd:
		return x.sumInto(a, c, at)
	case opMin, opMax:
		return x.extreme(op, a, c, at)
	case opAppend:
		return x.appendTo(a, c, at)
	case opDelete:
		return x.deleteFrom(a, c, at)
	}
	return nil
}

func (x *exprEnv) set(a assignment, c *column) func(*scope) (any, error) {
	if c.by != nil && strings.TrimSpace(a.expr.value) != "[]" && strings.TrimSpace(a.expr.value) != "null" {
		x.add(a.expr.at, "set it to [], or append without `by`", "column %s is kept in order by %s, so it is filled by append alone", c.title, strings.Join(c.by, ", "))
		return nil
	}
	return x.valueFor(a.expr, c)
}

// sumInto is row.column + expression; null counts as nothing.
func (x *exprEnv) sumInto(a assignment, c *column, at int) func(*scope) (any, error) {
	if c.wire != "bigint" && c.wire != "double precision" {
		x.add(a.name.at, "write set, or append for a list", "add wants a number, column %s is %s", c.title, c.name)
		return nil
	}
	amount := *c
	amount.nullable, amount.columnType.name = true, c.wire
	read := x.unplaced(a.expr, &amount)
	if read == nil {
		return nil
	}
	return placed(c, func(s *scope) (any, error) {
		v, err := read(s)
		if err != nil || v == nil {
			return s.row.vals[at], err
		}
		return addTo(c, s.row.vals[at], v)
	})
}

func addTo(c *column, have, more any) (any, error) {
	switch more := more.(type) {
	case int64:
		n, _ := have.(int64)
		total, err := addInts(n, more)
		if err != nil {
			return nil, err
		}
		return c.check(total)
	case float64:
		f, _ := have.(float64)
		return c.check(f + more)
	}
	return nil, fmt.Errorf("cannot add %T", more)
}

func (x *exprEnv) extreme(op string, a assignment, c *column, at int) func(*scope) (any, error) {
	if !ordersBy(c) {
		x.add(a.name.at, "", "%s wants a number, a text or a time, column %s is %s", op, c.title, c.name)
		return nil
	}
	other := *c
	other.nullable = true
	read := x.valueFor(a.expr, &other)
	if read == nil {
		return nil
	}
	return func(s *scope) (any, error) {
		v, err := read(s)
		have := s.row.vals[at]
		switch {
		case err != nil || v == nil:
			return have, err
		case have == nil || !s.row.exists:
			return v, nil
		}
		if order := compareStored(v, have); (op == opMin && order < 0) || (op == opMax && order > 0) {
			return v, nil
		}
		return have, nil
	}
}

func ordersBy(c *column) bool {
	return c.wire == "text" || c.wire == "bigint" || c.wire == "double precision" || c.wire == "timestamptz"
}

func compareStored(a, b any) int {
	switch a := a.(type) {
	case string:
		return strings.Compare(a, b.(string))
	case int64:
		return cmp.Compare(a, b.(int64))
	case float64:
		return cmp.Compare(a, b.(float64))
	case time.Time:
		return a.Compare(b.(time.Time))
	}
	return 0
}

// appendTo adds to a list: of texts, or of JSON.
func (x *exprEnv) appendTo(a assignment, c *column, at int) func(*scope) (any, error) {
	item := column{title: c.title}
	switch c.wire {
	case "text[]":
		item.columnType = columnTypes[0]
		if a.by != nil {
			x.add(a.by[0].at, "use a column of jsonb, or write the value alone", "by orders items of JSON, column %s is %s", c.title, c.name)
			return nil
		}
	case "jsonb":
		item.columnType = c.columnType
	default:
		x.add(a.name.at, "write set or add, or make it jsonb or text[]", "append wants a list, column %s is %s", c.title, c.name)
		return nil
	}
	read := x.unplaced(a.expr, &item)
	switch {
	case read == nil:
		return nil
	case c.wire == "text[]":
		return placed(c, func(s *scope) (any, error) {
			v, err := read(s)
			if err != nil {
				return nil, err
			}
			have, _ := s.row.vals[at].([]string)
			return append(slices.Clip(have), v.(string)), nil
		})
	}
	return placed(c, func(s *scope) (any, error) {
		v, err := read(s)
		if err != nil {
			return nil, err
		}
		l, err := s.row.list(at)
		if err != nil {
			return nil, err
		}
		return l.with(&listItem{text: string(v.(projection.JSON))}, c.by)
	})
}

// deleteFrom removes the items for which a condition holds.
func (x *exprEnv) deleteFrom(a assignment, c *column, at int) func(*scope) (any, error) {
	kind, typ := itemJSON, cel.DynType
	switch c.wire {
	case "jsonb":
	case "text[]":
		kind, typ = itemText, cel.StringType
	default:
		x.add(a.name.at, "write `delete: true` to delete the row, or set the column", "delete wants a list, column %s is %s", c.title, c.name)
		return nil
	}
	with, err := x.withItem(kind, nil, typ)
	if err != nil {
		x.add(a.expr.at, "", "%v", err)
		return nil
	}
	goes := with.condition(a.expr, "delete "+c.title)
	if goes == nil {
		return nil
	}
	if kind == itemText {
		return placed(c, func(s *scope) (any, error) { return deleteTexts(s, at, goes) })
	}
	return placed(c, func(s *scope) (any, error) { return deleteItems(s, at, goes) })
}

func deleteTexts(s *scope, at int, goes get[bool]) (any, error) {
	have, ok := s.row.vals[at].([]string)
	if !ok {
		return s.row.vals[at], nil
	}
	kept := make([]string, 0, len(have))
	defer func() { s.item = itemNow{} }()
	for _, text := range have {
		s.item = itemNow{any: text}
		yes, _, err := goes(s)
		if err != nil {
			return nil, err
		}
		if !yes {
			kept = append(kept, text)
		}
	}
	return kept, nil
}

func deleteItems(s *scope, at int, goes get[bool]) (any, error) {
	if s.row.vals[at] == nil {
		return nil, nil
	}
	l, err := s.row.list(at)
	if err != nil {
		return nil, err
	}
	kept := &jsonList{items: make([]*listItem, 0, len(l.items))}
	defer func() { s.item = itemNow{} }()
	for _, item := range l.items {
		s.item = itemNow{list: item}
		yes, _, err := goes(s)
		if err != nil {
			return nil, err
		}
		if !yes {
			kept.items = append(kept.items, item)
		}
	}
	return kept, nil
}
