package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/streams"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
)

// reading gives an instance a store over the log alone.
func (s *site) reading() settings {
	s.t.Helper()
	definition := tallies.Definition()
	store, err := streams.New(streams.Config{
		Namespace: s.ns, Categories: []string{"note", "tally"}, Deciders: map[string]*decider.Definition{"tally": &definition},
		Kafka: s.opts(), Codec: codec.New(s.registry, codec.Config{}), Logger: silent(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(store.Close)
	return settings{api: func(c *Config) { c.Streams = store }}
}

func (i *instance) get(target string, headers ...string) answered {
	i.site.t.Helper()
	return call(i.site.t, http.MethodGet, i.url+target, "", headers...)
}

// page reads a StreamPage, whose members must be the documented ones.
func page(t testing.TB, a answered) StreamPage {
	t.Helper()
	var p StreamPage
	decoder := json.NewDecoder(strings.NewReader(a.text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); a.status != http.StatusOK || err != nil {
		t.Fatalf("got %d %v: %.300s", a.status, err, a.text)
	}
	return p
}

func TestWhatWasAcknowledgedIsRead(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, k *testkit.Kafka) {
		s := newSite(t, k, 2)
		i := s.start(s.reading())
		s.serving(i)
		id := "ä/1 \"x\" <b>"
		path := "/v1/streams/note/" + url.PathEscape(id)
		before := time.Now().Add(-time.Minute)
		a := i.appendTo("note", id, `{"events":[{"type":"note.Noted","data":{"text":"a\n\"b\"","lines":[{"price":7}]},"id":"e-1","time":"2026-01-02T03:04:05.000006Z","metadata":{"b":"2","a":"ä"}}]}`,
			"Idempotency-Key", "k/1", "ce-userid", "ada", "ce-correlationid", "conv")
		equal(t, "append", a.status, http.StatusCreated)
		for n := range 4 {
			i.appendTo("note", id, fmt.Sprintf(`{"events":[{"type":"note.Noted","data":{"text":"%d"}}]}`, n))
		}

		first := page(t, i.get(path+"/events?limit=1"))
		equal(t, "page", words(first.Category, first.ID, first.Version, len(first.Events), first.Next), words("note", id, 5, 1, 2))
		e := first.Events[0]
		equal(t, "event", words(e.Version, e.ID, e.Type, e.CommandID, e.UserID, e.CorrelationID, e.CausationID, e.Partition, e.Offset, e.Metadata, string(e.Data), e.Error),
			words(1, "e-1", "note.Noted", "k/1", "ada", "conv", "k/1", a.number("partition"), a.number("offset"), map[string]string{"a": "ä", "b": "2"}, `{"text":"a\n\"b\"","lines":[{"price":7}]}`, ""))
		equal(t, "its time", e.Time, time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC))
		if e.RecordedAt.Before(before) || e.RecordedAt.After(time.Now().Add(time.Minute)) {
			t.Errorf("recordedAt: got %s, want now", e.RecordedAt)
		}
		avro := page(t, i.get(path+"/events?limit=1&encoding=avro")).Events[0]
		value, err := base64.StdEncoding.DecodeString(avro.Value)
		if err != nil || !strings.HasPrefix(string(value), "\x00\x00\x00\x00\x0a") || avro.Data != nil {
			t.Errorf("avro: got %q and data %q, %v, want the framed value alone", value, avro.Data, err)
		}
		back := page(t, i.get(path+"/events?direction=backward&from=4&limit=2"))
		equal(t, "backward", words(back.Events[0].Version, back.Events[1].Version, back.Next), "4 3 2")
		whole := page(t, i.get(path+"/events?min_version=5&wait=0s"))
		equal(t, "whole", words(len(whole.Events), whole.Next), "5 0")
		equal(t, "behind the end", len(page(t, i.get(path+"/events?from=6")).Events), 0)

		stale := i.get(path + "/events?min_version=6&wait=20ms")
		equal(t, "a version to come", words(stale.status, stale.code(), stale.header.Get("Retry-After")), "503 stale 1")
		equal(t, "no stream", words(i.get("/v1/streams/note/nobody/events").status, i.get("/v1/streams/note/nobody/events").code()), "404 no-stream")
		equal(t, "no category", i.get("/v1/streams/x/y/events").code(), "unknown-category")
		equal(t, "an external category", i.get("/v1/streams/mailer/y/events").code(), "unknown-category")

		outcome := i.get(path + "/commands/" + url.PathEscape("k/1"))
		equal(t, "outcome", words(outcome.status, outcome.string("outcome"), outcome.string("commandId"), outcome.number("firstVersion"), outcome.number("lastVersion"), outcome.number("offset")),
			words(200, "accepted", "k/1", 1, 1, a.number("offset")))
		equal(t, "no command", words(i.get(path+"/commands/other").status, i.get(path+"/commands/other").code()), "404 no-command")

		equal(t, "no fold", words(i.get(path+"/state").status, i.get(path+"/state").code()), "404 no-fold")
		for n := range 3 {
			equal(t, "command", i.command("t", fmt.Sprintf(`{"type":"tally.Add","data":{"amount":%d}}`, n+1)).status, http.StatusCreated)
		}
		for query, want := range map[string]string{
			"": `3 {"sum":6}`, "?version=2": `2 {"sum":3}`, "?time=" + url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339Nano)): `3 {"sum":6}`,
		} {
			var st StreamState
			got := i.get("/v1/streams/tally/t/state" + query)
			if err := json.Unmarshal([]byte(got.text), &st); err != nil || got.status != 200 || st.Time.Before(before) {
				t.Fatalf("state%s: got %d %s", query, got.status, got.text)
			}
			equal(t, "state"+query, words(st.Version, string(st.State)), want)
		}
		for query, want := range map[string]string{"?version=4": "404 no-version", "?time=2001-01-01T00:00:00Z": "404 no-version"} {
			got := i.get("/v1/streams/tally/t/state" + query)
			equal(t, "state"+query, words(got.status, got.code()), want)
		}
		equal(t, "state of nothing", i.get("/v1/streams/tally/nobody/state").code(), "no-stream")
	})
}

func TestParametersOfReadsAreChecked(t *testing.T) {
	t.Parallel()
	api := lone(t, accepting)
	long := strings.Repeat("x", 300)
	for target, want := range map[string]string{
		"/v1/streams/note/a/events?from=0":                              "400 parameter [query.from]",
		"/v1/streams/note/a/events?from=x&limit=0&direction=up":         "400 parameter [query.from query.limit query.direction]",
		"/v1/streams/note/a/events?from=%2B1":                           "400 parameter [query.from]",
		"/v1/streams/note/a/events?from=":                               "400 parameter [query.from]",
		"/v1/streams/note/a/events?from=99999999999999999999":           "400 parameter [query.from]",
		"/v1/streams/note/a/events?limit=10001":                         "400 parameter [query.limit]",
		"/v1/streams/note/a/events?limit=1&limit=2":                     "400 parameter [query.limit]",
		"/v1/streams/note/a/events?wait=26s":                            "400 parameter [query.wait]",
		"/v1/streams/note/a/events?wait=-1s&min_version=-1":             "400 parameter [query.min_version query.wait]",
		"/v1/streams/note/a/events?encoding=xml":                        "400 parameter [query.encoding]",
		"/v1/streams/note/a/events?cursor=3":                            "400 parameter [query.cursor]",
		"/v1/streams/note/a/events?from=%zz":                            "400 parameter [query]",
		"/v1/streams/note/a%00b/events":                                 "400 key [path.id]",
		"/v1/streams/note/" + long + "/events":                          "400 key [path.id]",
		"/v1/streams/note/a%ff/state":                                   "400 key [path.id]",
		"/v1/streams/note/a/state?version=1&time=2026-01-01T00:00:00Z":  "400 parameter [query.time]",
		"/v1/streams/note/a/state?time=yesterday":                       "400 parameter [query.time]",
		"/v1/streams/note/a/state?time=":                                "400 parameter [query.time]",
		"/v1/streams/note/a/state?time=0000-01-01T00:00:00Z":            "400 parameter [query.time]",
		"/v1/streams/note/a/state?version=1.0":                          "400 parameter [query.version]",
		"/v1/streams/note/a/commands/" + long:                           "400 parameter [path.commandId]",
		"/v1/streams/note/a/commands/a%0ab":                             "400 parameter [path.commandId]",
		"/v1/streams/note/a/commands/c?x=1":                             "400 parameter [query.x]",
		"/v1/subscribe":                                                 "400 parameter [query.category]",
		"/v1/subscribe?category=x":                                      "404 unknown-category []",
		"/v1/subscribe?category=note&type=":                             "400 parameter [query.type]",
		"/v1/subscribe?category=note&type=a,,b":                         "400 parameter [query.type]",
		"/v1/subscribe?category=note&type=" + strings.Repeat("a,", 70):  "400 parameter [query.type]",
		"/v1/subscribe?category=note&type=" + strings.Repeat("a", 5000): "400 parameter [query.type]",
		"/v1/subscribe?category=note&from=":                             "400 parameter [query.from]",
		"/v1/subscribe?category=note&from=yesterday":                    "400 position [query.from]",
		"/v1/subscribe?category=note&from=AAAA":                         "400 position [query.from]",
		"/v1/subscribe?category=note&last=3":                            "400 parameter [query.last]",
		"/v1/subscribe?category=note":                                   "503 unavailable []", // it reads no streams
		"/v1/streams/note/a/events":                                     "503 unavailable []",
	} {
		got := send(t, api, http.MethodGet, target, "")
		equal(t, target, words(got.status, got.code(), got.faults()), want)
	}
	got := send(t, api, http.MethodGet, "/v1/subscribe?category=note&from=start", "", "Last-Event-ID", "junk")
	equal(t, "Last-Event-ID", words(got.status, got.code(), got.faults()), "400 position [header.Last-Event-ID]")
}

func TestErrorsOfReadsHaveTheirCodes(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"503 stale 1":            &streams.StaleError{LagRecords: 9, Behind: time.Second, Reason: "r"},
		"503 log 0":              &streams.LogError{Topic: "t", Offset: 3, Reason: "r"},
		"404 no-stream 0":        fmt.Errorf("%w: x", streams.ErrNoStream),
		"404 no-version 0":       fmt.Errorf("%w: x", streams.ErrNoVersion),
		"404 no-fold 0":          fmt.Errorf("%w: x", streams.ErrNoFold),
		"404 no-command 0":       fmt.Errorf("%w: x", streams.ErrNoCommand),
		"404 unknown-category 0": fmt.Errorf("%w: x", streams.ErrNoCategory),
		"400 position 0":         fmt.Errorf("%w: x", streams.ErrPosition),
		"429 overloaded 1":       fmt.Errorf("%w: x", streams.ErrTooManyFeeds),
	} {
		var p *Problem
		if !errors.As(readProblem(err), &p) {
			t.Errorf("%v: got no problem", err)
			continue
		}
		equal(t, err.Error(), words(p.Status, p.Code, p.RetryAfterSeconds), want)
	}
	var p *Problem
	if errors.As(readProblem(streams.ErrUnavailable), &p) {
		t.Errorf("what is away: got %v, want an error that is logged", p)
	}
}

// writePage answers with a page as if its events were read.
func writePage(t testing.TB, api *API, w http.ResponseWriter, p streams.Page) {
	t.Helper()
	text := pageText{api: api, ctx: t.Context(), encoding: encodingJSON}
	defer text.release()
	for range 2 { // as a read that waits does
		text.Begin()
		for i := range p.Events {
			if err := text.Take(&p.Events[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := text.send(w, &p); err != nil {
		t.Fatal(err)
	}
}

// A page is made by hand; each text must be what encoding/json reads back.
func TestPagesAreJSONWhateverTheTexts(t *testing.T) {
	t.Parallel()
	api := lone(t, accepting)
	hostile := "\x00\x1f\"\\\n\t\r</script>\u2028é\xff\xfe🙂"
	clean := strings.ToValidUTF8(hostile, "\uFFFD\uFFFD") // one for each byte
	p := streams.Page{Stream: event.StreamID{Category: "note", ID: hostile}, Version: 3, Next: 2, Events: []event.Recorded{
		{
			Version: 1, ID: hostile, Type: hostile, CommandID: hostile, CorrelationID: hostile, CausationID: hostile, UserID: hostile, Value: []byte("junk"),
			Extra: []event.Header{{Key: hostile, Value: []byte(hostile)}, {Key: "null"}, {Key: "null", Value: []byte("second")}, {Key: "none"}},
		},
		{Version: 2, Type: "note.Noted", Value: append([]byte{0, 0, 0, 0, idNoted}, "\x04hi\x00"...)},
		{Version: 3, Type: "tally.Added", Value: append([]byte{0, 0, 0, 0, idNoted}, "\x04hi\x00"...)},
	}}
	w := httptest.NewRecorder()
	writePage(t, api, w, p)
	got := page(t, answered{status: w.Code, text: w.Body.String()})
	e := got.Events[0]
	for name, text := range map[string]string{
		"id": got.ID, "event id": e.ID, "type": e.Type, "command": e.CommandID, "correlation": e.CorrelationID, "causation": e.CausationID, "user": e.UserID, "metadata": e.Metadata[clean],
	} {
		equal(t, name, text, clean)
	}
	equal(t, "a header that stands twice", words(len(e.Metadata), e.Metadata["null"]), "3 second")
	equal(t, "a header without a value", e.Metadata["none"], "")
	if string(e.Data) != "null" || !strings.Contains(e.Error, "not framed") {
		t.Errorf("junk: got data %s, error %q, want null and why", e.Data, e.Error)
	}
	equal(t, "sound data", words(string(got.Events[1].Data), got.Events[1].Error), `{"text":"hi","lines":[]} `)
	if e := got.Events[2]; string(e.Data) != "null" || !strings.Contains(e.Error, "another type") {
		t.Errorf("a schema of another type: got data %s, error %q, want null and why", e.Data, e.Error)
	}
}

func TestLongPagesAreSentInPieces(t *testing.T) {
	t.Parallel()
	api := lone(t, accepting)
	p := streams.Page{Stream: event.StreamID{Category: "note", ID: "a"}, Version: 5000}
	for v := range 5000 {
		p.Events = append(p.Events, event.Recorded{Version: event.Version(v + 1), Type: "note.Noted", Value: append([]byte{0, 0, 0, 0, idNoted}, "\x04hi\x00"...)})
	}
	w := httptest.NewRecorder()
	writePage(t, api, w, p)
	got := page(t, answered{status: w.Code, text: w.Body.String()})
	equal(t, "events", words(len(got.Events), got.Events[4999].Version, w.Header().Get("Content-Length")), words(5000, 5000, w.Body.Len()))
}

func TestPagesThatAreReadCountAmongWhatRequestsHold(t *testing.T) {
	t.Parallel()
	api := lone(t, accepting)
	const others, most = 100 << 20, 256 << 20
	api.inFlightBytes.Add(others)
	text := pageText{api: api, ctx: t.Context(), encoding: encodingAvro}
	e := event.Recorded{Version: 1, Type: "note.Noted", Value: make([]byte, 1<<20)}
	take := func() error {
		err := text.Take(&e)
		held := 0
		for _, piece := range text.pieces {
			held += cap(piece.text)
		}
		equal(t, "bytes held", api.inFlightBytes.Load(), int64(others+held))
		return err
	}
	for range 3 {
		if err := take(); err != nil {
			t.Fatal(err)
		}
	}
	text.Begin()
	equal(t, "bytes held by a page that begins anew", api.inFlightBytes.Load(), int64(others))

	api.inFlightBytes.Add(most - others - 1)
	var p *Problem
	if err := text.Take(&e); !errors.As(readProblem(err), &p) || p.Status != http.StatusTooManyRequests || p.Code != codeOverloaded {
		t.Errorf("beyond what may be held: got %v, want 429 overloaded", err)
	}
	text.release()
	text.release()
	equal(t, "bytes held after the page", api.inFlightBytes.Load(), int64(most-1))
}

func TestPagesEndBeforeTheirTextIsTooLong(t *testing.T) {
	t.Parallel()
	text := pageText{api: lone(t, accepting), ctx: t.Context(), encoding: encodingAvro}
	defer text.release()
	e := event.Recorded{Version: 1, Type: "note.Noted", Value: make([]byte, 1<<20)}
	for n := range pageBytesMax/len(e.Value) + 1 {
		if err := text.Take(&e); err != nil {
			if got := n + 1; !errors.Is(err, streams.ErrPageFull) || got != 48 { // in base64 a MiB is four thirds of one
				t.Errorf("after %d events: got %v, want ErrPageFull after 48", got, err)
			}
			return
		}
	}
	t.Errorf("got %d events in one page of %d MiB", text.events, pageBytesMax>>20)
}
