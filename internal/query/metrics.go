package query

import (
	"errors"

	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the API. Safe for concurrent use.
type metrics struct {
	*web.Metrics
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
	requests, err := web.NewMetrics(registerer, metricsSubsystem)
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: name, Help: help}
	}
	histogram := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: name, Help: help, Buckets: web.SecondsBuckets}
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: name, Help: help}
	}
	m := &metrics{
		Metrics:    requests,
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
		m.statements, m.slow, m.rows, m.waits, m.waited, m.waiting, m.polls, m.catalogue,
		prometheus.NewGaugeFunc(gauge("connections", "Connections to Postgres that are open."), func() float64 { return float64(pool.Stat().TotalConns()) }),
		prometheus.NewGaugeFunc(gauge("connections_busy", "Connections to Postgres that run a statement."), func() float64 { return float64(pool.Stat().AcquiredConns()) }),
	}
	faults := []error{err}
	for _, c := range all {
		faults = append(faults, registerer.Register(c))
	}
	return m, errors.Join(faults...)
}

// routeMetrics are those of one route, looked up once.
type routeMetrics struct {
	*web.RouteMetrics
	statements prometheus.Observer
}

func (m *metrics) of(route string) *routeMetrics {
	return &routeMetrics{RouteMetrics: m.Of(route), statements: m.statements.WithLabelValues(route)}
}
