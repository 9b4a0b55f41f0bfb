package engine

import (
	"testing"

	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A flood, a broker that takes no events, a broker that takes no replies: what an instance holds
// stays bounded, the rest waits in Kafka, and all of it is answered once the fault is over.
func TestAFloodWaitsInKafka(t *testing.T) {
	for name, held := range map[string]func(w *world) string{
		"slow events broker":  func(w *world) string { return topics.Events(w.ns, "account") },
		"slow replies broker": func(w *world) string { return topics.Replies(w.ns) },
	} {
		for _, amount := range []int64{1, -1} { // accepted, or rejected: the answers that wait for a proof
			kind := map[int64]string{1: ", accepted", -1: ", rejected"}[amount]
			t.Run(name+kind, func(t *testing.T) {
				w := onKfake(t)
				const commands, inFlightMax, inboxMax = 40_000, 50, 200
				stream := w.streamOn(0, 0)
				records := make([]*kgo.Record, commands)
				for n := range records {
					records[n] = w.record(w.deposit(stream, amount))
				}
				i := w.start(func(c *Config) { c.InFlightMax, c.InboxRecordsMax = inFlightMax, inboxMax })
				i.serving(4)
				fault := w.kafka.Cluster().Fault(kfake.Fault{
					Keys: []kmsg.Key{kmsg.Produce, kmsg.ListOffsets}, Topic: held(w), Err: kerr.NotLeaderForPartition, Count: -1,
				})
				if err := w.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
					t.Fatal(err)
				}
				if err := fault.Wait(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
				tp := topicPartition{topics.Commands(w.ns, "account"), 0}
				w.eventually("the fetch is paused", func() bool {
					i.engine.mu.Lock()
					defer i.engine.mu.Unlock()
					return i.engine.paused[tp]
				})
				i.engine.mu.Lock()
				o := i.engine.owners[tp]
				i.engine.mu.Unlock()
				o.mailbox.mu.Lock()
				inbox := len(o.mailbox.records)
				o.mailbox.mu.Unlock()
				// What one poll brings may come on top of each limit.
				taken := int(valueOf(o.metrics.pendings))
				if most := (1+unsentPerInFlight)*inFlightMax + inboxMax + 2*pollRecordsMax; taken+inbox > most {
					t.Errorf("the instance holds %d commands of %d, want at most %d", taken+inbox, commands, most)
				}
				fault.Remove()
				w.eventually("every command is answered", func() bool { return w.committed("account", 0) == commands })
			})
		}
	}
}
