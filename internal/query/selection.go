package query

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Names of parameters that are no filters. A column of such a name is filtered by name.eq.
const (
	paramLimit  = "limit"
	paramSort   = "sort"
	paramCursor = "cursor"
	paramFields = "fields"
	paramSearch = "q"
	paramWait   = "wait"
	paramWaitMs = "wait_ms"
)

// filter is one condition on a column.
type filter struct {
	column *column
	op     op
	values []any  // parameters; of in, one for each
	text   string // as sent, for the cursor's checksum
}

// term is one column to sort by.
type term struct {
	index   int
	column  *column
	descend bool
}

// selection is a list as asked for.
type selection struct {
	view    *view
	fields  []int // indexes of columns to answer with
	filters []filter
	sort    []term // ends with the key, so that no two rows are equal
	search  string
	limit   int
	after   []cursorPart // the last row of the page before; nil for the first
}

// params reads parameters and gathers what is wrong with them.
type params struct {
	values url.Values
	faults []Fault
}

func (p *params) fault(name, format string, args ...any) {
	p.faults = append(p.faults, Fault{Location: "query." + name, Message: fmt.Sprintf(format, args...)})
}

func (p *params) err() error {
	if len(p.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(p.faults, func(a, b Fault) int { return strings.Compare(a.Location, b.Location) })
	return faulty(codeParameter, p.faults...)
}

// paramsOf takes a query apart. A parameter that stands twice is a fault.
func paramsOf(raw string) (*params, error) {
	p := &params{}
	if raw == "" {
		return p, nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, faulty(codeParameter, Fault{Location: "query", Message: "is not percent-encoded"})
	}
	p.values = values
	for name, all := range values {
		if len(all) > 1 {
			p.fault(clip(name), "stands %d times: a filter for one of many values is <column>.in=a,b", len(all))
		}
	}
	return p, nil
}

// only faults the parameters that are not known, where there are no filters.
func (p *params) only(known ...string) {
	for name := range p.values {
		if !slices.Contains(known, name) {
			p.fault(clip(name), "is unknown; known are: %s", strings.Join(known, ", "))
		}
	}
}

func (p *params) integer(name string, fallback, least, most int64) int64 {
	if !p.values.Has(name) {
		return fallback
	}
	text := p.values.Get(name)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most || strings.HasPrefix(text, "+") {
		p.fault(name, "%q: want a whole number from %d to %d", clip(text), least, most)
		return fallback
	}
	return n
}

func (p *params) choice(name string, words ...string) string {
	if !p.values.Has(name) {
		return words[0]
	}
	text := p.values.Get(name)
	if !slices.Contains(words, text) {
		p.fault(name, "%q: want %s", clip(text), strings.Join(words, " or "))
		return words[0]
	}
	return text
}

func (p *params) time(name string, fallback time.Time) time.Time {
	if !p.values.Has(name) {
		return fallback
	}
	t, err := parseTime(p.values.Get(name))
	if err != nil {
		p.fault(name, "%s", err)
	}
	return t
}

// reserved are the parameters that are no filters.
var reserved = []string{paramLimit, paramSort, paramCursor, paramFields, paramSearch, paramWait, paramWaitMs}

// selectionOf reads the parameters of a list.
func selectionOf(v *view, p *params) (*selection, error) {
	s := &selection{view: v, limit: int(p.integer(paramLimit, limitDefault, 1, limitMax))}
	s.fields = p.fields(v)
	s.filters = p.filters(v, reserved)
	s.sort = p.sort(v)
	s.search = p.search(v)
	if err := p.err(); err != nil {
		return nil, err
	}
	if !p.values.Has(paramCursor) {
		return s, nil
	}
	var err error
	s.after, err = s.parseCursor(p.values.Get(paramCursor))
	return s, err
}

// fields reads which columns are wanted; the key is always among them.
func (p *params) fields(v *view) []int {
	if !p.values.Has(paramFields) {
		return v.all
	}
	wanted := map[int]bool{}
	for i := range v.keys {
		wanted[i] = true
	}
	for _, name := range strings.Split(clipList(p.values.Get(paramFields)), ",") {
		if i, there := v.byName[name]; there {
			wanted[i] = true
			continue
		}
		p.fault(paramFields, "view %s has no column %q; it has %s", v.name, clip(name), v.columnNames())
		return v.all
	}
	return slices.DeleteFunc(slices.Clone(v.all), func(i int) bool { return !wanted[i] })
}

// clipList bounds how long a list of names is looked at.
func clipList(text string) string { return text[:min(len(text), valueBytesMax)] }

func (v *view) columnNames() string {
	var names []string
	for i := range v.columns {
		names = append(names, v.columns[i].name)
	}
	return strings.Join(names, ", ")
}

// filters reads all parameters that are not skipped.
func (p *params) filters(v *view, skipped []string) []filter {
	var all []filter
	for name := range p.values {
		if slices.Contains(skipped, name) {
			continue
		}
		if f, ok := p.filter(v, name); ok {
			all = append(all, f)
		}
	}
	if len(all) > filtersMax {
		p.fault(clip(all[0].column.name), "is one of %d filters, at most %d are allowed", len(all), filtersMax)
	}
	slices.SortFunc(all, func(a, b filter) int { return strings.Compare(a.name(), b.name()) })
	for i := 1; i < len(all); i++ {
		if all[i].name() == all[i-1].name() {
			p.fault(all[i].column.name, "stands twice: once by itself and once with .%s", all[i].op)
		}
	}
	return all
}

func (f *filter) name() string { return f.column.name + "." + string(f.op) }

// filter reads one: column=value or column.op=value.
func (p *params) filter(v *view, name string) (filter, bool) {
	columnName, by, explicit := strings.Cut(name, ".")
	if !explicit {
		by = string(opEqual)
	}
	i, there := v.byName[columnName]
	if !there {
		p.fault(clip(name), "is no parameter and view %s has no such column; it has %s", v.name, v.columnNames())
		return filter{}, false
	}
	c := &v.columns[i]
	if !c.has(op(by)) {
		p.fault(clip(name), "column %s is of type %s and has no operator %q; it has %s", c.name, c.sqlType, clip(by), c.opNames())
		return filter{}, false
	}
	f := filter{column: c, op: op(by), text: p.values.Get(name)}
	var err error
	if f.values, err = f.parse(f.text); err != nil {
		p.fault(clip(name), "%s: want %s; operators of this column are %s", err, f.wants(), c.opNames())
		return filter{}, false
	}
	return f, true
}

func (f *filter) wants() string {
	switch f.op {
	case opIsNull:
		return "true or false"
	case opIn:
		return fmt.Sprintf("1 to %d values separated by commas, each of type %s", inMax, f.column.describe())
	case opLike:
		return `a pattern in which % stands for any text, _ for any character and \ for the next one as it is`
	}
	return "a value of type " + f.column.describe()
}

func (f *filter) parse(text string) ([]any, error) {
	switch f.op {
	case opIsNull:
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("%q is neither", clip(text))
		}
		return []any{text == "true"}, nil
	case opIn:
		return f.parseIn(text)
	case opLike:
		if escapes := len(text) - len(strings.TrimRight(text, `\`)); escapes%2 == 1 {
			return nil, fmt.Errorf("the pattern ends with its escape character")
		}
	}
	value, err := f.column.parse(text)
	return []any{value}, err
}

// parseIn reads a list. A comma that belongs to a value is written \, and a backslash \\.
func (f *filter) parseIn(text string) ([]any, error) {
	var values []any
	for _, part := range splitEscaped(text) {
		value, err := f.column.parse(part)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
		if len(values) > inMax {
			return nil, fmt.Errorf("has more than %d values", inMax)
		}
	}
	return values, nil
}

func splitEscaped(text string) []string {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && (text[i+1] == ',' || text[i+1] == '\\'):
			i++
			part.WriteByte(text[i])
		case c == ',':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteByte(c)
		}
	}
	return append(parts, part.String())
}

// sort reads the order, and completes it by the key.
func (p *params) sort(v *view) []term {
	var terms []term
	seen := map[int]bool{}
	if p.values.Has(paramSort) {
		terms = p.sortTerms(v, seen)
	}
	for i := range v.keys {
		if !seen[i] {
			// Towards the end as the last one goes, so that one index serves both.
			descend := len(terms) > 0 && terms[len(terms)-1].descend
			terms = append(terms, term{i, &v.columns[i], descend})
		}
	}
	return terms
}

func (p *params) sortTerms(v *view, seen map[int]bool) []term {
	var terms []term
	for _, name := range strings.Split(clipList(p.values.Get(paramSort)), ",") {
		bare, descend := strings.CutPrefix(name, "-")
		i, there := v.byName[bare]
		switch {
		case !there:
			p.fault(paramSort, "view %s has no column %q; it has %s", v.name, clip(bare), v.columnNames())
			return terms
		case !v.columns[i].sortable():
			p.fault(paramSort, "column %s is of type %s, which has no order", bare, v.columns[i].sqlType)
			return terms
		case seen[i]:
			p.fault(paramSort, "column %s stands twice", bare)
			return terms
		case len(terms) == sortMax:
			p.fault(paramSort, "more than %d columns", sortMax)
			return terms
		}
		seen[i] = true
		terms = append(terms, term{i, &v.columns[i], descend})
	}
	return terms
}

// search reads the text to look for.
func (p *params) search(v *view) string {
	if !p.values.Has(paramSearch) {
		return ""
	}
	text := p.values.Get(paramSearch)
	switch n := utf8.RuneCountInString(text); {
	case v.search < 0:
		p.fault(paramSearch, "view %s declares no column for search by text", v.name)
	case n < searchRunesMin || n > searchRunesMax:
		p.fault(paramSearch, "has %d characters, want %d to %d", n, searchRunesMin, searchRunesMax)
	default:
		if err := checkText(text); err != nil {
			p.fault(paramSearch, "%s", err)
		}
	}
	return text
}
