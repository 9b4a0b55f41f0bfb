package service

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
)

const kafkaMetricsNamespace = "foldstream_kafka"

// KafkaMetrics counts what the Kafka clients of one process do, under foldstream_kafka_*. It is
// a hook that any number of clients may share, at the same time or one after the other: their
// counts add up. (kprom's own hook registers at every new client, and the second one panics.)
type KafkaMetrics struct {
	*kprom.Metrics
	once sync.Once

	mu   sync.Mutex
	live map[*kgo.Client]struct{}
}

// NewKafkaMetrics registers with reg at its first client.
func NewKafkaMetrics(reg prometheus.Registerer) *KafkaMetrics {
	m := &KafkaMetrics{live: map[*kgo.Client]struct{}{}}
	m.Metrics = kprom.NewMetrics(kafkaMetricsNamespace, kprom.Registerer(withoutBuffered{reg}))
	for name, measure := range map[string]func(*kgo.Client) int64{
		"buffered_produce_records": (*kgo.Client).BufferedProduceRecords,
		"buffered_produce_bytes":   (*kgo.Client).BufferedProduceBytes,
		"buffered_fetch_records":   (*kgo.Client).BufferedFetchRecords,
		"buffered_fetch_bytes":     (*kgo.Client).BufferedFetchBytes,
	} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: kafkaMetricsNamespace, Name: name, Help: "Now held by all Kafka clients of this process.",
		}, func() float64 { return m.sum(measure) }))
	}
	return m
}

// OnNewClient implements kgo.HookNewClient.
func (m *KafkaMetrics) OnNewClient(client *kgo.Client) {
	m.once.Do(func() { m.Metrics.OnNewClient(client) })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live[client] = struct{}{}
}

// OnClientClosed implements kgo.HookClientClosed. Counters stay, since other clients share them.
func (m *KafkaMetrics) OnClientClosed(client *kgo.Client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.live, client)
}

func (m *KafkaMetrics) sum(measure func(*kgo.Client) int64) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var total int64
	for client := range m.live {
		total += measure(client)
	}
	return float64(total)
}

// withoutBuffered keeps kprom's gauges of the first client out: ours sum over all.
type withoutBuffered struct{ prometheus.Registerer }

// MustRegister implements prometheus.Registerer.
func (r withoutBuffered) MustRegister(collectors ...prometheus.Collector) {
	for _, c := range collectors {
		if !strings.Contains(describe(c), kafkaMetricsNamespace+"_buffered_") {
			r.Registerer.MustRegister(c)
		}
	}
}

func describe(c prometheus.Collector) string {
	descs := make(chan *prometheus.Desc, 8)
	go func() { c.Describe(descs); close(descs) }()
	var text strings.Builder
	for d := range descs {
		text.WriteString(d.String())
	}
	return text.String()
}
