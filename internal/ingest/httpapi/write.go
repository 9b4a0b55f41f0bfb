package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

func (a *API) registerWrites() {
	a.register(route{operation: a.appendOperation(), serve: a.append})
	a.register(route{operation: a.batchOperation(), serve: a.appendBatch})
	a.register(route{operation: a.commandOperation(), serve: a.command})
}

// timeoutOf bounds a request's wait for its outcome.
func (a *API) timeoutOf(r *http.Request) (time.Duration, error) {
	if r.URL.RawQuery == "" {
		return a.cfg.Limits.RequestTimeout, nil
	}
	values, err := query(r, "timeout")
	if err != nil {
		return 0, err
	}
	return durationParam(values, "timeout", a.cfg.Limits.RequestTimeout, TimeoutMax)
}

// append is POST /v1/streams/{category}/{id}/events.
func (a *API) append(w http.ResponseWriter, r *http.Request) error {
	return a.write(w, r, event.KindEvent, parseAppend)
}

// command is POST /v1/commands/{category}/{id}.
func (a *API) command(w http.ResponseWriter, r *http.Request) error {
	return a.write(w, r, event.KindCommand, parseCommand)
}

// write takes one request for one stream.
func (a *API) write(w http.ResponseWriter, r *http.Request, kind event.Kind, parse func([]byte) (appendIn, *Fault)) error {
	stream, err := a.streamOf(r)
	if err != nil {
		return err
	}
	timeout, err := a.timeoutOf(r)
	if err != nil {
		return err
	}
	request, fresh, err := a.requestOf(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	made, err := a.made(ctx, r, stream, kind, request, fresh, parse)
	if err != nil {
		return err
	}
	outcome, err := a.cfg.Gateway.Do(ctx, made)
	res, err := resultOf(outcome, err, request.ID, root)
	if err != nil {
		return err
	}
	return res.write(w)
}

// made reads the body and makes the gateway's request of it; the body's memory is free then.
func (a *API) made(ctx context.Context, r *http.Request, stream event.StreamID, kind event.Kind, request event.Request, fresh bool, parse func([]byte) (appendIn, *Fault)) (gateway.Request, error) {
	body, _, err := a.readBody(r, a.cfg.Limits.BodyBytesMax, mediaJSON)
	if err != nil {
		return gateway.Request{}, err
	}
	defer body.release()
	in, fault := parse(body.bytes)
	if fault != nil {
		return gateway.Request{}, faulty(codeBody, *fault)
	}
	b := builder{api: a, ctx: ctx, stream: stream, kind: kind, at: root}
	if kind == event.KindEvent {
		b.at = root + ".events"
	}
	return b.build(&in, request, fresh)
}

// appendBatch is POST /v1/append.
func (a *API) appendBatch(w http.ResponseWriter, r *http.Request) error {
	timeout, err := a.timeoutOf(r)
	if err != nil {
		return err
	}
	shared, _, err := a.requestOf(r)
	if err != nil {
		return err
	}
	if _, sent := r.Header["Idempotency-Key"]; sent {
		return faulty(engine.CodeHeader, Fault{Location: "header.Idempotency-Key", Message: "has no meaning for a batch: give each request a commandId"})
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	batch, err := a.batchOf(ctx, r, shared)
	if err != nil {
		return err
	}
	if err := batch.do(ctx); err != nil {
		return err
	}
	batch.write(w)
	return nil
}

// batch is many appends on their way, each with its result.
type batch struct {
	api      *API
	requests []gateway.Request
	results  []result // status 0: not known yet
}

// batchOf reads the body and makes the requests; the body's memory is free then.
func (a *API) batchOf(ctx context.Context, r *http.Request, shared event.Request) (*batch, error) {
	body, media, err := a.readBody(r, a.cfg.Limits.BatchBytesMax, mediaJSON, mediaAvro)
	if err != nil {
		return nil, err
	}
	defer body.release()
	if media == mediaAvro {
		return a.avroBatch(ctx, body.bytes, shared)
	}
	in, fault := parseBatch(body.bytes)
	if fault != nil {
		return nil, faulty(codeBody, *fault)
	}
	b := a.newBatch(len(in))
	for i := range in {
		at := root + ".requests[" + strconv.Itoa(i) + "]"
		request, fresh := a.named(shared, in[i].commandID)
		build := builder{api: a, ctx: ctx, stream: in[i].stream, kind: event.KindEvent, at: at + ".events"}
		if err := a.batchTarget(in[i].stream, request.ID, at); err != nil {
			b.refuse(i, request.ID, err)
			continue
		}
		made, err := build.build(&in[i], request, fresh)
		if err := b.take(i, made, err); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (a *API) newBatch(n int) *batch {
	return &batch{api: a, requests: make([]gateway.Request, n), results: make([]result, n)}
}

// named is the shared request with an id of its own.
func (a *API) named(shared event.Request, id string) (_ event.Request, fresh bool) {
	shared.ID = id
	if id == "" {
		shared.ID = a.newID()
	}
	return shared, id == ""
}

// batchTarget checks what a path checks for a single request; at is the request's path.
func (a *API) batchTarget(stream event.StreamID, commandID, at string) error {
	if err := a.knowsCategory(stream.Category); err != nil {
		return err
	}
	if err := event.ValidateID(stream.ID); err != nil {
		return faulty(engine.CodeKey, Fault{Location: at + ".id", Message: err.Error()})
	}
	if reason := textFault(commandID, event.IDBytesMax); reason != "" {
		return faulty(engine.CodeHeader, Fault{Location: at + ".commandId", Message: reason})
	}
	return nil
}

// take keeps a request, or its problem as its result; other errors end the batch.
func (b *batch) take(i int, made gateway.Request, err error) error {
	if err == nil {
		b.requests[i] = made
		return nil
	}
	if p, is := err.(*Problem); is { //nolint:errorlint // made here, never wrapped
		b.refuse(i, made.Request.ID, p)
		return nil
	}
	return err
}

func (b *batch) refuse(i int, commandID string, err error) {
	p := err.(*Problem) //nolint:errorlint // made here, never wrapped
	p.CommandID = commandID
	b.results[i] = result{status: p.Status, problem: p, commandID: commandID}
}

// avroBatch takes a foldstream.AppendBatch.
func (a *API) avroBatch(ctx context.Context, value []byte, shared event.Request) (*batch, error) {
	binding, err := a.batchBinding(ctx)
	if err != nil {
		return nil, err
	}
	payload, err := a.batchCodec.Inspect(ctx, codec.TypeAppendBatch, value)
	if err != nil {
		return nil, badAvro(err)
	}
	decoded, err := binding.Decode(payload)
	if err != nil {
		return nil, badAvro(err)
	}
	in := decoded.(codec.AppendBatch)
	if err := checkBatch(in); err != nil {
		return nil, err
	}
	b := a.newBatch(len(in.Requests))
	for i := range in.Requests {
		q := &in.Requests[i]
		at := root + ".requests[" + strconv.Itoa(i) + "]"
		request, fresh := a.named(shared, q.ID)
		stream := event.StreamID{Category: q.Category, ID: q.StreamID}
		if err := a.batchTarget(stream, request.ID, at); err != nil {
			b.refuse(i, request.ID, err)
			continue
		}
		made, err := a.avroRequest(ctx, q, request, fresh, at)
		if err := b.take(i, made, err); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func badAvro(err error) error {
	if isBadData(err) {
		return faulty(codeBody, Fault{Location: root, Message: err.Error()})
	}
	return err
}

func checkBatch(in codec.AppendBatch) error {
	events := 0
	for i := range in.Requests {
		if len(in.Requests[i].Events) > eventsMax {
			return faulty(codeBody, Fault{Location: fmt.Sprintf("%s.requests[%d].events", root, i), Message: fmt.Sprintf("has %d events, at most %d are allowed", len(in.Requests[i].Events), eventsMax)})
		}
		events += len(in.Requests[i].Events)
	}
	if n := len(in.Requests); n == 0 || n > requestsMax || events > batchEventsMax {
		return faulty(codeBody, Fault{Location: root + ".requests", Message: fmt.Sprintf("has %d requests with %d events: want 1 to %d with at most %d", n, events, requestsMax, batchEventsMax)})
	}
	return nil
}

// avroRequest makes the gateway's request of one of an AppendBatch. Schemas and bodies are the
// engine's to check.
func (a *API) avroRequest(ctx context.Context, q *codec.AppendBatchRequest, request event.Request, fresh bool, at string) (gateway.Request, error) {
	r := gateway.Request{Category: q.Category, StreamID: q.StreamID, Request: request, FreshID: fresh}
	expected, err := event.ParseExpected(q.Expected)
	if err != nil {
		return r, invalidRequest(engine.CodeHeader, at+".expectedVersion", err.Error())
	}
	r.Request.Expected = expected
	if len(q.Events) == 0 {
		return r, invalidRequest(engine.CodeEmptyAppend, at+".events", fmt.Sprintf("has no event: want 1 to %d", eventsMax))
	}
	for i := range q.Events {
		if err := codec.CheckMetadata(q.Events[i].Metadata); err != nil {
			return r, invalidRequest(engine.CodeHeader, fmt.Sprintf("%s.events[%d].metadata", at, i), err.Error())
		}
	}
	if e := &q.Events[0]; len(q.Events) == 1 && (e.ID == "" || e.ID == request.ID) && len(e.Metadata) <= bareHeadersMax {
		r.Request.Type, r.Value = e.Type, append(codec.AppendConfluent(make([]byte, 0, codec.ConfluentHeaderBytes+len(e.Data)), e.SchemaID), e.Data...)
		if reason := textFault(e.Type, event.TypeBytesMax); reason != "" {
			return r, invalidRequest(engine.CodeType, at+".events[0].type", reason)
		}
		if e.Time != 0 {
			r.Request.Time = time.UnixMicro(e.Time).UTC()
		}
		r.Request.Extra = headersOf(e.Metadata)
		return r, nil
	}
	binding, err := a.appendBinding(ctx)
	if err != nil {
		return r, err
	}
	r.Request.Type = codec.TypeAppend
	if r.Value, err = binding.Append(nil, codec.AppendEnvelope{Events: q.Events}); err != nil {
		return r, invalidRequest(engine.CodePayload, at+".events", err.Error())
	}
	return r, nil
}

func invalidRequest(code, location, message string) *Problem {
	p := faulty(code, Fault{Location: location, Message: message})
	p.Outcome = string(engine.OutcomeInvalid)
	return p
}

// do brings all requests to their owners and waits. Those of one stream go one after the other, in
// the order sent; streams go beside each other.
func (b *batch) do(ctx context.Context) error {
	n := int64(len(b.requests))
	defer b.api.inBatches.Add(-n)
	if b.api.inBatches.Add(n) > inBatchesMax {
		return overloaded("the batches that are worked on have as many requests as may be: come again")
	}
	lanes := b.lanes()
	var next atomic.Int64
	var workers sync.WaitGroup
	var panicked atomic.Pointer[web.Panicked]
	for range min(len(lanes), batchWorkers) {
		workers.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					panicked.Store(&web.Panicked{Value: v, Frames: web.PanicFrames(1)})
				}
			}()
			for lane := next.Add(1) - 1; lane < int64(len(lanes)); lane = next.Add(1) - 1 {
				for _, i := range lanes[lane] {
					b.one(ctx, i)
				}
			}
		})
	}
	workers.Wait()
	if p := panicked.Load(); p != nil {
		panic(p) // the net is under the handler's goroutine alone
	}
	return nil
}

// lanes groups the requests that are to be sent by stream.
func (b *batch) lanes() [][]int {
	lanes := make([][]int, 0, len(b.requests))
	byStream := make(map[event.StreamID]int, len(b.requests))
	for i := range b.requests {
		if b.results[i].status != 0 {
			continue
		}
		stream := event.StreamID{Category: b.requests[i].Category, ID: b.requests[i].StreamID}
		lane, there := byStream[stream]
		if !there {
			lane = len(lanes)
			byStream[stream] = lane
			lanes = append(lanes, nil)
		}
		lanes[lane] = append(lanes[lane], i)
	}
	return lanes
}

// one brings one request to its owner. What goes wrong is that request's alone.
func (b *batch) one(ctx context.Context, i int) {
	r := &b.requests[i]
	outcome, err := b.api.cfg.Gateway.Do(ctx, *r)
	res, err := resultOf(outcome, err, r.Request.ID, root+".requests["+strconv.Itoa(i)+"]")
	if err != nil {
		b.api.log.Warn("a request of a batch could not be answered", "category", r.Category, "err", err)
		p := unavailable()
		p.CommandID = r.Request.ID
		res = result{status: p.Status, problem: p, commandID: r.Request.ID}
	}
	b.results[i] = res
}

// write answers with all results.
func (b *batch) write(w http.ResponseWriter) {
	const perResult = 160
	text := append(make([]byte, 0, 32+perResult*len(b.results)), `{"results":[`...)
	for i := range b.results {
		if i > 0 {
			text = append(text, ',')
		}
		text = b.results[i].appendResult(text)
	}
	writeJSON(w, http.StatusOK, append(text, ']', '}', '\n'))
}
