package streams

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	reads        *prometheus.CounterVec // op
	failed       *prometheus.CounterVec // op, cause
	seconds      *prometheus.HistogramVec
	tailHits     prometheus.Counter
	tailRecords  prometheus.Counter
	tailBytes    prometheus.Gauge
	void         prometheus.Counter
	slotsSkipped *prometheus.CounterVec // reason
	folded       prometheus.Counter
	feeds        prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	name := func(n, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "foldstream", Subsystem: "streams", Name: n, Help: help}
	}
	counter := func(n, help string) prometheus.CounterOpts { return prometheus.CounterOpts(name(n, help)) }
	m := &metrics{
		reads:        prometheus.NewCounterVec(counter("reads_total", "Reads of single streams."), []string{"op"}),
		failed:       prometheus.NewCounterVec(counter("reads_failed_total", "Reads that failed for a reason of ours."), []string{"op", "cause"}),
		tailHits:     prometheus.NewCounter(counter("tail_hits_total", "Reads that found all that the index lacked in memory.")),
		tailRecords:  prometheus.NewCounter(counter("tail_records_total", "Records fetched since the index did not have them yet.")),
		tailBytes:    prometheus.NewGauge(prometheus.GaugeOpts(name("tail_bytes", "Memory of the tails kept for later reads."))),
		void:         prometheus.NewCounter(counter("void_records_total", "Records of owners of old that reads left out.")),
		slotsSkipped: prometheus.NewCounterVec(counter("slots_skipped_total", "History slots that did not count."), []string{"reason"}),
		folded:       prometheus.NewCounter(counter("events_folded_total", "Events folded into states.")),
		feeds:        prometheus.NewGauge(prometheus.GaugeOpts(name("feeds", "Open feeds."))),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "foldstream", Subsystem: "streams", Name: "read_seconds", Help: "Time of a read.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}, []string{"op"}),
	}
	var faults []error
	for _, c := range []prometheus.Collector{
		m.reads, m.failed, m.seconds, m.tailHits, m.tailRecords, m.tailBytes, m.void, m.slotsSkipped, m.folded, m.feeds,
	} {
		faults = append(faults, r.Register(c))
	}
	return m, errors.Join(faults...)
}
