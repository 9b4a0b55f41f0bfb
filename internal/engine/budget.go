package engine

import "sync/atomic"

// stateBudget bounds the memory of all stream tables of an instance. Exceeded, new streams are
// refused; those that exist go on. Safe for concurrent use; what an owner holds is noted in the
// owner, whose goroutine alone changes it.
type stateBudget struct {
	bytesMax int64
	used     atomic.Int64
}

func (b *stateBudget) add(o *owner, bytes int64) {
	o.budgetHeld += bytes
	b.used.Add(bytes)
}

// release gives back all that an owner holds.
func (b *stateBudget) release(o *owner) {
	b.used.Add(-o.budgetHeld)
	o.budgetHeld = 0
}

func (b *stateBudget) exceeded() bool { return b.used.Load() >= b.bytesMax }
