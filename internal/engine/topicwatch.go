package engine

import (
	"context"
	"errors"
	"time"

	"github.com/foldstream/foldstream/pkg/topics"
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
		infos, err := topics.IDs(ctx, e.admin, own.events)
		if errors.As(err, new(*topics.MissingError)) || (err == nil && infos[own.events].ID != own.eventsID) {
			changed = append(changed, commands)
		}
	}
	return changed
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
