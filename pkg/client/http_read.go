package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

// wireEvent is an event of a read or a subscription.
type wireEvent struct {
	Category      string            `json:"category"` // in subscriptions
	Stream        string            `json:"stream"`
	Version       int64             `json:"version"`
	ID            string            `json:"id"`
	Type          string            `json:"type"`
	Time          time.Time         `json:"time"`
	RecordedAt    time.Time         `json:"recordedAt"`
	CommandID     string            `json:"commandId"`
	CorrelationID string            `json:"correlationId"`
	CausationID   string            `json:"causationId"`
	UserID        string            `json:"userId"`
	Partition     int32             `json:"partition"`
	Offset        int64             `json:"offset"`
	Metadata      map[string]string `json:"metadata"`
	Data          json.RawMessage   `json:"data"`
	Value         []byte            `json:"value"`
	Error         string            `json:"error"` // why there is no data
}

func (w wireEvent) event(stream event.StreamID) Event {
	if len(w.Metadata) == 0 {
		w.Metadata = nil
	}
	return Event{
		Stream: stream, Version: event.Version(w.Version), ID: w.ID, Type: w.Type, Time: w.Time.UTC(), RecordedAt: w.RecordedAt.UTC(),
		CommandID: w.CommandID, CorrelationID: w.CorrelationID, CausationID: w.CausationID, UserID: w.UserID,
		Partition: w.Partition, Offset: w.Offset, Metadata: w.Metadata, Value: w.Value,
	}
}

// errAnswerTooLarge: the answer is larger than is read.
var errAnswerTooLarge = errors.New("the answer is too large")

// load asks for a smaller page where the events are large.
func (h *httpTransport) load(ctx context.Context, q query) (Page, error) {
	for {
		page, err := h.loadOnce(ctx, q)
		if !errors.Is(err, errAnswerTooLarge) || q.limit == 1 {
			return page, err
		}
		q.limit /= 2
	}
}

func (h *httpTransport) loadOnce(ctx context.Context, q query) (Page, error) {
	values := url.Values{"encoding": {"avro"}, "limit": {strconv.Itoa(q.limit)}}
	if q.from > 0 {
		values.Set("from", strconv.FormatInt(int64(q.from), 10))
	}
	if q.backward {
		values.Set("direction", "backward")
	}
	if q.minVersion > 0 {
		values.Set("min_version", strconv.FormatInt(int64(q.minVersion), 10))
		values.Set("wait", q.wait.String())
	}
	var answer struct {
		Version int64       `json:"version"`
		Events  []wireEvent `json:"events"`
		Next    int64       `json:"next"`
	}
	if err := h.get(ctx, "/v1/streams/"+escaped(q.stream)+"/events", values, q.wait, &answer); err != nil {
		return Page{}, err
	}
	page := Page{Stream: q.stream, Version: event.Version(answer.Version), Next: event.Version(answer.Next)}
	for _, w := range answer.Events {
		e := w.event(q.stream)
		if err := h.c.inspect(ctx, &e); err != nil {
			return Page{}, err
		}
		page.Events = append(page.Events, e)
	}
	return page, nil
}

func (h *httpTransport) events(ctx context.Context, q query) func(yield func(Event, error) bool) {
	return func(yield func(Event, error) bool) {
		for {
			page, err := h.load(ctx, q)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range page.Events {
				if !yield(e, nil) {
					return
				}
			}
			if page.Next == 0 {
				return
			}
			q.from, q.minVersion = page.Next, 0
		}
	}
}

func (h *httpTransport) lookup(ctx context.Context, stream event.StreamID, commandID string) (Outcome, error) {
	var answer result
	err := h.get(ctx, "/v1/streams/"+escaped(stream)+"/commands/"+url.PathEscape(commandID), nil, 0, &answer)
	return answer.accepted(commandID), err
}

func (h *httpTransport) state(ctx context.Context, stream event.StreamID, at At) (State, error) {
	values := url.Values{}
	if at.Version > 0 {
		values.Set("version", strconv.FormatInt(int64(at.Version), 10))
	}
	if !at.Time.IsZero() {
		values.Set("time", event.FormatTime(at.Time))
	}
	var answer struct {
		Version int64           `json:"version"`
		Time    time.Time       `json:"time"`
		State   json.RawMessage `json:"state"`
	}
	if err := h.get(ctx, "/v1/streams/"+escaped(stream)+"/state", values, 0, &answer); err != nil {
		return State{}, err
	}
	s := State{Stream: stream, Version: event.Version(answer.Version), RecordedAt: answer.Time.UTC(), JSON: answer.State}
	var err error
	s.Value, err = h.c.valueOf(ctx, stream.Category, answer.State)
	return s, err
}

// get asks, again where the server has no room or is away for a moment.
func (h *httpTransport) get(ctx context.Context, path string, values url.Values, wait time.Duration, into any) error {
	for n := 1; ; n++ {
		err := h.getOnce(ctx, path, values, wait, into)
		var p *problem
		switch {
		case err == nil:
			return nil
		case errors.As(err, &p) && !p.passes():
			return p.named()
		case errors.Is(err, errAnswerTooLarge):
			return err
		case n > h.c.cfg.Retry.Attempts || !h.c.sleep(ctx, h.c.cfg.Retry.pause(n)):
			return err
		}
	}
}

// passes says whether asking again helps: "stale" has waited already, "log" wants an operator.
func (p *problem) passes() bool {
	return p.Status == http.StatusTooManyRequests ||
		(p.Status >= http.StatusInternalServerError && p.Code != "stale" && p.Code != "log")
}

// named adds the error that callers branch on.
func (p *problem) named() error {
	known := map[string]error{
		"no-stream": ErrNoStream, "no-version": ErrNoVersion, "no-fold": ErrNoFold, "no-command": ErrNoCommand,
		"unknown-category": ErrNoCategory, "stale": ErrStale, "position": ErrPosition,
	}
	if err := known[p.Code]; err != nil {
		return fmt.Errorf("%w: %w", err, p)
	}
	return p
}

func (h *httpTransport) getOnce(ctx context.Context, path string, values url.Values, wait time.Duration, into any) error {
	ctx, cancel := context.WithTimeout(ctx, h.c.cfg.AnswerTimeout+wait+answerGrace)
	defer cancel()
	target := h.base + path
	if len(values) > 0 {
		target += "?" + values.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	response, err := h.client().Do(req)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	defer drainBody(response)
	body, err := io.ReadAll(io.LimitReader(response.Body, responseMax))
	if err != nil {
		return fmt.Errorf("GET %s: read the answer: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return problemOf(response, body)
	}
	if len(body) == responseMax {
		return fmt.Errorf("GET %s: %w: %d bytes", path, errAnswerTooLarge, responseMax)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("GET %s: the answer is not as documented: is it a Foldstream? %w", path, err)
	}
	return nil
}
