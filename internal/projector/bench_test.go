package projector

import (
	"fmt"
	"testing"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// plainList is the simplest entity view: one column, one type.
func plainList() projection.View {
	type plain struct {
		Total int64 `db:"total"`
	}
	return projection.Entity(projection.EntitySpec[plain]{
		Name: "plain_list", Version: 1, On: []codec.TypeDef{projection.On[noted]("probe.Noted", 1)},
		Fold: func(r plain, _ bool, e projection.Event) (plain, projection.Change, error) {
			r.Total += e.Data.(noted).N
			return r, projection.Set, nil
		},
	})
}

// BenchmarkBatch applies batches of 5000 events, each of another stream, as a rebuild does at its
// dearest: nothing folds together.
func BenchmarkBatch(b *testing.B) {
	for _, view := range []projection.View{plainList(), probeList(), probeStats(), probeTrail(), probeEvents()} {
		b.Run(view.Name, func(b *testing.B) {
			d := newDesk(b, testkit.Postgreses(b)[0], view)
			const size, streams = 5000, 10_000
			n := 0
			for b.Loop() {
				b.StopTimer()
				batch := make([]*kgo.Record, size)
				for i := range batch {
					batch[i] = d.noted(fmt.Sprintf("execution-%d", n%streams), "some text", int64(n)*2+1)
					n++
				}
				b.StartTimer()
				d.apply(batch...)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkRebuild builds a version from the log: the broker, the folding and the COPY.
func BenchmarkRebuild(b *testing.B) {
	kafkas := testkit.Kafkas(b)
	kafka := kafkas[len(kafkas)-1] // the real one, where there is one
	for _, view := range []projection.View{plainList(), probeStats(), probeTrail()} {
		b.Run(view.Name, func(b *testing.B) {
			const events, streams, partitions = 200_000, 40_000, 4
			w := newBenchWorld(b, kafka, view, partitions)
			def := projection.On[noted]("probe.Noted", 1)
			var records []*kgo.Record
			for n := range events {
				stream := fmt.Sprintf("execution-%d", n%streams)
				records = append(records, &kgo.Record{
					Topic: w.topic, Partition: topics.Partition([]byte(stream), partitions), Key: []byte(stream),
					Headers: headersOf("probe.Noted", stream, int64(n/streams+1), t0), Value: encode(b, w.codec, def, noted{Text: "some text", N: int64(n)*2 + 1}),
				})
			}
			if err := w.producer.ProduceSync(b.Context(), records...).FirstErr(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				report, err := w.operator.Rebuild(b.Context(), RebuildRequest{Name: view.Name, Version: 2, FromStart: true})
				if err != nil || report.Records != events {
					b.Fatalf("got %+v and %v", report, err)
				}
			}
			b.ReportMetric(float64(events)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

type benchWorld struct {
	topic    string
	codec    *codec.Codec
	producer *kgo.Client
	operator *Operator
}

func newBenchWorld(b *testing.B, kafka *testkit.Kafka, view projection.View, partitions int32) benchWorld {
	b.Helper()
	ns, pool := testkit.Namespace(b), newPool(b, testkit.Postgreses(b)[0])
	w := benchWorld{topic: topics.Events(ns, "probe"), codec: worldCodec(b)}
	w.producer = kafka.Client(b, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	kafka.CreateTopic(b, w.topic, partitions, nil)
	kafka.CreateTopic(b, topics.Audit(ns), 1, nil)
	views := twice(view)
	if err := Migrate(b.Context(), pool, ns, views); err != nil {
		b.Fatal(err)
	}
	var err error
	w.operator, err = NewOperator(OperatorConfig{
		Config: Config{Namespace: ns, Views: views, Kafka: []kgo.Opt{kgo.SeedBrokers(kafka.Seeds()...)}, Pool: pool, Codec: w.codec, Logger: quiet()},
		Actor:  "bench",
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(w.operator.Close)
	return w
}
