package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/streams"
	"github.com/foldstream/foldstream/internal/testkit"
)

// message is one server-sent event.
type message struct{ id, typ, data string }

// subscriber reads a subscription as a client does.
type subscriber struct {
	t      testing.TB
	lines  *bufio.Scanner
	closed func()
	last   string // the last id
}

func (i *instance) subscribe(query string, headers ...string) *subscriber {
	i.site.t.Helper()
	ctx, cancel := context.WithTimeout(i.site.t.Context(), time.Minute)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url+"/v1/subscribe?"+query, http.NoBody)
	if err != nil {
		i.site.t.Fatal(err)
	}
	for n := 0; n+1 < len(headers); n += 2 {
		request.Header.Set(headers[n], headers[n+1])
	}
	response, err := http.DefaultClient.Do(request) //nolint:bodyclose // closed by closed
	if err != nil {
		i.site.t.Fatal(err)
	}
	s := &subscriber{t: i.site.t, lines: bufio.NewScanner(response.Body), closed: func() { cancel(); _ = response.Body.Close() }}
	i.site.t.Cleanup(s.closed)
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		text, _ := io.ReadAll(response.Body)
		i.site.t.Fatalf("subscribe: got %d %s", response.StatusCode, text)
	}
	if m := s.any(); m.id == "" || m.data != "" {
		i.site.t.Fatalf("the first message: got %+v, want a position alone", m)
	}
	return s
}

// any is the next message, a position alone included; comments are passed over.
func (s *subscriber) any() (m message) {
	s.t.Helper()
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch {
		case s.lines.Text() == "" && m.id != "":
			s.last = m.id
			return m
		case name == "id":
			m.id = value
		case name == "event":
			m.typ = value
		case name == "data":
			m.data = value
		}
	}
	return message{}
}

// next is the next message with data.
func (s *subscriber) next() (message, RecordedEvent) {
	s.t.Helper()
	for {
		m := s.any()
		if m.id == "" {
			s.t.Fatalf("the subscription ended: %v", s.lines.Err())
		}
		if m.data == "" {
			continue
		}
		var e RecordedEvent
		decoder := json.NewDecoder(strings.NewReader(m.data))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&e); err != nil || e.Type != m.typ {
			s.t.Fatalf("message %+v: %v", m, err)
		}
		return m, e
	}
}

func (i *instance) note(stream, text string) {
	i.site.t.Helper()
	if a := i.appendTo("note", stream, `{"events":[{"type":"note.Noted","data":{"text":"`+text+`"}}]}`); a.status != http.StatusCreated {
		i.site.t.Fatalf("append: %d %s", a.status, a.text)
	}
}

func TestASubscriberSeesEachEventOnceAndGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, k *testkit.Kafka) {
		s := newSite(t, k, 2)
		i := s.start(s.reading())
		s.serving(i)
		i.note("a", "before")
		live := i.subscribe("category=note")
		for n := range 3 {
			i.note("a", fmt.Sprint(n))
		}
		var ids []string
		for n := range 3 {
			m, e := live.next()
			equal(t, "live", words(e.Category, e.Stream, e.Version, string(e.Data)), fmt.Sprintf(`note a %d {"text":"%d","lines":[]}`, n+2, n))
			ids = append(ids, m.id)
		}
		live.closed()
		again := i.subscribe("category=note&from=start", "Last-Event-ID", ids[0])
		_, e := again.next()
		equal(t, "Last-Event-ID before from", e.Version, int64(3))
		_, e = i.subscribe("category=note&from=" + url.QueryEscape(ids[1])).next()
		equal(t, "from a position", e.Version, int64(4))
		_, e = i.subscribe("category=note&from=start").next()
		equal(t, "from the start", e.Version, int64(1))
		_, e = i.subscribe("category=note&from=2001-01-01T00:00:00Z").next()
		equal(t, "from a time", e.Version, int64(1))

		other := i.get("/v1/subscribe?category=tally&from=" + url.QueryEscape(ids[1]))
		equal(t, "a position of another category", words(other.status, other.code()), "400 position")

		filtered := i.subscribe("category=tally&type=" + url.QueryEscape("tally.Sub*,*.Added"))
		i.command("t", `{"type":"tally.Add","data":{"amount":1}}`)
		m, _ := filtered.next()
		equal(t, "filtered", m.typ, "tally.Added")

		// A filter that nothing passes: positions come alone, and none is lost.
		deaf := i.subscribe("category=note&type=note.Other")
		at := deaf.last
		i.note("b", "unheard")
		if m := deaf.any(); m.data != "" || m.id == at || m.id == "" {
			t.Errorf("while nothing passes: got %+v, want a position that moved", m)
		}
		i.note("b", "heard")
		_, e = i.subscribe("category=note", "Last-Event-ID", deaf.last).next()
		equal(t, "behind a position alone", words(e.Stream, e.Version), "b 2")
	})
}

func TestASubscriptionEndsWhenTheServerDrains(t *testing.T) {
	t.Parallel()
	s := newSite(t, testkit.Kafkas(t)[0], 1)
	i := s.start(s.reading())
	s.serving(i)
	live := i.subscribe("category=note")
	i.note("a", "x")
	live.next()
	began := time.Now()
	i.api.Drain()
	if m := live.any(); m.id != "" || live.lines.Err() != nil {
		t.Errorf("after Drain: got %+v, %v, want a clean end", m, live.lines.Err())
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the end took %s", took)
	}
	late := i.get("/v1/subscribe?category=note")
	equal(t, "while draining", words(late.status, late.code()), "503 unavailable")
}

func TestMoreSubscribersThanMayBeAreTurnedAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, testkit.Kafkas(t)[0], 1)
	i := s.start(s.reading(), settings{api: func(c *Config) { c.Limits.SubscribersMax = 2 }})
	s.serving(i)
	one := i.subscribe("category=note")
	i.subscribe("category=note")
	third := i.get("/v1/subscribe?category=note")
	equal(t, "the third", words(third.status, third.code(), third.header.Get("Retry-After")), "429 overloaded 1")
	one.closed()
	testkit.Await(t, "the place is free again", 30*time.Second, func(context.Context) bool { return i.api.subscribers.Load() < 2 })
	i.subscribe("category=note")
}

// A client that does not read: what the server holds for it stays bounded, and it is let go.
func TestAClientThatDoesNotReadIsDisconnected(t *testing.T) {
	t.Parallel()
	slow := &stuckWriter{header: http.Header{}, stuck: make(chan struct{})}
	out := sseWriter{w: slow, control: http.NewResponseController(slow)}
	if err := out.begin(); err != nil {
		t.Fatal(err)
	}
	out.buf = append(out.buf, "id: x\n\n"...)
	before := time.Now()
	if err := out.flush(); err == nil {
		t.Error("a write to a client that does not read: got no error")
	}
	if d := slow.deadline.Sub(before); d < writeDeadline || d > writeDeadline+10*time.Second {
		t.Errorf("the write's deadline: got %s, want %s", d, writeDeadline)
	}
}

// stuckWriter is a connection whose client does not read: a write waits for its deadline.
type stuckWriter struct {
	header   http.Header
	deadline time.Time
	stuck    chan struct{}
}

func (s *stuckWriter) Header() http.Header { return s.header }
func (s *stuckWriter) WriteHeader(int)     {}
func (s *stuckWriter) Write([]byte) (int, error) {
	if s.deadline.IsZero() {
		<-s.stuck // for good
	}
	return 0, context.DeadlineExceeded
}
func (s *stuckWriter) SetWriteDeadline(t time.Time) error { s.deadline = t; return nil }

func TestASubscriptionEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t, testkit.Kafkas(t)[0], 1)
	i := s.start(s.reading())
	s.serving(i)
	conn, err := net.Dial("tcp", strings.TrimPrefix(i.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /v1/subscribe?category=note&from=start HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	testkit.Await(t, "the subscription", 30*time.Second, func(context.Context) bool { return i.api.subscribers.Load() == 1 })
	i.note("a", strings.Repeat("x", 100_000))
	_ = conn.Close() // its end is seen at the next write or by the server itself
	testkit.Await(t, "its end", 30*time.Second, func(context.Context) bool { return i.api.subscribers.Load() == 0 })
}

func TestWhereASubscriptionBegins(t *testing.T) {
	t.Parallel()
	api := lone(t, accepting)
	at := streams.Position{TopicID: [16]byte{1}, Partitions: []streams.PartitionPosition{{Next: 7}}}
	for query, want := range map[string]string{
		"":                                 "false 0001-01-01 00:00:00 +0000 UTC <nil>",
		"from=end":                         "false 0001-01-01 00:00:00 +0000 UTC <nil>",
		"from=start":                       "true 0001-01-01 00:00:00 +0000 UTC <nil>",
		"from=2026-03-01T12:00:00%2B02:00": "false 2026-03-01 10:00:00 +0000 UTC <nil>",
	} {
		r := httptest.NewRequest(http.MethodGet, "/v1/subscribe?category=note&"+query, http.NoBody)
		q, _, err := api.feedQuery(r)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		equal(t, query, fmt.Sprint(q.Start, " ", q.Time, " ", q.Position), want)
	}
	for query, want := range map[string]string{"": encodingJSON, "encoding=json": encodingJSON, "encoding=avro": encodingAvro} {
		_, encoding, err := api.feedQuery(httptest.NewRequest(http.MethodGet, "/v1/subscribe?category=note&"+query, http.NoBody))
		if err != nil || encoding != want {
			t.Errorf("%q: got encoding %q, %v, want %q", query, encoding, err, want)
		}
	}
	for name, r := range map[string]*http.Request{
		"from":   httptest.NewRequest(http.MethodGet, "/v1/subscribe?category=note&from="+at.String(), http.NoBody),
		"header": httptest.NewRequest(http.MethodGet, "/v1/subscribe?category=note&from=start", http.NoBody),
	} {
		if name == "header" {
			r.Header.Set(headerLastEventID, at.String())
		}
		q, _, err := api.feedQuery(r)
		if err != nil || q.Start || q.Position == nil || q.Position.TopicID != at.TopicID || !slices.Equal(q.Position.Partitions, at.Partitions) {
			t.Errorf("%s: got %+v, %v, want the position", name, q, err)
		}
	}
}
