package engine

import (
	"errors"
	"strings"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
)

// metrics are the engine's, by category where that tells something.
type metrics struct {
	commands       *prometheus.CounterVec
	appendSeconds  prometheus.Histogram
	batchRecords   prometheus.Histogram
	batchBytes     prometheus.Histogram
	retries        *prometheus.CounterVec
	owned          *prometheus.GaugeVec
	stopped        *prometheus.GaugeVec
	fencings       *prometheus.CounterVec
	reroutes       *prometheus.CounterVec
	repeated       *prometheus.CounterVec
	letters        *prometheus.CounterVec
	voids          *prometheus.CounterVec
	blocked        *prometheus.CounterVec
	refused        *prometheus.CounterVec
	renewals       *prometheus.CounterVec
	repliesGivenUp *prometheus.CounterVec
	takeOver       prometheus.Histogram
	pending        *prometheus.GaugeVec
	snapshots      *prometheus.CounterVec
	unreadable     *prometheus.CounterVec
	checkpoint     *prometheus.GaugeVec
	stateBytes     prometheus.GaugeFunc
}

func newMetrics(reg prometheus.Registerer, budget *stateBudget) (*metrics, error) {
	const namespace, subsystem = "foldstream", "ingest"
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		commands:       counter("commands_total", "Commands by outcome.", "category", "outcome"),
		appendSeconds:  histogram("append_seconds", "Time from sending a record batch to its acknowledgement.", prometheus.ExponentialBuckets(0.00025, 2, 16)),
		batchRecords:   histogram("batch_records", "Records in an acknowledged batch.", prometheus.ExponentialBuckets(1, 2, 14)),
		batchBytes:     histogram("batch_bytes", "Bytes of an acknowledged batch.", prometheus.ExponentialBuckets(256, 4, 8)),
		retries:        counter("append_retries_total", "Batches sent again, by reason.", "reason"),
		owned:          gauge("partitions_owned", "Partitions that are served.", "category"),
		stopped:        gauge("partitions_stopped", "Partitions that wait for an operator.", "category"),
		fencings:       counter("fencings_total", "Ownerships that ended by another owner's claim or because they could not be proven.", "category", "cause"),
		reroutes:       counter("reroutes_total", "Commands that a client put on another partition than their key's.", "category"),
		repeated:       counter("reroutes_repeated_total", "Re-routed commands that came twice and were dropped.", "category"),
		letters:        counter("letters_total", "Commands that could not be read and went to the dead-letter topic.", "category"),
		voids:          counter("void_records_total", "Records in an events topic that no current owner wrote.", "category"),
		blocked:        counter("blocked_total", "Commands that had to wait for infrastructure or for the decider.", "category"),
		refused:        counter("refused_batches_total", "Batches that the broker refused for good.", "category"),
		renewals:       counter("claim_renewals_total", "Claims renewed by a living owner.", "category"),
		repliesGivenUp: counter("replies_given_up_total", "Replies that their topic does not take.", "category"),
		takeOver:       histogram("takeover_seconds", "Time from assignment to the first decision.", prometheus.ExponentialBuckets(0.005, 2, 16)),
		pending:        gauge("commands_pending", "Commands read whose group offset is not committable yet.", "category", "partition"),
		snapshots:      counter("snapshots_total", "Snapshots saved, by kind (latest, history).", "category", "kind"),
		unreadable:     counter("snapshots_unreadable_total", "Snapshots that could not be read, so that their streams were folded from events.", "category"),
		checkpoint:     gauge("checkpoint_offset", "Event offset up to which a restart needs no events.", "category", "partition"),
		stateBytes: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: "state_bytes",
			Help: "Approximate memory of all streams' states and windows."}, func() float64 { return float64(budget.used.Load()) }),
	}
	var faults []error
	for _, c := range []prometheus.Collector{m.commands, m.appendSeconds, m.batchRecords, m.batchBytes, m.retries, m.owned, m.stopped, m.fencings,
		m.reroutes, m.repeated, m.letters, m.voids, m.blocked, m.refused, m.renewals, m.repliesGivenUp, m.takeOver, m.pending, m.snapshots, m.unreadable, m.checkpoint, m.stateBytes} {
		faults = append(faults, reg.Register(c))
	}
	for _, reason := range []string{retryNoAnswer, kerr.NotLeaderForPartition.Message} {
		m.retries.WithLabelValues(reason)
	}
	return m, errors.Join(faults...)
}

// BatchAcked implements appender.Observer.
func (m *metrics) BatchAcked(_ appender.Partition, records, bytes int, took time.Duration) {
	m.appendSeconds.Observe(took.Seconds())
	m.batchRecords.Observe(float64(records))
	m.batchBytes.Observe(float64(bytes))
}

// BatchRetried implements appender.Observer.
func (m *metrics) BatchRetried(_ appender.Partition, reason string) {
	m.retries.WithLabelValues(retryReason(reason)).Inc()
}

// retryNoAnswer stands for every attempt that the broker did not answer.
const retryNoAnswer = "no answer"

// retryReason bounds the label: Kafka's name of an answer's code, or retryNoAnswer. The text of a
// broken connection has its port in it, which would make a series for each.
func retryReason(text string) string {
	code, _, _ := strings.Cut(text, ":")
	if !strings.Contains(code, "_") || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
		return retryNoAnswer
	}
	return code
}

// partitionMetrics are a category's counters as one owner uses them, looked up once.
type partitionMetrics struct {
	all       *metrics
	category  string
	outcomes  map[OutcomeKind]prometheus.Counter
	pendings  prometheus.Gauge
	number    string // of the partition
	isOwned   bool
	isStopped bool
}

func (m *metrics) partition(category, partition string) *partitionMetrics {
	p := &partitionMetrics{all: m, category: category, number: partition, outcomes: map[OutcomeKind]prometheus.Counter{}, pendings: m.pending.WithLabelValues(category, partition)}
	for _, kind := range []OutcomeKind{OutcomeUnknown, OutcomeAccepted, OutcomeDuplicate, OutcomeConflict, OutcomeRejected, OutcomeInvalid} {
		p.outcomes[kind] = m.commands.WithLabelValues(category, string(kind))
	}
	m.introduce(category)
	return p
}

// introduce shows a category's rare series at zero: a rate cannot see the first increase of a
// series that begins with it.
func (m *metrics) introduce(category string) {
	for _, gauge := range []*prometheus.GaugeVec{m.owned, m.stopped} {
		gauge.WithLabelValues(category)
	}
	for _, counter := range []*prometheus.CounterVec{m.reroutes, m.repeated, m.letters, m.voids, m.blocked, m.refused, m.renewals, m.repliesGivenUp} {
		counter.WithLabelValues(category)
	}
	m.fencings.WithLabelValues(category, "claim")
	m.fencings.WithLabelValues(category, "lost")
}

func (p *partitionMetrics) outcome(kind OutcomeKind) { p.outcomes[kind].Inc() }
func (p *partitionMetrics) pending(n int)            { p.pendings.Set(float64(n)) }
func (p *partitionMetrics) rerouted()                { p.all.reroutes.WithLabelValues(p.category).Inc() }
func (p *partitionMetrics) repeatedReroute()         { p.all.repeated.WithLabelValues(p.category).Inc() }
func (p *partitionMetrics) lettered()                { p.all.letters.WithLabelValues(p.category).Inc() }
func (p *partitionMetrics) blocked()                 { p.all.blocked.WithLabelValues(p.category).Inc() }
func (p *partitionMetrics) refused()                 { p.all.refused.WithLabelValues(p.category).Inc() }
func (p *partitionMetrics) renewed()                 { p.all.renewals.WithLabelValues(p.category).Inc() }
func (p *partitionMetrics) replyGivenUp()            { p.all.repliesGivenUp.WithLabelValues(p.category).Inc() }

func (p *partitionMetrics) tookOver(took time.Duration, r *recovery) {
	p.all.takeOver.Observe(took.Seconds())
	p.all.voids.WithLabelValues(p.category).Add(float64(r.voidRecords))
}

func (p *partitionMetrics) owned() {
	if !p.isOwned {
		p.isOwned = true
		p.all.owned.WithLabelValues(p.category).Inc()
	}
}

func (p *partitionMetrics) disowned() {
	if p.isOwned {
		p.isOwned = false
		p.all.owned.WithLabelValues(p.category).Dec()
	}
}

func (p *partitionMetrics) stopped() {
	if !p.isStopped {
		p.isStopped = true
		p.all.stopped.WithLabelValues(p.category).Inc()
	}
}

// left ends the partition's gauges when it is given away.
func (p *partitionMetrics) left() {
	p.disowned()
	if p.isStopped {
		p.isStopped = false
		p.all.stopped.WithLabelValues(p.category).Dec()
	}
	p.pendings.Set(0)
}

// ended counts an ownership that did not end by our own will.
func (p *partitionMetrics) ended(err error) {
	switch {
	case errors.Is(err, appender.ErrFenced):
		p.all.fencings.WithLabelValues(p.category, "claim").Inc()
	case errors.Is(err, appender.ErrLost):
		p.all.fencings.WithLabelValues(p.category, "lost").Inc()
	}
}

func (p *partitionMetrics) snapshotted(kind string) {
	p.all.snapshots.WithLabelValues(p.category, kind).Inc()
}

func (p *partitionMetrics) snapshotUnreadable() {
	p.all.unreadable.WithLabelValues(p.category).Inc()
}

func (p *partitionMetrics) checkpointed(offset int64) {
	p.all.checkpoint.WithLabelValues(p.category, p.number).Set(float64(offset))
}
