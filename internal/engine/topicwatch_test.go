package engine

import (
	"testing"

	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Nobody sends anything: only the look at the topics can tell.
func TestW9IdlePartitionsOfARecreatedEventsTopicStopLoudly(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		i := w.start().serving(4)
		w.recreate(topics.Events(w.ns, "account"))
		w.wantReady(i, "account.commands[0] is stopped", "account.commands[1] is stopped", "deleted or recreated")
		if n := len(i.engine.Owned()["account"]); n != 0 {
			t.Errorf("partitions of account that are served: got %d, want 0", n)
		}
	})
}

// A broker that does not know a topic's id for a moment has not lost the topic.
func TestW9APartitionOutlastsABrokerThatLearnsOfItsTopicLate(t *testing.T) {
	for name, topic := range map[string]func(ns, category string) string{"events": topics.Events, "snapshots": topics.Snapshots} {
		t.Run(name, func(t *testing.T) {
			w := onKfake(t)
			i := w.start(func(c *Config) { c.Logger = quiet }).serving(4)
			stream := w.streamOn(0, 0)
			wantVersions(t, w.ask(w.deposit(stream, 1)), 1, 1)
			w.kafka.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic(w.ns, "account"), Err: kerr.UnknownTopicID, Count: 1})
			wantVersions(t, w.ask(w.deposit(stream, 1)), 2, 2)
			w.eventually("all partitions serve", func() bool { return i.engine.Ready() == nil })
			wantVersions(t, w.ask(w.deposit(stream, 1)), 3, 3)
		})
	}
}
