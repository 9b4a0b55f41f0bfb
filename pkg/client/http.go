package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// httpTransport speaks docs/http-api.md. An append of JSON alone goes as JSON, any other as Avro
// with registered ids, so that what the caller encoded is what is stored.
type httpTransport struct {
	c    *Client
	base string // without a slash at the end
	room chan struct{}

	mu    sync.Mutex
	batch *codec.Binding // of foldstream.AppendBatch, once it is used
}

// httpRequest is a request as it is sent.
type httpRequest struct {
	header headers
	path   string // of its own request; commands and JSON appends
	body   []byte
	avro   *codec.AppendBatchRequest // an append with Avro, for POST /v1/append
	json   json.RawMessage           // an append with JSON, for POST /v1/append
	events int
	bytes  int
}

// headers are those that go for a whole HTTP request.
type headers struct{ correlation, causation, user, traceparent string }

const (
	mediaJSON        = "application/json"
	mediaAvro        = event.ContentTypeAvro
	responseMax      = 64 << 20 // bytes of an answer
	batchBytesMax    = 6 << 20  // of a batch, below the server's 8 MiB
	httpLanes        = 8
	answerGrace      = 5 * time.Second // beyond the server's own time-out
	problemBytesShow = 200
)

func newRoundTripper() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	return t
}

func newHTTPTransport(c *Client) *httpTransport {
	return &httpTransport{c: c, base: strings.TrimRight(c.cfg.URL, "/"), room: make(chan struct{}, c.cfg.InFlightMax)}
}

// client is the HTTP client with the token.
func (h *httpTransport) client() *http.Client {
	client := *h.c.cfg.HTTPClient
	client.Transport = &authorized{next: client.Transport, token: h.c.cfg.Token}
	return &client
}

// authorized adds the token.
type authorized struct {
	next  http.RoundTripper
	token func() string
}

func (a *authorized) RoundTrip(req *http.Request) (*http.Response, error) {
	next := a.next
	if next == nil {
		next = http.DefaultTransport
	}
	if a.token == nil {
		return next.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+a.token())
	return next.RoundTrip(req)
}

func (h *httpTransport) lanes() int { return httpLanes }

func (h *httpTransport) close() { h.c.cfg.HTTPClient.CloseIdleConnections() }

func (h *httpTransport) forget(*sendable) {}

// jsonEvent is an event of a JSON append.
type jsonEvent struct {
	Type     string            `json:"type"`
	Data     json.RawMessage   `json:"data"`
	ID       string            `json:"id,omitempty"`
	Time     string            `json:"time,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func (h *httpTransport) prepare(ctx context.Context, r *request) (*sendable, error) {
	if !r.dedupeUntil.IsZero() {
		return nil, errors.New("WithDedupeUntil: the HTTP API has no word for it")
	}
	req := &httpRequest{header: headers{r.correlation, r.causation, r.user, r.traceparent}, events: len(r.events)}
	var err error
	switch {
	case r.command != nil:
		err = h.prepareCommand(ctx, r, req)
	case r.allJSON():
		err = prepareJSON(r, req)
	default:
		err = h.prepareAvro(ctx, r, req)
	}
	if err != nil {
		return nil, err
	}
	return &sendable{http: req}, nil
}

func (r *request) allJSON() bool {
	for _, e := range r.events {
		if e.json == nil {
			return false
		}
	}
	return true
}

func (h *httpTransport) prepareCommand(ctx context.Context, r *request, req *httpRequest) error {
	p, err := h.c.toJSON(ctx, r, "data", *r.command)
	if err != nil {
		return err
	}
	req.path = "/v1/commands/" + escaped(r.stream)
	req.body, err = json.Marshal(struct {
		jsonEvent
		Expected string `json:"expectedVersion"`
	}{jsonEvent{Type: p.typ, Data: p.json, Time: timeText(r.time), Metadata: r.metadata}, r.expected.String()})
	return err
}

func prepareJSON(r *request, req *httpRequest) error {
	events := make([]jsonEvent, len(r.events))
	for i, e := range r.events {
		events[i] = jsonEvent{Type: e.typ, Data: e.json, ID: e.id, Time: timeText(e.at(r.time)), Metadata: e.metadata}
	}
	type body struct {
		Category  string      `json:"category,omitempty"`
		ID        string      `json:"id,omitempty"`
		CommandID string      `json:"commandId,omitempty"`
		Expected  string      `json:"expectedVersion"`
		Events    []jsonEvent `json:"events"`
	}
	one := body{Expected: r.expected.String(), Events: events}
	var err error
	if req.body, err = json.Marshal(one); err != nil {
		return err
	}
	req.path = "/v1/streams/" + escaped(r.stream) + "/events"
	one.Category, one.ID, one.CommandID = r.stream.Category, r.stream.ID, r.id
	req.json, err = json.Marshal(one)
	req.bytes = len(req.json)
	return err
}

func (e item) at(fallback time.Time) time.Time {
	if e.time.IsZero() {
		return fallback
	}
	return e.time
}

// timeText is "" for no time.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return event.FormatTime(t)
}

func (h *httpTransport) prepareAvro(ctx context.Context, r *request, req *httpRequest) error {
	if _, err := h.binding(ctx); err != nil {
		return err
	}
	items, err := h.c.avroItems(ctx, r, r.time)
	if err != nil {
		return err
	}
	req.avro = &codec.AppendBatchRequest{
		Category: r.stream.Category, StreamID: r.stream.ID, ID: r.id, Expected: r.expected.String(), Events: items,
	}
	for _, i := range items {
		req.bytes += len(i.Data) + len(i.Type) + len(i.ID) + 64
		for name, value := range i.Metadata {
			req.bytes += len(name) + len(value) + 8
		}
	}
	return nil
}

// binding of the batch's schema, which the registry is asked for once.
func (h *httpTransport) binding(ctx context.Context) (*codec.Binding, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.batch != nil {
		return h.batch, nil
	}
	b, err := h.c.codec.Bind(ctx, codec.AppendBatchDef())
	if err != nil {
		return nil, fmt.Errorf("bind %s: %w", codec.TypeAppendBatch, err)
	}
	h.batch = b
	return b, nil
}

func escaped(s event.StreamID) string {
	id := url.PathEscape(s.ID)
	if s.ID == "." || s.ID == ".." { // which a URL would lose
		id = strings.ReplaceAll(s.ID, ".", "%2E")
	}
	return url.PathEscape(s.Category) + "/" + id
}

// send posts one request.
func (h *httpTransport) send(ctx context.Context, s *sendable, _ int) answer {
	if s.http.path == "" {
		return h.sendBatch(ctx, []*sendable{s})[0]
	}
	return func() (Outcome, error) {
		body, err := h.post(ctx, s.http.path, mediaJSON, s.http.body, s.http.header, s.id)
		if err != nil {
			return Outcome{}, s.own(err)
		}
		return s.resultOf(body)
	}
}

// sendAll posts the appends together, as far as they have their headers in common, and the
// commands at the same time, but for those of one stream, which follow each other.
func (h *httpTransport) sendAll(ctx context.Context, batch []*sendable, each func(int, answer)) {
	type kind struct {
		header headers
		avro   bool
	}
	appends := map[kind][]int{}
	previous := map[event.StreamID]chan struct{}{}
	for i, s := range batch {
		if s.http.avro == nil && s.http.json == nil {
			each(i, h.sendInTurn(ctx, s, previous))
			continue
		}
		k := kind{s.http.header, s.http.avro != nil}
		appends[k] = append(appends[k], i)
	}
	for _, indexes := range appends {
		for _, chunk := range chunks(batch, indexes) {
			for n, answer := range h.sendBatch(ctx, pick(batch, chunk)) {
				each(chunk[n], answer)
			}
		}
	}
}

// sendInTurn sends behind the one before it of the same stream.
func (h *httpTransport) sendInTurn(ctx context.Context, s *sendable, previous map[event.StreamID]chan struct{}) answer {
	before := previous[s.stream]
	done := make(chan struct{})
	previous[s.stream] = done
	wait := h.send(ctx, s, 1)
	return func() (Outcome, error) {
		defer close(done)
		if before != nil {
			<-before
		}
		return wait()
	}
}

func pick(batch []*sendable, indexes []int) []*sendable {
	out := make([]*sendable, len(indexes))
	for n, i := range indexes {
		out[n] = batch[i]
	}
	return out
}

// chunks cuts a batch below the server's limits.
func chunks(batch []*sendable, indexes []int) [][]int {
	var out [][]int
	bytes, events := 0, 0
	for n, i := range indexes {
		r := batch[i].http
		if n == 0 || bytes+r.bytes > batchBytesMax || events+r.events > codec.AppendBatchEventsMax {
			out, bytes, events = append(out, nil), 0, 0
		}
		bytes, events = bytes+r.bytes, events+r.events
		out[len(out)-1] = append(out[len(out)-1], i)
	}
	return out
}

// sendBatch posts appends of one kind; the first that waits for its answer does it for all.
func (h *httpTransport) sendBatch(ctx context.Context, batch []*sendable) []answer {
	post := sync.OnceValues(func() ([]json.RawMessage, error) { return h.postBatch(ctx, batch) })
	answers := make([]answer, len(batch))
	for i, s := range batch {
		answers[i] = func() (Outcome, error) {
			results, err := post()
			if err != nil {
				return Outcome{}, s.own(err)
			}
			return s.resultOf(results[i])
		}
	}
	return answers
}

func (h *httpTransport) postBatch(ctx context.Context, batch []*sendable) ([]json.RawMessage, error) {
	media, body, err := h.batchBody(ctx, batch)
	if err != nil {
		return nil, err
	}
	answer, err := h.post(ctx, "/v1/append", media, body, batch[0].http.header, "")
	if err != nil {
		return nil, err
	}
	var parsed struct {
		Results []json.RawMessage `json:"results"`
	}
	if err := json.Unmarshal(answer, &parsed); err != nil || len(parsed.Results) != len(batch) {
		return nil, unanswered(fmt.Errorf("the server's answer to POST /v1/append has %d results for %d requests: is it a Foldstream? %w",
			len(parsed.Results), len(batch), errors.Join(err)))
	}
	return parsed.Results, nil
}

func (h *httpTransport) batchBody(ctx context.Context, batch []*sendable) (media string, body []byte, err error) {
	if batch[0].http.avro == nil {
		requests := make([]json.RawMessage, len(batch))
		for i, s := range batch {
			requests[i] = s.http.json
		}
		body, err = json.Marshal(map[string]any{"requests": requests})
		return mediaJSON, body, err
	}
	b, err := h.binding(ctx)
	if err != nil {
		return "", nil, err
	}
	var all codec.AppendBatch
	for _, s := range batch {
		all.Requests = append(all.Requests, *s.http.avro)
	}
	body, err = b.Append(nil, all)
	return mediaAvro, body, err
}

// post sends a body and returns the answer of any status whose document resultOf reads. An error
// is an *attemptError, or final.
func (h *httpTransport) post(ctx context.Context, path, media string, body []byte, hd headers, key string) ([]byte, error) {
	select {
	case h.room <- struct{}{}:
		defer func() { <-h.room }()
	case <-ctx.Done():
		return nil, &attemptError{certain: true, err: context.Cause(ctx)}
	}
	ctx, cancel := context.WithTimeout(ctx, h.c.cfg.AnswerTimeout+answerGrace)
	defer cancel()
	target := h.base + path + "?timeout=" + h.c.cfg.AnswerTimeout.String()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", media)
	for name, value := range map[string]string{
		"Idempotency-Key": key, "ce-correlationid": hd.correlation, "ce-causationid": hd.causation, "ce-userid": hd.user, "traceparent": hd.traceparent,
	} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	response, err := h.client().Do(req)
	if err != nil {
		return nil, unanswered(fmt.Errorf("POST %s: %w", path, err))
	}
	defer drainBody(response)
	answer, err := io.ReadAll(io.LimitReader(response.Body, responseMax))
	if err != nil {
		return nil, unanswered(fmt.Errorf("POST %s: read the answer: %w", path, err))
	}
	if response.StatusCode >= 300 {
		return nil, problemOf(response, answer)
	}
	return answer, nil
}

// drainBody lets the connection be used again.
func drainBody(r *http.Response) {
	const drainMax = 64 << 10
	_, _ = io.CopyN(io.Discard, r.Body, drainMax)
	_ = r.Body.Close()
}

// result is the body of an outcome, and a problem document: both have their members in one.
type result struct {
	Status        int     `json:"status"`
	Outcome       string  `json:"outcome"`
	CommandID     string  `json:"commandId"`
	FirstVersion  int64   `json:"firstVersion"`
	LastVersion   int64   `json:"lastVersion"`
	Partition     *int32  `json:"partition"`
	Offset        *int64  `json:"offset"`
	ActualVersion int64   `json:"actualVersion"`
	Code          string  `json:"code"`
	Title         string  `json:"title"`
	Detail        string  `json:"detail"`
	Errors        []fault `json:"errors"`
}

type fault struct {
	Location string `json:"location"`
	Message  string `json:"message"`
}

// problem is an answer that is no success.
type problem struct {
	result
	retryAfter time.Duration
}

func (p *problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if p.Code != "" {
		return fmt.Sprintf("the server answers %d %s: %s", p.Status, p.Code, text)
	}
	return fmt.Sprintf("the server answers %d: %s", p.Status, text)
}

func problemOf(response *http.Response, body []byte) error {
	p := &problem{}
	if err := json.Unmarshal(body, &p.result); err != nil {
		p.Title = http.StatusText(response.StatusCode) + " " + strings.ToValidUTF8(string(body[:min(len(body), problemBytesShow)]), "")
	}
	p.Status = response.StatusCode
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		p.retryAfter = time.Duration(seconds) * time.Second
	}
	return p
}

// resultOf reads the outcome of one request.
func (s *sendable) resultOf(body []byte) (Outcome, error) {
	var r result
	if err := json.Unmarshal(body, &r); err != nil {
		return Outcome{}, unanswered(fmt.Errorf("the server's answer is no JSON: %w", err))
	}
	if r.Outcome == string(Accepted) || r.Outcome == string(Duplicate) {
		return r.accepted(s.id), nil
	}
	return Outcome{}, s.own(&problem{result: r})
}

func (r result) accepted(id string) Outcome {
	o := Outcome{
		Kind: Kind(r.Outcome), RequestID: id, First: event.Version(r.FirstVersion), Last: event.Version(r.LastVersion), Partition: -1, Offset: -1,
	}
	if r.Partition != nil {
		o.Partition = *r.Partition
	}
	if r.Offset != nil {
		o.Offset = *r.Offset
	}
	return o
}

// own says what a problem means for this request.
func (s *sendable) own(err error) error {
	var p *problem
	if !errors.As(err, &p) {
		return err
	}
	switch {
	case p.Outcome == "conflict":
		return &ConflictError{RequestID: s.id, Stream: s.stream, Expected: s.expected, Actual: event.Version(p.ActualVersion)}
	case p.Outcome == "rejected":
		return s.rejected(p.Code, p.Detail)
	case p.Status == http.StatusTooManyRequests:
		return &attemptError{certain: true, retryAfter: p.retryAfter, err: fmt.Errorf("%w: %w", ErrOverloaded, p)}
	case p.Status >= http.StatusInternalServerError, p.Outcome == "unknown":
		return &attemptError{retryAfter: p.retryAfter, err: p}
	case p.Code == "unknown-category":
		return fmt.Errorf("%w: %w", ErrNoCategory, p)
	case p.Status == http.StatusUnauthorized, p.Status == http.StatusForbidden:
		return fmt.Errorf("%w: see Config.Token", p)
	}
	faults := make([]Fault, len(p.Errors))
	for i, f := range p.Errors {
		faults[i] = Fault{Path: f.Location, Message: f.Message}
	}
	return &InvalidError{RequestID: s.id, Stream: s.stream, Code: p.Code, Message: p.Detail, Faults: faults}
}
