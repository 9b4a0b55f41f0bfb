package appender

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// sender is the one goroutine that writes to a broker. It has one request under way at a time,
// which carries the next batch of every writer whose partition the broker leads.
type sender struct {
	a      *Appender
	node   int32
	broker *kgo.Broker
	wake   chan struct{}

	mu     sync.Mutex
	ready  []*Writer
	exited bool

	round request
}

func newSender(a *Appender, node int32) *sender {
	return &sender{a: a, node: node, broker: a.client.Broker(int(node)), wake: make(chan struct{}, 1)}
}

// push hands a writer to the sender; false means that the sender has ended.
func (s *sender) push(w *Writer) bool {
	s.mu.Lock()
	if s.exited {
		s.mu.Unlock()
		return false
	}
	s.ready = append(s.ready, w)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

// run ends with the appender's context, when no writer is left.
func (s *sender) run() {
	var spare []*Writer
	for {
		var writers []*Writer
		var open bool
		writers, open = s.take(spare)
		if !open {
			return
		}
		if len(writers) == 0 {
			spare = writers
			select {
			case <-s.wake:
				// Others that are about to append get their turn first: a fuller batch costs one
				// yield, and no time when nobody is.
				runtime.Gosched()
			case <-s.a.ctx.Done():
			}
			continue
		}
		s.serve(writers)
		clear(writers)
		spare = writers[:0]
	}
}

func (s *sender) take(spare []*Writer) (writers []*Writer, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 {
		if s.a.ctx.Err() != nil {
			s.exited = true
			return nil, false
		}
		return spare[:0], true
	}
	writers, s.ready = s.ready, spare[:0]
	return writers, true
}

// serve does one round: at most one produce request, at most one ListOffsets.
func (s *sender) serve(writers []*Writer) {
	r := &s.round
	r.begin()
	for _, w := range writers {
		if r.has(w.p) {
			s.again(w) // the next round: one batch a partition and request
			continue
		}
		switch b := w.next(); {
		case b == nil:
		case r.bytes > 0 && r.bytes+len(b.buf) > s.a.cfg.RequestBytesMax:
			s.again(w)
		default:
			r.add(w, b)
		}
	}
	if len(r.jobs) > 0 {
		s.produce(r)
	}
	if len(r.listings) > 0 {
		s.list(r.listings)
	}
	r.end()
}

// again keeps a writer for the next round.
func (s *sender) again(w *Writer) {
	s.mu.Lock()
	s.ready = append(s.ready, w)
	s.mu.Unlock()
}

// reroute gives a writer, whose flight has to be sent again, to the router.
func (s *sender) reroute(w *Writer) {
	if !s.a.router.push(w) {
		w.next()
	}
}

// job is one batch of a round.
type job struct {
	w    *Writer
	b    *batch
	done bool
}

// request is what a sender reuses from round to round.
type request struct {
	jobs     []job
	listings []job
	index    map[jobKey]int
	bytes    int
	produce  *kmsg.ProduceRequest
}

type jobKey struct {
	topic     [16]byte
	partition int32
}

func (r *request) begin() {
	r.jobs, r.listings, r.bytes = r.jobs[:0], r.listings[:0], 0
	if r.index == nil {
		r.index = map[jobKey]int{}
	}
	clear(r.index)
	if r.produce == nil {
		r.produce = kmsg.NewPtrProduceRequest()
		r.produce.Acks = -1
	}
}

func (r *request) end() {
	clear(r.jobs)
	clear(r.listings)
}

func (r *request) has(p Partition) bool {
	_, there := r.index[jobKey{p.TopicID, p.Partition}]
	return there
}

func (r *request) add(w *Writer, b *batch) {
	key := jobKey{w.p.TopicID, w.p.Partition}
	if b.listing {
		r.index[key] = -1
		r.listings = append(r.listings, job{w: w, b: b})
		return
	}
	r.index[key] = len(r.jobs)
	r.jobs = append(r.jobs, job{w: w, b: b})
	r.bytes += len(b.buf)
}

// find returns the job that an answer is about. Brokers below Kafka 4.1 (produce version 12) name
// the topic, newer ones its id.
func (r *request) find(name string, id [16]byte, partition int32) *job {
	if id == ([16]byte{}) {
		for i := range r.produce.Topics {
			if r.produce.Topics[i].Topic == name {
				id = r.produce.Topics[i].TopicID
			}
		}
	}
	if at, there := r.index[jobKey{id, partition}]; there && at >= 0 {
		return &r.jobs[at]
	}
	return nil
}

// fill builds the produce request: a topic for each topic id, in it a partition for each job.
func (r *request) fill(timeout time.Duration) *kmsg.ProduceRequest {
	req := r.produce
	req.TimeoutMillis = int32(timeout.Milliseconds())
	for i := range req.Topics {
		clear(req.Topics[i].Partitions)
		req.Topics[i].Partitions = req.Topics[i].Partitions[:0]
	}
	topics := req.Topics[:0]
	for i := range r.jobs {
		j := &r.jobs[i]
		at := -1
		for t := range topics {
			if topics[t].TopicID == j.w.p.TopicID {
				at = t
				break
			}
		}
		if at < 0 {
			topics, at = extend(topics, j.w.p)
		}
		topics[at].Partitions = append(topics[at].Partitions, kmsg.ProduceRequestTopicPartition{
			Partition: j.w.p.Partition, Records: j.b.buf,
		})
	}
	req.Topics = topics
	return req
}

// extend adds a topic, with the partitions' memory of an earlier round where there is some.
func extend(topics []kmsg.ProduceRequestTopic, p Partition) ([]kmsg.ProduceRequestTopic, int) {
	at := len(topics)
	if at < cap(topics) {
		topics = topics[:at+1]
	} else {
		topics = append(topics, kmsg.ProduceRequestTopic{})
	}
	t := &topics[at]
	t.Topic, t.TopicID = p.Topic, p.TopicID
	return topics, at
}

func (s *sender) produce(r *request) {
	now := s.a.cfg.Clock()
	for i := range r.jobs {
		b := r.jobs[i].b
		if b.attempts == 0 {
			b.firstSent = now
		}
		b.attempts++
	}
	resp, err := s.broker.Request(s.a.ctx, r.fill(s.a.cfg.ProduceTimeout))
	if err != nil {
		// The client may still hold the request and its buffers: none of them is used again.
		for i := range r.jobs {
			r.jobs[i].b.tainted = true
		}
		r.produce = nil
		s.unanswered(r.jobs, err.Error())
		return
	}
	s.a.cfg.AnswerBegins()
	defer s.a.cfg.AnswerEnds()
	answer := resp.(*kmsg.ProduceResponse)
	for ti := range answer.Topics {
		t := &answer.Topics[ti]
		for pi := range t.Partitions {
			p := &t.Partitions[pi]
			if j := r.find(t.Topic, t.TopicID, p.Partition); j != nil && !j.done {
				j.done = true
				s.settle(j, p)
			}
		}
	}
	s.unanswered(r.jobs, "the broker's answer left the partition out")
}

// unanswered has the batches of unknown outcome retried.
func (s *sender) unanswered(jobs []job, reason string) {
	now := time.Now()
	for i := range jobs {
		if j := &jobs[i]; !j.done {
			j.done = true
			j.b.uncertain = true
			j.w.failed(j.b, reason, now)
			s.reroute(j.w)
		}
	}
}

// settle acts on the broker's answer to one batch.
func (s *sender) settle(j *job, p *kmsg.ProduceResponseTopicPartition) {
	w, b := j.w, j.b
	verdict, cause := judge(p.ErrorCode)
	if cause != nil && p.ErrorMessage != nil {
		cause = fmt.Errorf("%w (%s)", cause, *p.ErrorMessage)
	}
	switch verdict {
	case verdictAcked:
		s.a.cfg.Observe.BatchAcked(w.p, int(b.records), len(b.buf), s.a.cfg.Clock().Sub(b.firstSent))
		w.acked(b, p.BaseOffset)
	case verdictRefused:
		s.refuse(w, b, cause)
	case verdictFenced:
		w.die(fmt.Errorf("%w: %s, producer %d epoch %d: %w", ErrFenced, w.p, w.claim.ProducerID, w.claim.Epoch, cause))
	case verdictLost:
		w.die(fmt.Errorf("%w: %s, producer %d epoch %d, sequence %d: %w", ErrLost, w.p, w.claim.ProducerID, w.claim.Epoch, b.seq, cause))
	case verdictTopicGone:
		if time.Now().After(w.graceUntil) {
			w.die(fmt.Errorf("%w: %s: topic id %x is no longer there, the topic was deleted or recreated: %w", ErrLost, w.p, w.p.TopicID, cause))
			break
		}
		s.retry(w, b, cause)
		return
	case verdictRetryCertain:
		s.retry(w, b, cause)
		return
	case verdictRetry:
		b.uncertain = true
		s.retry(w, b, cause)
		return
	}
	s.again(w)
}

// refuse ends a batch that this attempt certainly did not store. When an earlier one may have, a
// refusal proves nothing: the limits can have been changed in between, and the broker looks at
// them before it looks for a duplicate.
func (s *sender) refuse(w *Writer, b *batch, cause error) {
	if b.uncertain {
		w.die(fmt.Errorf("%w: %s: refused at attempt %d, after one of unknown outcome: %w", ErrLost, w.p, b.attempts, cause))
		return
	}
	w.refused(b, cause)
}

func (s *sender) retry(w *Writer, b *batch, cause error) {
	w.failed(b, cause.Error(), time.Now())
	s.reroute(w)
}

// list proves idle writers: the leader's end offset is where they left it (PROTOCOL W15).
func (s *sender) list(jobs []job) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	for i := range jobs {
		jobs[i].b.attempts++
		if jobs[i].b.attempts == 1 {
			jobs[i].b.firstSent = s.a.cfg.Clock()
		}
		addListing(req, jobs[i].w.p)
	}
	resp, err := s.broker.Request(s.a.ctx, req)
	if err != nil {
		s.unanswered(jobs, err.Error())
		return
	}
	s.a.cfg.AnswerBegins()
	defer s.a.cfg.AnswerEnds()
	answer := resp.(*kmsg.ListOffsetsResponse)
	for ti := range answer.Topics {
		t := &answer.Topics[ti]
		for pi := range t.Partitions {
			for i := range jobs {
				if j := &jobs[i]; !j.done && j.w.p.Topic == t.Topic && j.w.p.Partition == t.Partitions[pi].Partition {
					j.done = true
					s.settleListing(j, &t.Partitions[pi])
				}
			}
		}
	}
	s.unanswered(jobs, "the broker's answer left the partition out")
}

func addListing(req *kmsg.ListOffsetsRequest, p Partition) {
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition = p.Partition
	rp.Timestamp = -1 // the end
	for i := range req.Topics {
		if req.Topics[i].Topic == p.Topic {
			req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
			return
		}
	}
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = p.Topic
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
}

func (s *sender) settleListing(j *job, p *kmsg.ListOffsetsResponseTopicPartition) {
	w, b := j.w, j.b
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		s.retry(w, b, err)
		return
	}
	if p.Offset != b.expected {
		w.die(fmt.Errorf("%w: %s ends at offset %d, expected %d: somebody else wrote, or the log lost its end; take it over anew", ErrLost, w.p, p.Offset, b.expected))
	} else {
		w.tell(b, b.expected, nil)
	}
	s.again(w)
}
