package query

import (
	"net/http"
	"strings"

	"github.com/foldstream/foldstream/internal/service/web"
)

// Codes of problems. They are part of the API.
const (
	codeParameter    = "parameter"     // of the path or the query; errors names each
	codeCursor       = "cursor"        // the cursor is of another list, or of none
	codeUnknownView  = "unknown-view"  // no live view has this name
	codeNoRow        = "no-row"        // the view has no row of this key
	codeNoEvents     = "no-events"     // no event has this correlation id
	codeStale        = "stale"         // what was waited for did not come in time
	codeParked       = "parked"        // what is waited for is held up by a dead letter
	codeRowTooLarge  = "row-too-large" // one row is beyond the limit of an answer
	codeSlow         = "slow"          // the statement took longer than may be
	codeNotFound     = "not-found"     // no such path
	codeMethod       = "method"        // no such method on this path
	codeUnauthorized = "unauthorized"  // no token, or a wrong one
	codeOverloaded   = "overloaded"    // a limit of what may wait here is reached
	codeUnavailable  = "unavailable"   // Postgres, or a table in it, is away
	codeBug          = "bug"           // a panic; never seen
)

const contentTypeJSON = "application/json"

// Fault is one thing that is wrong with a request.
type Fault = web.Fault

// Staleness says how far a view is from what was waited for.
type Staleness struct {
	View        string   `json:"view"`
	ViewVersion int      `json:"viewVersion" minimum:"1"`
	Category    string   `json:"category"`
	Stream      string   `json:"stream,omitempty" doc:"The stream waited for; absent when an offset was"`
	Version     *int64   `json:"version,omitempty" doc:"Of the stream, in the view; 0 when it has none of it"`
	Wanted      int64    `json:"wanted" doc:"The version or the offset waited for"`
	Partition   *int32   `json:"partition,omitempty"`
	NextOffset  *int64   `json:"nextOffset,omitempty" doc:"The first offset that the view has not applied"`
	Lag         int64    `json:"lag" doc:"How many versions of the stream, or records of the partition, are missing at the least"`
	Seconds     *float64 `json:"seconds,omitempty" doc:"Since the view last moved on in this partition"`
}

// Problem is the answer to a request that did not do what it asked for (RFC 9457). It is an error,
// for handlers to return.
type Problem struct {
	web.Problem
	Stale *Staleness `json:"stale,omitempty" doc:"stale and parked: how far the view is"`
}

func problem(status int, code, detail string) *Problem {
	return &Problem{Problem: web.NewProblem(status, code, detail)}
}

// faulty is a 400 with faults. The detail repeats the first.
func faulty(code string, faults ...Fault) *Problem {
	return &Problem{Problem: web.NewFaulty(code, faults[:min(len(faults), faultsMax)]...)}
}

// retryAfterSeconds is what a client that is turned away should wait.
const retryAfterSeconds = 1

func (p *Problem) retry() *Problem {
	p.RetryAfterSeconds = retryAfterSeconds
	return p
}

func overloaded(detail string) *Problem {
	return problem(http.StatusTooManyRequests, codeOverloaded, detail).retry()
}

func unavailable(detail string) *Problem {
	return problem(http.StatusServiceUnavailable, codeUnavailable, detail).retry()
}

func (p *Problem) write(w http.ResponseWriter) { p.Write(w, p) }

// clip shortens foreign text.
func clip(text string) string {
	const most = 64
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
