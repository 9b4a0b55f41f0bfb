package query

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5"
)

// ViewVersion is one version of a view in the database.
type ViewVersion struct {
	Version int  `json:"version" minimum:"1"`
	Live    bool `json:"live" doc:"It is the one that is read"`
}

// ViewColumn is one column of a view.
type ViewColumn struct {
	Name      string   `json:"name"`
	Type      string   `json:"type" doc:"In Postgres"`
	Key       bool     `json:"key"`
	Nullable  bool     `json:"nullable"`
	Operators []string `json:"operators" nullable:"false" doc:"That a filter may have"`
	Sortable  bool     `json:"sortable"`
	Search    bool     `json:"search" doc:"q= looks into it"`
}

// ViewInfo is one view.
type ViewInfo struct {
	Name       string        `json:"name"`
	Kind       string        `json:"kind" doc:"entity, metric or append; events and snapshots are the system's"`
	Version    int           `json:"version" minimum:"1" doc:"The live one"`
	Versions   []ViewVersion `json:"versions" nullable:"false"`
	Categories []string      `json:"categories" nullable:"false" doc:"Whose events it is made of; empty for the system's, which take those of all"`
	Columns    []ViewColumn  `json:"columns" nullable:"false"`
}

// ViewList is every live view.
type ViewList struct {
	Views []ViewInfo `json:"views" nullable:"false"`
}

// RowPage documents a page of rows.
type RowPage struct {
	Rows []map[string]any `json:"rows" nullable:"false" doc:"Objects with a member for each column"`
	Next string           `json:"next,omitempty" doc:"The cursor of the next page; absent at the end"`
}

func (a *API) registerViews() {
	a.register(route{operation: &huma.Operation{
		OperationID: "list-views", Method: http.MethodGet, Path: "/v1/views", Tags: []string{"Views"},
		Summary: "List the views that are live, with their columns and what each can be filtered by",
		Responses: map[string]*huma.Response{
			"200": a.jsonResponse("The views", reflect.TypeFor[ViewList]()),
			"400": a.problemResponse("A parameter is wrong; errors names each"),
		},
	}, serve: a.serveViews})
	a.register(route{operation: &huma.Operation{
		OperationID: "list-rows", Method: http.MethodGet, Path: "/v1/views/{view}", Tags: []string{"Views"},
		Summary:     "List rows of a view",
		Description: filtersDescription,
		Parameters:  append([]*huma.Param{viewParam()}, listParams(true, anyExamples)...),
		Responses:   a.listResponses(a.schemaOf(reflect.TypeFor[RowPage]())),
	}, serve: func(c *call) error { return a.serveList(c, c.r.PathValue("view")) }})
	a.register(route{operation: &huma.Operation{
		OperationID: "read-row", Method: http.MethodGet, Path: "/v1/views/{view}/{key}", Tags: []string{"Views"},
		Summary:     "Read one row by its key",
		Description: "For views whose key is one column. A row with a key of many columns is found by a filter for each.",
		Parameters:  append([]*huma.Param{viewParam(), keyParam("key")}, rowParams(anyExamples)...),
		Responses:   a.rowResponses(&huma.Schema{Type: huma.TypeObject, AdditionalProperties: true, Description: "The row: a member for each column"}),
	}, serve: func(c *call) error { return a.serveRow(c, c.r.PathValue("view"), c.r.PathValue("key")) }})
}

func (a *API) serveViews(c *call) error {
	p, err := paramsOf(c.r.URL.RawQuery)
	if err != nil {
		return err
	}
	p.only()
	if err := p.err(); err != nil {
		return err
	}
	l, err := a.catalogue.current(c.ctx())
	if err != nil {
		return err
	}
	list := ViewList{Views: []ViewInfo{}}
	for _, name := range l.names() {
		list.Views = append(list.Views, l.views[name].info(l.versions[name]))
	}
	return respondJSON(c, list)
}

func (v *view) info(versions []ViewVersion) ViewInfo {
	out := ViewInfo{Name: v.name, Kind: string(v.kind), Version: v.version, Versions: versions, Categories: v.categories, Columns: []ViewColumn{}}
	if out.Categories == nil {
		out.Categories = []string{}
	}
	for i := range v.columns {
		c := &v.columns[i]
		column := ViewColumn{Name: c.name, Type: c.sqlType, Key: i < v.keys, Nullable: c.nullable, Sortable: c.sortable(), Search: i == v.search}
		for _, o := range c.ops() {
			column.Operators = append(column.Operators, string(o))
		}
		out.Columns = append(out.Columns, column)
	}
	return out
}

// serveRow answers with one row of a view.
func (a *API) serveRow(c *call, name, key string) error {
	p, err := paramsOf(c.r.URL.RawQuery)
	if err != nil {
		return err
	}
	return a.onView(c.ctx(), name, func(v *view) error { return a.answerRow(c, p.again(), v, key) })
}

func (a *API) answerRow(c *call, p *params, v *view, key string) error {
	value, err := v.keyValue(key)
	if err != nil {
		return err
	}
	fields := v.all
	if c.r.URL.RawQuery != "" {
		p.only(paramFields, paramWait, paramWaitMs)
		fields = p.fields(v)
		if err := a.await(c, p, v); err != nil {
			return err
		}
	}
	return respond(c, func(dst []byte) ([]byte, error) { return a.rowOf(c, v, dst, value, fields) })
}

// keyValue reads the key of a path.
func (v *view) keyValue(text string) (any, error) {
	if v.byKey == "" {
		return nil, problem(http.StatusNotFound, codeNotFound,
			fmt.Sprintf("the key of view %s has %d columns: list it with a filter for each, such as ?%s=…", v.name, v.keys, v.columns[0].name))
	}
	value, err := v.columns[0].parse(text)
	if err != nil {
		return nil, faulty(codeParameter, Fault{Location: "path.key", Message: fmt.Sprintf("%s: want a value of type %s", err, v.columns[0].describe())})
	}
	return value, nil
}

// serveList answers with a page of a view.
func (a *API) serveList(c *call, name string) error {
	p, err := paramsOf(c.r.URL.RawQuery)
	if err != nil {
		return err
	}
	return a.onView(c.ctx(), name, func(v *view) error {
		p := p.again()
		s, err := selectionOf(v, p)
		if err != nil {
			return err
		}
		if err := a.await(c, p, v); err != nil {
			return err
		}
		return respond(c, func(dst []byte) ([]byte, error) { return a.appendPage(c, dst, s) })
	})
}

// again is the same parameters without what another view had against them.
func (p *params) again() *params {
	return &params{values: p.values, faults: append([]Fault(nil), p.faults...)}
}

func (a *API) appendPage(c *call, dst []byte, s *selection) ([]byte, error) {
	dst = append(dst, `{"rows":[`...)
	page := pageReader{selection: s, writer: s.view.writer(s.fields), bytesMax: a.cfg.Limits.pageBytesMax(), text: dst}
	sql := s.list()
	if err := a.query(c.ctx(), c.route, false, sql.text.String(), sql.args, page.read); err != nil {
		return page.text, err
	}
	a.metrics.rows.Add(float64(page.count))
	page.text = append(page.text, ']')
	if page.more {
		if page.count == 0 {
			return page.text, a.rowTooLarge()
		}
		next, err := s.cursor(page.last)
		if err != nil {
			return page.text, err
		}
		page.text = appendText(append(page.text, `,"next":`...), next)
	}
	return append(page.text, '}'), nil
}

// pageReader appends the rows of a page while they come.
type pageReader struct {
	selection *selection
	writer    *rowWriter
	bytesMax  int
	text      []byte
	count     int
	last      []*string // what the last row is sorted by, for the cursor
	more      bool
}

func (r *pageReader) read(rows pgx.Rows) error {
	for rows.Next() {
		if r.count == r.selection.limit {
			r.more = true
			return nil
		}
		if r.writer.appenders == nil {
			if err := r.writer.begin(rows.FieldDescriptions()); err != nil {
				return err
			}
		}
		if err := r.add(rows.RawValues()); err != nil {
			return err
		}
	}
	return nil
}

func (r *pageReader) add(raw [][]byte) error {
	before := len(r.text)
	if r.count > 0 {
		r.text = append(r.text, ',')
	}
	var err error
	if r.text, err = r.writer.row(r.text, raw); err != nil {
		return err
	}
	if len(r.text) > r.bytesMax {
		r.text, r.more = r.text[:before], true
		return errPageFull
	}
	r.count++
	r.last = r.last[:0]
	for i, t := range r.selection.sort {
		value := raw[len(r.selection.fields)+i]
		if value == nil {
			r.last = append(r.last, nil)
			continue
		}
		text := t.column.cursorText(value)
		r.last = append(r.last, &text)
	}
	return nil
}

// respondJSON answers with a value that has json tags.
func respondJSON(c *call, value any) error {
	return respond(c, func(dst []byte) ([]byte, error) { return appendJSON(dst, value) })
}

// For the document.

const filtersDescription = "Any other parameter is a filter: column=value or column.operator=value, all of which must hold. " +
	"Operators are eq, ne, lt, lte, gt, gte, in (values separated by commas), like, prefix, has (lists) and isnull (true or false), as far as the type of the column has them: GET /v1/views says which. " +
	"Pages go on by next, which is the cursor of the next one."

func viewParam() *huma.Param {
	return &huma.Param{Name: "view", In: "path", Required: true, Description: "The name of a live view", Schema: &huma.Schema{Type: huma.TypeString, Pattern: "^[a-z][a-z0-9_]{0,30}$"}}
}

func keyParam(name string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Description: "The value of the key column, percent-encoded",
		Schema: &huma.Schema{Type: huma.TypeString, MinLength: count(1), MaxLength: count(valueBytesMax)}}
}

func queryParam(name, description string, schema *huma.Schema) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: description, Schema: schema}
}

func fieldsParam() *huma.Param {
	return queryParam(paramFields, "The columns wanted, separated by commas; the key is always among them. Default: all", &huma.Schema{Type: huma.TypeString})
}

// examples are texts for the document that fit a view.
type examples struct{ sort, category string }

var anyExamples = examples{sort: "-started_at", category: "execution"}

func examplesOf(v projection.View) examples {
	out := examples{sort: v.Key[0].Name, category: v.Categories[0]}
	for _, c := range v.Columns {
		if c.Type == "timestamptz" {
			out.sort = "-" + c.Name
			break
		}
	}
	return out
}

func waitParams(of examples) []*huma.Param {
	return []*huma.Param{
		queryParam(paramWait, "Wait until the view has this: category/id@version for a version of a stream, or partition@offset (with many categories category:partition@offset) for all up to an offset of the events topic",
			&huma.Schema{Type: huma.TypeString, Examples: []any{of.category + "/e-1@3", of.category + ":4@1200"}}),
		queryParam(paramWaitMs, "How long to wait at most, in milliseconds", &huma.Schema{Type: huma.TypeInteger, Minimum: number(0), Maximum: number(float64(waitMax.Milliseconds())), Default: waitDefault.Milliseconds()}),
	}
}

func rowParams(of examples) []*huma.Param {
	return append([]*huma.Param{fieldsParam()}, waitParams(of)...)
}

func listParams(search bool, of examples) []*huma.Param {
	all := []*huma.Param{
		queryParam(paramSort, "Columns to sort by, separated by commas; a minus before one turns its order. Default: the key", &huma.Schema{Type: huma.TypeString, Examples: []any{of.sort}}),
		queryParam(paramLimit, "Rows of the page at most", &huma.Schema{Type: huma.TypeInteger, Minimum: number(1), Maximum: number(limitMax), Default: limitDefault}),
		queryParam(paramCursor, "The next of the page before; with the same sort and filters", &huma.Schema{Type: huma.TypeString, MaxLength: count(cursorBytesMax)}),
	}
	if search {
		all = append(all, queryParam(paramSearch, "A text to look for, where the view declares a column for it", &huma.Schema{Type: huma.TypeString, MinLength: count(searchRunesMin), MaxLength: count(searchRunesMax)}))
	}
	filters := &huma.Param{Name: "filters", In: "query", Description: "Filters, by column and operator", Style: "form", Explode: explode(),
		Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: &huma.Schema{Type: huma.TypeString}}}
	return append(append(all, rowParams(of)...), filters)
}

func explode() *bool {
	yes := true
	return &yes
}

func (a *API) rowResponses(row *huma.Schema) map[string]*huma.Response {
	return map[string]*huma.Response{
		"200": {Description: "The row", Content: map[string]*huma.MediaType{contentTypeJSON: {Schema: row}}},
		"400": a.problemResponse("A parameter is wrong; errors names each"),
		"404": a.problemResponse("Codes unknown-view and no-row, and not-found: the key has many columns"),
		"409": a.problemResponse("Code parked: what is waited for is held up by a dead letter"),
		"422": a.problemResponse("Code " + codeRowTooLarge),
		"503": a.problemResponse("Codes stale: what was waited for did not come in time; slow: the statement took too long; unavailable"),
	}
}

func (a *API) listResponses(page *huma.Schema) map[string]*huma.Response {
	return map[string]*huma.Response{
		"200": {Description: "A page; it may end before limit, at the limit of an answer's bytes", Content: map[string]*huma.MediaType{contentTypeJSON: {Schema: page}}},
		"400": a.problemResponse("Codes parameter: errors names each; cursor: it is of another list"),
		"404": a.problemResponse("Code unknown-view"),
		"409": a.problemResponse("Code parked: what is waited for is held up by a dead letter"),
		"422": a.problemResponse("Code " + codeRowTooLarge),
		"503": a.problemResponse("Codes stale: what was waited for did not come in time; slow: the statement took too long; unavailable"),
	}
}

func number(n float64) *float64 { return &n }

func count(n int) *int { return &n }

var errClosed = errors.New("the service is stopping")
