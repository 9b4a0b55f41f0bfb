package query

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5"
)

// Statistic is a table of aggregates over one view: GET /v1/statistics/<Path>. Filters on the
// view's columns narrow what goes into it.
type Statistic struct {
	// Path is one segment, such as "executions".
	Path string
	// Name is that of the row's schema in the document, such as "ExecutionStatistics".
	Name string
	// Summary says in one sentence what it tells.
	Summary string
	View    string
	// Time is the column that per=hour|day, from and to are about. Empty: there are no periods.
	Time string
	// By are columns to group by.
	By []string
	// Measures are computed for each group, or for each period.
	Measures []Measure
}

// Aggregate is how a Measure is computed.
type Aggregate string

// The aggregates.
const (
	Count      Aggregate = "count"      // of rows; with Equals of those whose Column has the value
	Sum        Aggregate = "sum"        // of Column
	Mean       Aggregate = "mean"       // of Column, nulls left out
	Percentile Aggregate = "percentile" // of Column at Fraction, interpolated, nulls left out
	Ratio      Aggregate = "ratio"      // of the measures Of and Over; null over zero
)

// Measure is one number of a statistic.
type Measure struct {
	Name      string // as a column's
	Doc       string
	Aggregate Aggregate
	Column    string
	Equals    string   // Count: the value of Column, which is text
	Fraction  float64  // Percentile: within 0 and 1
	Of        []string // Ratio: measures of whole numbers, added up
	Over      []string // Ratio: likewise
}

// The periods of a statistic, and how far back it looks where nothing is said.
const (
	perHour = "hour"
	perDay  = "day"
)

var periods = map[string]struct {
	length time.Duration
	back   time.Duration
}{
	perHour: {time.Hour, 24 * time.Hour},
	perDay:  {24 * time.Hour, 30 * 24 * time.Hour},
}

// periodMember names the beginning of a row's period.
const periodMember = "period"

func (s Statistic) validate(views []projection.View) error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("query: statistic %q: "+format, append([]any{s.Path}, args...)...))
	}
	if !pathRule.MatchString(s.Path) {
		fault("want a path of [a-z][a-z0-9-]{0,30}")
	}
	if !nameRule.MatchString(s.Name) || slices.Contains(reservedNames, s.Name) {
		fault("name %q: want [A-Z][A-Za-z0-9]{0,30}, and none of this API's own", s.Name)
	}
	v, known := viewNamed(views, s.View)
	if !known {
		fault("there is no view %q among Views", s.View)
		return errors.Join(faults...)
	}
	columns := map[string]column{}
	for _, c := range v.Layout() {
		columns[c.Name] = newColumn(c)
	}
	if c := columns[s.Time]; s.Time != "" && c.kind != kindTime {
		fault("column %q is no timestamptz of view %s", s.Time, s.View)
	}
	for _, name := range s.By {
		if c := columns[name]; !c.sortable() {
			fault("column %q of view %s cannot be grouped by", name, s.View)
		}
	}
	if len(s.Measures) == 0 || (s.Time == "" && len(s.By) == 0) || (s.Time != "" && len(s.By) > 0) {
		fault("want measures, and either Time or By")
	}
	s.validateMeasures(columns, fault)
	return errors.Join(faults...)
}

func (s Statistic) validateMeasures(columns map[string]column, fault func(string, ...any)) {
	seen := map[string]Aggregate{periodMember: ""}
	for _, name := range s.By {
		seen[name] = ""
	}
	for _, m := range s.Measures {
		c := columns[m.Column]
		number := c.kind == kindInteger || c.kind == kindFloat
		if _, twice := seen[m.Name]; twice || !columnRule.MatchString(m.Name) {
			fault("measure %q: want a name of [a-z][a-z0-9_]{0,30} that stands once", m.Name)
		}
		switch m.Aggregate {
		case Count:
			if m.Column != "" && c.kind != kindText {
				fault("measure %s counts by column %q, which is no text", m.Name, m.Column)
			}
		case Sum:
			if c.kind != kindInteger {
				fault("measure %s: column %q is no whole number", m.Name, m.Column)
			}
		case Mean, Percentile:
			if !number || m.Fraction < 0 || m.Fraction > 1 {
				fault("measure %s: want a column of numbers, and a fraction within 0 and 1", m.Name)
			}
		case Ratio:
			for _, name := range slices.Concat(m.Of, m.Over) {
				if kind := seen[name]; kind != Count && kind != Sum {
					fault("measure %s: %q is no count or sum before it", m.Name, name)
				}
			}
			if len(m.Of) == 0 || len(m.Over) == 0 {
				fault("measure %s: Of and Over are needed", m.Name)
			}
		default:
			fault("measure %s: there is no aggregate %q", m.Name, m.Aggregate)
		}
		seen[m.Name] = m.Aggregate
	}
}

func (a *API) registerStatistics() {
	for _, s := range a.cfg.Definitions.Statistics {
		a.register(route{operation: a.statisticOperation(s), serve: func(c *call) error { return a.serveStatistic(c, s) }})
	}
}

func (a *API) statisticOperation(s Statistic) *huma.Operation {
	v, _ := viewNamed(a.cfg.Views, s.View)
	properties := map[string]*huma.Schema{}
	var names []string
	add := func(name string, schema *huma.Schema) {
		properties[name] = schema
		names = append(names, name)
	}
	if s.Time != "" {
		add(periodMember, &huma.Schema{Type: huma.TypeString, Format: "date-time", Description: "Its beginning, in UTC"})
	}
	var params []*huma.Param
	for _, from := range v.Layout() {
		c := newColumn(from)
		if slices.Contains(s.By, c.name) {
			add(c.name, a.schemaOfColumn(&c, nil))
		}
		if c.has(opEqual) {
			params = append(params, queryParam(c.name, "Only rows with this value; other operators of this column: "+c.opNames(), a.schemaOfColumn(&c, nil)))
		}
	}
	for _, m := range s.Measures {
		add(m.Name, m.schema())
	}
	row := a.refTo(s.Name, &huma.Schema{Type: huma.TypeObject, Properties: properties, Required: names})
	answer := a.refTo(s.Name+"List", &huma.Schema{Type: huma.TypeObject, Required: []string{"rows"}, Properties: map[string]*huma.Schema{
		"rows":      {Type: huma.TypeArray, Items: row},
		"truncated": {Type: huma.TypeBoolean, Description: "There are more groups than an answer has: narrow it by filters"},
	}})
	own := waitParams(examplesOf(v))
	if s.Time != "" {
		at := &huma.Schema{Type: huma.TypeString, Format: "date-time"}
		own = append(own,
			queryParam("per", "The length of a period, in UTC", &huma.Schema{Type: huma.TypeString, Enum: []any{perHour, perDay}, Default: perHour}),
			queryParam("from", "The first period is that of this time. Default: a day back by the hour, 30 days back by the day", at),
			queryParam("to", "Up to this time, without it. Default: now", at))
	}
	responses := a.listResponses(answer)
	delete(responses, "422")
	return &huma.Operation{
		OperationID: "statistics-" + s.Path, Method: http.MethodGet, Path: "/v1/statistics/" + s.Path, Tags: []string{"Statistics"},
		Summary: s.Summary, Description: "Other parameters are filters on the view " + s.View + ", as in its list. Periods in which nothing was are left out.",
		Parameters: slices.Concat(own, params), Responses: responses,
	}
}

func (m Measure) schema() *huma.Schema {
	s := &huma.Schema{Description: m.Doc, Type: huma.TypeNumber, Format: "double", Nullable: true}
	if m.Aggregate == Count || m.Aggregate == Sum {
		s.Type, s.Format, s.Nullable = huma.TypeInteger, "int64", false
	}
	return s
}

// span is what periods are asked for.
type span struct {
	per      string
	from, to time.Time
}

func (a *API) serveStatistic(c *call, s Statistic) error {
	p, err := paramsOf(c.r.URL.RawQuery)
	if err != nil {
		return err
	}
	return a.onView(c.ctx(), s.View, func(v *view) error {
		p := p.again()
		skipped := []string{paramWait, paramWaitMs}
		var of span
		if s.Time != "" {
			skipped = append(skipped, "per", "from", "to")
			of = a.spanOf(p)
		}
		filters := p.filters(v, skipped)
		if err := a.await(c, p, v); err != nil {
			return err
		}
		q, members, err := s.statement(v, filters, of)
		if err != nil {
			return err
		}
		return respond(c, func(dst []byte) ([]byte, error) { return a.appendStatistic(c, dst, q, members) })
	})
}

func (a *API) spanOf(p *params) span {
	of := span{per: p.choice("per", perHour, perDay)}
	shape := periods[of.per]
	of.to = p.time("to", a.cfg.Clock().UTC())
	of.from = p.time("from", of.to.Add(-shape.back)).Truncate(shape.length)
	switch n := of.to.Sub(of.from) / shape.length; {
	case !of.from.Before(of.to):
		p.fault("from", "is not before to")
	case n > periodsMax:
		p.fault("from", "is more than %d periods before to: ask for a part, or per=%s", periodsMax, perDay)
	}
	return of
}

// statement is the aggregate, and the names of its columns.
func (s Statistic) statement(v *view, filters []filter, of span) (*statement, []string, error) {
	q := &statement{}
	var members, selected, groups, conditions []string
	add := func(name, expression string) {
		members = append(members, string(append(appendText(nil, name), ':')))
		selected = append(selected, expression)
	}
	if s.Time != "" {
		at, err := v.columnNamed(s.Time)
		if err != nil {
			return nil, nil, err
		}
		group := "date_trunc('" + of.per + "', " + at.quoted + ", 'UTC')"
		add(periodMember, group)
		groups = append(groups, group)
		conditions = append(conditions, at.quoted+" >= "+q.value(of.from, "timestamptz"), at.quoted+" < "+q.value(of.to, "timestamptz"))
	}
	for _, name := range s.By {
		c, err := v.columnNamed(name)
		if err != nil {
			return nil, nil, err
		}
		add(name, c.quoted)
		groups = append(groups, c.quoted)
	}
	whole := map[string]string{}
	for _, m := range s.Measures {
		expression, err := m.expression(v, q, whole)
		if err != nil {
			return nil, nil, err
		}
		whole[m.Name] = expression
		add(m.Name, expression)
	}
	q.add("select ", strings.Join(selected, ", "), " from ", v.table)
	q.where(v, filters, conditions...)
	grouped := strings.Join(groups, ", ")
	q.add(" group by ", grouped, " order by ", grouped, " limit ", q.value(int64(periodsMax)+1, "bigint"))
	return q, members, nil
}

// columnNamed finds a column that the program names; the live version may have dropped it.
func (v *view) columnNamed(name string) (*column, error) {
	if i, there := v.byName[name]; there {
		return &v.columns[i], nil
	}
	return nil, problem(http.StatusServiceUnavailable, codeUnavailable, fmt.Sprintf("version %d of view %s, which is live, has no column %s any more", v.version, v.name, name))
}

func (m Measure) expression(v *view, q *statement, whole map[string]string) (string, error) {
	if m.Aggregate == Ratio {
		added := func(names []string) string {
			parts := make([]string, len(names))
			for i, name := range names {
				parts[i] = whole[name]
			}
			return strings.Join(parts, " + ")
		}
		return "(" + added(m.Of) + ")::double precision / nullif(" + added(m.Over) + ", 0)", nil
	}
	if m.Aggregate == Count && m.Column == "" {
		return "count(*)", nil
	}
	c, err := v.columnNamed(m.Column)
	if err != nil {
		return "", err
	}
	switch m.Aggregate {
	case Count:
		return "count(*) filter (where " + c.quoted + " = " + q.value(m.Equals, "text") + ")", nil
	case Sum:
		return "coalesce(sum(" + c.quoted + "), 0)::bigint", nil
	case Mean:
		return "avg(" + c.quoted + ")::double precision", nil
	}
	return "percentile_cont(" + q.value(m.Fraction, "double precision") + ") within group (order by " + c.quoted + ")", nil
}

func (a *API) appendStatistic(c *call, dst []byte, q *statement, members []string) ([]byte, error) {
	w := &rowWriter{members: members}
	dst = append(dst, `{"rows":[`...)
	n, truncated := 0, false
	err := a.query(c.ctx(), c.route, false, q.text.String(), q.args, func(rows pgx.Rows) error {
		for rows.Next() {
			if n == periodsMax || len(dst) > a.cfg.Limits.ResponseBytesMax-valueBytesMax {
				truncated = true
				return nil
			}
			if n == 0 {
				if err := w.begin(rows.FieldDescriptions()); err != nil {
					return err
				}
			} else {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = w.row(dst, rows.RawValues()); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if stateOf(err) == stateOutOfRange {
		return dst, problem(http.StatusUnprocessableEntity, codeParameter, "a sum is beyond 64 bits: narrow it by filters")
	}
	a.metrics.rows.Add(float64(n))
	dst = append(dst, ']')
	if truncated {
		dst = append(dst, `,"truncated":true`...)
	}
	return append(dst, '}'), err
}
