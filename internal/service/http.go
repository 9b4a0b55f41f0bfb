package service

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// HTTPServer serves /metrics, /livez and /readyz, and what else is handed to it by Handle.
//
// /livez answers 200 as long as the process can answer at all. /readyz runs every check and
// answers 200 when all pass, else 503; its JSON names each check with "ok" or its reason.
//
// An answer may take httpWriteTimeout; one that goes on for longer, such as a stream of events,
// sets its own deadlines by http.ResponseController, before each write.
type HTTPServer struct {
	cfg      HTTPConfig
	logger   *slog.Logger
	mux      *http.ServeMux
	listener net.Listener
	tls      *tls.Config // nil: plain
	drainMax time.Duration

	mu         sync.Mutex
	checks     []check
	onShutdown []func()
}

type check struct {
	name string
	ok   func() error
}

const (
	httpHeaderBytesMax = 64 << 10
	httpIdleTimeout    = 2 * time.Minute
	// httpWriteTimeout is longer than any request waits for its outcome.
	httpWriteTimeout = time.Minute
	// httpDrainTimeout is how long requests under way may go on; then their contexts end, and they
	// have httpShutdownTimeout to say so.
	httpDrainTimeout     = 5 * time.Second
	httpShutdownTimeout  = 2 * time.Second
	metricsScrapesMax    = 4
	metricsScrapeTimeout = 10 * time.Second
)

// NewHTTPServer listens at once, so that a port that is taken fails at start and Addr is known
// before Run. gatherer is the process's own registry of metrics.
func NewHTTPServer(cfg HTTPConfig, gatherer prometheus.Gatherer, logger *slog.Logger) (*HTTPServer, error) {
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP (http.addr): %w", err)
	}
	s := &HTTPServer{cfg: cfg, logger: logger, mux: http.NewServeMux(), listener: listener, drainMax: httpDrainTimeout}
	if s.tls, err = cfg.tlsConfig(logger); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		MaxRequestsInFlight: metricsScrapesMax, Timeout: metricsScrapeTimeout, EnableOpenMetrics: true,
	}))
	s.mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	s.mux.HandleFunc("GET /readyz", s.ready)
	s.mux.HandleFunc("/", noSuchPath)
	return s, nil
}

// noSuchPath answers as the APIs do, with a problem document (RFC 9457).
func noSuchPath(w http.ResponseWriter, _ *http.Request) {
	p := web.NewProblem(http.StatusNotFound, "not-found", "nothing is served at this path and method: see /openapi.json")
	p.Write(w, &p)
}

// NewMetricsRegistry returns a registry of metrics with those of the process and of Go's runtime.
func NewMetricsRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	return reg
}

// Addr returns the address listened on, as "host:port" with the real port.
func (s *HTTPServer) Addr() string { return s.listener.Addr().String() }

// AddCheck adds a named readiness check; ok must return at once. May be called at any time.
func (s *HTTPServer) AddCheck(name string, ok func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks = append(s.checks, check{name, ok})
}

// URL returns the server's base address, such as http://127.0.0.1:8080. Where it listens on all
// addresses, that of this machine stands in it.
func (s *HTTPServer) URL() string {
	host, port, err := net.SplitHostPort(s.Addr())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http"
	if s.tls != nil {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Handle serves a pattern of http.ServeMux. It must be called before Run.
func (s *HTTPServer) Handle(pattern string, handler http.Handler) { s.mux.Handle(pattern, handler) }

// OnShutdown adds what is called, in a goroutine of its own, when Run's context ends: for handlers
// whose answers would go on forever. It must be called before Run.
func (s *HTTPServer) OnShutdown(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onShutdown = append(s.onShutdown, f)
}

// Run serves until ctx ends, then takes no new connections and lets requests under way finish, at
// most for httpDrainTimeout; then their contexts end.
func (s *HTTPServer) Run(ctx context.Context) error {
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	server := s.server(base)
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(s.drainMax, func() { cut(ErrDraining) })
		defer late.Stop()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drainMax+httpShutdownTimeout)
		defer cancel()
		stopped <- errors.Join(server.Shutdown(bounded), server.Close())
	})
	defer stop()
	s.logger.Info("HTTP is served", "addr", s.Addr(), "url", s.URL())
	if err := s.serve(server); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", s.Addr(), err)
	}
	if err := <-stopped; err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop serving HTTP: %w", err)
	}
	return nil
}

func (s *HTTPServer) server(base context.Context) *http.Server {
	server := &http.Server{
		Handler: s.mux, ReadTimeout: s.cfg.ReadTimeout, ReadHeaderTimeout: s.cfg.ReadTimeout,
		WriteTimeout: httpWriteTimeout, IdleTimeout: httpIdleTimeout, MaxHeaderBytes: httpHeaderBytesMax,
		ErrorLog:    slog.NewLogLogger(errorLog{s.logger.Handler()}, slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return base }, TLSConfig: s.tls,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.onShutdown {
		server.RegisterOnShutdown(f)
	}
	return server
}

// errorLog takes what net/http warns of: connections that cannot be accepted, panics that nothing
// caught. Handshakes that fail are the clients' doing, and many on an open port: for debugging only.
type errorLog struct{ slog.Handler }

// Handle implements slog.Handler.
func (h errorLog) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "http: TLS handshake error") {
		if r.Level = slog.LevelDebug; !h.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return h.Handler.Handle(ctx, r)
}

func (s *HTTPServer) serve(server *http.Server) error {
	if s.tls != nil {
		return server.ServeTLS(s.listener, "", "")
	}
	return server.Serve(s.listener)
}

// Close frees the port of a server whose Run is never called.
func (s *HTTPServer) Close() error { return s.listener.Close() }

// readiness is the JSON of /readyz.
type readiness struct {
	Ready  bool              `json:"ready"`
	Checks map[string]string `json:"checks"`
}

func (s *HTTPServer) ready(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	checks := append([]check(nil), s.checks...)
	s.mu.Unlock()
	state := readiness{Ready: true, Checks: make(map[string]string, len(checks))}
	for _, c := range checks {
		state.Checks[c.name] = "ok"
		if err := c.ok(); err != nil {
			state.Ready, state.Checks[c.name] = false, err.Error()
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if !state.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if err := json.NewEncoder(w).Encode(state); err != nil {
		s.logger.Debug("answer a readiness probe", "err", err)
	}
}
