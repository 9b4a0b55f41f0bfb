package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/foldstream/foldstream/internal/streams"
	"github.com/foldstream/foldstream/pkg/event"
)

// How subscriptions are kept. A client that does not read is disconnected when one write has
// waited for writeDeadline: nothing is gathered for it meanwhile but what the connection and one
// fetch hold.
const (
	heartbeatEvery = 15 * time.Second // a comment, so that proxies see life
	positionEvery  = 5 * time.Second  // a position alone, while the filter lets nothing pass
	writeDeadline  = 30 * time.Second
	openTimeout    = 15 * time.Second
	sseBufferBytes = 64 << 10 // messages are gathered up to it while there are more at hand
)

const (
	headerLastEventID = "Last-Event-ID"
	typesTextMax      = 4096
)

func (a *API) registerSubscribe() {
	a.register(route{operation: &huma.Operation{
		OperationID: "subscribe", Method: http.MethodGet, Path: "/v1/subscribe", Tags: []string{"Read"},
		Summary: "Follow a category",
		Description: "Server-sent events: id is the position, event the type, data one line of JSON, a RecordedEvent with category and stream. " +
			"With Last-Event-ID it goes on behind that message: no event is missed, none comes twice. Within a stream messages come in the order of versions. " +
			"Positions also come alone; a comment every 15 s keeps proxies awake.",
		Parameters: []*huma.Param{
			{Name: "category", In: "query", Required: true, Description: "A category of the project", Schema: &huma.Schema{Type: huma.TypeString}},
			queryParam("type", "Types to let pass, separated by commas; * stands for any text", &huma.Schema{Type: huma.TypeString, MinLength: count(1), MaxLength: count(typesTextMax)}),
			queryParam("encoding", "avro gives value, the framed Avro in base64, instead of data", &huma.Schema{Type: huma.TypeString, Enum: []any{"json", "avro"}, Default: "json"}),
			queryParam("from", "start, end (default), a time of recording as in RFC 3339, or a position", &huma.Schema{Type: huma.TypeString, MinLength: count(1)}),
			{Name: headerLastEventID, In: "header", Description: "A position; it counts before from", Schema: &huma.Schema{Type: huma.TypeString}},
		},
		Responses: map[string]*huma.Response{
			"200": {Description: "Messages until the client leaves or the server stops", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}}},
			"400": a.problemResponse("A parameter is wrong; code position: the position is of another log, or what follows it is gone"),
			"404": a.problemResponse("Code unknown-category"),
			"429": a.problemResponse("As many subscriptions are open as may be"),
		},
	}, serve: a.serveSubscribe, long: true})
}

// feedQuery reads what is to be followed, from where, and in which encoding.
func (a *API) feedQuery(r *http.Request) (q streams.FeedQuery, encoding string, err error) {
	values, err := query(r, "category", "type", "from", "encoding")
	if err != nil {
		return q, "", err
	}
	p := readParams{values: values}
	q.Category = values.Get("category")
	if q.Category == "" {
		p.fault("category", "is missing: name the category to follow")
		return q, "", p.err()
	}
	if err := a.knowsCategory(q.Category); err != nil {
		return q, "", err
	}
	encoding = p.choice("encoding", encodingJSON, encodingAvro)
	if values.Has("type") {
		q.Types = p.types(values.Get("type"))
	}
	where, location := values.Get("from"), "query.from"
	if last := r.Header.Get(headerLastEventID); last != "" {
		where, location = last, "header."+headerLastEventID
	} else if values.Has("from") && where == "" {
		p.fault("from", "is empty")
	}
	if err := p.err(); err != nil {
		return q, "", err
	}
	return q, encoding, beginAt(&q, where, location)
}

// types reads a list of types with wildcards.
func (p *readParams) types(text string) []string {
	if len(text) > typesTextMax {
		p.fault("type", "has %d bytes, at most %d are allowed", len(text), typesTextMax)
		return nil
	}
	types := strings.Split(text, ",")
	if len(types) > streams.FeedTypesMax {
		p.fault("type", "names %d types, at most %d are allowed", len(types), streams.FeedTypesMax)
		return nil
	}
	for _, t := range types {
		if reason := textFault(t, event.TypeBytesMax); reason != "" {
			p.fault("type", "%q %s", web.Clip(t), reason)
			return nil
		}
	}
	return types
}

// beginAt reads start, end, a time or a position.
func beginAt(q *streams.FeedQuery, text, location string) error {
	isHeader := strings.HasPrefix(location, "header.")
	switch {
	case !isHeader && (text == "" || text == "end"):
		return nil
	case !isHeader && text == "start":
		q.Start = true
		return nil
	}
	if t, err := parseTime(text); err == nil && !isHeader {
		q.Time = t
		return nil
	}
	at, err := streams.ParsePosition(text)
	if err != nil {
		p := faulty(codePosition, Fault{Location: location, Message: err.Error()})
		if !isHeader {
			p.Errors[0].Message += "; want start, end, a time as in RFC 3339, or the id of a message"
		}
		return p
	}
	q.Position = &at
	return nil
}

func (a *API) serveSubscribe(w http.ResponseWriter, r *http.Request) error {
	q, encoding, err := a.feedQuery(r)
	if err != nil {
		return err
	}
	store, err := a.reader()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(a.draining, cancel)()
	opening, stop := context.WithTimeout(ctx, openTimeout)
	feed, err := store.Open(opening, q)
	stop()
	if err != nil {
		if a.draining.Err() != nil {
			return problem(http.StatusServiceUnavailable, codeUnavailable, "this service is stopping").comeAgain()
		}
		return readProblem(err)
	}
	defer feed.Close()
	s := subscription{api: a, feed: feed, encoding: encoding, out: sseWriter{w: w, control: http.NewResponseController(w)}}
	if err := s.run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("subscription of %s: %w", q.Category, err)
	}
	return nil
}

// subscription is one client that follows a category. It belongs to the request's goroutine.
type subscription struct {
	api      *API
	feed     *streams.Feed
	encoding string
	out      sseWriter

	told     []byte // the position that the client was told last
	toldAt   time.Time
	position []byte
	written  time.Time
}

// run writes messages until ctx ends or the client does not take them.
func (s *subscription) run(ctx context.Context) error {
	if err := s.out.begin(); err != nil {
		return err
	}
	// A client that leaves before the first event must know where to go on, too.
	if err := s.tellPosition(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, s.untilDue())
		err := s.feed.Next(wait, func(e event.Recorded) error { return s.message(ctx, &e) })
		cancel()
		if err == nil {
			err = s.keepAlive()
		}
		if err == nil {
			err = s.out.flush()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// untilDue is how long nothing need be written.
func (s *subscription) untilDue() time.Duration {
	due := s.written.Add(heartbeatEvery)
	if at := s.toldAt.Add(positionEvery); at.Before(due) {
		due = at
	}
	return max(time.Until(due), 10*time.Millisecond)
}

func (s *subscription) message(ctx context.Context, e *event.Recorded) error {
	s.position = s.feed.Position().AppendText(s.position[:0])
	b := append(append(s.out.buf, "id: "...), s.position...)
	b = append(append(b, "\nevent: "...), oneLine(e.Type)...)
	b, err := s.api.appendEvent(ctx, append(b, "\ndata: "...), e, s.encoding, true)
	if err != nil {
		return err
	}
	b = append(b, "\n\n"...)
	s.out.buf = b
	s.note()
	return s.out.flushFull()
}

// keepAlive tells the position when it moved without a message, and gives a sign of life.
func (s *subscription) keepAlive() error {
	if time.Since(s.toldAt) >= positionEvery {
		s.position = s.feed.Position().AppendText(s.position[:0])
		if string(s.position) != string(s.told) {
			return s.tellPosition()
		}
		s.toldAt = time.Now()
	}
	if time.Since(s.written) >= heartbeatEvery {
		s.out.buf = append(s.out.buf, ": here\n\n"...)
		s.written = time.Now()
	}
	return nil
}

// tellPosition sends a message without data: browsers keep its id and raise no event.
func (s *subscription) tellPosition() error {
	s.position = s.feed.Position().AppendText(s.position[:0])
	s.out.buf = append(append(append(s.out.buf, "id: "...), s.position...), "\n\n"...)
	s.note()
	return s.out.flush()
}

func (s *subscription) note() {
	s.told = append(s.told[:0], s.position...)
	s.toldAt = time.Now()
	s.written = s.toldAt
}

// oneLine keeps a type from ending its line; a writer of ours lets no such type into the log.
func oneLine(text string) string {
	if strings.ContainsAny(text, "\r\n\x00") {
		return "message"
	}
	return text
}

// sseWriter sends server-sent events, each write within writeDeadline.
type sseWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	buf     []byte
}

func (o *sseWriter) begin() error {
	h := o.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would gather messages
	if err := o.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	o.w.WriteHeader(http.StatusOK)
	return nil
}

func (o *sseWriter) flushFull() error {
	if len(o.buf) < sseBufferBytes {
		return nil
	}
	return o.flush()
}

func (o *sseWriter) flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	if err := o.control.SetWriteDeadline(time.Now().Add(writeDeadline)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err := o.w.Write(o.buf)
	o.buf = o.buf[:0]
	if err == nil {
		err = o.control.Flush()
	}
	return err
}
