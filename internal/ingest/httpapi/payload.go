package httpapi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/google/uuid"
)

// bareHeadersMax is how much metadata a single event may have to be a record by itself: all headers
// of a request together are limited. With more it goes into a foldstream.Append.
const bareHeadersMax = 32

// builder makes one request of what a body has.
type builder struct {
	api    *API
	ctx    context.Context
	stream event.StreamID
	kind   event.Kind // wanted
	at     string     // path of the events: body.events, body.requests[3].events; of a command body
	code   string     // of the first fault
	faults []Fault
}

func (b *builder) fault(code, location, message string) {
	if b.code == "" {
		b.code = code
	}
	if len(b.faults) < faultsMax {
		b.faults = append(b.faults, Fault{Location: location, Message: message})
	}
}

// location of the event with an index, and of what is in it.
func (b *builder) location(index int, member string) string {
	if b.kind == event.KindCommand {
		return b.at + "." + member
	}
	return fmt.Sprintf("%s[%d].%s", b.at, index, member)
}

// build makes the gateway's request. Faults are those of types and data, all of them.
func (b *builder) build(in *appendIn, request event.Request, fresh bool) (gateway.Request, error) {
	r := gateway.Request{Category: b.stream.Category, StreamID: b.stream.ID, Request: request, FreshID: fresh}
	r.Request.Expected = in.expected
	var err error
	switch {
	case len(in.events) == 0:
		b.fault(engine.CodeEmptyAppend, b.at, fmt.Sprintf("has no event: want 1 to %d", eventsMax))
	case b.kind == event.KindCommand || isBare(in.events, request.ID):
		err = b.bare(&r, &in.events[0])
	default:
		err = b.envelope(&r, in.events)
	}
	if err == nil && len(b.faults) > 0 {
		err = b.problem(request.ID)
	}
	return r, err
}

func (b *builder) problem(commandID string) error {
	p := faulty(b.code, b.faults...)
	p.Outcome, p.CommandID = string(engine.OutcomeInvalid), commandID
	return p
}

// isBare says whether events can be one record by itself: a bare event's id is its request's.
func isBare(events []eventIn, requestID string) bool {
	e := &events[0]
	return len(events) == 1 && (e.id == "" || e.id == requestID) && len(e.metadata) <= bareHeadersMax
}

// bare is one event or command.
func (b *builder) bare(r *gateway.Request, e *eventIn) error {
	reg, err := b.registered(0, e)
	if err != nil || reg == nil {
		return err
	}
	value := codec.AppendConfluent(make([]byte, 0, codec.ConfluentHeaderBytes+len(e.data)), reg.ID)
	if r.Value, err = b.encode(value, reg, 0, e); err != nil {
		return err
	}
	r.Request.Type, r.Request.Time = reg.Type, e.time
	r.Request.Extra = headersOf(e.metadata)
	return nil
}

// headersOf is metadata as headers, in the order of the names.
func headersOf(metadata map[string]string) []event.Header {
	if len(metadata) == 0 {
		return nil
	}
	headers := make([]event.Header, 0, len(metadata))
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		headers = append(headers, event.Header{Key: name, Value: []byte(metadata[name])})
	}
	return headers
}

// envelope is several events, as a foldstream.Append.
func (b *builder) envelope(r *gateway.Request, events []eventIn) error {
	items := make([]codec.AppendItem, len(events))
	bytes := 0
	for i := range events {
		bytes += len(events[i].data)
	}
	data := make([]byte, 0, bytes)
	ends := make([]int, len(events))
	for i := range events {
		e := &events[i]
		reg, err := b.registered(i, e)
		if err != nil {
			return err
		}
		if reg == nil {
			continue
		}
		if data, err = b.encode(data, reg, i, e); err != nil {
			return err
		}
		ends[i] = len(data)
		items[i] = codec.AppendItem{Type: reg.Type, ID: e.id, SchemaID: reg.ID, Metadata: e.metadata}
		if e.time.IsZero() {
			continue
		}
		if items[i].Time = e.time.UnixMicro(); items[i].Time == 0 { // which is how a foldstream.Append says that there is none
			b.fault(engine.CodePayload, b.location(i, "time"), "the first microsecond of 1970 means no time among several events: send the event alone")
		}
	}
	if len(b.faults) > 0 {
		return nil
	}
	for i := range items {
		items[i].Data = data[startOf(ends, i):ends[i]]
	}
	binding, err := b.api.appendBinding(b.ctx)
	if err != nil {
		return err
	}
	const perItem = 96 // names, lengths, id, time
	r.Request.Type = codec.TypeAppend
	r.Value, err = binding.Append(make([]byte, 0, len(data)+perItem*len(items)), codec.AppendEnvelope{Events: items})
	return err
}

func startOf(ends []int, i int) int {
	if i == 0 {
		return 0
	}
	return ends[i-1]
}

// registered is the latest schema of an event's type; nil with a fault noted where there is none.
func (b *builder) registered(i int, e *eventIn) (*codec.Registered, error) {
	category := b.stream.Category
	if len(e.typ) <= len(category)+1 || !strings.HasPrefix(e.typ, category) || e.typ[len(category)] != '.' {
		b.fault(engine.CodeType, b.location(i, "type"), fmt.Sprintf("%q is none of category %s: its types are named %s.<Name>", web.Clip(e.typ), category, category))
		return nil, nil
	}
	reg, err := b.api.cfg.Registry.Latest(b.ctx, e.typ)
	switch {
	case errors.Is(err, codec.ErrUnknownSchema):
		b.fault(engine.CodeType, b.location(i, "type"), fmt.Sprintf("%q is not registered: add its schema to the project", web.Clip(e.typ)))
		return nil, nil
	case err != nil:
		return nil, err
	case reg.Kind != b.kind:
		b.fault(engine.CodeKind, b.location(i, "type"), fmt.Sprintf("%s is registered as %s: %s", e.typ, reg.Kind, sentTo(reg.Kind)))
		return nil, nil
	}
	return reg, nil
}

// sentTo says where a type of a kind belongs.
func sentTo(kind event.Kind) string {
	switch kind {
	case event.KindCommand:
		return "send it to /v1/commands/{category}/{id}"
	case event.KindEvent:
		return "send it to /v1/streams/{category}/{id}/events"
	}
	return "it cannot be sent"
}

// encode appends the Avro body of an event's data; its faults are noted.
func (b *builder) encode(dst []byte, reg *codec.Registered, i int, e *eventIn) ([]byte, error) {
	out, err := b.api.cfg.Codec.EncodeJSON(dst, reg, e.data)
	if err == nil {
		return out, nil
	}
	var bad *codec.JSONError
	if !errors.As(err, &bad) {
		if errors.Is(err, codec.ErrBadData) {
			b.fault(engine.CodePayload, b.location(i, "data"), err.Error())
			return dst, nil
		}
		return dst, err
	}
	for _, f := range bad.Faults {
		b.fault(engine.CodePayload, joinPath(b.location(i, "data"), f.Path), f.Message)
	}
	return dst, nil
}

// joinPath puts a path inside a value behind the value's own.
func joinPath(base, path string) string {
	switch {
	case path == "":
		return base
	case path[0] == '[':
		return base + path
	}
	return base + "." + path
}

// appendBinding is the binding of foldstream.Append, made once.
func (a *API) appendBinding(ctx context.Context) (*codec.Binding, error) {
	return bind(ctx, &a.envelope, a.cfg.Codec, codec.AppendDef())
}

// batchBinding is that of foldstream.AppendBatch.
func (a *API) batchBinding(ctx context.Context) (*codec.Binding, error) {
	return bind(ctx, &a.batch, a.batchCodec, codec.AppendBatchDef())
}

func bind(ctx context.Context, held *atomic.Pointer[codec.Binding], cdc *codec.Codec, def codec.TypeDef) (*codec.Binding, error) {
	if b := held.Load(); b != nil {
		return b, nil
	}
	b, err := cdc.Bind(ctx, def)
	if err != nil {
		return nil, err
	}
	held.Store(b)
	return b, nil
}

// requestOf reads the headers that every write takes. The id is made up where there is none.
func (a *API) requestOf(r *http.Request) (request event.Request, fresh bool, err error) {
	var faults []Fault
	read := func(name string, bytesMax int) string {
		values := r.Header[textproto.CanonicalMIMEHeaderKey(name)]
		switch {
		case len(values) == 0:
			return ""
		case len(values) > 1:
			faults = append(faults, Fault{Location: "header." + name, Message: "stands twice"})
		default:
			if reason := textFault(values[0], bytesMax); reason != "" {
				faults = append(faults, Fault{Location: "header." + name, Message: reason})
			}
		}
		return values[0]
	}
	request.ReplyTo.Partition = -1
	request.ID = read("Idempotency-Key", event.IDBytesMax)
	request.CorrelationID = read("ce-correlationid", event.HeaderValueBytesMax)
	request.CausationID = read("ce-causationid", event.HeaderValueBytesMax)
	request.UserID = read("ce-userid", event.HeaderValueBytesMax)
	request.Traceparent = read("traceparent", event.HeaderValueBytesMax)
	if len(faults) > 0 {
		return request, false, faulty(engine.CodeHeader, faults...)
	}
	if request.ID == "" {
		request.ID, fresh = a.newID(), true
	}
	return request, fresh, nil
}

// newID is a UUID of version 7: those of one time stand together in an index.
func (a *API) newID() string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	ms := uint64(a.cfg.Clock().UnixMilli())
	id[0], id[1], id[2], id[3], id[4], id[5] = byte(ms>>40), byte(ms>>32), byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms)
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// reasonOf is the reason of a header's fault, without the header's name.
func reasonOf(err error) string {
	var fault *event.HeaderError
	if errors.As(err, &fault) {
		return fault.Reason
	}
	return err.Error()
}

func isBadData(err error) bool { return errors.Is(err, codec.ErrBadData) }
