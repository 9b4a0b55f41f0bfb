package query

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/internal/service/web"
)

// route is one operation.
type route struct {
	// operation documents it; Method and Path say where it is served, by the wildcards of net/http.
	operation *huma.Operation
	// serve answers the request, or returns an error before anything is written: a *Problem, which
	// is the answer, or another, which is a 503 and is logged.
	serve func(c *call) error

	metrics *routeMetrics
}

// call is one request on its way.
type call struct {
	w     http.ResponseWriter
	r     *http.Request
	route *route
}

func (c *call) ctx() context.Context { return c.r.Context() }

// register serves a route and adds it to the document.
func (a *API) register(rt route) {
	op := rt.operation
	a.document(op)
	rt.metrics = a.metrics.of(op.OperationID)
	a.mux.Handle(op.Method+" "+op.Path, a.guarded(&rt))
	if !slices.Contains(a.paths, op.Path) {
		a.paths = append(a.paths, op.Path)
	}
	a.methods[op.Path] = append(a.methods[op.Path], op.Method)
}

// roots are the first fixed parts of the routes' paths, as patterns.
func (a *API) roots() []string {
	var all []string
	add := func(pattern string) {
		if !slices.Contains(all, pattern) {
			all = append(all, pattern)
		}
	}
	for _, path := range a.paths {
		fixed, _, wild := strings.Cut(path, "{")
		add(fixed)
		if !wild {
			continue
		}
		add(strings.TrimSuffix(fixed, "/"))
	}
	return all
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := a.admit(r); p != nil {
		a.metrics.Refused.WithLabelValues(p.Code).Inc()
		p.write(w)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// admit refuses what no route is to see.
func (a *API) admit(r *http.Request) *Problem {
	path := r.URL.EscapedPath()
	if path == a.cfg.DocumentPath {
		return nil
	}
	if a.cfg.Authorized != nil && !a.cfg.Authorized(r) {
		return problem(http.StatusUnauthorized, codeUnauthorized, "a token is needed: send Authorization: Bearer <token>")
	}
	if !web.IsClean(path) {
		return problem(http.StatusNotFound, codeNotFound, "the path has an empty or a dot segment: percent-encode keys")
	}
	return nil
}

// notFound answers paths and methods that no route has.
func (a *API) notFound(w http.ResponseWriter, r *http.Request) {
	p := problem(http.StatusNotFound, codeNotFound, "no such path: see "+a.cfg.DocumentPath)
	if allowed := a.methodsOf(r); len(allowed) > 0 {
		p = problem(http.StatusMethodNotAllowed, codeMethod, fmt.Sprintf("%s is not for this path: it has %s", clip(r.Method), strings.Join(allowed, ", ")))
		p.Allow = strings.Join(allowed, ", ")
	}
	a.metrics.Refused.WithLabelValues(p.Code).Inc()
	p.write(w)
}

// methodsOf lists the methods that a request's path has routes for.
func (a *API) methodsOf(r *http.Request) []string {
	for _, path := range a.paths {
		for _, method := range a.methods[path] {
			probe := r.Clone(context.Background())
			probe.Method = method
			if _, pattern := a.mux.Handler(probe); pattern == method+" "+path {
				return a.methods[path]
			}
		}
	}
	return nil
}

// guarded is a route with metrics and a net for panics.
func (a *API) guarded(rt *route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := a.cfg.Clock()
		rec := web.Record(w)
		rt.metrics.InFlight.Inc()
		a.answer(rec, r, rt)
		rt.metrics.InFlight.Dec()
		rt.metrics.Answered(rec.Status, a.cfg.Clock().Sub(began), false)
		rec.Release()
	})
}

// answer runs the handler and sees that something is answered.
func (a *API) answer(w *web.Recorder, r *http.Request, rt *route) {
	defer func() {
		if v := recover(); v != nil {
			a.panicked(w, v, rt)
		}
	}()
	if err := rt.serve(&call{w: w, r: r, route: rt}); err != nil {
		a.failed(w, r, rt, err)
	}
}

// failed answers an error. One after the answer began can only end the connection.
func (a *API) failed(w *web.Recorder, r *http.Request, rt *route, err error) {
	if w.Status != 0 {
		return
	}
	var p *Problem
	if !errors.As(err, &p) {
		if r.Context().Err() == nil {
			a.log.Warn("a request could not be answered", "route", rt.operation.OperationID, "err", err)
		}
		p = unavailable("the database cannot answer now: come again")
	}
	p.write(w)
}

// panicSkip is how many frames of ours lie on a panic: panicked, and the deferred function.
const panicSkip = 2

// panicked answers 500 and logs where, without what: a panic's value may hold payload.
func (a *API) panicked(w *web.Recorder, value any, rt *route) {
	if err, is := value.(error); is && errors.Is(err, http.ErrAbortHandler) {
		panic(value) // net/http's way to close a connection
	}
	a.metrics.Panics.Inc()
	a.log.Error("a handler panicked: this is a bug, please report it", "route", rt.operation.OperationID,
		"kind", fmt.Sprintf("%T", value), "stack", web.PanicFrames(panicSkip))
	if w.Status == 0 {
		problem(http.StatusInternalServerError, codeBug, "a bug in this server; its log has the place").write(w)
		return
	}
	panic(http.ErrAbortHandler)
}
