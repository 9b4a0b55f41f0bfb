package registry

import (
	"sync"
	"time"
)

// absent remembers for a short while what the registry did not have, so that a producer which
// sends one wrong id over and over does not become a load on the registry.
type absent struct {
	life time.Duration
	mu   sync.Mutex
	till map[any]time.Time
}

// absentMax bounds the memory; beyond it all is forgotten, which costs lookups only.
const absentMax = 4096

func (a *absent) has(key any, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	till, there := a.till[key]
	return there && now.Before(till)
}

func (a *absent) add(key any, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.till == nil || len(a.till) >= absentMax {
		a.till = map[any]time.Time{}
	}
	a.till[key] = now.Add(a.life)
}

// budget bounds how often something is done: burst times at once, then rate times a second.
type budget struct {
	burst, rate float64
	mu          sync.Mutex
	tokens      float64
	at          time.Time
}

func newBudget(burst, rate float64) *budget { return &budget{burst: burst, rate: rate, tokens: burst} }

func (b *budget) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		if !b.at.IsZero() {
			b.tokens = min(b.burst, b.tokens+passed*b.rate)
		}
		b.at = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
