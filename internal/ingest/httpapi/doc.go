// Package httpapi is the write side over HTTP (docs/http-api.md): appends, commands, reads of
// single streams, live subscriptions.
//
// # Shape
//
// Every operation is a route: an OpenAPI operation, and a plain handler that answers or returns an
// error. The document is huma's, the bodies of the busy operations are read by a scanner of our
// own (scanner.go), since reflection over each body would cost more than all else:
//
//	guard ─► body ─► envelope ─► schema and kind of each type ─► Avro ─► gateway ─► answer
//
// The guard (guard.go) is before all routes: token, limits in count and bytes, panics, metrics.
// Every refusal is a problem document with a code; faults of a body carry the path of the value,
// such as "body.events[2].data.amount".
//
// # Concurrency
//
// An API is immutable once made but for its counters, and is used by any number of goroutines.
// Requests of one batch run beside each other, those of one stream in the order sent.
//
// # Files
//
//	api.go       configuration, construction
//	routes.go    how a route is registered
//	guard.go     what stands before each handler
//	problem.go   problem documents
//	params.go    paths and queries
//	openapi.go   the document
//
// Writes:
//
//	body.go             bodies in memory, within the limits
//	scanner.go          JSON, value by value
//	envelope.go         bodies taken apart
//	payload.go          data to Avro; what goes to the gateway
//	write.go            append, append to many, command
//	answer.go           outcomes as answers
//	openapi_writes.go   their part of the document
//
// Reads:
//
//	read.go         events of a stream, outcome of a command
//	readparams.go   their parameters
//	readjson.go     pages of events as JSON
//	state.go        state of a stream
//	subscribe.go    subscriptions
package httpapi
