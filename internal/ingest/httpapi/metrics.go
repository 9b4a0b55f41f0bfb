package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the API, by route. Safe for concurrent use.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	refused  *prometheus.CounterVec
	panics   prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	const ns, sub = "foldstream", "http"
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "requests_total", Help: "Requests answered, by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: ns, Subsystem: sub, Name: "request_seconds", Help: "From the head of a request to its answer; subscriptions are left out.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: ns, Subsystem: sub, Name: "in_flight", Help: "Requests that are worked on, and subscriptions that are open.",
		}, []string{"route"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "refused_total", Help: "Requests refused before their route was asked, by code.",
		}, []string{"code"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "panics_total", Help: "Handlers that panicked: a bug.",
		}),
	}
	var faults []error
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.inFlight, m.refused, m.panics} {
		faults = append(faults, registerer.Register(c))
	}
	return m, errors.Join(faults...)
}

// routeMetrics are those of one route, looked up once.
type routeMetrics struct {
	all      *metrics
	route    string
	inFlight prometheus.Gauge
	seconds  prometheus.Observer
	byStatus sync.Map // int → prometheus.Counter
}

func (m *metrics) of(route string) *routeMetrics {
	return &routeMetrics{all: m, route: route, inFlight: m.inFlight.WithLabelValues(route), seconds: m.seconds.WithLabelValues(route)}
}

func (m *routeMetrics) answered(status int, took time.Duration, long bool) {
	counter, known := m.byStatus.Load(status)
	if !known {
		counter, _ = m.byStatus.LoadOrStore(status, m.all.requests.WithLabelValues(m.route, strconv.Itoa(status)))
	}
	counter.(prometheus.Counter).Inc()
	if !long {
		m.seconds.Observe(took.Seconds())
	}
}

// recorder notes the status of an answer. It passes flushes and deadlines through by Unwrap.
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
