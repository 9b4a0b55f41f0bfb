package httpapi

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// route is one operation.
type route struct {
	// operation documents it; Method and Path say where it is served. Path wildcards are those of
	// net/http.
	operation *huma.Operation
	// serve answers the request, or returns an error before anything is written: a *Problem, which
	// is the answer, or another, which is a 503 and is logged.
	serve func(w http.ResponseWriter, r *http.Request) error
	// long is for answers that go on until the client leaves: they count against SubscribersMax
	// instead of InFlightMax, and must end when draining is closed.
	long bool
}

// register serves a route and adds it to the document.
func (a *API) register(rt route) {
	op := rt.operation
	a.document(op)
	a.mux.Handle(op.Method+" "+op.Path, a.guarded(rt))
	a.paths[op.Path] = append(a.paths[op.Path], op.Method)
}
