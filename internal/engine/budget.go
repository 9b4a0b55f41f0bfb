package engine

import "sync/atomic"

// stateBudget bounds the memory of all stream tables of an instance. Exceeded, new streams are
// refused; those that exist go on. Safe for concurrent use; what an owner holds is noted in the
// owner, whose goroutine alone changes it.
type stateBudget struct {
	bytesMax int64
	used     atomic.Int64
}

// set tells how much an owner holds now.
func (b *stateBudget) set(o *owner, bytes int64) {
	b.used.Add(bytes - o.budgetHeld)
	o.budgetHeld = bytes
}

func (b *stateBudget) exceeded() bool { return b.used.Load() >= b.bytesMax }
