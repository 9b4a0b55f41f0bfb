package gateway

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	memory, topic  prometheus.Counter
	repeated, late prometheus.Counter
	unknown        prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer, pending *table) (*metrics, error) {
	const ns, sub = "foldstream", "gateway"
	ways := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: ns, Subsystem: sub, Name: "requests_total",
		Help: "Requests by their way to the owner: memory (this instance owns the partition) or topic (another does).",
	}, []string{"way"})
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	m := &metrics{
		memory: ways.WithLabelValues("memory"), topic: ways.WithLabelValues("topic"),
		repeated: counter("repeated_total", "Sendings again, under the same id, because the outcome was not known."),
		late:     counter("late_answers_total", "Answers that nobody waited for any more."),
		unknown:  counter("unknown_total", "Requests whose outcome was handed out as unknown."),
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: ns, Subsystem: sub, Name: "pending", Help: "Requests that wait for an answer from another instance.",
	}, func() float64 { return float64(pending.len()) })
	var faults []error
	for _, c := range []prometheus.Collector{ways, m.repeated, m.late, m.unknown, gauge} {
		faults = append(faults, registerer.Register(c))
	}
	return m, errors.Join(faults...)
}
