package service

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

func allowed(t *testing.T, tokens *Tokens, header string) bool {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	if header != "" {
		request.Header.Set("Authorization", header)
	}
	passed := false
	w := httptest.NewRecorder()
	tokens.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true })).ServeHTTP(w, request)
	if !passed && (w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") != "Bearer") {
		t.Errorf("refused: got %d %v, want 401 and how to authenticate", w.Code, w.Header())
	}
	return passed
}

func TestAnyTokenOfTheFileLetsPass(t *testing.T) {
	t.Parallel()
	tokens, err := NewTokens(write(t, "first\n\n  second \n"), silent())
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]bool{
		"Bearer first": true, "bearer second": true, "Bearer third": false, "Basic first": false, "first": false,
		"Bearer ": false, "": false, "Bearer first ": false,
	} {
		if got := allowed(t, tokens, header); got != want {
			t.Errorf("%q: got %t, want %t", header, got, want)
		}
	}
	for name, path := range map[string]string{"no file": "/nowhere", "an empty file": write(t, "\n"), "blanks alone": write(t, " \n \n"), "too many": write(t, strings.Repeat("x\n", tokensMax+1))} {
		if _, err := NewTokens(path, silent()); err == nil || !strings.Contains(err.Error(), "http.token_file") {
			t.Errorf("%s: got %v, want an error that names the key", name, err)
		}
	}
}

func TestAFileThatChangesIsReadAgain(t *testing.T) {
	t.Parallel()
	path := write(t, "old\n")
	now := time.Now()
	tokens, err := NewTokens(path, silent())
	if err != nil {
		t.Fatal(err)
	}
	tokens.digests.clock = func() time.Time { return now }
	change := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		now = now.Add(2 * reloadInterval)
	}
	change("newer\n")
	if !allowed(t, tokens, "Bearer newer") || allowed(t, tokens, "Bearer old") {
		t.Error("the file changed: want the new token alone")
	}
	change("\n")
	if !allowed(t, tokens, "Bearer newer") {
		t.Error("a file that holds none: want the token of before")
	}
	change("third token\n")
	if !allowed(t, tokens, "Bearer third token") {
		t.Error("the file was mended: want what it holds now")
	}
}

func TestHTTPIsServedByTLS(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := certificate(t)
	cfg := DefaultConfig().HTTP
	cfg.Addr, cfg.TLSCertFile, cfg.TLSKeyFile = "127.0.0.1:0", certFile, keyFile
	s := runHTTP(t, cfg)
	if !strings.HasPrefix(s.URL(), "https://127.0.0.1:") {
		t.Errorf("URL: got %s", s.URL())
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Get(s.URL() + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 {
		t.Errorf("got %d by HTTP/%d, want 200 by HTTP/2", answer.StatusCode, answer.ProtoMajor)
	}
	cfg.TLSKeyFile = "/nowhere"
	if _, err := NewHTTPServer(cfg, NewMetricsRegistry(), silent()); err == nil || !strings.Contains(err.Error(), "http.tls_key_file") {
		t.Errorf("no key: got %v, want an error that names the settings", err)
	}
}

func runHTTP(t *testing.T, cfg HTTPConfig, prepare ...func(*HTTPServer)) *HTTPServer {
	t.Helper()
	s, err := NewHTTPServer(cfg, NewMetricsRegistry(), silent())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range prepare {
		p(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want an orderly end", err)
		}
	})
	return s
}

// A request that waits for longer than the drain takes is told to end, and may still answer.
func TestTheDrainEndsContextsInTime(t *testing.T) {
	t.Parallel()
	arrived, told := make(chan struct{}), make(chan struct{})
	cfg := DefaultConfig().HTTP
	cfg.Addr = "127.0.0.1:0"
	s, err := NewHTTPServer(cfg, NewMetricsRegistry(), silent())
	if err != nil {
		t.Fatal(err)
	}
	s.drainMax = 50 * time.Millisecond
	s.OnShutdown(func() { close(told) })
	s.Handle("/wait", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		if !errors.Is(context.Cause(r.Context()), ErrDraining) {
			t.Errorf("the context ended by %v, want ErrDraining", context.Cause(r.Context()))
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	status := make(chan int, 1)
	go func() {
		answer, err := http.Get(s.URL() + "/wait")
		if err != nil {
			t.Errorf("the request broke: %v", err)
			status <- 0
			return
		}
		defer answer.Body.Close()
		status <- answer.StatusCode
	}()
	<-arrived
	stop()
	<-told
	if got := <-status; got != http.StatusServiceUnavailable {
		t.Errorf("got %d, want what the handler said when it was told to end", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestHTTPLimitsAreChecked(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.HTTP.BodyBytesMax, cfg.HTTP.BatchBytesMax, cfg.HTTP.InFlightMax, cfg.HTTP.SubscribersMax = 1, 1<<40, 0, -1
	cfg.HTTP.RequestTimeout, cfg.HTTP.TLSCertFile = time.Minute, "x"
	err := cfg.Validate()
	for _, key := range []string{"body_bytes_max", "batch_bytes_max", "in_flight_max", "subscribers_max", "request_timeout", "tls_key_file"} {
		if err == nil || !strings.Contains(err.Error(), "http."+key) {
			t.Errorf("got %v, want a fault of http.%s", err, key)
		}
	}
}
