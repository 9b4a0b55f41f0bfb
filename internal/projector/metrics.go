package projector

import (
	"errors"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of all views of one projector. view is "<name>.v<N>".
type metrics struct {
	applied    *prometheus.CounterVec   // view
	skipped    *prometheus.CounterVec   // view
	unreadable *prometheus.CounterVec   // view
	letters    *prometheus.CounterVec   // view, reason
	void       *prometheus.CounterVec   // view
	fenced     *prometheus.CounterVec   // view
	retries    *prometheus.CounterVec   // view, class
	batches    *prometheus.CounterVec   // view
	seconds    *prometheus.HistogramVec // view
	records    *prometheus.HistogramVec // view
	offset     *prometheus.GaugeVec     // view, topic, partition
	lag        *prometheus.GaugeVec
	lagAge     *prometheus.GaugeVec
	parked     *prometheus.GaugeVec
	stopped    *prometheus.GaugeVec
	stalled    *prometheus.GaugeVec
	perPlace   []*prometheus.GaugeVec
	assigned   *prometheus.GaugeVec // view
	paused     *prometheus.GaugeVec // view
	held       *prometheus.GaugeVec // view
	tripped    *prometheus.GaugeVec // view
	corrected  *prometheus.CounterVec
	audited    *prometheus.CounterVec
	drift      *prometheus.CounterVec
	restarted  *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	var faults []error
	register := func(c prometheus.Collector) {
		if err := r.Register(c); err != nil {
			faults = append(faults, err)
		}
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "foldstream", Subsystem: "projector", Name: name, Help: help}, append([]string{"view"}, labels...))
		register(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "foldstream", Subsystem: "projector", Name: name, Help: help}, append([]string{"view"}, labels...))
		register(g)
		return g
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "foldstream", Subsystem: "projector", Name: name, Help: help, Buckets: buckets}, []string{"view"})
		register(h)
		return h
	}
	m := &metrics{
		applied:    counter("events_applied_total", "Events whose effect was committed."),
		skipped:    counter("events_skipped_total", "Events at or below their stream's last version."),
		unreadable: counter("unreadable_snapshots_total", "Snapshots that were left out, since they do not decode."),
		letters:    counter("letters_total", "Records that became letters.", "reason"),
		void:       counter("void_records_total", "Records written by an owner of old."),
		fenced:     counter("fenced_total", "Batches refused since another worker took the partition over."),
		retries:    counter("retries_total", "Attempts that failed and were made again.", "class"),
		batches:    counter("batches_total", "Committed transactions."),
		restarted:  counter("consumer_restarts_total", "Times a view's consumer was started anew."),
		seconds:    histogram("batch_seconds", "Time of a committed transaction.", prometheus.ExponentialBuckets(0.001, 2, 14)),
		records:    histogram("batch_records", "Records in a committed transaction.", prometheus.ExponentialBuckets(1, 4, 8)),
		assigned:   gauge("partitions_assigned", "Partitions that this process works on."),
		paused:     gauge("paused", "1 while an operator has paused the view."),
		tripped:    gauge("breaker_open", "1 while the breaker has paused the view, since too many records became letters."),
		corrected:  counter("corrected_total", "Events skipped on record."),
		audited:    counter("audited_streams_total", "Streams that were folded again and compared with their rows."),
		drift:      counter("drifted_rows_total", "Rows that were not what their events fold to, at each look."),
		held:       gauge("held", "1 while a tool has the view for itself, or the version was dropped."),
		offset:     gauge("next_offset", "Offset of the next record to apply.", "topic", "partition"),
		lag:        gauge("lag_records", "Records between the applied position and the high watermark.", "topic", "partition"),
		lagAge:     gauge("lag_seconds", "Age of the last applied record while records wait, else 0.", "topic", "partition"),
		parked:     gauge("parked_keys", "Streams that wait for their letters to be resolved.", "topic", "partition"),
		stopped:    gauge("partition_stopped", "1 while a partition is stopped by a fault that needs a person.", "topic", "partition"),
		stalled:    gauge("partition_stalled", "1 while a partition makes no progress although records wait.", "topic", "partition"),
	}
	m.perPlace = []*prometheus.GaugeVec{m.offset, m.lag, m.lagAge, m.parked, m.stopped, m.stalled}
	return m, errors.Join(faults...)
}

// introduce shows a view's rare series at zero: a rate cannot see the first increase of a series
// that begins with it.
func (m *metrics) introduce(view string) {
	for _, counter := range []*prometheus.CounterVec{m.applied, m.skipped, m.unreadable, m.void, m.fenced, m.batches, m.restarted, m.corrected, m.audited, m.drift} {
		counter.WithLabelValues(view)
	}
	for _, reason := range []deadletter.Reason{deadletter.ReasonFailed, deadletter.ReasonBlocked, deadletter.ReasonVoid} {
		m.letters.WithLabelValues(view, string(reason))
	}
	for _, class := range []string{"take", "commit", "letters", "infrastructure"} {
		m.retries.WithLabelValues(view, class)
	}
	for _, g := range []*prometheus.GaugeVec{m.assigned, m.paused, m.held, m.tripped} {
		g.WithLabelValues(view)
	}
}

// forget removes a partition's gauges, so that one that moved away does not show its last value.
func (m *metrics) forget(view, topic, partition string) {
	for _, g := range m.perPlace {
		g.DeleteLabelValues(view, topic, partition)
	}
}
