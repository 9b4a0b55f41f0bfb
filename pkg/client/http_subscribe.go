package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// httpSource reads server-sent events. It has one track; places are the messages' ids. A
// connection that ends goes on behind the last message that was queued.
type httpSource struct {
	h           *httpTransport
	s           *subscription
	checkpoints Checkpoints // nil: a replay stores nothing
	last        string      // id of the last message that was queued
}

const (
	silenceMax   = time.Minute // the server says something every 15 s
	messageMax   = 16 << 20    // bytes of a line
	lineBuffered = 64 << 10
)

// memory keeps places as long as the subscription lives.
type memory struct{}

func (memory) Load(context.Context, string) (string, error) { return "", nil }
func (memory) Save(context.Context, string, string) error   { return nil }

func (h *httpTransport) source(ctx context.Context, s *subscription) (source, error) {
	src := &httpSource{h: h, s: s, checkpoints: s.cfg.Checkpoints}
	if src.checkpoints == nil {
		src.checkpoints = memory{}
	}
	if s.cfg.Replay && !s.cfg.MoveCheckpoint {
		src.checkpoints = nil
	}
	if !s.cfg.Replay {
		var err error
		if src.last, err = src.checkpoints.Load(ctx, s.cfg.Name); err != nil {
			return nil, fmt.Errorf("load the checkpoint: %w", err)
		}
	}
	at := place{token: src.last}
	s.open(0, at, at)
	return src, nil
}

func (src *httpSource) close() {}

func (src *httpSource) letter(context.Context, *entry, error, int, time.Time) error {
	return errNoLetters
}

func (src *httpSource) position(tracks []*track) string {
	for _, t := range tracks {
		return t.at.token
	}
	return ""
}

func (src *httpSource) store(ctx context.Context, t *track) error {
	if src.checkpoints == nil {
		return nil
	}
	return src.checkpoints.Save(ctx, src.s.cfg.Name, t.at.token)
}

// fetch connects, and again when a connection ends.
func (src *httpSource) fetch(ctx context.Context) error {
	retry := Retry{Wait: 200 * time.Millisecond, WaitMax: 10 * time.Second}
	for n := 1; ; n++ {
		before := src.last
		err := src.connection(ctx)
		var p *problem
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &p) && !p.passes():
			return p.named()
		case errors.Is(err, errNotOurs):
			return err
		case src.last != before:
			n = 1
		}
		src.h.c.cfg.Logger.Warn("the subscription's connection ended, connecting again", "subscription", src.s.cfg.Name, "error", err)
		if !src.h.c.sleep(ctx, retry.pause(n)) {
			return context.Cause(ctx)
		}
	}
}

// errNotOurs: a message is not as documented.
var errNotOurs = errors.New("the server's messages are not as documented: is it a Foldstream?")

// connection reads one connection until it ends.
func (src *httpSource) connection(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, src.h.base+"/v1/subscribe?"+src.query().Encode(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if src.last != "" {
		req.Header.Set("Last-Event-ID", src.last)
	}
	watch := newWatchdog(silenceMax, func() { cancel(fmt.Errorf("the server said nothing for %s", silenceMax)) })
	defer watch.stop()
	response, err := src.h.client().Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, lineBuffered))
		return problemOf(response, body)
	}
	err = readMessages(response.Body, watch.alive, func(m message) error { return src.take(ctx, m, watch) })
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (src *httpSource) query() url.Values {
	cfg := src.s.cfg
	values := url.Values{"category": {cfg.Category}, "encoding": {"avro"}}
	if len(cfg.Types) > 0 {
		values.Set("type", strings.Join(cfg.Types, ","))
	}
	if src.last == "" {
		values.Set("from", cfg.From.text())
	}
	return values
}

func (f From) text() string {
	switch f.kind {
	case fromEnd:
		return "end"
	case fromTime:
		return event.FormatTime(f.time)
	case fromPosition:
		return f.position
	}
	return "start"
}

// take queues a message, or passes over a position that comes alone.
func (src *httpSource) take(ctx context.Context, m message, watch *watchdog) error {
	if m.id == "" {
		return nil
	}
	t, after := src.s.track(0), place{token: m.id}
	if len(m.data) == 0 {
		src.s.pass(t, after)
		src.last = m.id
		return nil
	}
	var w wireEvent
	if err := json.Unmarshal(m.data, &w); err != nil || w.Stream == "" || w.Type == "" {
		return fmt.Errorf("%w (message %.40q) %w", errNotOurs, m.id, errors.Join(err))
	}
	e := w.event(event.StreamID{Category: src.s.cfg.Category, ID: w.Stream})
	e.types, e.codec = &src.h.c.types, src.h.c.codec
	switch {
	case e.Value != nil:
	case w.Error != "": // the server could not read it: neither can the handler
		e.fault = fmt.Errorf("%w: %s", codec.ErrBadData, w.Error)
	default:
		return fmt.Errorf("%w (message %.40q has no value)", errNotOurs, m.id)
	}
	// While the queue is full nothing is read, which is no silence of the server.
	if _, err := src.s.room(ctx, watch.pause, watch.alive); err != nil {
		return err
	}
	src.s.add(t, e, after)
	src.last = m.id
	return nil
}

// watchdog calls back when it is not told of life for a while.
type watchdog struct {
	mu    sync.Mutex
	timer *time.Timer
	after time.Duration
}

func newWatchdog(after time.Duration, bark func()) *watchdog {
	return &watchdog{timer: time.AfterFunc(after, bark), after: after}
}

func (w *watchdog) alive() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Reset(w.after)
}

func (w *watchdog) pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}

func (w *watchdog) stop() { w.pause() }

// message is one server-sent event.
type message struct {
	id   string
	data []byte
}

// readMessages reads a text/event-stream; alive is told of each line.
func readMessages(body io.Reader, alive func(), each func(message) error) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, lineBuffered), messageMax)
	var m message
	var told bool // something of a message has come
	for lines.Scan() {
		alive()
		line := lines.Text()
		if line == "" {
			if told {
				if err := each(m); err != nil {
					return err
				}
			}
			m, told = message{}, false
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			m.id, told = value, true
		case "data":
			if m.data != nil {
				m.data = append(m.data, '\n')
			}
			m.data, told = append(m.data, value...), true
			if len(m.data) > messageMax {
				return fmt.Errorf("%w: a message of more than %d bytes", errNotOurs, messageMax)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.EOF
}
