package streams

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/snapshot"
)

// State folds a stream's state. What it folds is what the decider's writer folds, but for business
// times, which are cut to microseconds.
func (s *Store) State(ctx context.Context, id event.StreamID, at At) (State, error) {
	began := s.cfg.Clock()
	st, err := s.state(ctx, id, at)
	s.observe("state", began, err)
	return st, err
}

func (s *Store) state(ctx context.Context, id event.StreamID, at At) (State, error) {
	if at.Version != 0 && !at.Time.IsZero() {
		return State{}, errors.New("a state is either at a version or at a time, not both")
	}
	p, err := s.placeOf(ctx, id)
	if err != nil {
		return State{}, err
	}
	f := s.folds[id.Category]
	if f == nil {
		return State{}, fmt.Errorf("%w: %q", ErrNoFold, id.Category)
	}
	types, err := f.bound(ctx)
	if err != nil {
		return State{}, err
	}
	w, err := s.lookForState(ctx, p, id, at)
	if err != nil {
		return State{}, err
	}
	return s.foldState(ctx, types, w)
}

// wanted is a stream, the version of it whose state is wanted, and what may help.
type wanted struct {
	view
	id      event.StreamID
	topicID string // of the log
	target  event.Version
	slots   []slotMeta // newest first
	ahead   ahead
}

// lookForState finds out which version is wanted.
func (s *Store) lookForState(ctx context.Context, p place, id event.StreamID, at At) (wanted, error) {
	w := wanted{id: id}
	below, err := s.offsetAt(ctx, p, at.Time)
	if err != nil {
		return w, err
	}
	through := at.Version
	if through == 0 {
		through = math.MaxInt64
	}
	var indexedAt event.Version
	var more []query
	if s.index != nil {
		more = append(more, s.index.slotsQuery(id, through, &w.slots))
		if at.Time.IsZero() {
			more = append(more, s.index.aheadQueries(p, id, through, foldPageEvents, &w.ahead)...)
		} else {
			more = append(more, s.index.versionAtQuery(id, below, at.Time, &indexedAt))
		}
	}
	if w.view, err = s.look(ctx, p, id, more...); err != nil {
		return w, err
	}
	meta, err := s.metaOf(ctx, p.topic, time.Time{})
	if err != nil {
		return w, err
	}
	w.topicID = event.FormatTopicID(meta.id)
	if w.version() == 0 {
		return w, fmt.Errorf("%w: %s", ErrNoStream, id)
	}
	w.target = w.version()
	switch {
	case at.Version != 0:
		w.target = at.Version
	case !at.Time.IsZero():
		w.target = w.versionAt(indexedAt, below)
	}
	if w.target < 1 || w.target > w.version() {
		return w, fmt.Errorf("%w: %s has the versions 1 to %d, %s was asked for", ErrNoVersion, id, w.version(), at)
	}
	return w, nil
}

// String says which state is asked for.
func (a At) String() string {
	switch {
	case !a.Time.IsZero():
		return "the time " + event.FormatTime(a.Time)
	case a.Version != 0:
		return fmt.Sprintf("version %d", a.Version)
	}
	return "now"
}

// offsetAt is the partition's first offset whose stamp lies behind a time (PROTOCOL T1): where the
// running maximum of the stamps crosses it, every record before is of that time or earlier, and
// whatever an owner with a late clock stamps behind it is not. Stamps are whole milliseconds.
func (s *Store) offsetAt(ctx context.Context, p place, at time.Time) (int64, error) {
	if at.IsZero() {
		return math.MaxInt64, nil
	}
	millis := at.UnixMilli()
	if millis < 0 || millis == math.MaxInt64 {
		return 0, nil // before there was Kafka; a negative stamp would mean something else to it
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	offset, err := s.log.offset(ctx, p, millis+1)
	if err != nil {
		return 0, unavailable(err)
	}
	return offset, nil
}

// versionAt is the last version below an offset. What the index says is right also where retention
// has deleted the record at which the time was crossed, for its rows keep their stamps.
func (w *wanted) versionAt(indexedAt event.Version, below int64) event.Version {
	target := indexedAt
	for i := range w.tail {
		if w.tail[i].Offset < below {
			target = w.tail[i].Version
		}
	}
	return target
}

// folding is a state on its way.
type folding struct {
	value      any
	version    event.Version
	recordedAt time.Time
	folded     int
}

func (s *Store) foldState(ctx context.Context, types *foldTypes, w wanted) (State, error) {
	run, err := s.fromSlot(ctx, types, w)
	if err != nil {
		return State{}, err
	}
	from := run.version
	if needs := int(w.target - from); needs > s.cfg.FoldEventsMax {
		return State{}, &LogError{Topic: w.place.topic, Partition: w.place.partition, Offset: -1, Stream: w.id,
			Reason: fmt.Sprintf("its state at version %d needs %d events folded, %d are allowed: keep history slots of this category, or raise the limit", w.target, needs, s.cfg.FoldEventsMax)}
	}
	if err := s.foldIndexed(ctx, types, w, &run); err != nil {
		return State{}, err
	}
	for i := range w.tail {
		if e := &w.tail[i]; e.Version > run.version && e.Version <= w.target {
			if err := types.fold(ctx, w.place, &run, e); err != nil {
				return State{}, err
			}
		}
	}
	s.metrics.folded.Add(float64(run.folded))
	value, text, err := types.render(ctx, run.value)
	if err != nil {
		return State{}, err
	}
	return State{
		Stream: w.id, Version: run.version, RecordedAt: run.recordedAt, Value: value, JSON: text, Folded: run.folded, FromSlot: from,
	}, nil
}

// foldIndexed folds the index's events up to the version wanted, page by page; the first may have
// been read ahead.
func (s *Store) foldIndexed(ctx context.Context, types *foldTypes, w wanted, run *folding) error {
	through := min(w.target, w.indexed.version)
	for page := w.ahead.behind.events; run.version < through; page = nil {
		if len(page) == 0 || page[0].Version != run.version+1 {
			var err error
			if page, err = s.foldPage(ctx, w, run.version+1, through); err != nil {
				return err
			}
		}
		for i := range page {
			if run.version == through {
				break
			}
			if err := types.fold(ctx, w.place, run, &page[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// foldPage reads some events of the index, one at least.
func (s *Store) foldPage(ctx context.Context, w wanted, from, through event.Version) ([]event.Recorded, error) {
	var page collected
	rows := eventRows{place: w.place, stream: w.id, take: page.Take}
	if err := s.index.run(ctx, s.index.eventsQuery(&rows, from, through, foldPageEvents)); err != nil {
		return nil, unavailable(err)
	}
	if len(page.events) == 0 {
		return nil, &LogError{Topic: w.place.topic, Partition: w.place.partition, Offset: -1, Stream: w.id, Reason: missing(from, from-1)}
	}
	return page.events, nil
}

const foldPageEvents = 2000

// fromSlot begins with the nearest history slot that counts, else with the initial state.
func (s *Store) fromSlot(ctx context.Context, types *foldTypes, w wanted) (folding, error) {
	for _, m := range w.slots {
		if m.version > w.target {
			continue
		}
		if reason := w.slotFault(m, types.definition); reason != "" {
			s.skipSlot(w.id, m, reason, nil)
			continue
		}
		encoding, value, found, err := s.slotValue(ctx, w, m)
		if err != nil {
			return folding{}, unavailable(err)
		}
		if !found {
			continue // a newer snapshot took its place
		}
		state, err := types.decodeSlot(ctx, encoding, value, m)
		if err == nil {
			return folding{value: state, version: m.version, recordedAt: w.stampOf(m)}, nil
		}
		if !errors.Is(err, codec.ErrBadData) && !errors.Is(err, snapshot.ErrUnreadable) {
			return folding{}, unavailable(err)
		}
		s.skipSlot(w.id, m, "unreadable", err)
	}
	return folding{value: types.definition.Initial()}, nil
}

func (s *Store) slotValue(ctx context.Context, w wanted, m slotMeta) (encoding string, value []byte, found bool, err error) {
	if w.ahead.slot == m.slot && w.ahead.version == m.version {
		return w.ahead.encoding, w.ahead.value, true, nil
	}
	return s.index.slotValue(ctx, w.id, m)
}

// slotFault says why a slot does not count, or "". The labels are few and fixed.
func (w *wanted) slotFault(m slotMeta, d *decider.Definition) string {
	event := m.eventOffset
	if e := w.tailAt(m.version); e != nil {
		event = e.Offset
	}
	switch {
	case m.version < 1:
		return "empty"
	case int(m.stateVersion) != d.StateVersion:
		return "state version"
	case m.topicID != w.topicID:
		return "topic"
	case m.offset != event:
		return "offset"
	}
	return ""
}

func (w *wanted) stampOf(m slotMeta) time.Time {
	if e := w.tailAt(m.version); e != nil {
		return e.RecordedAt
	}
	return m.recordedAt
}

func (w *wanted) tailAt(v event.Version) *event.Recorded {
	if i := int(v - w.indexed.version - 1); i >= 0 && i < len(w.tail) {
		return &w.tail[i]
	}
	return nil
}

func (s *Store) skipSlot(id event.StreamID, m slotMeta, reason string, err error) {
	s.metrics.slotsSkipped.WithLabelValues(reason).Inc()
	s.logger.Debug("a history slot does not count", "category", id.Category, "slot", m.slot, "version", m.version, "reason", reason, "err", err)
}

// fold is a decider, bound to its registered types at the first use: a Store is made before the
// registry can be asked. Safe for concurrent use.
type fold struct {
	definition *decider.Definition
	codec      *codec.Codec

	turn   chan struct{} // held by the one user of the fields below, maybe while it asks the registry
	types  *foldTypes
	closed bool
}

// foldTypes is a bound decider. Safe for concurrent use.
type foldTypes struct {
	definition *decider.Definition
	codec      *codec.Codec
	format     *snapshot.Format
	events     map[string]*codec.Binding
	state      *codec.Binding
}

func (f *fold) bound(ctx context.Context) (*foldTypes, error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return nil, unavailable(ctx.Err())
	}
	if f.closed {
		return nil, ErrClosed
	}
	if f.types != nil {
		return f.types, nil
	}
	types, err := bindFold(ctx, f.definition, f.codec)
	if err != nil {
		return nil, unavailable(err)
	}
	f.types = types
	return types, nil
}

func bindFold(ctx context.Context, d *decider.Definition, c *codec.Codec) (*foldTypes, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	t := &foldTypes{definition: d, codec: c, events: map[string]*codec.Binding{}}
	var faults []error
	for _, def := range d.Types {
		if def.Kind != event.KindEvent {
			continue
		}
		binding, err := c.Bind(ctx, def)
		t.events[def.Name], faults = binding, append(faults, err)
	}
	var err error
	t.state, err = c.Bind(ctx, codec.TypeDef{Name: decider.StateType(d.Category), Version: d.StateVersion, Kind: event.KindState, GoType: d.StateType})
	faults = append(faults, err)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	t.format, err = snapshot.NewFormat(ctx, c)
	return t, err
}

func (f *fold) close() {
	f.turn <- struct{}{}
	defer func() { <-f.turn }()
	f.closed = true
	if f.types != nil {
		f.types.format.Close()
	}
}

// fold evolves a state by the event that must be next.
func (t *foldTypes) fold(ctx context.Context, p place, run *folding, e *event.Recorded) error {
	fault := func(reason string) error {
		return &LogError{Topic: p.topic, Partition: p.partition, Offset: e.Offset, Stream: e.Stream, Reason: reason}
	}
	if e.Version != run.version+1 {
		return fault(missing(run.version+1, e.Version))
	}
	binding := t.events[e.Type]
	if binding == nil {
		return fault(fmt.Sprintf("event type %s is not among the decider's Types, so its state cannot be folded: register it again", e.Type))
	}
	payload, err := t.codec.Inspect(ctx, e.Type, e.Value)
	if err != nil && !errors.Is(err, codec.ErrBadData) {
		return unavailable(err)
	}
	var data any
	if err == nil {
		data, err = binding.Decode(payload)
	}
	if err != nil {
		return fault(err.Error())
	}
	run.value, err = t.evolve(run.value, decider.Message{
		Type: e.Type, ID: e.ID, Stream: e.Stream, Version: e.Version, Time: e.Time,
		CorrelationID: e.CorrelationID, CausationID: e.CausationID, UserID: e.UserID, Data: data,
	})
	if err != nil {
		return fault(err.Error())
	}
	run.version, run.recordedAt = e.Version, e.RecordedAt
	run.folded++
	return nil
}

func (t *foldTypes) evolve(state any, m decider.Message) (next any, err error) {
	defer func() {
		if p := recover(); p != nil { // its value may hold payload
			err = fmt.Errorf("the decider of %s panicked in Evolve on %s (%s)", m.Stream.Category, m.Type, reflect.TypeOf(p))
		}
	}()
	return t.definition.Evolve(state, m), nil
}

// decodeSlot reads the state of a slot's record, which must be the one that the slot says it is.
func (t *foldTypes) decodeSlot(ctx context.Context, encoding string, value []byte, m slotMeta) (any, error) {
	var headers []event.Header
	if encoding != "" {
		headers = []event.Header{{Key: snapshot.HeaderEncoding, Value: []byte(encoding)}}
	}
	shot, err := t.format.DecodeSnapshot(ctx, value, headers)
	if err != nil {
		return nil, err
	}
	if event.Version(shot.Version) != m.version || shot.Offset != m.offset || shot.StateVersion != m.stateVersion {
		return nil, fmt.Errorf("%w: its record is of version %d at offset %d", snapshot.ErrUnreadable, shot.Version, shot.Offset)
	}
	if len(shot.State) == 0 {
		return t.definition.Initial(), nil
	}
	return t.decodeState(ctx, shot.State)
}

func (t *foldTypes) decodeState(ctx context.Context, encoded []byte) (any, error) {
	payload, err := t.codec.Inspect(ctx, decider.StateType(t.definition.Category), encoded)
	if err != nil {
		return nil, err
	}
	return t.state.Decode(payload)
}

// render encodes a state as the writer would keep it, and returns it as read back, with its JSON.
func (t *foldTypes) render(ctx context.Context, state any) (value any, text []byte, err error) {
	encoded, err := t.state.Append(nil, state)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the state of %s: %w", t.definition.Category, err)
	}
	payload, err := t.codec.Inspect(ctx, decider.StateType(t.definition.Category), encoded)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the state of %s: %w", t.definition.Category, err)
	}
	if value, err = t.state.Decode(payload); err == nil {
		text, err = t.codec.AppendJSON(nil, payload)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("write the state of %s: %w", t.definition.Category, err)
	}
	return value, text, nil
}
