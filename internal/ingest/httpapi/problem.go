package httpapi

import (
	"net/http"

	"github.com/foldstream/foldstream/internal/service/web"
)

// Codes of problems that HTTP adds to those of the wire format. They are part of the API.
const (
	codeBody            = "body"             // the body is not JSON, or not of the documented shape
	codeParameter       = "parameter"        // of the path, the query or a header
	codeUnknownCategory = "unknown-category" // the project has no such category, or it is external
	codeNotFound        = "not-found"        // no such path
	codeMethod          = "method"           // no such method on this path
	codeUnauthorized    = "unauthorized"     // no token, or a wrong one
	codeBodyTooLarge    = "body-too-large"   // beyond http.body_bytes_max or http.batch_bytes_max
	codeMediaType       = "media-type"       // the Content-Type is not one that the operation takes
	codeOverloaded      = "overloaded"       // a limit of what may wait here is reached
	codeUnknown         = "unknown"          // the outcome is not known yet
	codeUnavailable     = "unavailable"      // something that this needs is away
	// web.CodeBug: a panic; never seen
)

// Fault is one thing that is wrong with a request.
type Fault = web.Fault

// Problem is the answer to a request that did not do what it asked for (RFC 9457). It is an error,
// for handlers to return.
type Problem struct {
	web.Problem
	Outcome       string `json:"outcome,omitempty" enum:"conflict,rejected,invalid,unknown"`
	ActualVersion *int64 `json:"actualVersion,omitempty" minimum:"0" doc:"conflict: the stream's version when it was decided"`
	CommandID     string `json:"commandId,omitempty" doc:"The idempotency key; the one made up when none was sent"`
}

// problem makes a Problem; errors are added by the caller.
func problem(status int, code, detail string) *Problem {
	return &Problem{Problem: web.NewProblem(status, code, detail)}
}

// faulty is a 400 with faults. The detail repeats the first.
func faulty(code string, faults ...Fault) *Problem {
	return &Problem{Problem: web.NewFaulty(code, faults...)}
}

// comeAgain sets that a client should come again, and when.
func (p *Problem) comeAgain() *Problem {
	p.RetryAfterSeconds = retryAfterSeconds
	return p
}

// write answers with the problem.
func (p *Problem) write(w http.ResponseWriter) { p.Write(w, p) }
