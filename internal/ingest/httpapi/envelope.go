package httpapi

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// eventIn is one event, or the command, as a body has it.
type eventIn struct {
	typ      string
	data     []byte // JSON; references the body
	id       string // "": none
	time     time.Time
	metadata map[string]string
}

// appendIn is one append as a body has it.
type appendIn struct {
	stream    event.StreamID // of a batch
	commandID string         // of a batch; "": none
	expected  event.Expected
	events    []eventIn
}

// newScanner begins a body, which must be UTF-8.
func newScanner(body []byte) *scanner {
	s := &scanner{b: body, path: make([]segment, 0, 8)}
	if !utf8.Valid(body) {
		s.fail("is not UTF-8")
	}
	return s
}

// parseAppend reads the body of an append.
func parseAppend(body []byte) (appendIn, *Fault) {
	s := newScanner(body)
	var in appendIn
	var o object
	for s.openObject(); s.member(&o); {
		switch string(o.name) {
		case "expectedVersion":
			s.once(&o, 0)
			in.expected = s.expected()
		case "events":
			s.once(&o, 1)
			in.events = s.events(eventsMax)
		default:
			s.unknown()
		}
	}
	s.demand(&o, 1, "events")
	s.end()
	return in, s.err
}

// parseCommand reads the body of a command.
func parseCommand(body []byte) (appendIn, *Fault) {
	s := newScanner(body)
	in := appendIn{events: make([]eventIn, 1)}
	c := &in.events[0]
	var o object
	for s.openObject(); s.member(&o); {
		switch string(o.name) {
		case "expectedVersion":
			s.once(&o, bitExpected)
			in.expected = s.expected()
		case "id":
			s.unknown()
		default:
			s.eventMember(&o, c)
		}
	}
	s.demandEvent(&o)
	s.end()
	return in, s.err
}

// parseBatch reads the body of an append to many streams.
func parseBatch(body []byte) ([]appendIn, *Fault) {
	s := newScanner(body)
	var all []appendIn
	events := 0
	var o object
	for s.openObject(); s.member(&o); {
		if string(o.name) != "requests" {
			s.unknown()
			break
		}
		s.once(&o, 0)
		var list array
		for s.openArray(); s.item(&list); {
			if list.index == requestsMax {
				s.fail("is one request too many: at most %d in one batch", requestsMax)
				break
			}
			all = append(all, s.request(batchEventsMax-events))
			events += len(all[len(all)-1].events)
		}
		if s.err == nil && len(all) == 0 {
			s.fail("has no request: want 1 to %d", requestsMax)
		}
	}
	s.demand(&o, 0, "requests")
	s.end()
	return all, s.err
}

// request reads one request of a batch.
func (s *scanner) request(eventsLeft int) appendIn {
	var in appendIn
	var o object
	for s.openObject(); s.member(&o); {
		switch string(o.name) {
		case "category":
			s.once(&o, 0)
			in.stream.Category = s.string()
		case "id":
			s.once(&o, 1)
			in.stream.ID = s.string()
		case "commandId":
			s.once(&o, 2)
			if in.commandID = s.string(); s.err == nil && in.commandID == "" {
				s.fail("is empty: leave it out, or give 1 to %d bytes", event.IDBytesMax)
			}
		case "expectedVersion":
			s.once(&o, 3)
			in.expected = s.expected()
		case "events":
			s.once(&o, 4)
			in.events = s.events(min(eventsMax, eventsLeft))
		default:
			s.unknown()
		}
	}
	s.demand(&o, 0, "category")
	s.demand(&o, 1, "id")
	s.demand(&o, 4, "events")
	return in
}

// demand fails where a member is missing.
func (s *scanner) demand(o *object, bit int, name string) {
	if s.err == nil && !o.had(bit) {
		s.path = append(s.path, segment{name: []byte(name)})
		s.fail("is missing")
	}
}

// events reads the events of one append.
func (s *scanner) events(most int) []eventIn {
	var into []eventIn
	var list array
	for s.openArray(); s.item(&list); {
		if list.index >= most {
			s.fail("is one event too many: at most %d in one request, %d in a batch", eventsMax, batchEventsMax)
			break
		}
		into = append(into, eventIn{})
		s.event(&into[len(into)-1])
	}
	return into
}

// The members of an event and of a command.
const (
	bitType = iota
	bitData
	bitID
	bitTime
	bitMetadata
	bitExpected
)

func (s *scanner) event(e *eventIn) {
	var o object
	for s.openObject(); s.member(&o); {
		s.eventMember(&o, e)
	}
	s.demandEvent(&o)
}

func (s *scanner) demandEvent(o *object) {
	s.demand(o, bitType, "type")
	s.demand(o, bitData, "data")
}

func (s *scanner) eventMember(o *object, e *eventIn) {
	switch string(o.name) {
	case "type":
		s.once(o, bitType)
		e.typ = s.string()
	case "data":
		s.once(o, bitData)
		e.data = s.raw()
	case "id":
		s.once(o, bitID)
		e.id = s.string()
		if err := event.ValidateID(e.id); err != nil && s.err == nil {
			s.fail("has %d bytes: want 1 to %d bytes without control characters", len(e.id), event.IDBytesMax)
		}
	case "time":
		s.once(o, bitTime)
		e.time = s.time()
	case "metadata":
		s.once(o, bitMetadata)
		e.metadata = s.metadata()
	default:
		s.unknown()
	}
}

// expected reads the condition on the version, a text or a number.
func (s *scanner) expected() event.Expected {
	var text string
	switch c := s.peek(); {
	case c == '"':
		text = s.string()
	case c >= '0' && c <= '9':
		text = string(s.word())
		if len(text) > 1 && text[0] == '0' {
			text = ""
		}
	default:
		s.want("any, none, exists, or a version")
		return event.ExpectedAny
	}
	expected, err := event.ParseExpected(text)
	if s.err == nil && (err != nil || text == "") {
		s.fail("%s: want any, none, exists, or a version of at most 18 digits", strconv.Quote(web.Clip(text)))
	}
	return expected
}

// time reads an RFC 3339 time.
func (s *scanner) time() time.Time {
	text := s.string()
	if s.err != nil {
		return time.Time{}
	}
	t, err := parseTime(text)
	if err != nil {
		s.fail("%s", err)
	}
	return t
}

// metadata reads an object of texts.
func (s *scanner) metadata() map[string]string {
	all := map[string]string{}
	var o object
	for s.openObject(); s.member(&o); {
		name := string(o.name)
		if _, twice := all[name]; twice {
			s.fail("stands twice")
			break
		}
		if len(all) == event.HeadersMax {
			s.fail("is one entry too many: at most %d", event.HeadersMax)
			break
		}
		value := s.string()
		if s.err != nil {
			break
		}
		if err := codec.CheckMetadata(map[string]string{name: value}); err != nil {
			s.fail("%s", reasonOf(err))
			break
		}
		all[name] = value
	}
	return all
}
