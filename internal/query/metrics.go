package query

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the API. Safe for concurrent use.
type metrics struct {
	requests   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	inFlight   *prometheus.GaugeVec
	refused    *prometheus.CounterVec
	panics     prometheus.Counter
	statements *prometheus.HistogramVec
	slow       *prometheus.CounterVec
	rows       prometheus.Counter
	waits      *prometheus.CounterVec
	waited     prometheus.Histogram
	waiting    prometheus.Gauge
	polls      prometheus.Counter
	catalogue  *prometheus.CounterVec
}

const (
	metricsNamespace = "foldstream"
	metricsSubsystem = "query"
)

func newMetrics(registerer prometheus.Registerer, pool *pgxpool.Pool) (*metrics, error) {
	seconds := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: name, Help: help}
	}
	histogram := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: name, Help: help, Buckets: seconds}
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: name, Help: help}
	}
	m := &metrics{
		requests:   prometheus.NewCounterVec(counter("requests_total", "Requests answered, by route and status."), []string{"route", "status"}),
		seconds:    prometheus.NewHistogramVec(histogram("request_seconds", "From the head of a request to its answer, waits included."), []string{"route"}),
		inFlight:   prometheus.NewGaugeVec(gauge("in_flight", "Requests that are worked on."), []string{"route"}),
		refused:    prometheus.NewCounterVec(counter("refused_total", "Requests refused before a statement was run, by code."), []string{"code"}),
		panics:     prometheus.NewCounter(counter("panics_total", "Handlers that panicked: a bug.")),
		statements: prometheus.NewHistogramVec(histogram("statement_seconds", "Statements, the wait for a connection included, by route."), []string{"route"}),
		slow:       prometheus.NewCounterVec(counter("slow_statements_total", "Statements that took longer than the time from which they are logged, by route."), []string{"route"}),
		rows:       prometheus.NewCounter(counter("rows_total", "Rows answered.")),
		waits:      prometheus.NewCounterVec(counter("waits_total", "Waits for what was written, by result: came, stale, parked, left."), []string{"result"}),
		waited:     prometheus.NewHistogram(histogram("wait_seconds", "How long requests waited for what was written.")),
		waiting:    prometheus.NewGauge(gauge("waiting", "Requests that wait for what was written.")),
		polls:      prometheus.NewCounter(counter("polls_total", "Looks at Postgres on behalf of those who wait.")),
		catalogue:  prometheus.NewCounterVec(counter("catalogue_reads_total", "Readings of the list of live views, by result."), []string{"result"}),
	}
	all := []prometheus.Collector{
		m.requests, m.seconds, m.inFlight, m.refused, m.panics, m.statements, m.slow, m.rows, m.waits, m.waited, m.waiting, m.polls, m.catalogue,
		prometheus.NewGaugeFunc(gauge("connections", "Connections to Postgres that are open."), func() float64 { return float64(pool.Stat().TotalConns()) }),
		prometheus.NewGaugeFunc(gauge("connections_busy", "Connections to Postgres that run a statement."), func() float64 { return float64(pool.Stat().AcquiredConns()) }),
	}
	var faults []error
	for _, c := range all {
		faults = append(faults, registerer.Register(c))
	}
	return m, errors.Join(faults...)
}

// routeMetrics are those of one route, looked up once.
type routeMetrics struct {
	all        *metrics
	route      string
	inFlight   prometheus.Gauge
	seconds    prometheus.Observer
	statements prometheus.Observer
	byStatus   sync.Map // int → prometheus.Counter
}

func (m *metrics) of(route string) *routeMetrics {
	return &routeMetrics{
		all: m, route: route, inFlight: m.inFlight.WithLabelValues(route),
		seconds: m.seconds.WithLabelValues(route), statements: m.statements.WithLabelValues(route),
	}
}

func (m *routeMetrics) answered(status int, took time.Duration) {
	counter, known := m.byStatus.Load(status)
	if !known {
		counter, _ = m.byStatus.LoadOrStore(status, m.all.requests.WithLabelValues(m.route, strconv.Itoa(status)))
	}
	counter.(prometheus.Counter).Inc()
	m.seconds.Observe(took.Seconds())
}

// recorder notes the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
