package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// HTTPServer serves /metrics, /livez and /readyz.
//
// /livez answers 200 as long as the process can answer at all. /readyz runs every check and
// answers 200 when all pass, else 503; its JSON names each check with "ok" or its reason.
type HTTPServer struct {
	cfg      HTTPConfig
	logger   *slog.Logger
	mux      *http.ServeMux
	listener net.Listener

	mu     sync.Mutex
	checks []check
}

type check struct {
	name string
	ok   func() error
}

const (
	httpHeaderBytesMax   = 64 << 10
	httpIdleTimeout      = 2 * time.Minute
	httpShutdownTimeout  = 2 * time.Second
	httpWriteTimeout     = 30 * time.Second
	metricsScrapesMax    = 4
	metricsScrapeTimeout = 10 * time.Second
)

// NewHTTPServer listens at once, so that a port that is taken fails at start and Addr is known
// before Run. gatherer is the process's own registry of metrics.
func NewHTTPServer(cfg HTTPConfig, gatherer prometheus.Gatherer, logger *slog.Logger) (*HTTPServer, error) {
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for health and metrics (http.addr): %w", err)
	}
	s := &HTTPServer{cfg: cfg, logger: logger, mux: http.NewServeMux(), listener: listener}
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		MaxRequestsInFlight: metricsScrapesMax, Timeout: metricsScrapeTimeout, EnableOpenMetrics: true,
	}))
	s.mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	s.mux.HandleFunc("GET /readyz", s.ready)
	return s, nil
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

// Run serves until ctx ends, then lets open requests finish for at most two seconds.
func (s *HTTPServer) Run(ctx context.Context) error {
	server := &http.Server{
		Handler: s.mux, ReadTimeout: s.cfg.ReadTimeout, ReadHeaderTimeout: s.cfg.ReadTimeout,
		WriteTimeout: httpWriteTimeout, IdleTimeout: httpIdleTimeout, MaxHeaderBytes: httpHeaderBytesMax,
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpShutdownTimeout)
		defer cancel()
		stopped <- errors.Join(server.Shutdown(bounded), server.Close())
	})
	defer stop()
	s.logger.Info("health and metrics are served", "addr", s.Addr())
	if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health and metrics on %s: %w", s.Addr(), err)
	}
	if err := <-stopped; err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop serving health and metrics: %w", err)
	}
	return nil
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
