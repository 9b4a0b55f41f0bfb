package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
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
	codeBug             = "bug"              // a panic; never seen
)

const contentTypeProblem = "application/problem+json"

// Fault is one thing that is wrong with a request.
type Fault struct {
	Location string `json:"location" doc:"Where: a path such as body.events[2].data.amount, query.limit, header.Idempotency-Key"`
	Message  string `json:"message" doc:"What is wrong, and what is wanted"`
}

// Problem is the answer to a request that did not do what it asked for (RFC 9457). It is an error,
// for handlers to return.
type Problem struct {
	Type          string  `json:"type" doc:"Always about:blank: code says what it is"`
	Title         string  `json:"title" doc:"The status as text"`
	Status        int     `json:"status"`
	Detail        string  `json:"detail,omitempty" doc:"For people"`
	Code          string  `json:"code" doc:"For programs"`
	Outcome       string  `json:"outcome,omitempty" enum:"conflict,rejected,invalid,unknown"`
	ActualVersion *int64  `json:"actualVersion,omitempty" minimum:"0" doc:"conflict: the stream's version when it was decided"`
	CommandID     string  `json:"commandId,omitempty" doc:"The idempotency key; the one made up when none was sent"`
	Errors        []Fault `json:"errors,omitempty" doc:"Each fault"`

	retryAfterSeconds int    // 0: no Retry-After
	allow             string // 405
}

// problem makes a Problem; errors are added by the caller.
func problem(status int, code, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// faulty is a 400 with faults. The detail repeats the first.
func faulty(code string, faults ...Fault) *Problem {
	p := problem(http.StatusBadRequest, code, "")
	p.Errors = faults
	if len(faults) > 0 {
		p.Detail = faults[0].Location + ": " + faults[0].Message
	}
	return p
}

// retryAfter sets after how many seconds a client should come again.
func (p *Problem) retryAfter(seconds int) *Problem { //nolint:unparam // whoever refuses knows for how long
	p.retryAfterSeconds = seconds
	return p
}

// Error implements error.
func (p *Problem) Error() string {
	text := strconv.Itoa(p.Status) + " " + p.Code + ": " + p.Detail
	if len(p.Errors) > 1 {
		var more []string
		for _, f := range p.Errors[1:] {
			more = append(more, f.Location+": "+f.Message)
		}
		text += "; " + strings.Join(more, "; ")
	}
	return text
}

// write answers with the problem.
func (p *Problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil { // a Problem holds only texts and numbers
		body = []byte(`{}`)
	}
	body = append(body, '\n') // answers that follow each other on a terminal stay apart
	h := w.Header()
	h.Set("Content-Type", contentTypeProblem)
	if p.retryAfterSeconds > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfterSeconds))
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}
