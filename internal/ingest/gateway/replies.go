package gateway

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Run reads the answers until ctx ends, then goes on until no recorded request waits, at most
// DrainTimeout, and releases the clients. Requests that come later are answered unknown.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.Close()
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	var reader sync.WaitGroup
	reader.Go(func() { g.read(reading) })
	<-ctx.Done()
	bounded, cancel := context.WithTimeout(reading, g.cfg.DrainTimeout)
	g.pending.awaitNone(bounded)
	cancel()
	g.pending.close()
	stop()
	reader.Wait()
	return nil
}

// errorPause keeps a broker that is away from being asked in a tight loop.
const errorPause = 250 * time.Millisecond

func (g *Gateway) read(ctx context.Context) {
	failing := ""
	for ctx.Err() == nil {
		fetches := g.replies.PollFetches(ctx)
		if fetches.IsClientClosed() || ctx.Err() != nil {
			return
		}
		fetches.EachRecord(func(rec *kgo.Record) { g.take(ctx, rec) })
		failed := fetches.Errors()
		if len(failed) == 0 {
			failing = ""
			continue
		}
		if text := failed[0].Err.Error(); text != failing {
			failing = text
			g.cfg.Logger.Warn("answers cannot be read: requests for other instances' partitions will be answered unknown",
				"topic", failed[0].Topic, "partition", failed[0].Partition, "err", failed[0].Err)
		}
		if !sleep(ctx, errorPause) {
			return
		}
	}
}

// take hands one record of the reply partition, which others share, to the call that waits for it.
func (g *Gateway) take(ctx context.Context, rec *kgo.Record) {
	if !strings.HasPrefix(string(rec.Key), string(g.instance[:])) {
		return
	}
	p := g.pending.find(string(rec.Key))
	if p == nil {
		g.metrics.late.Inc()
		return
	}
	payload, err := g.cfg.Codec.Inspect(ctx, codec.TypeReply, rec.Value)
	var decoded any
	if err == nil {
		decoded, err = g.reply.Decode(payload)
	}
	if err != nil {
		g.cfg.Logger.Warn("an answer cannot be read: its request will be sent again", "offset", rec.Offset, "err", err)
		return
	}
	p.answer(decoded.(codec.Reply))
}

// table is the recorded requests that wait for an answer. Safe for concurrent use.
type table struct {
	most      int
	bytesMost int64
	closed    chan struct{}

	mu    sync.Mutex
	byKey map[string]*pending
	bytes int64
	ended bool
	none  []chan struct{} // closed when nothing waits
}

func newTable(most int, bytesMost int64) table {
	return table{most: most, bytesMost: bytesMost, byKey: map[string]*pending{}, closed: make(chan struct{})}
}

// pending is one request that waits.
type pending struct {
	key      string
	bytes    int64
	answers  chan codec.Reply
	failures chan failure
}

type failure struct {
	attempt int
	err     error
}

// answersKept bounds what waits to be looked at; the sender of more is sending repeats.
const answersKept = 8

// pendingBytesFixed is what a pending costs beside its value.
const pendingBytesFixed = 1024

func (t *table) add(key string, bytes int) (*pending, bool) {
	p := &pending{key: key, bytes: int64(bytes) + pendingBytesFixed, answers: make(chan codec.Reply, answersKept), failures: make(chan failure, answersKept)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || len(t.byKey) >= t.most || t.bytes+p.bytes > t.bytesMost {
		return nil, false
	}
	t.byKey[key] = p
	t.bytes += p.bytes
	return p, true
}

func (t *table) remove(p *pending) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byKey, p.key)
	t.bytes -= p.bytes
	if len(t.byKey) > 0 {
		return
	}
	for _, none := range t.none {
		close(none)
	}
	t.none = nil
}

func (t *table) find(key string) *pending {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byKey[key]
}

func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byKey)
}

// awaitNone returns when nothing waits, or ctx ends.
func (t *table) awaitNone(ctx context.Context) {
	t.mu.Lock()
	if len(t.byKey) == 0 {
		t.mu.Unlock()
		return
	}
	none := make(chan struct{})
	t.none = append(t.none, none)
	t.mu.Unlock()
	select {
	case <-none:
	case <-ctx.Done():
	}
}

// close takes no more requests and ends the waits of those that are there.
func (t *table) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ended = true
		close(t.closed)
	}
}

func (t *table) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

func (p *pending) answer(r codec.Reply) {
	select {
	case p.answers <- r:
	default:
	}
}

func (p *pending) fail(attempt int, err error) {
	select {
	case p.failures <- failure{attempt, err}:
	default:
	}
}
