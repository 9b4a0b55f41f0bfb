package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/foldstream/foldstream/pkg/event"
)

// streamOf reads {category} and {id} of a path.
func (a *API) streamOf(r *http.Request) (event.StreamID, error) {
	s := event.StreamID{Category: r.PathValue("category"), ID: r.PathValue("id")}
	if err := a.knowsCategory(s.Category); err != nil {
		return s, err
	}
	if err := event.ValidateID(s.ID); err != nil {
		return s, faulty("key", Fault{Location: "path.id", Message: err.Error()})
	}
	return s, nil
}

// knowsCategory is nil or a 404.
func (a *API) knowsCategory(name string) error {
	if a.categories[name] {
		return nil
	}
	return problem(http.StatusNotFound, codeUnknownCategory, fmt.Sprintf("no category %q that is written here: see foldstream.yaml", web.Clip(name)))
}

// query reads the parameters of a query; those that are not among known, and those that stand
// twice, are faults.
func query(r *http.Request, known ...string) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return url.Values{}, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, faulty(codeParameter, Fault{Location: "query", Message: "is not percent-encoded: " + err.Error()})
	}
	var faults []Fault
	for name, all := range values {
		switch {
		case !slices.Contains(known, name):
			faults = append(faults, Fault{Location: "query." + web.Clip(name), Message: "is unknown; known are: " + strings.Join(known, ", ")})
		case len(all) > 1:
			faults = append(faults, Fault{Location: "query." + name, Message: "stands twice"})
		}
	}
	if len(faults) > 0 {
		slices.SortFunc(faults, func(a, b Fault) int { return strings.Compare(a.Location, b.Location) })
		return nil, faulty(codeParameter, faults[:min(len(faults), faultsMax)]...)
	}
	return values, nil
}

// durationParam reads a duration such as 5s: from 0 to most; fallback where there is none.
func durationParam(values url.Values, name string, fallback, most time.Duration) (time.Duration, error) {
	text := values.Get(name)
	if text == "" && !values.Has(name) {
		return fallback, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > most {
		return 0, faulty(codeParameter, Fault{Location: "query." + name, Message: fmt.Sprintf("%q: want a duration of at most %s, such as 5s or 500ms", web.Clip(text), most)})
	}
	return d, nil
}
