package engine

import (
	"context"
	"errors"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kerr"
)

// topicsWatchInterval is how often the ids of the events topics are looked at.
const topicsWatchInterval = 5 * time.Second

// watchTopics notices an events topic that was deleted or made anew while nobody writes to it. A
// partition with requests meets that at its next append; an idle one would call itself served
// until its next keep-alive, which may be hours away. It asks such owners for a keep-alive now, so
// that they stop in the one way there is (W9).
func (e *Engine) watchTopics(ctx context.Context) {
	tick := time.NewTicker(topicsWatchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, commands := range e.changedTopics(ctx) {
				e.proveOwnership(commands)
			}
		}
	}
}

// changedTopics returns the commands topics whose events topic is another or none. What cannot be
// asked for now is asked for at the next tick.
func (e *Engine) changedTopics(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, offsetsTimeout)
	defer cancel()
	var changed []string
	for commands, own := range e.ownTopics {
		if e.topicChanged(ctx, own.events, own.eventsID) {
			changed = append(changed, commands)
		}
	}
	return changed
}

// topicChanged says whether a topic is another or none; false when that cannot be told now.
func (e *Engine) topicChanged(ctx context.Context, topic string, id [16]byte) bool {
	infos, err := topics.IDs(ctx, e.admin, topic)
	return errors.As(err, new(*topics.MissingError)) || (err == nil && infos[topic].ID != id)
}

// topicStands says whether a writer ended because a broker did not know its topic's id, while the
// topic is there: a broker that learns of topics late. Taking over anew helps then.
func (o *owner) topicStands(err error) bool {
	if !errors.Is(err, appender.ErrLost) || !errors.Is(err, kerr.UnknownTopicID) {
		return false
	}
	ctx, cancel := context.WithTimeout(o.ctx, offsetsTimeout)
	defer cancel()
	return !o.engine.topicChanged(ctx, o.topics.events, o.topics.eventsID) && !o.engine.topicChanged(ctx, o.topics.snapshots, o.topics.snapshotsID)
}

func (e *Engine) proveOwnership(commands string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for tp, o := range e.owners {
		if tp.topic == commands {
			o.prove.Store(true)
		}
	}
}
