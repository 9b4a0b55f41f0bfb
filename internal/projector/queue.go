package projector

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// queue holds what was fetched for one partition until its worker takes it. push never blocks;
// whoever pushes looks at the returned fullness and pauses the partition.
type queue struct {
	mu       sync.Mutex
	records  []*kgo.Record
	bytes    int
	bytesMax int
	paused   bool
	closed   bool
	waiting  chan struct{} // has room for one signal: there is something to take
}

func newQueue(bytesMax int) *queue {
	return &queue{bytesMax: bytesMax, waiting: make(chan struct{}, 1)}
}

// recordOverheadBytes is what a record costs beside its key, value and headers.
const recordOverheadBytes = 200

func sizeOf(r *kgo.Record) int {
	n := recordOverheadBytes + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// push adds records; pause says that the partition is to be paused now.
func (q *queue) push(records []*kgo.Record) (pause bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	for _, r := range records {
		q.bytes += sizeOf(r)
	}
	q.records = append(q.records, records...)
	q.signal()
	if q.bytes > q.bytesMax && !q.paused {
		q.paused = true
		return true
	}
	return false
}

func (q *queue) signal() {
	select {
	case q.waiting <- struct{}{}:
	default:
	}
}

// take waits for records and returns up to the limits, at least one. resume says that the
// partition, paused before, is to be fetched again. It returns nil when ctx ends.
func (q *queue) take(ctx context.Context, recordsMax, bytesMax int) (records []*kgo.Record, resume bool) {
	for {
		if ctx.Err() != nil {
			return nil, false
		}
		if records, resume = q.cut(recordsMax, bytesMax); len(records) > 0 {
			return records, resume
		}
		select {
		case <-q.waiting:
		case <-ctx.Done():
			return nil, false
		}
	}
}

func (q *queue) cut(recordsMax, bytesMax int) (records []*kgo.Record, resume bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.records) && n < recordsMax && (n == 0 || bytes < bytesMax) {
		bytes += sizeOf(q.records[n])
		n++
	}
	records = q.records[:n:n]
	q.records = q.records[n:]
	q.bytes -= bytes
	if len(q.records) == 0 {
		q.records = nil // frees the array
	}
	// Half, not "below the limit": each pause drops what was fetched ahead.
	if q.paused && q.bytes <= q.bytesMax/2 {
		q.paused = false
		resume = true
	}
	return records, resume
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.records)
}

// close drops everything; later pushes are ignored.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.records, q.bytes = true, nil, 0
}
