package web

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// SecondsBuckets are those of all histograms of requests.
var SecondsBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// Metrics of an API, by route: foldstream_<subsystem>_requests_total, _request_seconds, _in_flight,
// _refused_total and _panics_total.
type Metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec

	// Refused counts requests that no route was asked about, by code.
	Refused *prometheus.CounterVec
	// Panics counts handlers that panicked.
	Panics prometheus.Counter
}

// NewMetrics registers the metrics of an API.
func NewMetrics(registerer prometheus.Registerer, subsystem string) (*Metrics, error) {
	const ns = "foldstream"
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: ns, Subsystem: subsystem, Name: "requests_total", Help: "Requests answered, by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: ns, Subsystem: subsystem, Name: "request_seconds", Help: "From the head of a request to its answer; subscriptions are left out.",
			Buckets: SecondsBuckets,
		}, []string{"route"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: ns, Subsystem: subsystem, Name: "in_flight", Help: "Requests that are worked on, and subscriptions that are open.",
		}, []string{"route"}),
		Refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: ns, Subsystem: subsystem, Name: "refused_total", Help: "Requests refused before their route was asked, by code.",
		}, []string{"code"}),
		Panics: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Subsystem: subsystem, Name: "panics_total", Help: "Handlers that panicked: a bug.",
		}),
	}
	var faults []error
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.inFlight, m.Refused, m.Panics} {
		faults = append(faults, registerer.Register(c))
	}
	return m, errors.Join(faults...)
}

// RouteMetrics are those of one route, looked up once.
type RouteMetrics struct {
	Route    string
	InFlight prometheus.Gauge
	all      *Metrics
	seconds  prometheus.Observer
	byStatus sync.Map // int → prometheus.Counter
}

// Of returns the metrics of a route.
func (m *Metrics) Of(route string) *RouteMetrics {
	return &RouteMetrics{all: m, Route: route, InFlight: m.inFlight.WithLabelValues(route), seconds: m.seconds.WithLabelValues(route)}
}

// Answered counts an answer; the time of a subscription, which says nothing, is left out.
func (m *RouteMetrics) Answered(status int, took time.Duration, subscription bool) {
	counter, known := m.byStatus.Load(status)
	if !known {
		counter, _ = m.byStatus.LoadOrStore(status, m.all.requests.WithLabelValues(m.Route, strconv.Itoa(status)))
	}
	counter.(prometheus.Counter).Inc()
	if !subscription {
		m.seconds.Observe(took.Seconds())
	}
}
