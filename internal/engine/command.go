package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// command is one record of a commands topic on its way through the owner.
type command struct {
	record   *kgo.Record
	request  event.Request
	faults   error // of the headers
	parsed   bool
	phase    phase
	outcome  Outcome
	letter   error           // why a letter is written before the answer; nil for none
	redo     bool            // decided again after a refusal: appended with nothing else under way
	direct   chan<- answered // of a submission; nil for a record of a commands topic
	previous undo            // what to take back when its batch is refused

	replyFault  error      // why its reply topic may not be named
	originNoted bool       // its origin counts as seen because of itself
	key         commandKey // of its id in windows, once keyed
	keyed       bool
	id          string // of its stream, see streamID
	lastEventID string // of the events that are under way
	after       []byte // the stream's encoded state behind them
	// decidedThrough is for a submission, see owner.decidedThrough.
	decidedThrough int64
}

// phase is how far a command has come. Only the owner's goroutine changes it.
type phase uint8

const (
	phaseWaiting  phase = iota // not decided yet
	phaseDecided               // its events are on their way, or its answer waits for a proof
	phaseAnswered              // its outcome is final; reply, letter or re-route under way
	phaseDone                  // the group offset may pass it
)

// again readies a command to be decided once more.
func (c *command) again() {
	c.phase = phaseWaiting
	c.outcome, c.letter, c.previous, c.after = Outcome{}, nil, undo{}, nil
}

// windowKey stands for the command's id in its stream's window.
func (c *command) windowKey() commandKey {
	if !c.keyed {
		c.key, c.keyed = keyOf(c.request.ID), true
	}
	return c.key
}

func (c *command) stream(category string) event.StreamID {
	return event.StreamID{Category: category, ID: c.streamID()}
}

// streamID is the record's key as text, made once.
func (c *command) streamID() string {
	if c.id == "" {
		c.id = string(c.record.Key)
	}
	return c.id
}

// undo is a stream as it was before a command that is not acknowledged yet.
type undo struct {
	stream  *stream
	id      string
	version event.Version
	state   []byte
}

// verdict is what deciding one command comes to.
type verdict struct {
	kind    verdictKind
	outcome Outcome // verdictAnswer
	letter  error   // verdictAnswer: why a letter is written, nil for none
	target  int32   // verdictReroute
	events  []pendingEvent
	state   any // decider mode: the state after the events
	hash    [16]byte
	stream  *stream // that it was decided on, nil for a new one
}

type verdictKind uint8

const (
	verdictAnswer  verdictKind = iota // no event: answered once ownership is proven (W15)
	verdictAppend                     // events to append
	verdictReroute                    // another partition's command (W14)
	verdictDrop                       // a re-route that came twice: the first one is answered
)

// pendingEvent is an event before it has its version.
type pendingEvent struct {
	typ     string
	id      string
	time    time.Time
	value   []byte         // Confluent-framed
	headers []event.Header // of this event alone
}

func answer(o Outcome) verdict { return verdict{kind: verdictAnswer, outcome: o} }

func refuse(code string, err error) verdict {
	return verdict{kind: verdictAnswer, outcome: invalid(code, err), letter: deadletter.Parked(deadletter.StageDecode, code, err)}
}

// evaluate decides one command against the speculative state of its stream (every event decided
// before it, acknowledged or not). It changes nothing. An error is infrastructure or the
// decider's own: the command is tried again, in its place.
func (o *owner) evaluate(c *command) (verdict, error) {
	key := c.record.Key
	if fault := event.ValidateID(c.streamID()); fault != nil {
		return refuse(CodeKey, fault), nil
	}
	if target := topics.Partition(key, o.partitions); target != o.partition {
		return verdict{kind: verdictReroute, target: target}, nil
	}
	if c.faults != nil {
		return refuse(CodeHeader, c.faults), nil //nolint:nilerr // the faults are the answer
	}
	if fault := o.checkOrigin(c.request.Origin); fault != nil {
		return refuse(CodeHeader, fault), nil
	}
	if v, done := o.evaluateOrigin(c); done {
		return v, nil
	}
	if code, err := o.checkRequest(c); err != nil {
		return refuse(code, err), nil
	}
	payload, err := o.category.codec.Inspect(o.ctx, c.request.Type, c.record.Value)
	if err != nil {
		if !errors.Is(err, codec.ErrBadData) {
			return verdict{}, err
		}
		return refuse(codeOf(err), err), nil
	}
	if err := o.checkKind(c.request.Type, payload.Registered.Kind); err != nil {
		return refuse(CodeKind, err), nil
	}
	var hash [16]byte
	hash, o.hashScratch = contentHash(o.hashScratch, c.request.Type, c.request.Expected.String(),
		payload.Registered.Schema.Fingerprint(), payload.Body)
	s := o.table.get(c.streamID())
	if v, done := o.evaluateRepeated(c, s, hash); done {
		return v, nil
	}
	var actual event.Version
	if s != nil {
		actual = s.version
	}
	if !c.request.Expected.Holds(actual) {
		return answer(Outcome{Kind: OutcomeConflict, Actual: actual, Partition: o.partition, Offset: -1}), nil
	}
	if v, full := o.evaluateCapacity(c, s); full {
		return v, nil
	}
	v, err := o.evaluatePayload(c, s, payload)
	v.hash, v.stream = hash, s
	return v, err
}

// evaluateOrigin is PROTOCOL W14: a re-route at or below the highest seen from its partition was
// handled already:
//
//	re-router appends command c here, dies before its group offset passes c
//	its successor reads c again and re-routes it again
//	without the origin, an id that left no event would be decided twice
func (o *owner) evaluateOrigin(c *command) (verdict, bool) {
	origin := c.request.Origin
	if origin == nil {
		return verdict{}, false
	}
	if high, seen := o.origins[originOf(*origin)]; seen && origin.Offset <= high && !c.originNoted {
		return verdict{kind: verdictDrop}, true
	}
	return verdict{}, false
}

// checkOrigin refuses an origin that no re-router of ours can have written: it would make us drop
// re-routes that come after it.
func (o *owner) checkOrigin(origin *event.Origin) error {
	switch {
	case origin == nil:
		return nil
	case origin.TopicID != o.topics.commandsID:
		return &event.HeaderError{Header: event.HeaderOrigin, Reason: "names another topic: it is for ingest to set, leave it out"}
	case origin.Partition == o.partition || origin.Partition >= o.partitions:
		return &event.HeaderError{Header: event.HeaderOrigin, Reason: "names a partition that re-routes nothing here: it is for ingest to set, leave it out"}
	}
	return nil
}

func (o *owner) checkRequest(c *command) (string, error) {
	r := &c.request
	if c.replyFault != nil {
		return CodeReplyTo, c.replyFault
	}
	if !r.DedupeUntil.IsZero() && r.DedupeUntil.After(o.logTime().Add(event.DedupeAheadMax+dedupeAheadSlack)) {
		return CodeDedupeUntil, fmt.Errorf("%s %s is more than %s ahead", event.HeaderDedupeUntil, event.FormatTime(r.DedupeUntil), event.DedupeAheadMax)
	}
	if !timeFits(c.time()) {
		return CodeHeader, fmt.Errorf("header %s is missing, and the record's own stamp, %d ms, is outside the years 1 to 9999", event.HeaderTime, c.record.Timestamp.UnixMilli())
	}
	if c.record.Value == nil {
		return CodeTombstone, errors.New("value is null: a commands topic takes no tombstones")
	}
	if r.Type != codec.TypeAppend && r.Type != codec.TypeAppendBatch && !o.category.owns(r.Type) {
		return CodeType, fmt.Errorf("type %q is none of category %s: its types are named %s.<Name>", r.Type, o.category.Name, o.category.Name)
	}
	return "", nil
}

func (o *owner) replyTopicAllowed(topic string) bool {
	replies := topics.Replies(o.namespace)
	return topic == replies || strings.HasPrefix(topic, replies+".") ||
		(strings.HasPrefix(topic, o.namespace+".saga.") && strings.HasSuffix(topic, ".commands"))
}

// checkKind says whether a type of this kind may be sent to this category.
func (o *owner) checkKind(typ string, kind event.Kind) error {
	switch {
	case kind == event.KindCommand && o.category.Decider != nil:
		return nil
	case kind == event.KindEvent || typ == codec.TypeAppend:
		if o.category.Decider == nil || o.category.AllowAppends {
			return nil
		}
		return fmt.Errorf("category %s is decided by a decider and takes no raw appends: send a command, or set allow_appends in foldstream.yaml", o.category.Name)
	case kind == event.KindCommand:
		return fmt.Errorf("category %s is in append mode and decides no commands: send events, or give it a decider", o.category.Name)
	}
	return fmt.Errorf("type %s is registered as %s, which cannot be sent", typ, kind)
}

// evaluateRepeated answers a command id that the stream remembers.
func (o *owner) evaluateRepeated(c *command, s *stream, hash [16]byte) (verdict, bool) {
	if s == nil {
		return verdict{}, false
	}
	known := s.window.find(c.windowKey(), o.category.limits, o.turnLogTime())
	if known == nil {
		return verdict{}, false
	}
	if known.hash != hash {
		return answer(invalid(CodeIDReused, fmt.Errorf("id %q came before with another type, expected version or payload: give a new request a new id", c.request.ID))), true
	}
	return answer(Outcome{Kind: OutcomeDuplicate, First: known.first, Last: known.last(), Partition: o.partition, Offset: known.offset}), true
}

func (o *owner) evaluateCapacity(c *command, s *stream) (verdict, bool) {
	if s == nil && o.budget.exceeded() {
		return answer(rejected(CodeCapacity, "the state budget of this instance is used up: it takes no new streams; raise ingest.state_bytes_max or add instances")), true
	}
	if s != nil && !c.request.DedupeUntil.IsZero() && s.window.len() >= o.category.limits.idsHardMax {
		return answer(rejected(CodeCapacity, fmt.Sprintf("the stream remembers %d command ids, the most it may: send without %s, or less often", s.window.len(), event.HeaderDedupeUntil))), true
	}
	return verdict{}, false
}

func (o *owner) evaluatePayload(c *command, s *stream, payload codec.Payload) (verdict, error) {
	var v verdict
	var err error
	switch {
	case c.request.Type == codec.TypeAppend:
		v, err = o.evaluateAppend(c, s, payload)
	case payload.Registered.Kind == event.KindEvent:
		v, err = o.evaluateEvents(c, s, []pendingEvent{{typ: c.request.Type, id: c.request.ID, time: c.time(), value: confluentOf(c.record.Value, payload)}})
	default:
		v, err = o.evaluateCommand(c, s, payload)
	}
	if err != nil || v.kind != verdictAppend {
		return v, err
	}
	if size := batchBytes(c, v.events); size > o.batchBytesMax {
		return refuse(CodeTooLarge, fmt.Errorf("the events have about %d bytes, a record batch takes %d: send smaller payloads or fewer events at once", size, o.batchBytesMax)), nil
	}
	return v, nil
}

// time is the request's business time, or, for clients that send none, the stamp of its record:
// the same at every reading.
func (c *command) time() time.Time {
	if !c.request.Time.IsZero() {
		return c.request.Time
	}
	return c.record.Timestamp.UTC()
}

// timeFits says whether a header can hold a time: RFC 3339 has years of four digits. One that does
// not fit would make an event that no reader takes.
func timeFits(t time.Time) bool { return t.UTC().Year() >= 1 && t.UTC().Year() <= 9999 }

// confluentOf is reframe for a value that may have Confluent framing already; then it is not copied.
func confluentOf(value []byte, p codec.Payload) []byte {
	if len(value) == len(p.Body)+codec.ConfluentHeaderBytes && value[0] == 0 {
		return value
	}
	return reframe(p)
}

// reframe gives the payload Confluent framing and leaves its bytes alone (PROTOCOL D2).
func reframe(p codec.Payload) []byte {
	value := make([]byte, 0, len(p.Body)+5)
	return append(codec.AppendConfluent(value, p.Registered.ID), p.Body...)
}

// evaluateAppend takes a foldstream.Append apart.
func (o *owner) evaluateAppend(c *command, s *stream, payload codec.Payload) (verdict, error) {
	decoded, err := o.appendBinding.Decode(payload)
	if err != nil {
		return refuseUnlessInfrastructure(err)
	}
	envelope := decoded.(codec.AppendEnvelope)
	if n := len(envelope.Events); n == 0 || n > appendEventsMax {
		return refuse(CodeEmptyAppend, fmt.Errorf("%s has %d events, want 1 to %d", codec.TypeAppend, n, appendEventsMax)), nil
	}
	stream := c.stream(o.category.Name)
	events := make([]pendingEvent, 0, len(envelope.Events))
	for i, item := range envelope.Events {
		e, code, err := o.appendItem(c, stream, i, item)
		if err != nil && code == "" {
			return verdict{}, err
		}
		if err != nil {
			return refuse(code, fmt.Errorf("event %d: %w", i, err)), nil
		}
		events = append(events, e)
	}
	return o.evaluateEvents(c, s, events)
}

// appendItem checks one event of an append; code "" with an error is infrastructure.
func (o *owner) appendItem(c *command, stream event.StreamID, i int, item codec.AppendItem) (pendingEvent, string, error) {
	if !o.category.owns(item.Type) {
		return pendingEvent{}, CodeType, fmt.Errorf("type %q is none of category %s", item.Type, o.category.Name)
	}
	payload, err := o.category.codec.InspectBody(o.ctx, item.Type, item.SchemaID, item.Data)
	if err != nil {
		if !errors.Is(err, codec.ErrBadData) {
			return pendingEvent{}, "", err
		}
		return pendingEvent{}, codeOf(err), err
	}
	if payload.Registered.Kind != event.KindEvent {
		return pendingEvent{}, CodeKind, fmt.Errorf("type %s is registered as %s, not as an event", item.Type, payload.Registered.Kind)
	}
	e := pendingEvent{typ: item.Type, id: item.ID, time: item.BusinessTime(c.time()), value: reframe(payload)}
	if e.id == "" {
		e.id, o.idScratch = eventID(o.idScratch, stream, c.request.ID, i)
	}
	if err := event.ValidateID(e.id); err != nil {
		return pendingEvent{}, CodeHeader, fmt.Errorf("the event's id has %d bytes; want 1 to %d bytes of UTF-8 without control characters", len(e.id), event.IDBytesMax)
	}
	if e.headers, err = metadataHeaders(c, item.Metadata); err != nil {
		return pendingEvent{}, CodeHeader, err
	}
	if !timeFits(e.time) {
		return pendingEvent{}, CodePayload, fmt.Errorf("time %d µs is outside the years 1 to 9999", item.Time)
	}
	return e, "", nil
}

// metadataHeaders makes an item's metadata headers of its event, in the order of their names.
func metadataHeaders(c *command, metadata map[string]string) ([]event.Header, error) {
	if len(metadata) == 0 {
		return nil, nil
	}
	if err := codec.CheckMetadata(metadata); err != nil {
		return nil, err
	}
	if n := len(c.request.Extra) + len(metadata); n > event.HeadersMax {
		return nil, &event.HeaderError{Header: "*", Reason: fmt.Sprintf("%d headers with those of the request, at most %d are allowed", n, event.HeadersMax)}
	}
	headers := make([]event.Header, 0, len(metadata))
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		headers = append(headers, event.Header{Key: name, Value: []byte(metadata[name])})
	}
	return headers, nil
}

// evaluateEvents takes ready events; a decider's category folds them into its state.
func (o *owner) evaluateEvents(c *command, s *stream, events []pendingEvent) (verdict, error) {
	v := verdict{kind: verdictAppend, events: events}
	if o.category.Decider == nil {
		return v, nil
	}
	state, version, err := o.stateOf(s)
	if err != nil {
		return verdict{}, err
	}
	for i := range events {
		binding := o.category.byType[events[i].typ]
		if binding == nil {
			return refuse(CodeType, fmt.Errorf("type %s is not among the decider's Types", events[i].typ)), nil
		}
		payload, err := o.category.codec.Inspect(o.ctx, events[i].typ, events[i].value)
		if err != nil {
			return refuseUnlessInfrastructure(err)
		}
		data, err := binding.Decode(payload)
		if err != nil {
			return refuseUnlessInfrastructure(err)
		}
		m := o.message(c, events[i].typ, version+event.Version(i)+1, data)
		m.ID, m.Time = events[i].id, events[i].time
		if state, err = o.category.evolve(state, m); err != nil {
			return verdict{}, err
		}
	}
	v.state = state
	return v, nil
}

// evaluateCommand runs the decider.
func (o *owner) evaluateCommand(c *command, s *stream, payload codec.Payload) (verdict, error) {
	binding := o.category.byType[c.request.Type]
	if binding == nil {
		return refuse(CodeType, fmt.Errorf("type %s is not among the decider's Types", c.request.Type)), nil
	}
	data, err := binding.Decode(payload)
	if err != nil {
		return refuseUnlessInfrastructure(err)
	}
	state, version, err := o.stateOf(s)
	if err != nil {
		return verdict{}, err
	}
	m := o.message(c, c.request.Type, version, data)
	decision, err := o.category.decide(state, m)
	if err != nil {
		return verdict{}, err
	}
	if r := decision.Rejection(); r != nil {
		return answer(rejected(r.Code, r.Message)), nil
	}
	if len(decision.Events()) == 0 {
		return answer(Outcome{Kind: OutcomeAccepted, Partition: o.partition, Offset: -1}), nil
	}
	if len(decision.Events()) > appendEventsMax {
		return verdict{}, &DeciderError{Category: o.category.Name, Stream: m.Stream, Type: m.Type, Err: fmt.Errorf("emitted %d events, at most %d are allowed", len(decision.Events()), appendEventsMax)}
	}
	return o.emit(c, m, state, version, decision.Events())
}

// valuesKeptMax bounds the memory for values that an owner keeps from one command to the next.
const valuesKeptMax = 256 << 10

// emit encodes the decided events and folds them. Events and values lie in memory that the next
// command uses again: the appender copies what it is given.
func (o *owner) emit(c *command, m decider.Message, state any, version event.Version, decided []any) (verdict, error) {
	if cap(o.values) > valuesKeptMax {
		o.values = nil
	}
	o.decided, o.values = o.decided[:0], o.values[:0]
	for i, data := range decided {
		binding := o.category.byGoType[reflectTypeOf(data)]
		if binding == nil {
			return verdict{}, &DeciderError{Category: o.category.Name, Stream: m.Stream, Type: m.Type, Err: fmt.Errorf("emitted a %T, which is not among the events of Types", data)}
		}
		at := len(o.values)
		var err error
		if o.values, err = binding.Append(o.values, data); err != nil {
			return verdict{}, &DeciderError{Category: o.category.Name, Stream: m.Stream, Type: m.Type, Err: fmt.Errorf("emitted a %T that does not encode: %w", data, err)}
		}
		typ := binding.Registered().Type
		var id string
		id, o.idScratch = eventID(o.idScratch, m.Stream, c.request.ID, i)
		o.decided = append(o.decided, pendingEvent{typ: typ, id: id, time: m.Time, value: o.values[at:len(o.values):len(o.values)]})
		em := o.message(c, typ, version+event.Version(i)+1, data)
		em.ID = id
		if state, err = o.category.evolve(state, em); err != nil {
			return verdict{}, err
		}
	}
	return verdict{kind: verdictAppend, events: o.decided, state: state}, nil
}

func (o *owner) stateOf(s *stream) (any, event.Version, error) {
	if s == nil {
		return o.category.Decider.Initial(), 0, nil
	}
	state, err := o.category.decodeState(s.state)
	return state, s.version, err
}

func (o *owner) message(c *command, typ string, version event.Version, data any) decider.Message {
	return decider.Message{
		Type: typ, ID: c.request.ID, Stream: c.stream(o.category.Name), Version: version, Time: c.time(),
		CorrelationID: correlation(&c.request), CausationID: c.request.ID, UserID: c.request.UserID, Data: data,
	}
}

// correlation is the request's, or, where it begins a conversation, its own id.
func correlation(r *event.Request) string {
	if r.CorrelationID != "" {
		return r.CorrelationID
	}
	return r.ID
}

func refuseUnlessInfrastructure(err error) (verdict, error) {
	if errors.Is(err, codec.ErrBadData) {
		return refuse(codeOf(err), err), nil
	}
	return verdict{}, err
}

// codeOf names what is wrong with a payload.
func codeOf(err error) string {
	switch {
	case errors.Is(err, codec.ErrFrame):
		return CodeFrame
	case errors.Is(err, codec.ErrUnknownSchema):
		return CodeUnknownSchema
	case errors.Is(err, codec.ErrTypeMismatch):
		return CodeTypeMismatch
	}
	return CodePayload
}

// batchBytes is an upper estimate of what the events take in a record batch.
func batchBytes(c *command, events []pendingEvent) int {
	const perRecord = 640 // our own headers, with long ids
	carried := len(c.record.Key)
	for _, h := range c.request.Extra {
		carried += len(h.Key) + len(h.Value) + 8
	}
	carried += len(c.request.UserID) + len(c.request.Traceparent) + len(c.request.CorrelationID) + 2*len(c.request.ID)
	size := 61
	for i := range events {
		size += perRecord + carried + len(events[i].value) + len(events[i].id) + len(events[i].typ)
		for _, h := range events[i].headers {
			size += len(h.Key) + len(h.Value) + 8
		}
	}
	return size
}

// originKey is a partition that re-routes to us.
type originKey struct {
	topicID   [16]byte
	partition int32
}

func originOf(o event.Origin) originKey { return originKey{o.TopicID, o.Partition} }

func appendVersion(dst []byte, v event.Version) []byte { return strconv.AppendInt(dst, int64(v), 10) }
