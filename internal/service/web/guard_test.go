package web

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func broken(http.ResponseWriter, *http.Request) { panic("secret payload") }

// served runs a handler over a Net; ended is what it panics with all the same.
func served(n *Net, next http.HandlerFunc) (w *httptest.ResponseRecorder, ended any) {
	w = httptest.NewRecorder()
	defer func() { ended = recover() }()
	n.Guard("a route", next).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
	return w, nil
}

func TestAPanicIsAnsweredAndItsPlaceLogged(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]http.HandlerFunc{
		"of the handler": broken,
		"of another goroutine": func(http.ResponseWriter, *http.Request) {
			caught := make(chan *Panicked)
			go func() {
				defer func() { caught <- &Panicked{Value: recover(), Frames: PanicFrames(1)} }()
				broken(nil, nil)
			}()
			panic(<-caught)
		},
	} {
		var logs bytes.Buffer
		n := &Net{Logger: slog.New(slog.NewTextHandler(&logs, nil)), Panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "panics"})}
		w, ended := served(n, next)
		if text := w.Body.String(); ended != nil || w.Code != http.StatusInternalServerError || !strings.Contains(text, `"code":"bug"`) || strings.Contains(text, "secret") {
			t.Errorf("%s: got %d %s and the panic %v, want a 500 without payload", name, w.Code, text, ended)
		}
		if text := logs.String(); !strings.Contains(text, "web.broken:") || !strings.Contains(text, "kind=string") || !strings.Contains(text, "a route") || strings.Contains(text, "secret") {
			t.Errorf("%s: logged %s, want the place without payload", name, text)
		}
		if got := testutil.ToFloat64(n.Panics); got != 1 {
			t.Errorf("%s: counted %v, want 1", name, got)
		}
	}
}

func TestAnAnswerThatHasBegunIsBrokenOff(t *testing.T) {
	t.Parallel()
	n := &Net{Logger: slog.New(slog.DiscardHandler), Answer: func(http.ResponseWriter) { t.Error("answered twice") }}
	for name, next := range map[string]http.HandlerFunc{
		"behind its begin": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK); panic("why") },
		"on purpose":       func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		if _, ended := served(n, next); ended != http.ErrAbortHandler { //nolint:errorlint // the very value that net/http looks for
			t.Errorf("%s: got %v, want ErrAbortHandler", name, ended)
		}
	}
}

func TestABugIsAnsweredInTheFormAskedFor(t *testing.T) {
	t.Parallel()
	n := &Net{Logger: slog.New(slog.DiscardHandler), Answer: func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) }}
	if w, ended := served(n, broken); ended != nil || w.Code != http.StatusTeapot {
		t.Errorf("got %d and the panic %v, want the answer given", w.Code, ended)
	}
}
