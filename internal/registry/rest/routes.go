package rest

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// call is one request, with what its path says.
type call struct {
	request *http.Request
	writer  http.ResponseWriter // to bound the body; the answer is written by ServeHTTP
	query   url.Values
	params  map[string]string // decoded segments, such as "subject"
}

// handler answers with a value that becomes JSON, or with an error.
type handler func(s *server, ctx context.Context, c *call) (any, error)

// route is one path; a segment in braces is a parameter.
type route struct {
	segments []string
	methods  map[string]handler
}

func routes() []route {
	at := func(path string, methods map[string]handler) route { return route{split(path), methods} }
	read := func(h handler) map[string]handler { return map[string]handler{http.MethodGet: h} }
	write := func(h handler) map[string]handler { return map[string]handler{http.MethodPost: h} }
	setting := func(get, put handler) map[string]handler {
		return map[string]handler{http.MethodGet: get, http.MethodPut: put, http.MethodDelete: (*server).refuseSetting}
	}
	return []route{
		at("/", read((*server).root)),
		at("/contexts", read((*server).contexts)),
		at("/schemas/types", read((*server).schemaTypes)),
		at("/schemas/ids/{id}", read((*server).schemaByID)),
		at("/schemas/ids/{id}/schema", read((*server).textByID)),
		at("/schemas/ids/{id}/subjects", read((*server).subjectsByID)),
		at("/schemas/ids/{id}/versions", read((*server).versionsByID)),
		at("/subjects", read((*server).subjects)),
		at("/subjects/{subject}", map[string]handler{http.MethodPost: (*server).lookUp, http.MethodDelete: (*server).refuseDelete}),
		at("/subjects/{subject}/versions", map[string]handler{http.MethodGet: (*server).versions, http.MethodPost: (*server).register}),
		at("/subjects/{subject}/versions/{version}", map[string]handler{http.MethodGet: (*server).version, http.MethodDelete: (*server).refuseDelete}),
		at("/subjects/{subject}/versions/{version}/schema", read((*server).versionText)),
		at("/subjects/{subject}/versions/{version}/referencedby", read((*server).referencedBy)),
		at("/compatibility/subjects/{subject}/versions", write((*server).compatibleWithAll)),
		at("/compatibility/subjects/{subject}/versions/{version}", write((*server).compatibleWithOne)),
		at("/config", setting((*server).config, (*server).putConfig)),
		at("/config/{subject}", setting((*server).config, (*server).putConfig)),
		at("/mode", setting((*server).mode, (*server).putMode)),
		at("/mode/{subject}", setting((*server).mode, (*server).putMode)),
	}
}

func split(path string) []string { return strings.Split(strings.Trim(path, "/"), "/") }

// match returns the parameters of an escaped path, or false. Segments are unescaped one by one,
// so that %2F is no separator.
func (r route) match(segments []string) (map[string]string, bool) {
	if len(segments) != len(r.segments) {
		return nil, false
	}
	params := map[string]string{}
	for i, want := range r.segments {
		got, err := url.PathUnescape(segments[i])
		if err != nil {
			return nil, false
		}
		if name, parameter := strings.CutPrefix(want, "{"); parameter {
			if got == "" {
				return nil, false
			}
			params[strings.TrimSuffix(name, "}")] = got
		} else if got != want {
			return nil, false
		}
	}
	return params, true
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	value, err := s.handle(w, r)
	if err != nil {
		s.writeFault(w, r, err)
		return
	}
	s.write(w, r, http.StatusOK, value)
}

func (s *server) handle(w http.ResponseWriter, r *http.Request) (any, error) {
	found, params, there := s.find(r.URL.EscapedPath())
	if !there {
		return nil, faultf(http.StatusNotFound, http.StatusNotFound, "HTTP 404 Not Found: this registry has no such path")
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // net/http leaves the body out
	}
	h, allowed := found.methods[method]
	if !allowed {
		w.Header().Set("Allow", found.allow())
		return nil, faultf(http.StatusMethodNotAllowed, http.StatusMethodNotAllowed, "HTTP 405 Method Not Allowed: this path takes %s", found.allow())
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, faultf(http.StatusBadRequest, http.StatusBadRequest, "the query does not parse")
	}
	c := &call{request: r, writer: w, query: query, params: params}
	ctx, cancel := context.WithTimeout(r.Context(), s.timeout)
	defer cancel()
	return h(s, ctx, c)
}

func (s *server) find(path string) (route, map[string]string, bool) {
	segments := split(path)
	if strings.Contains(path, "//") {
		return route{}, nil, false
	}
	for _, r := range s.routes {
		if params, matches := r.match(segments); matches {
			return r, params, true
		}
	}
	return route{}, nil, false
}

func (r route) allow() string {
	var methods []string
	for m := range r.methods {
		methods = append(methods, m)
		if m == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}
