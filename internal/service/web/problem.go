// Package web is what the HTTP APIs of the services have in common: problem documents, the metrics
// of routes, and what is left of a panic. Everything in it may be used from any goroutine.
package web

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// ContentTypeProblem is the media type of a problem document (RFC 9457).
const ContentTypeProblem = "application/problem+json"

// Fault is one thing that is wrong with a request.
type Fault struct {
	Location string `json:"location" doc:"Where: a path such as body.events[2].data.amount, query.limit, path.key, header.Idempotency-Key"`
	Message  string `json:"message" doc:"What is wrong, and what is wanted"`
}

// Problem is what all problem documents have. An API embeds it and adds members of its own.
type Problem struct {
	Type   string  `json:"type" doc:"Always about:blank: code says what it is"`
	Title  string  `json:"title" doc:"The status as text"`
	Status int     `json:"status"`
	Detail string  `json:"detail,omitempty" doc:"For people"`
	Code   string  `json:"code" doc:"For programs"`
	Errors []Fault `json:"errors,omitempty" doc:"Each fault"`

	RetryAfterSeconds int    `json:"-"` // 0: no Retry-After
	Allow             string `json:"-"` // 405: the methods that the path has
}

// NewProblem makes a problem without faults.
func NewProblem(status int, code, detail string) Problem {
	return Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// NewFaulty makes a 400 with faults; its detail repeats the first.
func NewFaulty(code string, faults ...Fault) Problem {
	p := NewProblem(http.StatusBadRequest, code, "")
	p.Errors = faults
	if len(faults) > 0 {
		p.Detail = faults[0].Location + ": " + faults[0].Message
	}
	return p
}

// Error implements error: a handler returns what it answers.
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

// Write answers with document, which is the problem with an API's own members.
func (p *Problem) Write(w http.ResponseWriter, document any) {
	body, err := json.Marshal(document)
	if err != nil { // a problem holds only texts and finite numbers
		body = []byte(`{}`)
	}
	body = append(body, '\n') // answers that follow each other on a terminal stay apart
	h := w.Header()
	h.Set("Content-Type", ContentTypeProblem)
	h.Set("Cache-Control", "no-store")
	if p.RetryAfterSeconds > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfterSeconds))
	}
	if p.Allow != "" {
		h.Set("Allow", p.Allow)
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}
