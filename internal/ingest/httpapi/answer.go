package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/foldstream/foldstream/internal/service/web"
)

// result is the answer to one write: an outcome, or the problem that it is.
type result struct {
	status    int
	outcome   engine.Outcome
	commandID string
	problem   *Problem // nil: accepted or duplicate
}

// Accepted documents the answer to a write that stands in the log.
type Accepted struct {
	Outcome      string `json:"outcome" enum:"accepted,duplicate"`
	CommandID    string `json:"commandId" doc:"The idempotency key; the one made up when none was sent"`
	FirstVersion int64  `json:"firstVersion" minimum:"0" doc:"Of the first event; 0 when the request left none"`
	LastVersion  int64  `json:"lastVersion" minimum:"0"`
	Partition    int32  `json:"partition" minimum:"-1" doc:"Of the events topic"`
	Offset       int64  `json:"offset" minimum:"-1" doc:"Of the last event; -1 when the request left none"`
}

// resultOf says what an outcome is over HTTP. where is the location of faults that have none of
// their own.
func resultOf(outcome engine.Outcome, err error, commandID, where string) (result, error) {
	r := result{outcome: outcome, commandID: commandID}
	switch {
	case errors.Is(err, gateway.ErrOverloaded):
		r.problem = overloaded("too many requests wait for their outcome here: come again")
	case err != nil:
		return r, err
	default:
		r.status, r.problem = judge(outcome, where)
	}
	if r.problem != nil {
		r.status, r.problem.CommandID = r.problem.Status, commandID
	}
	return r, nil
}

func judge(o engine.Outcome, where string) (int, *Problem) {
	var p *Problem
	switch o.Kind {
	case engine.OutcomeAccepted:
		if o.Last > 0 {
			return http.StatusCreated, nil
		}
		return http.StatusOK, nil
	case engine.OutcomeDuplicate:
		return http.StatusOK, nil
	case engine.OutcomeConflict:
		p = problem(http.StatusConflict, string(o.Kind), fmt.Sprintf("the stream is at version %d, which is not what was expected: load it, decide again, send with a new key", o.Actual))
		actual := int64(o.Actual)
		p.ActualVersion = &actual
	case engine.OutcomeRejected:
		p = problem(http.StatusUnprocessableEntity, o.Code, o.Message)
	case engine.OutcomeInvalid:
		p = problem(http.StatusBadRequest, o.Code, o.Message)
		for _, text := range o.Errors[:min(len(o.Errors), faultsMax)] {
			p.Errors = append(p.Errors, Fault{Location: locationOf(o.Code, where), Message: text})
		}
	default:
		p = problem(http.StatusServiceUnavailable, codeUnknown, o.Message).comeAgain()
		o.Kind = engine.OutcomeUnknown
	}
	p.Outcome = string(o.Kind)
	return p.Status, p
}

// locationOf says what part of a request the engine's code is about. where is the request's path:
// the body of a single one, an item of a batch.
func locationOf(code, where string) string {
	single := where == root
	switch {
	case code == engine.CodeIDReused && single:
		return "header.Idempotency-Key"
	case code == engine.CodeIDReused:
		return where + ".commandId"
	case code == engine.CodeKey && single:
		return "path.id"
	case code == engine.CodeKey:
		return where + ".id"
	}
	return where
}

var answers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// write answers one write.
func (r *result) write(w http.ResponseWriter) error {
	if r.problem != nil {
		return r.problem
	}
	buf := answers.Get().(*[]byte)
	defer answers.Put(buf)
	*buf = append(r.appendMembers(append((*buf)[:0], '{')), '}', '\n')
	writeJSON(w, r.status, *buf)
	return nil
}

func writeJSON(w http.ResponseWriter, status int, text []byte) {
	h := w.Header()
	h["Content-Type"] = jsonHeader
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	w.WriteHeader(status)
	_, _ = w.Write(text) //nolint:gosec // JSON under its own media type
}

// jsonHeader is shared between answers; nobody changes it.
var jsonHeader = []string{mediaJSON}

// appendMembers appends the members of Accepted.
func (r *result) appendMembers(b []byte) []byte {
	o := &r.outcome
	b = append(append(append(b, `"outcome":"`...), o.Kind...), `","commandId":`...)
	b = web.AppendText(b, r.commandID)
	b = strconv.AppendInt(append(b, `,"firstVersion":`...), int64(o.First), 10)
	b = strconv.AppendInt(append(b, `,"lastVersion":`...), int64(o.Last), 10)
	b = strconv.AppendInt(append(b, `,"partition":`...), int64(o.Partition), 10)
	return strconv.AppendInt(append(b, `,"offset":`...), o.Offset, 10)
}

// appendResult appends one result of a batch: its status, and its answer's or problem's members.
func (r *result) appendResult(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"status":`...), int64(r.status), 10)
	b = append(b, ',')
	if r.problem == nil {
		return append(r.appendMembers(b), '}')
	}
	return append(r.problem.appendMembers(b), '}')
}

// appendMembers appends what a problem has beside its status, type and title.
func (p *Problem) appendMembers(b []byte) []byte {
	b = web.AppendText(append(b, `"code":`...), p.Code)
	text := func(name, value string) {
		if value != "" {
			b = web.AppendText(append(append(append(b, `,"`...), name...), `":`...), value)
		}
	}
	text("outcome", p.Outcome)
	text("detail", p.Detail)
	text("commandId", p.CommandID)
	if p.ActualVersion != nil {
		b = strconv.AppendInt(append(b, `,"actualVersion":`...), *p.ActualVersion, 10)
	}
	if len(p.Errors) == 0 {
		return b
	}
	b = append(b, `,"errors":[`...)
	for i, f := range p.Errors {
		if i > 0 {
			b = append(b, ',')
		}
		b = web.AppendText(append(b, `{"location":`...), f.Location)
		b = append(web.AppendText(append(b, `,"message":`...), f.Message), '}')
	}
	return append(b, ']')
}
