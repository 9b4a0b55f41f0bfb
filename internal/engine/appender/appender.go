package appender

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Appender owns the Kafka client, the router and the senders, one a broker, that all writers of a
// process share. It is safe for concurrent use.
type Appender struct {
	cfg    Config
	client *kgo.Client
	ctx    context.Context // of every request; ends with Close
	cancel context.CancelFunc

	router     *router
	batches    batchPool
	goroutines sync.WaitGroup

	mu      sync.Mutex
	senders map[int32]*sender
	writers map[*Writer]struct{} // alive
	closed  bool
}

var _ API = (*Appender)(nil)

// New checks the configuration and starts the appender; it connects when the first partition is
// claimed. Close ends it.
func New(cfg Config) (*Appender, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(cfg.clientOpts()...)
	if err != nil {
		return nil, fmt.Errorf("appender's Kafka client: %w", err)
	}
	a := &Appender{cfg: cfg, client: client, senders: map[int32]*sender{}, writers: map[*Writer]struct{}{}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.router = newRouter(a)
	a.goroutines.Go(a.router.run)
	return a, nil
}

// Close ends every writer and waits until all entries are answered: what is under way ends as
// unknown, what waited as not sent, both by ErrClosed. Closing twice is harmless.
func (a *Appender) Close() {
	// Order: writers die before the senders may end, so that whoever finds a sender gone knows
	// that the writer is dead and answers its entries himself.
	for _, w := range a.shut() {
		w.Close()
	}
	a.cancel()
	a.goroutines.Wait()
	a.client.Close()
}

// shut lets no new writer in and returns those that live.
func (a *Appender) shut() []*Writer {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	alive := make([]*Writer, 0, len(a.writers))
	for w := range a.writers {
		alive = append(alive, w)
	}
	return alive
}

// senderOf returns the broker's sender, which lives as long as the appender; nil when that is
// closed.
func (a *Appender) senderOf(node int32) *sender {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, there := a.senders[node]
	if !there && !a.closed {
		s = newSender(a, node)
		a.senders[node] = s
		a.goroutines.Go(s.run)
	}
	return s
}

// enlist registers a writer so that Close ends it; false means that the appender is closed.
func (a *Appender) enlist(w *Writer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	a.writers[w] = struct{}{}
	return true
}

func (a *Appender) forget(w *Writer) {
	a.mu.Lock()
	delete(a.writers, w)
	a.mu.Unlock()
}

// batchPool keeps the memory of batches that are answered.
type batchPool struct{ pool sync.Pool }

func (p *batchPool) get() *batch {
	if b, ok := p.pool.Get().(*batch); ok {
		return b
	}
	return &batch{buf: make([]byte, headerBytes, bufBytesFirst)}
}

func (p *batchPool) put(b *batch) {
	if b.tainted || cap(b.buf) > bufBytesPooled || cap(b.entries) > entriesPooled {
		return
	}
	b.reset()
	p.pool.Put(b)
}
