package projector

import (
	"fmt"
	"testing"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/projection"
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
