package engine

import (
	"testing"

	"github.com/foldstream/foldstream/pkg/topics"
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
