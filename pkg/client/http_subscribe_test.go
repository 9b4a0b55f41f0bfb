package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
)

// feed is a server of messages: each connection gets the next script, and is ended behind it.
type feed struct {
	*httptest.Server
	mu      sync.Mutex
	scripts []string
	last    []string // Last-Event-ID of each connection
	queries []url.Values
}

func newFeed(t *testing.T, scripts ...string) *feed {
	t.Helper()
	f := &feed{scripts: scripts}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		n := len(f.last)
		f.last, f.queries = append(f.last, r.Header.Get("Last-Event-ID")), append(f.queries, r.URL.Query())
		f.mu.Unlock()
		if n >= len(f.scripts) {
			<-r.Context().Done()
			return
		}
		if strings.HasPrefix(f.scripts[n], "{") {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = io.WriteString(w, f.scripts[n])
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *feed) connections() ([]string, []url.Values) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.last...), append([]url.Values{}, f.queries...)
}

// framedNote is a framed note of fewer than 64 bytes.
func framedNote(text string) []byte {
	return append(append(codec.AppendConfluent(nil, idNoted), byte(2*len(text))), text...)
}

func sse(id string, version int, text string) string {
	return fmt.Sprintf("id: %s\nevent: note.Noted\ndata: {\"category\":\"note\",\"stream\":\"s\",\"version\":%d,\"id\":\"e%d\",\"type\":\"note.Noted\",\"time\":\"2026-01-01T00:00:00Z\",\"recordedAt\":\"2026-01-01T00:00:00Z\",\"partition\":0,\"offset\":%d,\"value\":%q}\n\n",
		id, version, version, version, base64.StdEncoding.EncodeToString(framedNote(text)))
}

// places keeps what is saved.
type places struct {
	mu    sync.Mutex
	start string
	saved []string
}

func (p *places) Load(context.Context, string) (string, error) { return p.start, nil }

func (p *places) Save(_ context.Context, _, position string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.saved = append(p.saved, position)
	return nil
}

func TestAConnectionThatEndsGoesOnBehindTheLastMessage(t *testing.T) {
	t.Parallel()
	f := newFeed(t,
		": hello\n\nid: p0\n\n"+sse("p1", 1, "a")+sse("p2", 2, "b"),
		"id: p3\n\n", // a position alone
		sse("p4", 3, "c")+"id: p5\ndata: {\"half",
		sse("p5", 4, "d"))
	store := &places{start: "stored"}
	got := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- newClient(t, Config{URL: f.URL}).Subscribe(ctx, Subscription{
			Name: "s", Category: "note", Types: []string{"note.*", "x"}, Checkpoints: store,
			Handler: func(_ context.Context, e Event) error {
				data, err := e.Data()
				if err != nil {
					return err
				}
				got <- fmt.Sprintf("%d %s", e.Version, data.(noted).Text)
				return nil
			},
		})
	}()
	for _, want := range []string{"1 a", "2 b", "3 c", "4 d"} {
		select {
		case text := <-got:
			if text != want {
				t.Errorf("got %q, want %q", text, want)
			}
		case err := <-ended:
			t.Fatalf("ended: %v", err)
		case <-time.After(30 * time.Second):
			t.Fatalf("%q does not come", want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want nil", err)
	}
	last, queries := f.connections()
	if got, want := fmt.Sprint(last[:4]), "[stored p2 p3 p4]"; got != want {
		t.Errorf("Last-Event-ID: got %s, want %s", got, want)
	}
	if queries[0].Get("type") != "note.*,x" || queries[0].Get("category") != "note" || queries[0].Has("from") {
		t.Errorf("got query %v", queries[0])
	}
	if n := len(store.saved); n == 0 || store.saved[n-1] != "p5" {
		t.Errorf("saved %v, want p5 at the end", store.saved)
	}
}

func TestFromIsSentWhereThereIsNoCheckpoint(t *testing.T) {
	t.Parallel()
	for want, from := range map[string]From{
		"start": FromStart(), "end": FromEnd(), "p9": FromPosition("p9"),
		"2026-01-01T00:00:00.5Z": FromTime(time.Date(2026, 1, 1, 1, 0, 0, 5e8, time.FixedZone("", 3600))),
	} {
		f := newFeed(t, `{"status":400,"code":"position"}`)
		err := newClient(t, Config{URL: f.URL}).Subscribe(t.Context(), Subscription{
			Name: "s", Category: "note", From: from, Handler: func(context.Context, Event) error { return nil },
		})
		if !errors.Is(err, ErrPosition) {
			t.Errorf("got %v, want ErrPosition", err)
		}
		if _, queries := f.connections(); queries[0].Get("from") != want {
			t.Errorf("got from %q, want %q", queries[0].Get("from"), want)
		}
	}
}

func TestMessagesThatAreNoneOfOursEndTheSubscription(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"no JSON":   "id: p1\ndata: hello\n\n",
		"no stream": "id: p1\ndata: {}\n\n",
		"no value":  strings.Replace(sse("p1", 1, "a"), `"value"`, `"data"`, 1),
	} {
		f := newFeed(t, script)
		err := newClient(t, Config{URL: f.URL}).Subscribe(t.Context(), Subscription{
			Name: "s", Category: "note", Handler: func(context.Context, Event) error { return nil },
		})
		if !errors.Is(err, errNotOurs) {
			t.Errorf("%s: got %v, want errNotOurs", name, err)
		}
	}
}

func TestDataThatTheServerCannotReadBecomesALetter(t *testing.T) {
	t.Parallel()
	broken := strings.Replace(sse("p1", 1, "a"), `"value":"`, `"error":"the guard refused it","ignored":"`, 1)
	f := newFeed(t, broken+sse("p2", 2, "b"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	letters := make(chan Letter, 1)
	err := newClient(t, Config{URL: f.URL}).Subscribe(ctx, Subscription{
		Name: "s", Category: "note",
		Handler:  func(context.Context, Event) error { cancel(); return nil },
		OnLetter: func(_ context.Context, l Letter) error { letters <- l; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if l := <-letters; l.Event.Version != 1 || l.Attempts != 1 || !strings.Contains(l.Err.Error(), "the guard refused it") {
		t.Errorf("got %+v, want a letter of version 1 at the first attempt", l)
	}
}

func TestWithoutAPlaceForLettersAFailureEndsTheSubscription(t *testing.T) {
	t.Parallel()
	f := newFeed(t, sse("p1", 1, "a")+sse("p2", 2, "b"))
	store := &places{}
	cause := errors.New("cannot take it")
	var seen []string
	err := newClient(t, Config{URL: f.URL}).Subscribe(t.Context(), Subscription{
		Name: "s", Category: "note", Checkpoints: store, Retry: Retry{Attempts: -1},
		Handler: func(_ context.Context, e Event) error { seen = append(seen, e.ID); return cause },
	})
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "OnLetter") {
		t.Errorf("got %v, want the handler's error and what to set", err)
	}
	if fmt.Sprint(seen) != "[e1]" || len(store.saved) != 0 {
		t.Errorf("handled %v, saved %v: want the first event alone, and no place past it", seen, store.saved)
	}
}

func TestReadMessages(t *testing.T) {
	t.Parallel()
	var got []string
	err := readMessages(strings.NewReader("\uFEFF: c\n\nid: 1\ndata: a\ndata: b\nother: x\n\ndata:c\r\n\r\nid\n\nid: 3"), func() {}, func(m message) error {
		got = append(got, m.id+"|"+string(m.data))
		return nil
	})
	if want := []string{"1|a\nb", "|c", "|"}; !errors.Is(err, io.EOF) || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func FuzzReadMessages(f *testing.F) {
	f.Add("id: 1\ndata: a\n\n")
	f.Add(": c\n\nid\ndata\n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		err := readMessages(strings.NewReader(text), func() {}, func(m message) error {
			if len(m.data) > len(text) || strings.Contains(m.id, "\n") {
				t.Errorf("got message %+v of %q", m, text)
			}
			return nil
		})
		if err == nil {
			t.Error("the end of a connection is no error")
		}
	})
}

func TestTheWatchdogBarksAtSilenceOnly(t *testing.T) {
	t.Parallel()
	barked := make(chan struct{})
	w := newWatchdog(time.Hour, func() { close(barked) })
	w.pause()
	w.after = 0
	w.alive() // from here on it is silent
	select {
	case <-barked:
	case <-time.After(10 * time.Second):
		t.Error("it does not bark")
	}
	w.stop()
}
