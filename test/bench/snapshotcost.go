package main

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	snapshotCostInFlight = 1024
	// The default policy saves a stream 5 s after its first change: before that there is no cost to
	// measure, and after it saving goes on evenly.
	snapshotCostWarmUp    = 6 * time.Second
	snapshotCostLengthMin = 8 * time.Second
)

// snapshotCost measures command → reply with snapshots by the default policy and without any. Each
// measurement has an engine and a namespace of its own, so that neither pays for what the other
// left to be saved or read; which comes first changes from run to run. The load goes on from the
// warm-up without a rest: a partition at rest saves whatever the policy says.
func (b *bench) snapshotCost() error {
	registry, err := benchRegistry()
	if err != nil {
		return err
	}
	value, err := b.commandValue(registry)
	if err != nil {
		return err
	}
	never := engine.SnapshotConfig{
		Policy:       snapshot.PolicyFunc(func(snapshot.Progress) bool { return false }),
		HistoryEvery: math.MaxInt32, CheckpointInterval: math.MaxInt64,
	}
	ways := []snapshotWay{{"on", engine.SnapshotConfig{}}, {"off", never}}
	for run := range b.options.runs + 1 { // the first warms the broker up
		for i := range ways {
			way := ways[(i+run)%len(ways)]
			r, err := b.snapshotCostOnce(way, run, registry, value)
			if err != nil {
				return fmt.Errorf("snapshots %s: %w", way.name, err)
			}
			if run > 0 {
				b.record(r)
			}
		}
	}
	return nil
}

type snapshotWay struct {
	name   string
	config engine.SnapshotConfig
}

func (b *bench) snapshotCostOnce(way snapshotWay, run int, registry codec.Reader, value []byte) (result, error) {
	layout := benchLayout(fmt.Sprintf("snap%s%d", way.name, run))
	if err := b.createTopics(layout); err != nil {
		return result{}, err
	}
	defer b.removeTopics(layout)
	metrics := prometheus.NewRegistry()
	stop, err := b.startEngine(layout.Namespace, registry, engineSetup{snapshots: way.config, registerer: metrics})
	if err != nil {
		return result{}, err
	}
	defer stop()
	l, err := newLoad(b, layout.Namespace, value)
	if err != nil {
		return result{}, err
	}
	defer l.close()
	var saved int
	var failed error
	l.warmUp, l.counting = snapshotCostWarmUp, func(begins bool) {
		n, err := snapshotsSaved(metrics)
		failed = errors.Join(failed, err)
		if saved += n; begins {
			saved = -n
		}
	}
	n, perS, p50, p99, err := l.run(b.ctx, snapshotCostInFlight, max(b.options.duration, snapshotCostLengthMin))
	if err = errors.Join(err, failed); err != nil {
		return result{}, err
	}
	if saves := saved > 0; saves != (way.name == "on") {
		return result{}, fmt.Errorf("%d snapshots were saved: the measurement would not compare what it says", saved)
	}
	return result{Bench: "snapshot-cost", System: way.name, InFlight: snapshotCostInFlight, Run: run, PerS: perS, P50Ms: p50, P99Ms: p99, Count: n, Snapshots: saved}, nil
}

func snapshotsSaved(metrics prometheus.Gatherer) (int, error) {
	all, err := gather(metrics, "foldstream_ingest_snapshots_total")
	sum := 0.0
	for _, n := range all {
		sum += n
	}
	return int(sum), err
}

// gather returns the values of a metric's series by the value of their last label.
func gather(metrics prometheus.Gatherer, name string) (map[string]float64, error) {
	families, err := metrics.Gather()
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := m.GetLabel()
			values[labels[len(labels)-1].GetValue()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values, nil
}
