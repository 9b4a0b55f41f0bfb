package query

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/pkg/projection"
)

// Resource shows a view under a name of its own: GET /v1/<Path> lists it, GET /v1/<Path>/{id} reads
// one row, and the document has a schema for its rows.
type Resource struct {
	// Path is one segment, such as "workflows".
	Path string
	// Name is that of the row's schema in the document, such as "Workflow".
	Name string
	// View is one of Config.Views whose key is one column.
	View string
	// Held has, by name of a jsonb column, the Go type with json tags that it holds. For the
	// document only; columns without one are any JSON.
	Held map[string]reflect.Type
}

var (
	pathRule   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
	columnRule = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)
	nameRule   = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,30}$`)
	// reservedPaths are taken by this API, or by that of the write side.
	reservedPaths = []string{"views", "statistics", "correlations", "streams", "commands", "append", "subscribe", "categories", "sagas"}
	// reservedNames are those of this API's own schemas.
	reservedNames = []string{"Problem", "Fault", "Staleness", "ViewInfo", "ViewList", "ViewColumn", "ViewVersion", "RowPage", "Correlation", "CorrelatedEvent", "Cause"}
)

func (d Definitions) validate(views []projection.View) error {
	var faults []error
	seen := map[string]bool{}
	for _, r := range d.Resources {
		faults = append(faults, r.validate(views))
		if seen["/"+r.Path] || seen[r.Name] {
			faults = append(faults, fmt.Errorf("query: resource %q: its path or its name stands twice", r.Path))
		}
		seen["/"+r.Path], seen[r.Name] = true, true
	}
	for _, s := range d.Statistics {
		faults = append(faults, s.validate(views))
		if seen["statistics/"+s.Path] || seen[s.Name] {
			faults = append(faults, fmt.Errorf("query: statistic %q: its path or its name stands twice", s.Path))
		}
		seen["statistics/"+s.Path], seen[s.Name] = true, true
	}
	return errors.Join(faults...)
}

// Fitting is the definitions that are about these views, for a program that runs on projects other
// than its own.
func (d Definitions) Fitting(views []projection.View) Definitions {
	var out Definitions
	for _, r := range d.Resources {
		if r.validate(views) == nil {
			out.Resources = append(out.Resources, r)
		}
	}
	for _, s := range d.Statistics {
		if s.validate(views) == nil {
			out.Statistics = append(out.Statistics, s)
		}
	}
	return out
}

func (r Resource) validate(views []projection.View) error {
	v, known := viewNamed(views, r.View)
	switch {
	case !pathRule.MatchString(r.Path) || slices.Contains(reservedPaths, r.Path):
		return fmt.Errorf("query: resource %q: want a path of [a-z][a-z0-9-]{0,30}, and none of %s", r.Path, strings.Join(reservedPaths, ", "))
	case !nameRule.MatchString(r.Name) || slices.Contains(reservedNames, r.Name):
		return fmt.Errorf("query: resource %s: name %q: want [A-Z][A-Za-z0-9]{0,30}, and none of this API's own", r.Path, r.Name)
	case !known:
		return fmt.Errorf("query: resource %s: there is no view %q among Views", r.Path, r.View)
	case len(v.Key) != 1:
		return fmt.Errorf("query: resource %s: view %s has a key of %d columns, want one", r.Path, r.View, len(v.Key))
	}
	return nil
}

func viewNamed(views []projection.View, name string) (projection.View, bool) {
	i := slices.IndexFunc(views, func(v projection.View) bool { return v.Name == name })
	if i < 0 {
		return projection.View{}, false
	}
	return views[i], true
}

func (a *API) registerResources() {
	for _, r := range a.cfg.Definitions.Resources {
		a.registerResource(r)
	}
}

func (a *API) registerResource(r Resource) {
	v, _ := viewNamed(a.cfg.Views, r.View)
	row := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}, Description: "A row of the view " + r.View + "; by fields= with less columns"}
	var filters []*huma.Param
	for _, from := range v.Layout() {
		c := newColumn(from)
		row.Properties[c.name] = a.schemaOfColumn(&c, r.Held[c.name])
		if c.has(opEqual) {
			filters = append(filters, queryParam(c.name, "Only rows with this value; other operators of this column: "+c.opNames(), a.schemaOfColumn(&c, nil)))
		}
	}
	ref := a.refTo(r.Name, row)
	page := a.refTo(r.Name+"Page", &huma.Schema{Type: huma.TypeObject, Required: []string{"rows"}, Properties: map[string]*huma.Schema{
		"rows": {Type: huma.TypeArray, Items: ref},
		"next": {Type: huma.TypeString, Description: "The cursor of the next page; absent at the end"},
	}})
	a.register(route{operation: &huma.Operation{
		OperationID: "list-" + r.Path, Method: http.MethodGet, Path: "/v1/" + r.Path, Tags: []string{r.Name},
		Summary: "List rows of the view " + r.View, Description: filtersDescription,
		Parameters: slices.Concat(listParams(a.cfg.Search[r.View] != "", examplesOf(v)), filters), Responses: a.listResponses(page),
	}, serve: func(c *call) error { return a.serveList(c, r.View) }})
	a.register(route{operation: &huma.Operation{
		OperationID: "read-" + strings.ToLower(r.Name), Method: http.MethodGet, Path: "/v1/" + r.Path + "/{id}", Tags: []string{r.Name},
		Summary: "Read one row of the view " + r.View, Parameters: append([]*huma.Param{keyParam("id")}, rowParams(examplesOf(v))...), Responses: a.rowResponses(ref),
	}, serve: func(c *call) error { return a.serveRow(c, r.View, c.r.PathValue("id")) }})
}
