package query

import (
	"strconv"
	"strings"
)

// statement is SQL on its way: names from the catalogue, and parameters.
type statement struct {
	text strings.Builder
	args []any
}

func (s *statement) add(parts ...string) {
	for _, p := range parts {
		s.text.WriteString(p)
	}
}

// value adds a parameter and returns its place in the text.
func (s *statement) value(v any, sqlType string) string {
	s.args = append(s.args, v)
	return "$" + strconv.Itoa(len(s.args)) + "::" + sqlType
}

// selectList names columns of a view.
func (v *view) selectList(indexes []int) string {
	var b strings.Builder
	for n, i := range indexes {
		if n > 0 {
			b.WriteString(", ")
		}
		b.WriteString(v.columns[i].selected())
	}
	return b.String()
}

// selectByKey is the statement of one row: $1 is the key.
func (v *view) selectByKey(indexes []int) string {
	key := &v.columns[0]
	text := "select " + v.selectList(indexes) + " from " + v.table + " where " + key.quoted + " = $1::" + key.wire()
	if v.present != "" {
		text += " and " + v.present
	}
	return text
}

// list is the statement of a page: the fields, then the values sorted by. It reads one row more
// than the page has, to know whether there are more.
func (s *selection) list() *statement {
	q := &statement{}
	q.add("select ", s.view.selectList(s.selected()), " from ", s.view.table)
	q.where(s.view, s.filters, s.conditions(q)...)
	q.add(" order by ")
	for i, t := range s.sort {
		if i > 0 {
			q.add(", ")
		}
		q.add(t.column.quoted)
		if t.descend {
			q.add(" desc")
		}
	}
	q.add(" limit ", q.value(int64(s.limit)+1, "bigint"))
	return q
}

// selected are the fields and, behind them, the columns sorted by.
func (s *selection) selected() []int {
	all := append([]int(nil), s.fields...)
	for _, t := range s.sort {
		all = append(all, t.index)
	}
	return all
}

// conditions are those that are no filters.
func (s *selection) conditions(q *statement) []string {
	var all []string
	if s.search != "" {
		all = append(all, s.view.columns[s.view.search].quoted+" ilike "+q.value("%"+escapeLike(s.search)+"%", "text"))
	}
	if s.after != nil {
		all = append(all, s.beyond(q))
	}
	return all
}

// where adds all conditions, and that rows are there.
func (s *statement) where(v *view, filters []filter, more ...string) {
	conditions := more
	if v.present != "" {
		conditions = append(conditions, v.present)
	}
	for i := range filters {
		conditions = append(conditions, filters[i].condition(s))
	}
	if len(conditions) > 0 {
		s.add(" where ", strings.Join(conditions, " and "))
	}
}

var comparators = map[op]string{opEqual: " = ", opLess: " < ", opAtMost: " <= ", opMore: " > ", opAtLeast: " >= ", opNotEqual: " is distinct from ", opLike: " like "}

// condition is one filter as SQL.
func (f *filter) condition(q *statement) string {
	c := f.column
	switch f.op {
	case opIsNull:
		if f.values[0] == true {
			return c.quoted + " is null"
		}
		return c.quoted + " is not null"
	case opIn:
		places := make([]string, len(f.values))
		for i, v := range f.values {
			places[i] = q.value(v, c.wire())
		}
		return c.quoted + " in (" + strings.Join(places, ", ") + ")"
	case opHas:
		return c.quoted + " @> array[" + q.value(f.values[0], "text") + "]"
	case opPrefix:
		return prefixCondition(q, c, f.values[0].(string))
	}
	return c.quoted + comparators[f.op] + q.value(f.values[0], c.wire())
}

// prefixCondition is a range, which an index in the order of bytes serves.
func prefixCondition(q *statement, c *column, prefix string) string {
	text := c.quoted + " >= " + q.value(prefix, "text")
	if end := afterPrefix(prefix); end != "" {
		text += " and " + c.quoted + " < " + q.value(end, "text")
	}
	return "(" + text + ")"
}

// afterPrefix is the least text behind all that begin with a prefix; "" when there is none. UTF-8
// in the order of its bytes is in the order of its characters.
func afterPrefix(prefix string) string {
	const lastRune, surrogates, surrogatesEnd = '\U0010FFFF', 0xD800, 0xE000
	runes := []rune(prefix)
	for len(runes) > 0 && runes[len(runes)-1] == lastRune {
		runes = runes[:len(runes)-1]
	}
	if len(runes) == 0 {
		return ""
	}
	last := &runes[len(runes)-1]
	if *last++; *last == surrogates {
		*last = surrogatesEnd
	}
	return string(runes)
}

var likeEscapes = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func escapeLike(text string) string { return likeEscapes.Replace(text) }

// beyond is the condition of the rows behind the cursor's. Nulls come last in ascending order and
// first in descending order, which is Postgres' own way.
func (s *selection) beyond(q *statement) string {
	places := make([]string, len(s.after))
	for i, part := range s.after {
		if !part.null {
			places[i] = q.value(part.value, s.sort[i].column.wire())
		}
	}
	if s.oneWay() {
		return s.beyondAtOnce(places)
	}
	text := ""
	for i := len(s.sort) - 1; i >= 0; i-- {
		text = beyondOne(&s.sort[i], places[i], text)
	}
	return text
}

// oneWay says whether rows can be compared as a whole, which an index serves best.
func (s *selection) oneWay() bool {
	for _, t := range s.sort {
		if t.column.nullable || t.descend != s.sort[0].descend {
			return false
		}
	}
	return true
}

func (s *selection) beyondAtOnce(places []string) string {
	names := make([]string, len(s.sort))
	for i, t := range s.sort {
		names[i] = t.column.quoted
	}
	by := ") > ("
	if s.sort[0].descend {
		by = ") < ("
	}
	return "(" + strings.Join(names, ", ") + by + strings.Join(places, ", ") + ")"
}

// beyondOne is: past this value, or at it and further in the terms behind. place is "" for null.
func beyondOne(t *term, place, further string) string {
	name := t.column.quoted
	var past, at string
	switch {
	case place == "" && t.descend:
		past, at = name+" is not null", name+" is null"
	case place == "":
		past, at = "false", name+" is null"
	case t.descend:
		past, at = name+" < "+place, name+" = "+place
	case t.column.nullable:
		past, at = "("+name+" > "+place+" or "+name+" is null)", name+" = "+place
	default:
		past, at = name+" > "+place, name+" = "+place
	}
	if further == "" {
		return past
	}
	return "(" + past + " or (" + at + " and " + further + "))"
}
