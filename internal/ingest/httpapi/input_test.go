package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// send asks an API without a server.
func send(t testing.TB, api http.Handler, method, target, body string, headers ...string) answered {
	t.Helper()
	request := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		request.Header.Set("Content-Type", mediaJSON)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	api.ServeHTTP(w, request)
	a := answered{status: w.Code, header: w.Header(), text: w.Body.String()}
	if err := json.Unmarshal(w.Body.Bytes(), &a.body); err != nil {
		t.Errorf("%s %s: the answer is no JSON object: %s", method, target, a.text)
	}
	return a
}

// The endpoints of writes, and a good body of each.
const (
	noteEvents  = "/v1/streams/note/n/events"
	tallyAdd    = "/v1/commands/tally/n"
	batchAppend = "/v1/append"

	goodCommand = `{"type":"tally.Add","data":{"amount":1}}`
	goodBatch   = `{"requests":[{"category":"note","id":"n","events":[{"type":"note.Noted","data":{"text":"t"}}]}]}`
)

func TestBadInputIsAProblemThatSaysWhatAndWhere(t *testing.T) {
	t.Parallel()
	api := lone(t, func(_ context.Context, r gateway.Request) (engine.Outcome, error) {
		t.Errorf("a request went to the gateway: %+v", r)
		return engine.Outcome{}, nil
	})
	events := func(text string) string { return `{"events":[` + text + `]}` }
	deep := strings.Repeat("[", 70) + strings.Repeat("]", 70)
	many := strings.Repeat(`{"type":"note.Noted","data":{"text":""}},`, eventsMax)
	longID := strings.Repeat("a", 256)
	for _, c := range []struct {
		name, target, body string
		headers            []string
		status             int
		code, locations    string
	}{
		{"nothing", noteEvents, ``, []string{"Content-Type", mediaJSON}, 400, "body", "body"},
		{"no JSON", noteEvents, `{`, nil, 400, "body", "body"},
		{"not an object", noteEvents, `[]`, nil, 400, "body", "body"},
		{"no UTF-8", noteEvents, events("\"\xff\""), nil, 400, "body", "body"},
		{"something behind it", noteEvents, noted + `x`, nil, 400, "body", "body"},
		{"something behind a NUL behind it", noteEvents, noted + "\x00x", nil, 400, "body", "body"},
		{"a NUL for a value", noteEvents, `{"expectedVersion":` + "\x00" + `}`, nil, 400, "body", "body.expectedVersion"},
		{"a comma too many", noteEvents, `{"events":[],}`, nil, 400, "body", "body"},
		{"no events", noteEvents, `{}`, nil, 400, "body", "body.events"},
		{"empty events", noteEvents, `{"events":[]}`, nil, 400, "empty-append", "body.events"},
		{"null events", noteEvents, `{"events":null}`, nil, 400, "body", "body.events"},
		{"too many events", noteEvents, events(many + `{}`), nil, 400, "body", "body.events[1000]"},
		{"an unknown member", noteEvents, `{"event":[]}`, nil, 400, "body", "body.event"},
		{"a member twice", noteEvents, `{"events":[],"events":[]}`, nil, 400, "body", "body.events"},
		{"a member twice by an escape", noteEvents, `{"events":[],"event\u0073":[]}`, nil, 400, "body", "body.events"},
		{"a version below 0", noteEvents, `{"expectedVersion":-1,"events":[]}`, nil, 400, "body", "body.expectedVersion"},
		{"a version of 19 digits", noteEvents, `{"expectedVersion":1000000000000000000,"events":[]}`, nil, 400, "body", "body.expectedVersion"},
		{"a broken version", noteEvents, `{"expectedVersion":1.5,"events":[]}`, nil, 400, "body", "body.expectedVersion"},
		{"a version with a zero in front", noteEvents, `{"expectedVersion":01,"events":[]}`, nil, 400, "body", "body.expectedVersion"},
		{"a word for a version", noteEvents, `{"expectedVersion":"some","events":[]}`, nil, 400, "body", "body.expectedVersion"},
		{"an empty version", noteEvents, `{"expectedVersion":"","events":[]}`, nil, 400, "body", "body.expectedVersion"},
		{"null for a version", noteEvents, `{"expectedVersion":null,"events":[]}`, nil, 400, "body", "body.expectedVersion"},
		{"no type", noteEvents, events(`{"data":{}}`), nil, 400, "body", "body.events[0].type"},
		{"no data", noteEvents, events(`{"type":"note.Noted"}`), nil, 400, "body", "body.events[0].data"},
		{"another category's type", noteEvents, events(`{"type":"tally.Added","data":{"amount":1}}`), nil, 400, "type", "body.events[0].type"},
		{"a type that is not registered", noteEvents, events(`{"type":"note.Nope","data":{}}`), nil, 400, "type", "body.events[0].type"},
		{"a state", "/v1/streams/tally/n/events", events(`{"type":"tally.State","data":{"sum":1}}`), nil, 400, "kind", "body.events[0].type"},
		{"a command among events", "/v1/streams/tally/n/events", events(`{"type":"tally.Add","data":{"amount":1}}`), nil, 400, "kind", "body.events[0].type"},
		{"an event as a command", tallyAdd, `{"type":"tally.Added","data":{"amount":1}}`, nil, 400, "kind", "body.type"},
		{"data of another shape", noteEvents, events(`{"type":"note.Noted","data":{"text":7,"lines":[{"price":"x"}]}}`), nil, 400, "payload", "body.events[0].data.text body.events[0].data.lines[0].price"},
		{"faults in several events", noteEvents, events(`{"type":"note.Noted","data":{}},{"type":"note.Noted","data":{"text":"t"}},{"type":"x","data":1}`), nil, 400, "payload", "body.events[0].data.text body.events[2].type"},
		{"data that is no JSON", noteEvents, events(`{"type":"note.Noted","data":{"text":tru}}`), nil, 400, "payload", "body.events[0].data.text body.events[0].data.text"},
		{"data of the command", tallyAdd, `{"type":"tally.Add","data":{"amount":"much"}}`, nil, 400, "payload", "body.data.amount"},
		{"deep nesting in data", noteEvents, events(`{"type":"note.Noted","data":` + deep + `}`), nil, 400, "body", "body.events[0].data"},
		{"deep nesting instead of an object", noteEvents, deep, nil, 400, "body", "body"},
		{"an empty id of an event", noteEvents, events(`{"type":"note.Noted","data":{"text":""},"id":""}`), nil, 400, "body", "body.events[0].id"},
		{"a control character in an event's id", noteEvents, events(`{"type":"note.Noted","data":{"text":""},"id":"a\u0000"}`), nil, 400, "body", "body.events[0].id"},
		{"a time that is none", noteEvents, events(`{"type":"note.Noted","data":{"text":""},"time":"yesterday"}`), nil, 400, "body", "body.events[0].time"},
		{"a year of five digits", noteEvents, events(`{"type":"note.Noted","data":{"text":""},"time":"12026-01-01T00:00:00Z"}`), nil, 400, "body", "body.events[0].time"},
		{"the zero time of Go", noteEvents, events(`{"type":"note.Noted","data":{"text":""},"time":"0001-01-01T00:00:00Z"}`), nil, 400, "body", "body.events[0].time"},
		{"the zero time of Go in another zone", tallyAdd, `{"type":"tally.Add","data":{"amount":1},"time":"0001-01-01T01:00:00+01:00"}`, nil, 400, "body", "body.time"},
		{"less than a microsecond behind the epoch among several", noteEvents, events(`{"type":"note.Noted","data":{"text":""}},{"type":"note.Noted","data":{"text":""},"time":"1970-01-01T00:00:00.0000009Z"}`), nil, 400, "payload", "body.events[1].time"},
		{"the epoch among several", noteEvents, events(`{"type":"note.Noted","data":{"text":""},"time":"1970-01-01T00:00:00Z"},{"type":"note.Noted","data":{"text":""}}`), nil, 400, "payload", "body.events[0].time"},
		{"metadata of numbers", noteEvents, events(`{"type":"note.Noted","data":{"text":""},"metadata":{"a":1}}`), nil, 400, "body", "body.events[0].metadata.a"},
		{"metadata with a reserved name", noteEvents, events(`{"type":"note.Noted","data":{"text":""},"metadata":{"fs-command-id":"x"}}`), nil, 400, "body", "body.events[0].metadata.fs-command-id"},
		{"metadata twice", noteEvents, events(`{"type":"note.Noted","data":{"text":""},"metadata":{"a":"1","a":"2"}}`), nil, 400, "body", "body.events[0].metadata.a"},
		{"an id of a command", tallyAdd, `{"type":"tally.Add","data":{"amount":1},"id":"x"}`, nil, 400, "body", "body.id"},

		{"an unknown category", "/v1/streams/nope/n/events", noted, nil, 404, "unknown-category", ""},
		{"somebody else's category", "/v1/commands/mailer/n", goodCommand, nil, 404, "unknown-category", ""},
		{"a category with a slash", "/v1/streams/note%2Fx/n/events", noted, nil, 404, "unknown-category", ""},
		{"an id with a line break", "/v1/streams/note/a%0Ab/events", noted, nil, 400, "key", "path.id"},
		{"an id with a NUL", "/v1/commands/tally/a%00b", goodCommand, nil, 400, "key", "path.id"},
		{"an id that is no UTF-8", "/v1/streams/note/%ff/events", noted, nil, 400, "key", "path.id"},
		{"an id that is too long", "/v1/streams/note/" + longID + "/events", noted, nil, 400, "key", "path.id"},
		{"no id", "/v1/streams/note//events", noted, nil, 404, "not-found", ""},
		{"a dot for an id", "/v1/streams/note/../events", noted, nil, 404, "not-found", ""},
		{"no such path", "/v1/nope", noted, nil, 404, "not-found", ""},

		{"an unknown parameter", noteEvents + "?tiemout=1s", noted, nil, 400, "parameter", "query.tiemout"},
		{"a parameter twice", noteEvents + "?timeout=1s&timeout=2s", noted, nil, 400, "parameter", "query.timeout"},
		{"a timeout that is none", noteEvents + "?timeout=soon", noted, nil, 400, "parameter", "query.timeout"},
		{"a timeout too long", noteEvents + "?timeout=26s", noted, nil, 400, "parameter", "query.timeout"},
		{"a broken query", noteEvents + "?a=%zz", noted, nil, 400, "parameter", "query"},

		{"an empty key", noteEvents, noted, []string{"Idempotency-Key", ""}, 400, "header", "header.Idempotency-Key"},
		{"a key that is too long", noteEvents, noted, []string{"Idempotency-Key", longID}, 400, "header", "header.Idempotency-Key"},
		{"a key that is no UTF-8", noteEvents, noted, []string{"Idempotency-Key", "\xff"}, 400, "header", "header.Idempotency-Key"},
		{"a user with a line break", noteEvents, noted, []string{"ce-userid", "a\nb"}, 400, "header", "header.ce-userid"},
		{"a correlation that is too long", tallyAdd, goodCommand, []string{"ce-correlationid", strings.Repeat("x", 4097)}, 400, "header", "header.ce-correlationid"},
		{"a key for a batch", batchAppend, goodBatch, []string{"Idempotency-Key", "k"}, 400, "header", "header.Idempotency-Key"},

		{"another media type", noteEvents, noted, []string{"Content-Type", "text/plain"}, 415, "media-type", ""},
		{"a form", tallyAdd, goodCommand, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "media-type", ""},
		{"another charset", noteEvents, noted, []string{"Content-Type", "application/json; charset=latin1"}, 415, "media-type", ""},
		{"Avro for one stream", noteEvents, noted, []string{"Content-Type", mediaAvro}, 415, "media-type", ""},
		{"a compressed body", batchAppend, goodBatch, []string{"Content-Encoding", "gzip"}, 415, "media-type", ""},
		{"a body too large", noteEvents, strings.Repeat(" ", 1<<20+1), nil, 413, "body-too-large", ""},

		{"no requests", batchAppend, `{}`, nil, 400, "body", "body.requests"},
		{"empty requests", batchAppend, `{"requests":[]}`, nil, 400, "body", "body.requests"},
		{"too many requests", batchAppend, `{"requests":[` + strings.Repeat(`{"category":"a","id":"b","events":[]},`, requestsMax) + `{}]}`, nil, 400, "body", "body.requests[1000]"},
		{"too many events in a batch", batchAppend, `{"requests":[` + strings.Repeat(`{"category":"note","id":"b","events":[`+strings.TrimSuffix(many, ",")+`]},`, 10) + `{"category":"note","id":"b","events":[{}]}]}`, nil, 400, "body", "body.requests[10].events[0]"},
		{"a request without an id", batchAppend, `{"requests":[{"category":"note","events":[]}]}`, nil, 400, "body", "body.requests[0].id"},
		{"an empty commandId", batchAppend, `{"requests":[{"category":"note","id":"a","commandId":"","events":[]}]}`, nil, 400, "body", "body.requests[0].commandId"},
		{"Avro that is none", batchAppend, "\x00\x00\x00\x00\x05\xff", []string{"Content-Type", mediaAvro}, 400, "body", "body"},
		{"Avro of another type", batchAppend, "\x00\x00\x00\x00\x0a\x00\x00", []string{"Content-Type", mediaAvro}, 400, "body", "body"},
		{"Avro of no schema", batchAppend, "\x00\x00\x00\xff\x0a\x00\x00", []string{"Content-Type", mediaAvro}, 400, "body", "body"},
		{"Avro without a frame", batchAppend, "hello", []string{"Content-Type", mediaAvro}, 400, "body", "body"},
		{"Avro without requests", batchAppend, "\x00\x00\x00\x00\x05\x00", []string{"Content-Type", mediaAvro}, 400, "body", "body.requests"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := send(t, api, http.MethodPost, c.target, c.body, c.headers...)
			if got.status != c.status || got.code() != c.code || strings.Join(got.faults(), " ") != c.locations {
				t.Errorf("got %d %s %v, want %d %s [%s]\n%s", got.status, got.code(), got.faults(), c.status, c.code, c.locations, got.text)
			}
			if got.header.Get("Content-Type") != web.ContentTypeProblem || got.number("status") != int64(c.status) || got.string("detail") == "" || got.string("title") == "" {
				t.Errorf("not a whole problem: %s %s", got.header.Get("Content-Type"), got.text)
			}
			if !utf8.ValidString(got.text) || len(got.text) > 32<<10 {
				t.Errorf("the answer has %d bytes or is no UTF-8", len(got.text))
			}
		})
	}
	if n := api.inFlight.Load() + api.inFlightBytes.Load() + api.inBatches.Load(); n != 0 {
		t.Errorf("counters after all requests: got %d, want 0", n)
	}
}

func TestAnotherMethodIsToldWhichThereAre(t *testing.T) {
	t.Parallel()
	api := lone(t, accepting)
	got := send(t, api, http.MethodDelete, noteEvents, "")
	equal(t, "DELETE", words(got.status, got.code(), got.header.Get("Allow")), "405 method GET, POST")
	equal(t, "GET", send(t, api, http.MethodGet, batchAppend, "").status, http.StatusMethodNotAllowed)
}

func TestIDsInPathsArePercentEncoded(t *testing.T) {
	t.Parallel()
	var seen []string
	api := lone(t, func(ctx context.Context, r gateway.Request) (engine.Outcome, error) {
		seen = append(seen, r.StreamID)
		return accepting(ctx, r)
	})
	ids := []string{"a/b", "a b", "ä?#%", "..", ".", "%2F", "a+b", strings.Repeat("ä", 127)}
	for _, id := range ids {
		escaped := strings.ReplaceAll(url.PathEscape(id), ".", "%2E")
		if got := send(t, api, http.MethodPost, "/v1/streams/note/"+escaped+"/events", noted); got.status != http.StatusCreated {
			t.Errorf("%q: got %d %s", id, got.status, got.text)
		}
	}
	equal(t, "ids", seen, ids)
}

func TestWhatReachesTheGateway(t *testing.T) {
	t.Parallel()
	var got gateway.Request
	api := lone(t, func(ctx context.Context, r gateway.Request) (engine.Outcome, error) {
		got = r
		return accepting(ctx, r)
	})
	answer := send(t, api, http.MethodPost, noteEvents, `{"expectedVersion":3,"events":[{"data":{"text":"t"},"type":"note.Noted","id":"k"}]}`,
		"Idempotency-Key", "k", "ce-causationid", "c")
	equal(t, "a bare event", words(got.Request.Type, got.Request.ID, got.Request.Expected, got.Request.CausationID, got.FreshID, len(got.Value)), "note.Noted k 3 c false 8")
	equal(t, "its key", answer.string("commandId"), "k")

	answer = send(t, api, http.MethodPost, noteEvents, noted)
	if got.Request.ID == "" || got.Request.ID != answer.string("commandId") || !got.FreshID {
		t.Errorf("a key made up: the gateway got %q, the client %q", got.Request.ID, answer.string("commandId"))
	}
	send(t, api, http.MethodPost, noteEvents, `{"events":[{"data":{"text":"t"},"type":"note.Noted","id":"own"}]}`, "Idempotency-Key", "k")
	equal(t, "an event with an id of its own", got.Request.Type, codec.TypeAppend)
	send(t, api, http.MethodPost, tallyAdd, `{"data":{"amount":1},"type":"tally.Add","time":"2026-01-02T03:04:05Z","expectedVersion":"exists"}`)
	equal(t, "a command", words(got.Request.Type, got.Request.Expected, event.FormatTime(got.Request.Time)), "tally.Add exists 2026-01-02T03:04:05Z")
}

func TestAnAvroBatchIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	var got []gateway.Request
	api := lone(t, func(ctx context.Context, r gateway.Request) (engine.Outcome, error) {
		got = append(got, r) // one stream: one after the other
		return accepting(ctx, r)
	})
	binding, err := api.batchBinding(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	item := codec.AppendItem{Type: "note.Noted", SchemaID: idNoted, Data: []byte{2, 'a', 0}, Time: 1_700_000_000_000_000, Metadata: map[string]string{"m": "1"}}
	value, err := binding.Append(nil, codec.AppendBatch{Requests: []codec.AppendBatchRequest{
		{Category: "note", StreamID: "n", ID: "one", Expected: "none", Events: []codec.AppendItem{item}},
		{Category: "note", StreamID: "n", Events: []codec.AppendItem{item, item}},
		{Category: "note", StreamID: "n", ID: "x", Expected: "soon", Events: []codec.AppendItem{item}},
		{Category: "note", StreamID: "n", ID: "y"},
		{Category: "nope", StreamID: "n", ID: "z", Events: []codec.AppendItem{item}},
		{Category: "note", StreamID: "n\n", ID: "z", Events: []codec.AppendItem{item}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	answer := send(t, api, http.MethodPost, batchAppend, string(value), "Content-Type", mediaAvro)
	results, _ := answer.body["results"].([]any)
	var told []string
	for _, r := range results {
		one := answered{body: r.(map[string]any)}
		told = append(told, words(one.number("status"), one.code(), one.faults()))
	}
	equal(t, "results", told, []string{
		"201  []", "201  []", "400 header [body.requests[2].expectedVersion]", "400 empty-append [body.requests[3].events]",
		"404 unknown-category []", "400 key [body.requests[5].id]",
	})
	if len(got) != 2 {
		t.Fatalf("the gateway got %d requests, want 2", len(got))
	}
	equal(t, "the bare one", words(got[0].Request.Type, got[0].Request.ID, got[0].Request.Expected, len(got[0].Request.Extra)), "note.Noted one none 1")
	if !bytes.Equal(got[0].Value, []byte{0, 0, 0, 0, idNoted, 2, 'a', 0}) {
		t.Errorf("its value: got % x", got[0].Value)
	}
	equal(t, "the one of two", words(got[1].Request.Type, got[1].FreshID), "foldstream.Append true")
}

func TestRequestsOfOneStreamKeepTheirOrder(t *testing.T) {
	t.Parallel()
	const streams, each = 20, 20
	orders := make([][]string, streams)
	api := lone(t, func(ctx context.Context, r gateway.Request) (engine.Outcome, error) {
		var n int
		_, _ = fmt.Sscanf(r.StreamID, "s%d", &n)
		orders[n] = append(orders[n], r.Request.ID) // a race here would be two requests of one stream at once
		return accepting(ctx, r)
	})
	var requests []string
	for i := range streams * each {
		requests = append(requests, fmt.Sprintf(`{"category":"note","id":"s%d","commandId":"c%02d","events":[{"type":"note.Noted","data":{"text":""}}]}`, i%streams, i/streams))
	}
	got := send(t, api, http.MethodPost, batchAppend, `{"requests":[`+strings.Join(requests, ",")+`]}`)
	equal(t, "status", got.status, http.StatusOK)
	for s, order := range orders {
		for i, id := range order {
			if id != fmt.Sprintf("c%02d", i) {
				t.Fatalf("stream %d: got %v", s, order)
			}
		}
		equal(t, "requests of a stream", len(order), each)
	}
}

func TestFaultsOfABatchPointIntoIt(t *testing.T) {
	t.Parallel()
	for code, want := range map[string][2]string{
		engine.CodeIDReused: {"header.Idempotency-Key", "body.requests[0].commandId"},
		engine.CodeKey:      {"path.id", "body.requests[0].id"},
		engine.CodePayload:  {"body", "body.requests[0]"},
	} {
		api := lone(t, func(context.Context, gateway.Request) (engine.Outcome, error) {
			return engine.Outcome{Kind: engine.OutcomeInvalid, Code: code, Message: "why", Errors: []string{"why"}}, nil
		})
		equal(t, code+" of one", send(t, api, http.MethodPost, noteEvents, noted).faults(), []string{want[0]})
		results, _ := send(t, api, http.MethodPost, batchAppend, goodBatch).body["results"].([]any)
		if len(results) != 1 {
			t.Fatalf("%s: got %d results, want 1", code, len(results))
		}
		equal(t, code+" in a batch", answered{body: results[0].(map[string]any)}.faults(), []string{want[1]})
	}
}

func FuzzBodies(f *testing.F) {
	for _, seed := range []string{noted, goodCommand, goodBatch, `{"expectedVersion":"none","events":[{"type":"note.Noted","data":{"text":"\u00e4","lines":[]},"metadata":{"a":"b"},"time":"2026-01-01T00:00:00Z","id":"e"}]}`} {
		f.Add([]byte(seed), uint8(0))
		f.Add([]byte(seed), uint8(1))
		f.Add([]byte(seed), uint8(2))
	}
	var fault error // of the request under way
	api := lone(f, func(ctx context.Context, r gateway.Request) (engine.Outcome, error) {
		if _, err := codec.ParseFrame(r.Value); err != nil || !utf8.ValidString(r.Request.ID) {
			fault = fmt.Errorf("the gateway got %q: %w", r.Value, err)
		}
		return accepting(ctx, r)
	})
	f.Fuzz(func(t *testing.T, body []byte, which uint8) {
		target := []string{noteEvents, tallyAdd, batchAppend}[which%3]
		got := send(t, api, http.MethodPost, target, string(body), "Content-Type", mediaJSON)
		switch got.status {
		case http.StatusOK, http.StatusCreated, http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		default:
			t.Errorf("%q: got %d %s", body, got.status, got.text)
		}
		// Of a request of a batch that is refused by itself, the data is not looked at.
		if accepted := got.status < 300 && !strings.Contains(got.text, `{"status":4`); accepted && !json.Valid(body) {
			t.Errorf("%q is no JSON and was taken", body)
		}
		if fault != nil {
			t.Error(fault)
		}
	})
}
