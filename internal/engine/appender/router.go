package appender

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// router finds leaders. It holds the writers that have none yet, and those whose batch has to be
// sent again, until metadata newer than their failure names a leader; then their sender has them.
type router struct {
	a    *Appender
	wake chan struct{}

	mu      sync.Mutex
	waiting []*Writer
	exited  bool

	leaders leaders
}

func newRouter(a *Appender) *router {
	return &router{a: a, wake: make(chan struct{}, 1), leaders: leaders{a: a, topics: map[string]topicLeaders{}}}
}

// push hands a writer to the router; false means that the router has ended.
func (r *router) push(w *Writer) bool {
	r.mu.Lock()
	if r.exited {
		r.mu.Unlock()
		return false
	}
	r.waiting = append(r.waiting, w)
	r.mu.Unlock()
	r.nudge()
	return true
}

func (r *router) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run ends with the appender's context, when no writer is left. Metadata is fetched beside it, so
// that a writer that is closed meanwhile is answered at once.
func (r *router) run() {
	var held []*Writer
	var lastFetch time.Time
	fetched := make(chan struct{}, 1)
	fetching := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var open bool
		if held, open = r.take(held); !open {
			return
		}
		var topics map[string]struct{}
		var wait time.Duration
		held, topics, wait = r.pass(held)
		if len(topics) > 0 && !fetching {
			pause := r.a.cfg.MetadataInterval - time.Since(lastFetch)
			if pause <= 0 {
				fetching, lastFetch = true, time.Now()
				r.a.goroutines.Go(func() {
					r.leaders.refresh(r.a.ctx, topics)
					fetched <- struct{}{}
				})
			} else {
				wait = min(wait, pause)
			}
		}
		timer.Reset(wait)
		select {
		case <-r.wake:
		case <-timer.C:
		case <-fetched:
			fetching = false
		case <-r.a.ctx.Done():
			if fetching {
				<-fetched
				fetching = false
			}
		}
	}
}

func (r *router) take(held []*Writer) (all []*Writer, open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all = slices.Concat(held, r.waiting)
	clear(r.waiting)
	r.waiting = r.waiting[:0]
	if len(all) == 0 && r.a.ctx.Err() != nil {
		r.exited = true
		return nil, false
	}
	return all, true
}

// idleWait is how long the router sleeps when nothing is due.
const idleWait = time.Hour

// pass sends every writer on its way that can go. It returns those that stay, the topics whose
// leaders have to be looked up, and when to pass again at the latest.
func (r *router) pass(writers []*Writer) (held []*Writer, topics map[string]struct{}, wait time.Duration) {
	wait = idleWait
	now := time.Now()
	held = writers[:0]
	for _, w := range writers {
		if b := w.pending(); w.tooOld(b) {
			w.die(fmt.Errorf("%w: %s: no acknowledgement since %s, last %s; older batches are not sent again (PROTOCOL W3)",
				ErrLost, w.p, b.firstSent.UTC().Format(time.RFC3339), *w.failure.Load()))
		}
		if w.Err() != nil {
			w.next()
			continue
		}
		if pause := w.retryAt.Sub(now); pause > 0 {
			held, wait = append(held, w), min(wait, pause)
			continue
		}
		if s := r.route(w); s == nil || !s.push(w) {
			if w.Err() != nil {
				w.next()
				continue
			}
			held = append(held, w)
			if topics == nil {
				topics = map[string]struct{}{}
			}
			topics[w.p.Topic] = struct{}{}
		}
	}
	clear(writers[len(held):])
	return held, topics, wait
}

// route returns the sender of the writer's partition, or nil while it is not known.
func (r *router) route(w *Writer) *sender {
	node, err := r.leaders.of(w.p, w.failedAt)
	if isTopicGone(err) && time.Now().After(latest(w.graceUntil, w.failedAt.Add(r.a.cfg.TopicGrace))) {
		// A broker that is told the topic's name, not its id, would store the batch in the new topic.
		w.die(fmt.Errorf("%w: %w; the topic was deleted or recreated", ErrLost, err))
	}
	if err != nil {
		return nil
	}
	s := r.a.senderOf(node)
	w.mu.Lock()
	w.sender = s
	w.mu.Unlock()
	return s
}

// leaders is what is known of the topics.
type leaders struct {
	a  *Appender
	mu sync.Mutex
	// fetch lets one request go at a time.
	fetch  sync.Mutex
	topics map[string]topicLeaders
}

type topicLeaders struct {
	id    [16]byte
	nodes []int32 // by partition, -1 for none
	err   error   // the broker's word on the topic
	asked time.Time
}

// Why there is no leader to write to.
var (
	errLeaderUnknown  = errors.New("leader not known yet")
	errTopicRecreated = errors.New("the topic has another id")
)

// of returns the leader by what was asked after the moment given.
func (l *leaders) of(p Partition, after time.Time) (node int32, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, known := l.topics[p.Topic]
	switch {
	case !known || !t.asked.After(after):
		return -1, errLeaderUnknown
	case t.err != nil:
		return -1, fmt.Errorf("topic %s: %w", p.Topic, t.err)
	case t.id != p.TopicID && t.id != ([16]byte{}):
		return -1, fmt.Errorf("topic %s has id %x, expected %x: %w", p.Topic, t.id, p.TopicID, errTopicRecreated)
	case int(p.Partition) >= len(t.nodes) || t.nodes[p.Partition] < 0:
		return -1, fmt.Errorf("%s: %w", p, kerr.LeaderNotAvailable)
	}
	return t.nodes[p.Partition], nil
}

// refresh asks for the topics' leaders, unless somebody did while this call waited for its turn:
// a hundred claims at once are one request. A failure leaves what was known, and returns false.
func (l *leaders) refresh(ctx context.Context, topics map[string]struct{}) bool {
	wanted := time.Now()
	l.fetch.Lock()
	defer l.fetch.Unlock()
	if l.fresh(topics, wanted) {
		return true
	}
	req := kmsg.NewPtrMetadataRequest()
	for topic := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(topic)
		req.Topics = append(req.Topics, rt)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	asked := time.Now()
	resp, err := req.RequestWith(ctx, l.a.client)
	if err != nil {
		l.a.cfg.Logger.Debug("metadata request failed", "cause", err)
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range resp.Topics {
		if t := &resp.Topics[i]; t.Topic != nil {
			l.topics[*t.Topic] = readLeaders(t, asked)
		}
	}
	return true
}

func (l *leaders) fresh(topics map[string]struct{}, since time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for topic := range topics {
		if !l.topics[topic].asked.After(since) {
			return false
		}
	}
	return true
}

func readLeaders(t *kmsg.MetadataResponseTopic, asked time.Time) topicLeaders {
	read := topicLeaders{id: t.TopicID, err: kerr.ErrorForCode(t.ErrorCode), asked: asked}
	for _, p := range t.Partitions {
		if p.Partition < 0 || p.Partition > 1<<20 {
			continue
		}
		for int(p.Partition) >= len(read.nodes) {
			read.nodes = append(read.nodes, -1)
		}
		read.nodes[p.Partition] = p.Leader
	}
	return read
}

// wait asks until there is a leader, for as long as the context lets it; an unknown or different
// topic is waited for only for grace. Answers older than after do not count.
func (l *leaders) wait(ctx context.Context, p Partition, after time.Time, grace time.Duration) (int32, error) {
	graceEnd := time.Now().Add(grace)
	for {
		node, err := l.of(p, after)
		switch {
		case err == nil:
			return node, nil
		case ctx.Err() != nil:
			return -1, fmt.Errorf("looking for the leader of %s: %w (last: %w)", p, context.Cause(ctx), err)
		case isAuthorization(err):
			return -1, fmt.Errorf("%w; grant Describe and Write on the topic", err)
		case !errors.Is(err, errLeaderUnknown):
			// That answer will not do: ask for a newer one, in a while.
			if isTopicGone(err) && time.Now().After(graceEnd) {
				return -1, fmt.Errorf("%w: %w; create the topic, or start anew with its new id", ErrLost, err)
			}
			_ = sleep(ctx, l.a.cfg.MetadataInterval)
			after = time.Now()
		default:
			if !l.refresh(ctx, map[string]struct{}{p.Topic: {}}) {
				_ = sleep(ctx, l.a.cfg.MetadataInterval)
			}
		}
	}
}

func isTopicGone(err error) bool {
	return errors.Is(err, errTopicRecreated) || errors.Is(err, kerr.UnknownTopicOrPartition)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sleep waits, and returns the context's cause when that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
