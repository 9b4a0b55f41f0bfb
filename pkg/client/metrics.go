package client

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a client. Registered once per registerer: two clients need registerers of their own,
// such as prometheus.WrapRegistererWith gives.
type metrics struct {
	requests *prometheus.HistogramVec
	repeats  prometheus.Counter
	batches  prometheus.Histogram
	handled  *prometheus.CounterVec
	retries  *prometheus.CounterVec
	letters  *prometheus.CounterVec
	queue    *prometheus.GaugeVec
	pauses   *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	subscription := []string{"subscription"}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "foldstream_client_" + name, Help: help}, subscription)
	}
	m := &metrics{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "foldstream_client_request_seconds", Help: "Time from a request's first sending to its outcome.",
			Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
		}, []string{"outcome"}),
		repeats: prometheus.NewCounter(prometheus.CounterOpts{Name: "foldstream_client_repeats_total", Help: "Sendings of a request after its first."}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "foldstream_client_batch_requests", Help: "Asynchronous requests in one batch.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 1000},
		}),
		handled: counter("subscription_events_total", "Events that a subscription's handler has taken."),
		retries: counter("subscription_retries_total", "Repetitions after a handler failed."),
		letters: counter("subscription_letters_total", "Events that became letters."),
		pauses:  counter("subscription_pauses_total", "Times that a full queue paused the fetch."),
		queue: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "foldstream_client_subscription_queue_events", Help: "Events fetched and not handled.",
		}, subscription),
	}
	if registerer != nil {
		registerer.MustRegister(m.requests, m.repeats, m.batches, m.handled, m.retries, m.letters, m.queue, m.pauses)
	}
	return m
}

func (m *metrics) settled(outcome Outcome, err error, took time.Duration) {
	m.requests.WithLabelValues(outcomeLabel(outcome, err)).Observe(took.Seconds())
}

func (m *metrics) repeated() { m.repeats.Inc() }

func (m *metrics) batched(n int) { m.batches.Observe(float64(n)) }

func outcomeLabel(outcome Outcome, err error) string {
	var conflict *ConflictError
	var rejected *RejectedError
	var invalid *InvalidError
	switch {
	case err == nil:
		return string(outcome.Kind)
	case errors.As(err, &conflict):
		return "conflict"
	case errors.Is(err, ErrOverloaded):
		return "overloaded"
	case errors.As(err, &rejected):
		return "rejected"
	case errors.As(err, &invalid):
		return "invalid"
	case errors.Is(err, ErrUnknownOutcome):
		return "unknown"
	}
	return "error"
}
