// Package client is the write side for Go programs: append events, send commands, read streams,
// follow a category. It speaks Kafka, or HTTP when it is given a URL; what a caller sees is the
// same, but for what this page names.
//
//	c, err := client.New(ctx, client.Config{URL: "http://localhost:8080", Types: types})
//	outcome, err := c.Append(ctx, stream, event.ExpectedNone, []client.NewEvent{{Data: Placed{…}}})
//
// # A request's way
//
// Append and Dispatch encode a request once and wait for its outcome. A sending whose outcome is
// unknown, or that nobody had room for, is repeated with the same id and the same bytes, so that
// it is done once, whatever became of the first:
//
//	send r ──► appended ──► the answer is lost
//	1 s later: send r again ──► "duplicate", with the versions of the first
//
// When every attempt has gone by, the error wraps [ErrUnknownOutcome] and names the id: the caller
// sends the request again under that id ([WithID]), or looks it up ([Client.Lookup]). Requests
// that are conflicts, rejected or invalid are answered by [ConflictError], [RejectedError] and
// [InvalidError], and are not repeated.
//
// # Reading
//
// Over HTTP, reads are served from the index of the events and see all that was acknowledged
// before. Over Kafka alone there is no index: Load, Events, State and Lookup read the stream's
// partition from its start, which is correct and takes as long as the partition is big
// (Config.ScanBytesMax bounds it).
//
// # Subscribing
//
// [Client.Subscribe] hands the events of a category to a function, at least once, those of one
// stream in order. Over Kafka its place is the commit of a consumer group; over HTTP it is kept
// in the caller's [Checkpoints]. Records that an owner of old wrote are never handed on over
// Kafka either (the void rule of the wire format).
//
// # Concurrency
//
// All methods of a Client may be called from any goroutine. It runs a goroutine for replies and
// for batches once they are used, and some for each subscription; Close ends them. Queues,
// requests in flight and scans have limits, which Config names.
package client
