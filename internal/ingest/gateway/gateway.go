// Package gateway brings requests from memory to whoever owns their partition, and their outcomes
// back.
//
// # Two ways
//
// Where this instance owns the partition, a request goes straight into the owner's queue and
// becomes no record (the fast path of DESIGN §5). Elsewhere it is recorded on the category's
// commands topic, and the answer comes back through one partition of <ns>.replies that this
// instance reads by assignment (the slow path):
//
//	Do ─► engine.Submit ─► outcome
//	        │ ErrNotOwner
//	        └─► <ns>.<category>.commands ─► owner ─► <ns>.replies/p ─► Run ─► outcome
//
// The partition p is drawn once for the instance. It is read from its end as it was before the
// first request was sent; answers that carry another instance's key are dropped.
//
// # Sent again
//
// No answer means "unknown" and is asked for again under the same id, with the same bytes. A
// request that left no event is not remembered by its stream and would be decided anew, so its
// answer counts only when it answers the last sending:
//
//	sending 1 is rejected, its answer is on its way; sending 2 leaves
//	the answer to sending 1 comes: rejected
//	sending 2 is decided anew, on a newer state: accepted
//
// Likewise, once a request has been recorded it is not tried in memory any more: the record may be
// decided after it. Sendings of one request stand in order, since they go to one partition by one
// producer.
//
// An id is remembered beyond the stream's window as long as it may be sent again: requests carry
// fs-dedupe-until. On a stream with very many requests a second that would fill the stream's
// memory; its requests go without, and an unknown outcome in memory is handed out as it is.
//
// # Concurrency
//
// Do is called from any number of goroutines. Run reads the answers; it is called once and returns
// after its context ended and the requests under way have their outcomes, or a bounded time later.
package gateway

import (
	"context"
	"errors"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/pkg/event"
)

// Request is one request and its bytes.
type Request struct {
	Category string
	StreamID string
	// Request's ID is the idempotency key. Its reply headers and Attempt are set here.
	Request event.Request
	Value   []byte // framed Avro; not to be changed any more
	// FreshID says that the id was made up for this call: a duplicate can then only be of an
	// earlier sending of this very call, and is told as accepted.
	FreshID bool
}

// ErrOverloaded: the limits of what waits here are reached. The request is certainly not stored by
// this call.
var ErrOverloaded = errors.New("too many requests wait here")

// Gateway brings requests to their owners.
type Gateway struct{}

// Do brings a request to its owner and waits for the outcome, until ctx ends: then the outcome is
// unknown. Errors are ErrOverloaded and infrastructure.
func (g *Gateway) Do(ctx context.Context, r Request) (engine.Outcome, error) {
	return engine.Outcome{}, nil
}
