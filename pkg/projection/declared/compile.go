package declared

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
)

// compiler makes a view of a definition.
type compiler struct {
	*faults
	types   *Types
	def     *definition
	columns []*column
	keys    []*column
	rowType *objectType
	bound   []codec.TypeDef
	shapes  map[string]*shape
}

var (
	nameRule     = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)
	nameRuleText = "want a name of [a-z][a-z0-9_]{0,30}"
)

// listPath reads the items of a list that the event holds as it is.
func (x *exprEnv) listPath(t text) (*shape, func(s *scope, yield func() error) error) {
	checked, issues := x.cel.Compile(t.value)
	if issues.Err() != nil {
		return nil, nil
	}
	var names []string
	e := checked.NativeRep().Expr()
	for ; e.Kind() == ast.SelectKind && !e.AsSelect().IsTestOnly(); e = e.AsSelect().Operand() {
		names = append(names, e.AsSelect().FieldName())
	}
	if e.Kind() != ast.IdentKind || e.AsIdent() != nameEvent || len(names) != 1 {
		return nil, nil
	}
	at, known := x.shape.record.byName[names[0]]
	if !known || x.shape.record.fields[at].form != formList {
		return nil, nil
	}
	list := x.shape.record.fields[at].shape
	return list, func(s *scope, yield func() error) error {
		v := s.data.Field(at)
		if list.nullable {
			if v.IsNil() {
				return nil
			}
			v = v.Elem()
		}
		defer func() { s.item = itemNow{} }()
		for i := range v.Len() {
			s.item = itemNow{shape: list.item, data: v.Index(i)}
			if err := yield(); err != nil {
				return err
			}
		}
		return nil
	}
}

// view checks the definition and compiles it. The view counts only where no fault was added.
func (c *compiler) view() projection.View {
	d := c.def
	if d.name.value != "" && !nameRule.MatchString(d.name.value) {
		c.add(d.name.at, nameRuleText, "view %s", quoteShort(d.name.value))
	}
	c.readColumns()
	c.bindTypes()
	if len(c.all) > 0 {
		return projection.View{}
	}
	out := projection.Definition{
		Name: d.name.value, Version: d.version, Kind: d.kind, Types: c.bound,
		Categories: c.categories(), Source: d.canonical(),
	}
	switch d.kind {
	case projection.KindMetric:
		c.metric(&out)
	case projection.KindAppend:
		c.append(&out)
	default:
		c.entity(&out)
	}
	if len(c.all) > 0 {
		return projection.View{}
	}
	for _, col := range c.columns {
		out.Columns = append(out.Columns, col.projection())
	}
	out.Indexes = c.indexes()
	view := projection.Define(out)
	c.validate(view)
	return view
}

// validate reports what only the finished view tells, such as a reserved name.
func (c *compiler) validate(v projection.View) {
	if len(c.all) > 0 {
		return
	}
	if err := v.Validate(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			c.add(c.def.name.at, "rename it, or correct the line that it names", "%s", line)
		}
	}
}

func (c *compiler) readColumns() {
	seen := map[string]bool{}
	own := []string{projection.VersionColumn}
	if c.def.kind == projection.KindAppend {
		own = append(own, projection.CategoryColumn, projection.StreamColumn, projection.PlaceColumn)
	}
	if c.def.kind == projection.KindMetric {
		own = nil
	}
	for _, d := range c.def.columns {
		switch {
		case !nameRule.MatchString(d.name.value):
			c.add(d.name.at, nameRuleText, "column %s", quoteShort(d.name.value))
		case strings.HasPrefix(d.name.value, "fs_"):
			c.add(d.name.at, "rename it", "column %s: the prefix fs_ is reserved for the system", d.name.value)
		case slices.Contains(own, d.name.value):
			c.add(d.name.at, "rename it", "column %s: the view has this column by itself", d.name.value)
		}
		seen[d.name.value] = true
		t, ok := c.columnType(d.typ, "column "+d.name.value)
		if !ok {
			continue
		}
		col := &column{columnType: t, title: d.name.value, nullable: d.nullable}
		c.columns = append(c.columns, col)
		if d.search && t.name != "text" {
			c.add(d.name.at, "remove search, or make it text", "column %s: only a text can be searched", d.name.value)
		}
		if d.index && t.wire == "jsonb" {
			c.add(d.name.at, "remove index", "column %s: jsonb has no order to index", d.name.value)
		}
	}
	if len(c.def.columns) == 0 && len(c.all) == 0 {
		c.add(c.def.keyAt, "name at least one", "columns: there are none")
	}
}

func (c *compiler) columnType(t text, what string) (columnType, bool) {
	i := slices.IndexFunc(columnTypes, func(k columnType) bool { return k.name == t.value })
	if i >= 0 {
		return columnTypes[i], true
	}
	if t.value == "" {
		return columnType{}, false // said already
	}
	remedy := didYouMean(t.value, columnTypeNames())
	if alias, known := typeAliases[strings.ToLower(t.value)]; known {
		remedy = "write " + alias
	}
	c.add(t.at, remedy, "%s: type %s is unknown", what, quoteShort(t.value))
	return columnType{}, false
}

// bindTypes finds the schema of every event type.
func (c *compiler) bindTypes() {
	c.shapes = map[string]*shape{}
	var sources []string
	for _, s := range c.def.sources {
		if s.value == "" {
			continue
		}
		if !slices.Contains(c.types.Categories(), s.value) {
			c.add(s.at, didYouMean(s.value, c.types.Categories()), "source %s: the project has no schema of such a category", quoteShort(s.value))
		}
		sources = append(sources, s.value)
	}
	first := map[string]int{}
	for _, t := range c.def.on {
		if line, twice := first[t.name.value]; twice {
			c.add(t.name.at, "join their rules in a list", "on: %s stands in line %d already", t.name.value, line)
			continue
		}
		first[t.name.value] = t.name.at.line
		c.bindType(t, sources)
	}
	if len(c.def.on) == 0 && len(c.all) == 0 {
		c.add(c.def.name.at, "name the event types that the view folds", "on is empty")
	}
	c.checkSources(sources)
}

func (c *compiler) bindType(t typeDef, sources []string) {
	name := t.name.value
	category, _, _ := strings.Cut(name, ".")
	found, ok := c.types.find(name, t.version)
	switch {
	case !ok && t.version > 0 && c.types.known(name):
		c.add(t.name.at, fmt.Sprintf("write %s for the latest, which is version %d", name, c.types.latest(name)), "%s has no version %d", name, t.version)
		return
	case !ok:
		remedy := didYouMean(name, c.types.events())
		if full := c.types.ofName(name); full != "" {
			remedy = "write " + full
		}
		c.add(t.name.at, remedy, "event type %s has no schema", quoteShort(name))
		return
	case found.Kind != "" && found.Kind != event.KindEvent:
		c.add(t.name.at, didYouMean(name, c.types.events()), "%s is of kind %s, and a view folds events", name, found.Kind)
		return
	case len(sources) > 0 && !slices.Contains(sources, category):
		c.add(t.name.at, "add "+category+" to source, or remove the type", "%s is not of source %s", name, strings.Join(sources, ", "))
		return
	}
	s, err := c.types.shapeOf(found)
	if err != nil {
		c.add(t.name.at, "", "%v", err)
		return
	}
	c.shapes[name] = s
	c.bound = append(c.bound, codec.TypeDef{Name: name, Version: found.Version, Kind: event.KindEvent, GoType: s.goType})
}

// checkSources: an entity row is fed by one stream.
func (c *compiler) checkSources(sources []string) {
	if len(sources) == 0 {
		sources = c.categories()
	}
	if c.def.kind == projection.KindEntity && len(sources) > 1 {
		c.add(c.def.kindAt, "say `kind: metric` or `kind: append`, or keep one category", "an entity row is fed by one stream, but the sources are %s", strings.Join(sources, ", "))
	}
}

func (c *compiler) categories() []string {
	var out []string
	for _, s := range c.def.sources {
		out = append(out, s.value)
	}
	if len(out) == 0 {
		for _, t := range c.def.on {
			category, _, _ := strings.Cut(t.name.value, ".")
			out = append(out, category)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// env makes the names that expressions of one event type may use.
func (c *compiler) env(t typeDef) *exprEnv {
	var columns []*column
	if c.def.kind == projection.KindEntity {
		columns = c.columns
	}
	x, err := newExprEnv(c.faults, c.shapes[t.name.value], columns, c.rowType)
	if err != nil {
		c.add(t.name.at, "", "%v", err)
		return nil
	}
	return x
}

// prelude compiles when and each, which every kind has.
func (c *compiler) prelude(x *exprEnv, r *ruleDef) (with *exprEnv, when get[bool], each func(*scope, func() error) error, ok bool) {
	with, ok = x, true
	if r.each.value != "" {
		if with, each = x.each(r.each); with == nil {
			return x, nil, nil, false
		}
	}
	if r.when.value != "" {
		when = with.condition(r.when, "when")
		ok = when != nil
	}
	return with, when, each, ok
}

// columnAt finds a column that an operation names.
func (c *compiler) columnAt(a assignment) int {
	var names []string
	for i, col := range c.columns {
		if col.title == a.name.value {
			return i
		}
		names = append(names, col.title)
	}
	c.add(a.name.at, didYouMean(a.name.value, names), "there is no column %s", quoteShort(a.name.value))
	return -1
}

func (c *compiler) entity(out *projection.Definition) {
	out.Key = []projection.Column{c.entityKey()}
	c.orderedLists()
	c.rowType = rowTypeOf(c.columns)
	plan := &entityPlan{columns: c.columns, rowType: c.rowType, types: map[string]*entityType{}}
	for _, t := range c.def.on {
		x := c.env(t)
		if x == nil {
			return
		}
		compiled := &entityType{shape: c.shapes[t.name.value]}
		for i := range t.rules {
			compiled.rules = append(compiled.rules, c.entityRule(x, &t.rules[i]))
		}
		plan.types[t.name.value] = compiled
	}
	for _, col := range c.columns {
		plan.initial = append(plan.initial, col.initial())
	}
	out.Begin = plan.begin
}

// entityKey checks that the key is the stream.
func (c *compiler) entityKey() projection.Column {
	key := projection.Column{Name: entityKeyDefault, Type: "text", Wire: "text"}
	if len(c.def.key) == 0 {
		return key
	}
	k := c.def.key[0]
	switch {
	case len(c.def.key) > 1:
		c.add(c.def.keyAt, "keep one, or say `kind: metric`", "an entity view has one key column, the stream's id")
	case strings.TrimSpace(k.expr.value) != "stream.id":
		c.add(k.expr.at, "write stream.id, or say `kind: metric` for rows that many streams feed",
			"the key of an entity view is the stream, not %s: else events of two streams would meet in one row in no order", quoteShort(k.expr.value))
	case !nameRule.MatchString(k.name.value):
		c.add(k.name.at, nameRuleText, "key column %s", quoteShort(k.name.value))
	case k.typ.value != "" && k.typ.value != "text":
		c.add(k.typ.at, "remove the type", "the stream's id is a text")
	}
	key.Name = k.name.value
	return key
}

// orderedLists finds the columns whose items append keeps in order, and lists that begin empty.
func (c *compiler) orderedLists() {
	first := map[string]bool{}
	for _, t := range c.def.on {
		for _, r := range t.rules {
			o, has := r.has(opAppend)
			if !has {
				continue
			}
			for _, a := range o.columns {
				i := slices.IndexFunc(c.columns, func(col *column) bool { return col.title == a.name.value })
				if i < 0 {
					continue
				}
				c.orderedList(c.columns[i], a, first)
			}
		}
	}
}

func (c *compiler) orderedList(col *column, a assignment, seen map[string]bool) {
	if col.wire == "jsonb" {
		col.zero = projection.JSON("[]")
	}
	var by []string
	for _, name := range a.by {
		by = append(by, name.value)
	}
	if seen[col.title] && !slices.Equal(col.by, by) {
		c.add(a.name.at, "give every append to it the same `by`", "column %s is appended to by %v elsewhere", col.title, col.by)
	}
	seen[col.title] = true
	if col.wire == "jsonb" {
		col.by = by
	}
}

func (c *compiler) entityRule(x *exprEnv, r *ruleDef) entityRule {
	out := entityRule{row: r.row}
	if len(r.key) > 0 {
		c.add(r.at, "remove key", "the key of an entity view is the stream; a rule has none")
	}
	with, when, each, ok := c.prelude(x, r)
	if !ok {
		return out
	}
	out.when, out.each = when, each
	done := map[int]string{}
	for _, o := range r.ops {
		if o.row {
			out.delete = true
			if len(r.ops) > 1 {
				c.add(o.at, "write a rule of its own for the rest", "delete: true deletes the row, so that nothing else of the rule would count")
			}
			continue
		}
		if o.op == opDelete && r.each.value != "" {
			c.add(o.at, "write it in a rule without each", "delete from a list and each both name their item `item`")
			continue
		}
		for _, a := range o.columns {
			at := c.columnAt(a)
			if at < 0 {
				continue
			}
			if other, twice := done[at]; twice {
				c.add(a.name.at, "write two rules, which follow one another", "column %s is changed by %s already", a.name.value, other)
				continue
			}
			done[at] = o.op
			if run := with.step(o.op, a, at); run != nil {
				out.steps = append(out.steps, entityStep{at, run})
			}
		}
	}
	return out
}

func (c *compiler) metric(out *projection.Definition) {
	c.metricMerges()
	c.metricKeys()
	if len(c.all) > 0 {
		return
	}
	for _, k := range c.keys {
		out.Key = append(out.Key, k.projection())
	}
	plan := &rowsPlan{types: map[string]*rowsType{}}
	for _, t := range c.def.on {
		x := c.env(t)
		if x == nil {
			return
		}
		compiled := &rowsType{shape: c.shapes[t.name.value]}
		for i := range t.rules {
			compiled.rules = append(compiled.rules, c.metricRule(x, &t.rules[i]))
		}
		plan.types[t.name.value] = compiled
	}
	out.Deltas = plan.rows
}

// metricMerges learns from the rules how each column joins.
func (c *compiler) metricMerges() {
	merges := map[string]projection.Merge{opAdd: projection.MergeAdd, opMin: projection.MergeMin, opMax: projection.MergeMax}
	seen := map[int]string{}
	for _, t := range c.def.on {
		for _, r := range t.rules {
			for _, o := range r.ops {
				merge, commutes := merges[o.op]
				if !commutes {
					c.add(o.at, "write add, min or max, or an entity view", "%s does not commute: events of different streams reach a metric view in any order", o.op)
					continue
				}
				for _, a := range o.columns {
					at := c.columnAt(a)
					if at < 0 {
						continue
					}
					if other, has := seen[at]; has && other != o.op {
						c.add(a.name.at, "use two columns", "column %s is joined by %s elsewhere: %s and %s together do not commute", a.name.value, other, other, o.op)
					}
					seen[at] = o.op
					c.columns[at].merge = merge
				}
			}
		}
	}
	for i, col := range c.columns {
		if d := c.def.columns[i]; seen[i] == "" {
			c.add(d.name.at, "add, min or max it in a rule, or remove it", "column %s is never used: a metric view learns from its use how it joins", col.title)
		}
		c.metricColumn(i, col)
	}
}

func (c *compiler) metricColumn(i int, col *column) {
	at := c.def.columns[i].name.at
	switch {
	case col.merge == projection.MergeAdd && col.name != "bigint" && col.name != "double precision":
		c.add(at, "make it bigint or double precision", "column %s is added to, and is %s", col.title, col.name)
	case col.merge != "" && !ordersBy(col):
		c.add(at, "", "column %s: %s wants a number, a text or a time, and it is %s", col.title, col.merge, col.name)
	case col.nullable:
		c.add(at, "remove nullable: sums begin at 0, minima and maxima as null", "column %s of a metric view cannot be nullable", col.title)
	}
}

// metricKeys types the key columns by the expressions of the first event type.
func (c *compiler) metricKeys() {
	if len(c.def.key) == 0 {
		c.add(c.def.keyAt, "write `key: {day: truncate(meta.time, duration('24h'))}`", "a metric view needs a key")
		return
	}
	x := c.env(c.def.on[0])
	if x == nil {
		return
	}
	for _, k := range c.def.key {
		switch {
		case k.name.value == "":
			c.add(k.expr.at, "write `key: {name: "+strings.TrimSpace(k.expr.value)+"}`", "a key column of a metric view needs a name")
			continue
		case !nameRule.MatchString(k.name.value):
			c.add(k.name.at, nameRuleText, "key column %s", quoteShort(k.name.value))
			continue
		}
		if col := c.keyColumn(x, k); col != nil {
			c.keys = append(c.keys, col)
		}
	}
}

func (c *compiler) keyColumn(x *exprEnv, k assignment) *column {
	if k.typ.value != "" {
		t, ok := c.columnType(k.typ, "key "+k.name.value)
		if ok && (t.wire == "jsonb" || t.wire == "text[]") {
			c.add(k.typ.at, "choose text, bigint, boolean, double precision or timestamptz", "key %s cannot be %s", k.name.value, t.name)
			return nil
		}
		if !ok {
			return nil
		}
		return &column{columnType: t, title: k.name.value}
	}
	// A rule with each may be the only one that has the key's names: its own key tells.
	probe := *x
	quiet := &faults{}
	probe.faults = quiet
	e := probe.compile(k.expr)
	if e == nil {
		if c.overridden(k.name.value) || c.eachFirst() {
			c.add(k.name.at, "write {value: …, type: text}", "key %s: its type is not known without `item`", k.name.value)
			return nil
		}
		c.all = append(c.all, withFile(quiet.all, c.file)...)
		return nil
	}
	i := slices.IndexFunc(columnTypes, func(t columnType) bool {
		want := (&shape{form: t.form}).celType()
		return t.form != formDyn && t.form != formList && (e.typ.IsExactType(want) || e.typ.IsExactType(cel.NullableType(want)))
	})
	if i < 0 {
		c.add(k.expr.at, "make it a text, an int, a bool, a double or a timestamp, or say {value: …, type: text}", "key %s: %s is of type %s", k.name.value, quoteShort(k.expr.value), typeName(e.typ))
		return nil
	}
	return &column{columnType: columnTypes[i], title: k.name.value}
}

func withFile(all []*Fault, file string) []*Fault {
	for _, f := range all {
		f.File = file
	}
	return all
}

func (c *compiler) eachFirst() bool {
	return slices.ContainsFunc(c.def.on[0].rules, func(r ruleDef) bool { return r.each.value != "" })
}

func (c *compiler) overridden(name string) bool {
	for _, r := range c.def.on[0].rules {
		if slices.ContainsFunc(r.key, func(a assignment) bool { return a.name.value == name }) {
			return true
		}
	}
	return false
}

func (c *compiler) metricRule(x *exprEnv, r *ruleDef) rowsRule {
	var out rowsRule
	if r.row != rowAny {
		c.add(r.rowAt, "remove row", "row is for entity views")
	}
	with, when, each, ok := c.prelude(x, r)
	if !ok {
		return out
	}
	out.when, out.each = when, each
	out.steps = c.keySteps(with, r)
	for _, col := range c.keys {
		out.blank = append(out.blank, col.zero)
	}
	for _, col := range c.columns {
		if col.merge == projection.MergeAdd {
			out.blank = append(out.blank, col.zero)
		} else {
			out.blank = append(out.blank, nil)
		}
	}
	done := map[int]bool{}
	for _, o := range r.ops {
		for _, a := range o.columns {
			at := c.columnAt(a)
			if at < 0 || done[at] {
				continue
			}
			done[at] = true
			if run := c.measure(with, a, c.columns[at]); run != nil {
				out.steps = append(out.steps, rowsStep{len(c.keys) + at, run})
			}
		}
	}
	return out
}

// measure is a delta; null adds nothing.
func (c *compiler) measure(x *exprEnv, a assignment, col *column) func(*scope) (any, error) {
	run := x.valueFor(a.expr, col)
	if run == nil || col.merge != projection.MergeAdd {
		return run
	}
	return func(s *scope) (any, error) {
		v, err := run(s)
		if v == nil && err == nil {
			v = col.zero
		}
		return v, err
	}
}

func (c *compiler) keySteps(x *exprEnv, r *ruleDef) []rowsStep {
	var steps []rowsStep
	for _, own := range r.key {
		if !slices.ContainsFunc(c.keys, func(k *column) bool { return k.title == own.name.value }) {
			c.add(own.name.at, "name a key column of the view", "there is no key column %s", quoteShort(own.name.value))
		}
	}
	for i, k := range c.keys {
		a := c.def.key[i]
		if at := slices.IndexFunc(r.key, func(own assignment) bool { return own.name.value == k.title }); at >= 0 {
			a = r.key[at]
		}
		if run := x.valueFor(a.expr, k); run != nil {
			steps = append(steps, rowsStep{i, run})
		}
	}
	return steps
}

func (c *compiler) append(out *projection.Definition) {
	if len(c.def.key) > 0 {
		c.add(c.def.keyAt, "remove key", "an append view is keyed by the event of each row: category, stream, version and n")
	}
	plan := &rowsPlan{types: map[string]*rowsType{}}
	for _, t := range c.def.on {
		x := c.env(t)
		if x == nil {
			return
		}
		compiled := &rowsType{shape: c.shapes[t.name.value]}
		for i := range t.rules {
			compiled.rules = append(compiled.rules, c.appendRule(x, &t.rules[i]))
		}
		plan.types[t.name.value] = compiled
	}
	out.Rows = plan.rows
}

func (c *compiler) appendRule(x *exprEnv, r *ruleDef) rowsRule {
	var out rowsRule
	if r.row != rowAny || len(r.key) > 0 {
		c.add(r.at, "remove them", "row and key are for other kinds of view")
	}
	with, when, each, ok := c.prelude(x, r)
	if !ok {
		return out
	}
	out.when, out.each = when, each
	for _, col := range c.columns {
		out.blank = append(out.blank, col.initial())
	}
	for _, o := range r.ops {
		if o.op != opAppend || o.row {
			c.add(o.at, "write append", "%s changes a row, and rows of an append view are never changed", o.op)
			continue
		}
		for _, a := range o.columns {
			at := c.columnAt(a)
			if at < 0 {
				continue
			}
			if a.by != nil {
				c.add(a.by[0].at, "remove by", "by orders a list within a row of an entity view")
			}
			if run := with.valueFor(a.expr, c.columns[at]); run != nil {
				out.steps = append(out.steps, rowsStep{at, run})
			}
		}
	}
	return out
}

func (c *compiler) indexes() []projection.Index {
	var out []projection.Index
	for _, d := range c.def.columns {
		if d.index {
			out = append(out, projection.Index{Columns: []string{d.name.value}})
		}
		if d.search {
			out = append(out, projection.Index{Columns: []string{d.name.value}, Search: true})
		}
	}
	known := func(name string) bool {
		return slices.ContainsFunc(c.columns, func(col *column) bool { return col.title == name && col.wire != "jsonb" }) ||
			slices.ContainsFunc(c.def.key, func(k assignment) bool { return k.name.value == name })
	}
	for _, d := range c.def.indexes {
		var index projection.Index
		for _, name := range d.columns {
			if !known(name.value) {
				c.add(name.at, didYouMean(name.value, c.columnNames()), "indexes: there is no column %s that has an order", quoteShort(name.value))
			}
			index.Columns = append(index.Columns, name.value)
		}
		out = append(out, index)
	}
	return out
}

func (c *compiler) columnNames() []string {
	var names []string
	for _, col := range c.columns {
		names = append(names, col.title)
	}
	return names
}
