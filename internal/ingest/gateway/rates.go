package gateway

import (
	"hash/maphash"
	"sync"
	"time"
)

// idsAhead bounds the ids that a stream is made to remember for our sake; the engine's own limit
// is 100,000, shared with other instances and clients.
const idsAhead = 30_000

// rates counts requests by stream, to tell streams with very many. Streams share counters; a
// stream is then taken for busier than it is. Safe for concurrent use.
type rates struct {
	clock func() time.Time
	once  sync.Once
	seed  maphash.Seed
	cells [1024]rateCell
}

type rateCell struct {
	mu     sync.Mutex
	second int64
	count  int
	before int // count of the second before
}

// allows says whether one more id of a stream may be remembered for so long, and counts it.
func (r *rates) allows(category, stream string, horizon time.Duration) bool {
	r.once.Do(func() { r.seed = maphash.MakeSeed() })
	var h maphash.Hash
	h.SetSeed(r.seed)
	_, _ = h.WriteString(category)
	_ = h.WriteByte(0)
	_, _ = h.WriteString(stream)
	cell := &r.cells[h.Sum64()%uint64(len(r.cells))]
	now := r.clock().Unix()
	perSecond := int(idsAhead / max(horizon.Seconds(), 1))
	cell.mu.Lock()
	defer cell.mu.Unlock()
	switch now {
	case cell.second:
	case cell.second + 1:
		cell.second, cell.before, cell.count = now, cell.count, 0
	default:
		cell.second, cell.before, cell.count = now, 0, 0
	}
	cell.count++
	return max(cell.count, cell.before) <= perSecond
}
