package declared

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/foldstream/foldstream/pkg/projection"
)

// itemKind says what `item` is.
type itemKind uint8

const (
	itemNone  itemKind = iota
	itemShape          // each: an item of a list of the event's
	itemValue          // each: an item of what the interpreter made
	itemJSON           // delete: an item of a column of JSON
	itemText           // delete: an item of a column of texts
)

// itemNow is the item at hand, in one of its forms.
type itemNow struct {
	shape *shape // of data
	data  reflect.Value
	val   ref.Val
	any   any // a text
	list  *listItem
}

// value is the item as the interpreter sees it.
func (i *itemNow) value() (ref.Val, error) {
	switch {
	case i.val != nil:
	case i.shape != nil:
		i.val = valueOf(i.data, i.shape)
	case i.list != nil:
		v, err := i.list.parsed()
		if err != nil {
			return nil, err
		}
		i.val = dynamicValue(v)
	case i.any != nil:
		i.val = dynamicValue(i.any)
	}
	return i.val, nil
}

// exprEnv is what expressions of one event type may name.
type exprEnv struct {
	*faults
	cel       *cel.Env
	shape     *shape
	columns   []*column // entity views: row
	objects   map[string]*objectType
	item      itemKind
	itemShape *shape
	itemType  *cel.Type
}

func newExprEnv(f *faults, s *shape, columns []*column, row *objectType) (*exprEnv, error) {
	base, err := baseEnv()
	if err != nil {
		return nil, err
	}
	x := &exprEnv{faults: f, shape: s, columns: columns, objects: map[string]*objectType{streamType.name: streamType, metaType.name: metaType}}
	recordsOf(s, x.objects)
	opts := []cel.EnvOption{
		cel.Variable(nameEvent, s.celType()),
		cel.Variable(nameStream, cel.ObjectType(streamType.name)),
		cel.Variable(nameMeta, cel.ObjectType(metaType.name)),
	}
	if columns != nil {
		x.objects[row.name] = row
		opts = append(opts, cel.Variable(nameRow, cel.ObjectType(row.name)), cel.Variable(nameRowExists, cel.BoolType))
	}
	opts = append(opts, cel.CustomTypeProvider(&provider{Provider: base.CELTypeProvider(), objects: x.objects}))
	x.cel, err = base.Extend(opts...)
	return x, err
}

// withItem adds `item`.
func (x *exprEnv) withItem(kind itemKind, s *shape, typ *cel.Type) (*exprEnv, error) {
	with := *x
	with.item, with.itemShape, with.itemType = kind, s, typ
	var err error
	with.cel, err = x.cel.Extend(cel.Variable(nameItem, typ))
	return &with, err
}

// expr is one checked expression.
type expr struct {
	source text
	typ    *cel.Type
	node   *node       // nil: prg runs it
	prg    cel.Program // nil: node runs it
}

// compile checks an expression; nil, with faults added, where it is wrong.
func (x *exprEnv) compile(t text) *expr {
	if t.value == "" || x.full() {
		return nil
	}
	parsed, issues := x.cel.Parse(t.value)
	if issues.Err() != nil {
		x.issues(t, nil, issues)
		return nil
	}
	checked, issues := x.cel.Check(parsed)
	if issues.Err() != nil {
		x.issues(t, parsed, issues)
		return nil
	}
	e := &expr{source: t, typ: checked.OutputType()}
	tree := checked.NativeRep()
	if e.node = (&nodes{env: x}).node(tree.Expr()); e.node != nil {
		return e
	}
	return x.plan(e, checked)
}

// plan readies the interpreter.
func (x *exprEnv) plan(e *expr, checked *cel.Ast) *expr {
	prg, err := x.cel.Program(checked, cel.CostLimit(CostMax), cel.EvalOptions(cel.OptOptimize), cel.CustomDecoratorV2(sortLiterals))
	if err != nil {
		x.add(e.source.at, "", "%s: %v", quoteShort(e.source.value), err)
		return nil
	}
	e.prg = prg
	return e
}

// interpret turns the node off, for what it cannot give.
func (x *exprEnv) interpret(e *expr) *expr {
	e.node = nil
	checked, issues := x.cel.Compile(e.source.value)
	if issues.Err() != nil {
		x.issues(e.source, nil, issues)
		return nil
	}
	return x.plan(e, checked)
}

// value runs the interpreter.
func (e *expr) value(s *scope) (ref.Val, error) {
	v, _, err := e.prg.Eval(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", quoteShort(e.source.value), err)
	}
	return v, nil
}

// condition is an expression that says yes or no.
func (x *exprEnv) condition(t text, what string) get[bool] {
	e := x.compile(t)
	if e == nil {
		return nil
	}
	if e.node != nil && e.node.form == formBool && !e.node.nullable {
		return e.node.bool
	}
	if k := e.typ.Kind(); k != types.BoolKind && k != types.DynKind || isWrapper(e.typ) {
		x.add(t.at, "write a comparison, such as event.total > 0", "%s is of type %s, want bool", what, typeName(e.typ))
		return nil
	}
	if e = x.interpreted(e); e == nil {
		return nil
	}
	return func(s *scope) (bool, bool, error) {
		v, err := e.value(s)
		if err != nil {
			return false, true, err
		}
		yes, ok := v.(types.Bool)
		if !ok {
			return false, true, fmt.Errorf("%s is of type %s, want bool", quoteShort(e.source.value), v.Type().TypeName())
		}
		return bool(yes), true, nil
	}
}

func (x *exprEnv) interpreted(e *expr) *expr {
	if e.prg != nil {
		return e
	}
	return x.interpret(e)
}

// valueFor is an expression whose value a column holds. Its errors name the column.
func (x *exprEnv) valueFor(t text, c *column) func(*scope) (any, error) {
	read := x.unplaced(t, c)
	if read == nil {
		return nil
	}
	return placed(c, read)
}

// unplaced is valueFor whose errors do not name the column.
func (x *exprEnv) unplaced(t text, c *column) func(*scope) (any, error) {
	e := x.compile(t)
	if e == nil {
		return nil
	}
	if !c.fits(e.typ) {
		x.add(t.at, c.remedy(e.typ, t.value), "column %s is %s and wants %s, but %s is of type %s", c.title, c.name, c.wants(), quoteShort(t.value), typeName(e.typ))
		return nil
	}
	if n := e.node; n != nil && n.path && n.nullable && n.form != formDyn && !c.nullable && c.merge == "" && c.wire != "jsonb" {
		x.add(t.at, fmt.Sprintf("give the column nullable: true, or write %s", orElse(t.value, c)),
			"column %s is not nullable, but %s may be null", c.title, strings.TrimSpace(t.value))
		return nil
	}
	if e.node != nil && e.node.form != formDyn && (c.wire == "jsonb" || e.node.form == formNull || boxed(e.node) != nil) {
		return c.fromNode(e.node)
	}
	if e = x.interpreted(e); e == nil {
		return nil
	}
	return func(s *scope) (any, error) {
		v, err := e.value(s)
		if err != nil {
			return nil, err
		}
		return c.fromValue(v)
	}
}

func orElse(path string, c *column) string {
	path = strings.TrimSpace(path)
	zero := map[form]string{formText: "''", formInt: "0", formDouble: "0.0", formBool: "false", formList: "[]", formTime: "meta.time"}[c.form]
	return fmt.Sprintf("has(%s) ? %s : %s", path, path, zero)
}

// placed adds the column to errors.
func placed(c *column, f func(*scope) (any, error)) func(*scope) (any, error) {
	return func(s *scope) (any, error) {
		v, err := f(s)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.title, err)
		}
		return v, nil
	}
}

func isWrapper(t *cel.Type) bool { return strings.HasPrefix(cel.FormatCELType(t), "wrapper(") }

// typeName is a type as people write it.
func typeName(t *cel.Type) string {
	name := cel.FormatCELType(t)
	name = strings.NewReplacer("google.protobuf.Timestamp", "timestamp", "google.protobuf.Duration", "duration",
		"wrapper(", "nullable(").Replace(name)
	return name
}

var (
	undefinedField = regexp.MustCompile(`^undefined field '([^']*)'`)
	undeclared     = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	enableHint     = regexp.MustCompile("(, enable with `[^`]*`)|( \\(enable with `[^`]*`\\))")
	overloadHint   = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'$`)
)

// issues turns what the checker found into faults, with the place in the file.
func (x *exprEnv) issues(t text, parsed *cel.Ast, issues *cel.Issues) {
	for _, issue := range issues.Errors() {
		where := t.place(issue.Location.Line(), issue.Location.Column())
		message := enableHint.ReplaceAllString(strings.Join(strings.Fields(issue.Message), " "), "")
		remedy := ""
		switch {
		case undefinedField.MatchString(message):
			name := undefinedField.FindStringSubmatch(message)[1]
			if where.column > 0 {
				where.column++ // CEL names the dot
			}
			message = fmt.Sprintf("there is no field %q", name)
			if known, owner := x.fieldsAt(parsed, issue.ExprID); known != nil {
				message = fmt.Sprintf("%s has no field %q", owner, name)
				remedy = didYouMean(name, known)
			}
		case undeclared.MatchString(message):
			name := undeclared.FindStringSubmatch(message)[1]
			message, remedy = x.unknownName(name, t.value)
		case overloadHint.MatchString(message):
			m := overloadHint.FindStringSubmatch(message)
			message = fmt.Sprintf("%s does not take %s", operatorName(m[1]), strings.NewReplacer("google.protobuf.Timestamp", "timestamp",
				"google.protobuf.Duration", "duration", "wrapper(", "nullable(").Replace(m[2]))
			remedy = "make both sides one type by int(…), double(…), string(…) or timestamp(…); test for what may be missing by has(…)"
		case strings.HasPrefix(message, "Syntax error"):
			remedy = "write a CEL expression; a text stands in quotes of its own: \"'open'\""
		}
		x.add(where, remedy, "%s: %s", quoteShort(strings.TrimSpace(t.value)), message)
	}
}

func operatorName(name string) string {
	return strings.NewReplacer("_", "", "@", "", "[]", "[…]").Replace(name)
}

// unknownName explains a name that is not declared.
func (x *exprEnv) unknownName(name, source string) (message, remedy string) {
	known := []string{nameEvent, nameStream, nameMeta}
	if x.columns != nil {
		known = append(known, nameRow, nameRowExists)
	}
	if x.item != itemNone {
		known = append(known, nameItem)
	}
	message = fmt.Sprintf("%q is unknown", name)
	switch {
	case x.shape.record.has(name):
		remedy = "write event." + name
	case x.column(name) != nil:
		remedy = "write row." + name
	case strings.TrimSpace(source) == name:
		remedy = fmt.Sprintf(`a text stands in quotes of its own: "'%s'"; names are %s`, name, strings.Join(known, ", "))
	case slices.Contains([]string{"now", "date", "rand", "random", "uuid"}, name):
		remedy = "a view has no clock and no chance; write meta.time for the event's time"
	default:
		remedy = didYouMean(name, append(known, functionMillis, functionTruncate, "int", "double", "string", "timestamp", "duration", "size", "has"))
	}
	return message, remedy
}

func (r *recordShape) has(name string) bool {
	_, has := r.byName[name]
	return has
}

func (x *exprEnv) column(name string) *column {
	i := slices.IndexFunc(x.columns, func(c *column) bool { return c.title == name })
	if i < 0 {
		return nil
	}
	return x.columns[i]
}

// fieldsAt lists the fields that could stand where an unknown one stands.
func (x *exprEnv) fieldsAt(parsed *cel.Ast, id int64) (names []string, owner string) {
	if parsed == nil {
		return nil, ""
	}
	ast.PreOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.ID() != id || e.Kind() != ast.SelectKind {
			return
		}
		if t := x.objectOf(e.AsSelect().Operand()); t != nil {
			names, owner = t.names, t.name
		}
	}))
	switch owner {
	case x.shape.record.name:
		owner = "event " + owner
	case rowTypeName:
		owner = "the row"
	}
	return names, strings.TrimPrefix(owner, "foldstream.")
}

// objectOf finds the type of a path, as far as it leads through records.
func (x *exprEnv) objectOf(e ast.Expr) *objectType {
	switch e.Kind() {
	case ast.IdentKind:
		switch e.AsIdent() {
		case nameEvent:
			return x.shape.record.object()
		case nameRow:
			return x.objects[rowTypeName]
		case nameStream:
			return streamType
		case nameMeta:
			return metaType
		case nameItem:
			if x.itemType != nil {
				return x.objects[x.itemType.TypeName()]
			}
		}
	case ast.SelectKind:
		if holder := x.objectOf(e.AsSelect().Operand()); holder != nil {
			if f, known := holder.fields[e.AsSelect().FieldName()]; known {
				return x.objects[f.typ.TypeName()]
			}
		}
	}
	return nil
}

// place finds a place within an expression in the file. line counts from 1, column from 0.
func (t text) place(line, column int) position {
	switch {
	case t.block:
		return position{line: t.at.line + max(line, 1)}
	case line > 1:
		return position{line: t.at.line + line - 1}
	}
	return position{line: t.at.line, column: t.at.column + t.inner + max(column, 0)}
}

// errNoData explains an event whose payload is not what the view's types decode to.
func errNoData(e projection.Event, want reflect.Type) error {
	return fmt.Errorf("the payload of %s is a %T, want what a codec decodes by the view's Types (%d fields)", e.Type, e.Data, want.NumField())
}
