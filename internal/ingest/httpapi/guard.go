package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/foldstream/foldstream/internal/service/web"
)

// retryAfterSeconds is what a client that is turned away should wait.
const retryAfterSeconds = 1

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
	if path == documentPath {
		return nil
	}
	if a.cfg.Authorized != nil && !a.cfg.Authorized(r) {
		return problem(http.StatusUnauthorized, codeUnauthorized, "a token is needed: send Authorization: Bearer <token>")
	}
	if !web.IsClean(path) {
		return problem(http.StatusNotFound, codeNotFound, "the path has an empty or a dot segment: percent-encode ids")
	}
	return nil
}

// notFound answers paths and methods that no route has.
func (a *API) notFound(w http.ResponseWriter, r *http.Request) {
	p := problem(http.StatusNotFound, codeNotFound, "no such path: see "+documentPath)
	if allowed := a.methodsOf(r); len(allowed) > 0 {
		p = problem(http.StatusMethodNotAllowed, codeMethod, fmt.Sprintf("%s is not for this path: it has %s", r.Method, strings.Join(allowed, ", ")))
		p.Allow = strings.Join(allowed, ", ")
	}
	a.metrics.Refused.WithLabelValues(p.Code).Inc()
	p.write(w)
}

// methodsOf lists the methods that a request's path has routes for.
func (a *API) methodsOf(r *http.Request) []string {
	var methods []string
	for _, all := range a.paths {
		for _, m := range all {
			probe := r.Clone(context.Background())
			probe.Method = m
			if _, pattern := a.mux.Handler(probe); strings.HasPrefix(pattern, m+" ") && !slices.Contains(methods, m) {
				methods = append(methods, m)
			}
		}
	}
	slices.Sort(methods)
	return methods
}

// statusClientLeft is counted for clients that did not wait for their answer, as elsewhere; it is
// never sent. A server that stops ends contexts by another cause.
const statusClientLeft = 499

// guarded is a route with limits, metrics, and a net for panics.
func (a *API) guarded(rt route) http.Handler {
	m := a.metrics.Of(rt.operation.OperationID)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := a.cfg.Clock()
		rec := web.Record(w)
		m.InFlight.Inc()
		defer func() { // also when the connection is to end
			m.InFlight.Dec()
			status := rec.Status
			if !rt.long && errors.Is(context.Cause(r.Context()), context.Canceled) {
				status = statusClientLeft
			}
			m.Answered(status, a.cfg.Clock().Sub(began), rt.long)
			rec.Release()
		}()
		a.answer(rec, r, rt)
	})
}

// answer runs the handler and sees that something is answered.
func (a *API) answer(w *web.Recorder, r *http.Request, rt route) {
	defer a.net.Catch(w, rt.operation.OperationID)
	counter, most := &a.inFlight, int64(a.cfg.Limits.InFlightMax)
	if rt.long {
		counter, most = &a.subscribers, int64(a.cfg.Limits.SubscribersMax)
	}
	defer counter.Add(-1)
	if counter.Add(1) > most {
		overloaded(fmt.Sprintf("%d requests are worked on, as many as may be: come again", most)).write(w)
		return
	}
	if err := rt.serve(w, r); err != nil {
		a.failed(w, r, rt, err)
	}
}

func overloaded(detail string) *Problem {
	return problem(http.StatusTooManyRequests, codeOverloaded, detail).comeAgain()
}

func unavailable() *Problem {
	return problem(http.StatusServiceUnavailable, codeUnavailable, "something that this needs is away: come again").comeAgain()
}

// failed answers an error. One after the answer began can only end the connection.
func (a *API) failed(w *web.Recorder, r *http.Request, rt route, err error) {
	if w.Status != 0 {
		if r.Context().Err() == nil {
			a.log.Warn("an answer broke off", "route", rt.operation.OperationID, "err", err)
		}
		return
	}
	var p *Problem
	if !errors.As(err, &p) {
		if r.Context().Err() == nil {
			a.log.Warn("a request could not be answered", "route", rt.operation.OperationID, "err", err)
		}
		p = unavailable()
	}
	p.write(w)
}
