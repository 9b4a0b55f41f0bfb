package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

func TestASendingIsRepeatedWithTheSameKeyAndBytes(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]struct {
		status int
		header map[string]string
		body   string
	}{
		"unknown":      {503, map[string]string{"Retry-After": "1"}, `{"status": 503, "code": "unknown", "outcome": "unknown"}`},
		"unavailable":  {503, nil, "a proxy's page"},
		"overloaded":   {429, nil, `{"status": 429, "code": "overloaded"}`},
		"a bad proxy":  {502, nil, ""},
		"over limit":   {422, nil, `{"status": 422, "code": "over-capacity", "outcome": "rejected"}`},
		"half a story": {201, nil, `{"outcome": "acc`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(n int, _ taken) (int, map[string]string, string) {
				if n == 1 {
					return first.status, first.header, first.body
				}
				return 201, nil, accepted("k")
			})
			c := newClient(t, Config{URL: s.URL + "/", Token: func() string { return "secret" }})
			outcome, err := c.Append(t.Context(), stream, event.ExpectExactly(4),
				[]NewEvent{{Type: "note.Noted", JSON: json.RawMessage(`{"text":"x"}`)}}, WithID("k"), WithCorrelation("c"), WithUser("u"))
			want := Outcome{Kind: Accepted, RequestID: "k", First: 1, Last: 1, Partition: 2, Offset: 5}
			if err != nil || outcome != want {
				t.Fatalf("got %+v, %v, want %+v", outcome, err, want)
			}
			got := s.requests()
			if len(got) != 2 || got[0].body != got[1].body || got[0].path != got[1].path {
				t.Fatalf("got %d requests %+v, want two of the same", len(got), got)
			}
			for i, r := range got {
				if r.header.Get("Idempotency-Key") != "k" || r.header.Get("ce-correlationid") != "c" || r.header.Get("ce-userid") != "u" || r.header.Get("Authorization") != "Bearer secret" {
					t.Errorf("request %d: got headers %v", i, r.header)
				}
			}
			if got[0].path != "/v1/streams/note/a%2Fb%20%C3%BC/events" || got[0].query != "timeout=10s" {
				t.Errorf("got %s?%s", got[0].path, got[0].query)
			}
			if body := asMap(t, got[0].body); body["expectedVersion"] != "4" {
				t.Errorf("got body %s", got[0].body)
			}
		})
	}
}

func TestTheLastErrorSaysWhetherTheOutcomeIsKnown(t *testing.T) {
	t.Parallel()
	const unknown, full = `{"status": 503, "code": "unknown", "outcome": "unknown"}`, `{"status": 429, "code": "overloaded"}`
	for name, c := range map[string]struct {
		answers   []int
		isUnknown bool
		is        error
	}{
		"never room":             {[]int{429, 429, 429, 429}, false, ErrOverloaded},
		"unknown, then no room":  {[]int{503, 429, 429, 429}, true, ErrOverloaded},
		"no room, then unknown":  {[]int{429, 503, 503, 503}, true, ErrUnknownOutcome},
		"unknown from the start": {[]int{503, 503, 503, 503}, true, ErrUnknownOutcome},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(n int, _ taken) (int, map[string]string, string) {
				status := c.answers[n-1]
				return status, nil, map[int]string{503: unknown, 429: full}[status]
			})
			_, err := newClient(t, Config{URL: s.URL}).Append(t.Context(), stream, event.ExpectedAny, []NewEvent{{Type: "note.Noted", JSON: json.RawMessage(`{}`)}}, WithID("the-id"))
			if errors.Is(err, ErrUnknownOutcome) != c.isUnknown || !errors.Is(err, c.is) || !strings.Contains(err.Error(), "the-id") {
				t.Errorf("got %v, want unknown: %v, and %v", err, c.isUnknown, c.is)
			}
			if n := len(s.requests()); n != 4 {
				t.Errorf("sent %d times, want 4: once and three repetitions", n)
			}
		})
	}
}

func TestFinalAnswersAreNotRepeated(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		check  func(error) bool
	}{
		"conflict": {409, `{"status":409,"code":"conflict","outcome":"conflict","actualVersion":7}`, func(err error) bool {
			var e *ConflictError
			return errors.As(err, &e) && e.Actual == 7 && e.Stream == stream && e.RequestID == "k"
		}},
		"rejected": {422, `{"status":422,"code":"no","detail":"not so","outcome":"rejected"}`, func(err error) bool {
			var e *RejectedError
			return errors.As(err, &e) && e.Code == "no" && e.Message == "not so" && !errors.Is(err, ErrOverloaded)
		}},
		"invalid": {400, `{"status":400,"code":"payload","detail":"d","outcome":"invalid","errors":[{"location":"body.events[0].data.x","message":"m"}]}`, func(err error) bool {
			var e *InvalidError
			return errors.As(err, &e) && e.Code == "payload" && len(e.Faults) == 1 && e.Faults[0] == Fault{"body.events[0].data.x", "m"}
		}},
		"too large": {413, `{"status":413,"code":"body-too-large"}`, func(err error) bool {
			var e *InvalidError
			return errors.As(err, &e) && e.Code == "body-too-large"
		}},
		"unknown category": {404, `{"status":404,"code":"unknown-category"}`, func(err error) bool { return errors.Is(err, ErrNoCategory) }},
		"no token":         {401, `{"status":401,"code":"unauthorized"}`, func(err error) bool { return strings.Contains(err.Error(), "Config.Token") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(int, taken) (int, map[string]string, string) { return c.status, nil, c.body })
			client := newClient(t, Config{URL: s.URL})
			_, err := client.Append(t.Context(), stream, event.ExpectedAny, []NewEvent{{Type: "note.Noted", JSON: json.RawMessage(`{}`)}}, WithID("k"))
			if err == nil || !c.check(err) || errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("alone: got %v", err)
			}
			if n := len(s.requests()); n != 1 {
				t.Errorf("sent %d times, want once", n)
			}
		})
	}
}

func TestGoValuesGoAsAvroInOneBatchWithOutcomesOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(_ int, r taken) (int, map[string]string, string) {
		if r.path != "/v1/append" {
			return 404, nil, "{}"
		}
		batch := decodeBatch(t, r.body)
		all := make([]string, len(batch.Requests))
		for i, one := range batch.Requests {
			all[i] = accepted(one.ID)
			if one.StreamID == "s-1" {
				all[i] = `{"status":409,"code":"conflict","outcome":"conflict","actualVersion":3}`
			}
		}
		return 200, nil, results(all...)
	})
	c := newClient(t, Config{URL: s.URL, BatchWait: time.Hour})
	var pending []*Pending
	for i := range 4 {
		id := event.StreamID{Category: "note", ID: fmt.Sprint("s-", i%2)}
		user := WithUser([]string{"ann", "ann", "bob", "ann"}[i])
		pending = append(pending, c.AppendAsync(id, event.ExpectedNone, []NewEvent{{Data: noted{Text: fmt.Sprint(i)}, ID: fmt.Sprint("e", i)}}, user))
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, p := range pending {
		var conflict *ConflictError
		if isConflict := errors.As(p.Err(), &conflict); isConflict != (i%2 == 1) {
			t.Errorf("append %d: got %+v, %v", i, p.Outcome(), p.Err())
		}
	}
	// Headers go for a whole request, so that users do not share one.
	for _, r := range s.requests() {
		for _, one := range decodeBatch(t, r.body).Requests {
			isBob := one.Events[0].ID == "e2"
			if got := r.header.Get("ce-userid"); (got == "bob") != isBob || one.Expected != "none" || one.Events[0].SchemaID != idNoted {
				t.Errorf("got %+v with user %s", one, got)
			}
		}
	}
}

func TestABatchIsCutBelowTheServersLimits(t *testing.T) {
	t.Parallel()
	batch := make([]*sendable, 5)
	indexes := make([]int, len(batch))
	for i := range batch {
		batch[i], indexes[i] = &sendable{http: &httpRequest{bytes: batchBytesMax / 2, events: 4000}}, i
	}
	var sizes []int
	for _, chunk := range chunks(batch, indexes) {
		sizes = append(sizes, len(chunk))
	}
	if fmt.Sprint(sizes) != "[2 2 1]" {
		t.Errorf("got chunks of %v, want 2, 2, 1", sizes)
	}
}

func TestDedupeUntilIsRefusedOverHTTP(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{URL: "http://127.0.0.1:1"})
	_, err := c.Append(t.Context(), stream, event.ExpectedAny, []NewEvent{{Data: noted{}}}, WithDedupeUntil(time.Now().Add(time.Hour)))
	if err == nil || !strings.Contains(err.Error(), "WithDedupeUntil") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestACallerWhoLeavesDuringAnAttemptIsToldThatTheOutcomeIsUnknown(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	release := make(chan struct{})
	s := newServer(t, func(int, taken) (int, map[string]string, string) {
		close(asked)
		<-release
		return 201, nil, accepted("k")
	})
	defer close(release) // before the server is closed, which waits for its handlers
	ctx, cancel := context.WithCancelCause(t.Context())
	mine := errors.New("the caller's own cause")
	go func() { <-asked; cancel(mine) }()
	_, err := newClient(t, Config{URL: s.URL}).Append(ctx, stream, event.ExpectedAny, []NewEvent{{Type: "note.Noted", JSON: json.RawMessage(`{}`)}}, WithID("k"))
	var unknown *UnknownError
	if !errors.As(err, &unknown) || unknown.RequestID != "k" || unknown.Sendings != 1 || !errors.Is(err, mine) {
		t.Errorf("got %v, want an UnknownError of k with the caller's cause", err)
	}
}

func TestReadsAreAskedForAgainWhereThatHelps(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		code   string
		asked  int
		is     error
	}{
		"overloaded":  {429, "overloaded", 4, nil},
		"unavailable": {503, "unavailable", 4, nil},
		"stale":       {503, "stale", 1, ErrStale},
		"log":         {503, "log", 1, nil},
		"no stream":   {404, "no-stream", 1, ErrNoStream},
		"parameter":   {400, "parameter", 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(int, taken) (int, map[string]string, string) {
				return c.status, nil, fmt.Sprintf(`{"status":%d,"code":%q}`, c.status, c.code)
			})
			_, err := newClient(t, Config{URL: s.URL}).Load(t.Context(), stream, 0, 0)
			if err == nil || (c.is != nil && !errors.Is(err, c.is)) || !strings.Contains(err.Error(), c.code) {
				t.Errorf("got %v, want %v with code %s", err, c.is, c.code)
			}
			if n := len(s.requests()); n != c.asked {
				t.Errorf("asked %d times, want %d", n, c.asked)
			}
		})
	}
}

func TestLargeEventsAreReadInSmallerPages(t *testing.T) {
	t.Parallel()
	filler := strings.Repeat(" ", responseMax)
	s := newServer(t, func(_ int, r taken) (int, map[string]string, string) {
		if !strings.Contains(r.query, "limit=25&") && !strings.HasSuffix(r.query, "limit=25") {
			return 200, nil, "{}" + filler
		}
		return 200, nil, `{"version": 7, "events": [], "next": 3}`
	})
	page, err := newClient(t, Config{URL: s.URL}).Load(t.Context(), stream, 0, 100)
	if err != nil || page.Version != 7 || page.Next != 3 || len(s.requests()) != 3 {
		t.Errorf("got %+v, %v after %d requests, want the page of 25 after 100 and 50", page, err, len(s.requests()))
	}
}

func TestStreamIDsSurviveThePath(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{"a/b": "note/a%2Fb", "..": "note/%2E%2E", ".": "note/%2E", "a?b#c": "note/a%3Fb%23c", "%2F": "note/%252F"} {
		if got := escaped(event.StreamID{Category: "note", ID: id}); got != want {
			t.Errorf("%q: got %s, want %s", id, got, want)
		}
	}
}

func TestTheRegistryIsFoundUnderTheURL(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(_ int, r taken) (int, map[string]string, string) {
		text, _ := json.Marshal(notedSchema)
		switch r.path {
		case "/api/registry/subjects/note.Noted/versions/1", "/api/registry/subjects/note.Noted/versions/latest":
			return 200, nil, fmt.Sprintf(`{"subject":"note.Noted","version":1,"id":9,"schema":%s}`, text)
		case "/api/registry/schemas/ids/9":
			return 200, nil, fmt.Sprintf(`{"schema":%s}`, text)
		case "/api/registry/schemas/ids/9/versions":
			return 200, nil, `[{"subject":"note.Noted","version":1}]`
		}
		return 404, nil, `{"error_code":40401,"message":"no such subject"}`
	})
	r, err := NewRegistryReader(s.URL+"/api/registry", http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // asked once
		for name, find := range map[string]func() (string, int32, error){
			"by id": func() (string, int32, error) { reg, err := r.ByID(t.Context(), 9); return typeOf(reg, err) },
			"version": func() (string, int32, error) {
				reg, err := r.Version(t.Context(), "note.Noted", 1)
				return typeOf(reg, err)
			},
			"latest": func() (string, int32, error) {
				reg, err := r.Latest(t.Context(), "note.Noted")
				return typeOf(reg, err)
			},
		} {
			if typ, id, err := find(); err != nil || typ != "note.Noted" || id != 9 {
				t.Errorf("%s: got %s, %d, %v", name, typ, id, err)
			}
		}
	}
	if n := len(s.requests()); n > 4 {
		t.Errorf("asked %d times, want each thing once", n)
	}
	if _, err := r.ByID(t.Context(), 8); !isUnknownSchema(err) {
		t.Errorf("an unknown id: got %v, want ErrUnknownSchema", err)
	}
	s.Close()
	if _, err := r.ByID(t.Context(), 7); err == nil || isUnknownSchema(err) {
		t.Errorf("a registry that is away: got %v, want another error", err)
	}
}
