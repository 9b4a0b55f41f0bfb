package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// takeOver makes this owner the writer of its partition and brings it up to the log:
//
//	read the snapshots               → all state up to the checkpoint
//	read the log behind it to its end → the last claim: is it our group's? which producer?
//	prove membership (W7)            → only a member of the group with this partition may fence
//	claim (W1, W2)                   → from here on nobody else's batch is accepted
//	read on up to the claim          → all that was accepted before it
//
// The long read goes before the claim, so that whoever still serves is not stopped for it.
func (o *owner) takeOver() error {
	began := o.clock()
	ctx, cancel := context.WithCancel(o.ctx)
	defer cancel()
	stopLeaving := context.AfterFunc(contextOf(ctx, o.leaving), cancel)
	defer stopLeaving()

	release, err := o.engine.takeOverSlot(ctx)
	if err != nil {
		return o.stoppedOr(err)
	}
	defer release()
	r, err := o.recover(ctx)
	if err != nil {
		return o.stoppedOr(err)
	}
	o.adopt(r)
	o.engine.outbox.void(o, r.voids)
	o.metrics.tookOver(o.clock().Sub(began), r)
	o.log.Info("partition taken over", "events", r.events, "streams", r.table.len(), "claim_offset", o.writer.ClaimOffset(),
		"highest_command", r.highest, "void_records", r.voidRecords, "took", o.clock().Sub(began))
	return nil
}

func (o *owner) stoppedOr(err error) error {
	if o.isLeaving() {
		return errStopped
	}
	return err
}

// contextOf ends when the channel is closed or the parent ends.
func contextOf(parent context.Context, done <-chan struct{}) context.Context {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		select {
		case <-done:
		case <-parent.Done():
		}
		cancel()
	}()
	return ctx
}

func (o *owner) recover(ctx context.Context) (*recovery, error) {
	var committed int64
	var in *restored
	// What does not wait for each other goes side by side: a take-over is a pause for its streams.
	both, bothCtx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		committed, err = o.engine.committedOffset(bothCtx, o.topics.commands, o.partition)
		return err
	})
	both.Go(func() (err error) {
		in, err = o.readSnapshots(bothCtx)
		return err
	})
	if err := both.Wait(); err != nil {
		return nil, err
	}
	from := max(committed, 0)
	if len(o.unfinished) > 0 {
		from = min(from, o.unfinished[0].record.Offset)
	}
	if o.nextOffset < from {
		o.nextOffset = from
	}
	o.committed.Store(max(committed, 0))
	r, visit, err := o.readLog(ctx, in, from)
	if errors.Is(err, errOtherLog) {
		o.log.Warn("snapshots do not match the log; all is folded from the log", "cause", err)
		in.discard()
		r, visit, err = o.readLog(ctx, in, from)
	}
	if err != nil {
		return nil, err
	}
	if err := o.checkGroup(r); err != nil {
		return nil, err
	}
	if plantedNoClaim {
		o.pause(500 * time.Millisecond) // the gap that the claim would close
	}
	writer, err := o.claim(ctx, r)
	if err != nil {
		return nil, err
	}
	o.writer = writer // endTerm closes it
	claimedAt := o.clock()
	o.keeper = newKeeper(o, o.category.Snapshots, o.engine.snapshots)
	var start, end int64
	all, allCtx := errgroup.WithContext(ctx)
	lastEventID := r.lastEventID
	all.Go(func() error { return o.keeper.claim(allCtx, in.claim, lastEventID) })
	all.Go(func() (err error) {
		start, end, err = o.engine.listOffsets(allCtx, o.topics.commands, o.partition)
		return err
	})
	if !plantedNoClaim {
		all.Go(func() error { return o.readToClaim(allCtx, r, writer, visit) })
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	if err := o.checkCommands(r, committed, start, end); err != nil {
		return nil, err
	}
	// How far the broker's clock, which stamps the events, is ahead of ours.
	o.skew = 0
	if !r.claimStamp.IsZero() {
		o.skew = r.claimStamp.Sub(claimedAt)
	}
	o.keeper.begin(r)
	return r, nil
}

// readLog reads the events partition to its end as of now, from where the snapshots leave off.
func (o *owner) readLog(ctx context.Context, in *restored, outcomesFrom int64) (*recovery, func(*kgo.Record) error, error) {
	r := newRecovery(o.category, o.topics.commandsID, outcomesFrom)
	r.now = o.clock().Unix()
	start, end, err := o.engine.listOffsets(ctx, o.topics.events, o.partition)
	if err != nil {
		return nil, nil, err
	}
	from := r.begin(in, start)
	switch {
	case end <= r.verifyOffset:
		return nil, nil, errOtherLog
	case r.covered >= 0 && start > r.covered+1:
		return nil, nil, &LogFault{o.topics.events, o.partition, start, fmt.Errorf("retention has deleted events behind the checkpoint at offset %d, so the state between is lost", r.covered)}
	}
	r.next = max(from, start)
	visit := o.visitor(ctx, r)
	return r, visit, o.engine.reader.read(ctx, topicPartition{o.topics.events, o.partition}, r.next, end-1, visit)
}

func (o *owner) visitor(ctx context.Context, r *recovery) func(*kgo.Record) error {
	return func(rec *kgo.Record) error {
		return o.retrying(ctx, rec.Offset, func() error { return r.visit(ctx, rec) })
	}
}

// retrying repeats what failed for reasons of infrastructure, so that a registry that is away for
// a moment does not start a long read over.
func (o *owner) retrying(ctx context.Context, offset int64, visit func() error) error {
	wait := retryWaitMin
	for {
		err := visit()
		var fault *LogFault
		var decider *DeciderError
		if err == nil || errors.As(err, &fault) || errors.As(err, &decider) || errors.Is(err, errOtherLog) || ctx.Err() != nil {
			return err
		}
		o.setState("taking over", err)
		o.log.Warn("recovery waits", "offset", offset, "cause", err)
		if !o.pause(wait) {
			return errStopped
		}
		wait = min(2*wait, retryWaitMax)
	}
}

// ForeignGroupError stops a service that would fight another one for the same partitions (W7).
type ForeignGroupError struct {
	Topic     string
	Partition int32
	Group     string
	Instance  string
	Ours      string
}

func (e *ForeignGroupError) Error() string {
	return fmt.Sprintf("%s[%d] was last claimed by group %q (instance %q), this service is of group %q: two groups would take the partitions from each other without end; stop one of them, or give it a namespace of its own",
		e.Topic, e.Partition, e.Group, e.Instance, e.Ours)
}

func (o *owner) checkGroup(r *recovery) error {
	if r.group == "" || r.group == o.engine.cfg.Group {
		return nil
	}
	return &ForeignGroupError{Topic: o.topics.events, Partition: o.partition, Group: r.group, Instance: r.instance, Ours: o.engine.cfg.Group}
}

func (o *owner) claim(ctx context.Context, r *recovery) (*appender.Writer, error) {
	if err := o.engine.proveMembership(ctx); err != nil {
		return nil, err
	}
	if o.isLeaving() {
		return nil, errStopped
	}
	last := appender.LastClaim{Claim: r.lineage.Claim, Known: r.lineage.Known}
	return o.engine.appender.Claim(ctx, o.appendTarget(), o.claimInfo(r.lastEventID), last, nil)
}

func (o *owner) appendTarget() appender.Partition {
	return appender.Partition{
		Topic: o.topics.events, TopicID: o.topics.eventsID, Partition: o.partition,
		TransactionalID: topics.TransactionalID(o.namespace, o.category.Name, o.partition),
	}
}

func (o *owner) claimInfo(lastEventID string) appender.ClaimInfo {
	return appender.ClaimInfo{
		Group: o.engine.cfg.Group, Instance: o.engine.cfg.Instance,
		CommandsTopicID: o.topics.commandsID, LastEventID: lastEventID,
	}
}

// readToClaim reads what came between the first read and the claim. When another producer claimed
// in between, it is fenced and the claim repeated (W2).
func (o *owner) readToClaim(ctx context.Context, r *recovery, w *appender.Writer, visit func(*kgo.Record) error) error {
	tp := topicPartition{o.topics.events, o.partition}
	if err := o.engine.reader.read(ctx, tp, r.next, w.ClaimOffset(), visit); err != nil {
		return err
	}
	if r.lineage.Claim != w.Held() {
		return fmt.Errorf("%w: the claim at %s[%d]@%d is of producer %d epoch %d, ours is producer %d epoch %d", appender.ErrFenced,
			tp.topic, tp.partition, w.ClaimOffset(), r.lineage.Claim.ProducerID, r.lineage.Claim.Epoch, w.Held().ProducerID, w.Held().Epoch)
	}
	return nil
}

// CommandsTopicError says that commands topic and log do not fit together (W9, D8).
type CommandsTopicError struct {
	Topic     string
	Partition int32
	Reason    string
}

func (e *CommandsTopicError) Error() string {
	return fmt.Sprintf("%s[%d]: %s; the partition stops: going on could skip commands or take others for answered ones", e.Topic, e.Partition, e.Reason)
}

// checkCommands compares H and the group offset with what the commands topic holds, from start to
// end.
func (o *owner) checkCommands(r *recovery, committed, start, end int64) error {
	fault := func(format string, args ...any) error {
		return &CommandsTopicError{Topic: o.topics.commands, Partition: o.partition, Reason: fmt.Sprintf(format, args...)}
	}
	if r.highest >= end {
		return fault("the events partition holds an event of command offset %d, but the topic ends at %d: it was truncated or restored from an older copy", r.highest, end)
	}
	if committed > end {
		return fault("the group offset is %d, but the topic ends at %d: it was truncated or recreated; remove the group's offsets when that is meant (kafka-consumer-groups --delete-offsets --group %s --topic %s)", committed, end, o.engine.cfg.Group, o.topics.commands)
	}
	if known := max(r.highest+1, committed, 0); start > known {
		return fault("the topic begins at offset %d, but commands from %d on were not handled yet: retention deleted them; the offset must be moved on record (kafka-consumer-groups --reset-offsets --group %s --topic %s:%d --to-offset %d)", start, known, o.engine.cfg.Group, o.topics.commands, o.partition, start)
	}
	return nil
}

// adopt makes what was read the owner's own.
func (o *owner) adopt(r *recovery) {
	o.table, o.highest, o.outcomes, o.origins = r.table, r.highest, r.outcomes, r.origins
	o.lastEventID, o.lastEventOffset, o.ackedHighest = r.lastEventID, r.lastEventOffset, r.highest
	o.budget.set(o, r.table.bytes)
	term := o.termNumber
	o.onAppend = func(res appender.Result) { o.mailbox.post(result{kind: resultAppend, append: res, term: term}) }
	now := o.clock()
	o.lastAppend, o.sweepAt, o.renewAt = now, now.Add(sweepInterval), now.Add(o.engine.limits.renewAfter)
	o.engine.assigned(o)
}

// renew claims anew under the held producer id, busy or not, before the coordinator forgets the
// transactional id (W3). Nothing is under way: what was would be refused behind the claim. A
// re-claim never steals (W4): its base offset must be the expected one, else somebody else has
// written and everything is recovered.
func (o *owner) renew() error {
	if err := o.engine.proveMembership(o.ctx); err != nil {
		return err
	}
	held, expected := o.writer.Held(), o.writer.NextOffset()
	o.writer.Close()
	carried := &held
	if plantedReclaimSteals {
		carried = nil
	}
	w, err := o.engine.appender.Claim(o.ctx, o.appendTarget(), o.claimInfo(o.lastEventID), appender.LastClaim{Claim: held, Known: true}, carried)
	if err != nil {
		return err
	}
	o.writer, o.renewing, o.lastAppend = w, false, o.clock()
	if w.ClaimOffset() != expected && !plantedReclaimSteals {
		return fmt.Errorf("%w: the renewed claim stands at offset %d, expected %d: somebody else wrote", appender.ErrLost, w.ClaimOffset(), expected)
	}
	if err := o.keeper.renew(o.ctx); err != nil {
		return err
	}
	o.renewAt = o.clock().Add(o.engine.limits.renewAfter)
	o.metrics.renewed()
	return nil
}

// proveMembership asks the group's coordinator whether this member is one (W7):
//
//	owner A is stopped past its session, its partitions go to B, A goes on
//	A, not yet told, finds itself fenced and would take over anew
//	its heartbeat answers UNKNOWN_MEMBER_ID: it does not
func (e *Engine) proveMembership(ctx context.Context) error {
	member, generation := e.group.GroupMetadata()
	if member == "" || generation < 0 {
		return errors.New("not a member of the group at the moment")
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.SessionTimeout)
	defer cancel()
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = e.cfg.Group, member, generation
	resp, err := req.RequestWith(ctx, e.group)
	if err != nil {
		return fmt.Errorf("proving membership of group %s: %w", e.cfg.Group, err)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil && !errors.Is(err, kerr.RebalanceInProgress) {
		return fmt.Errorf("proving membership of group %s: %w", e.cfg.Group, err)
	}
	return nil
}

// isPermanent says whether taking over anew cannot help: an operator has to act.
func isPermanent(err error) bool {
	var foreign *ForeignGroupError
	var commands *CommandsTopicError
	var fault *LogFault
	var missing *topicChangedError
	return errors.As(err, &foreign) || errors.As(err, &commands) || errors.As(err, &fault) || errors.As(err, &missing) ||
		(errors.Is(err, appender.ErrLost) && errors.Is(err, kerr.UnknownTopicID)) ||
		errors.Is(err, kerr.OffsetOutOfRange) || errors.Is(err, kerr.TransactionalIDAuthorizationFailed) || errors.Is(err, kerr.TopicAuthorizationFailed)
}

// topicChangedError: a topic was deleted, recreated or repartitioned under a running service.
type topicChangedError struct {
	topic string
	cause error
}

func (e *topicChangedError) Error() string {
	return fmt.Sprintf("topic %s changed under the running service: %v; restart the service after checking who recreated it", e.topic, e.cause)
}

func (e *topicChangedError) Unwrap() error { return e.cause }

// renewalLimits are the times of PROTOCOL W3.
type renewalLimits struct {
	renewAfter     time.Duration // a quarter of transactional.id.expiration.ms
	keepaliveAfter time.Duration // a quarter of producer.id.expiration.ms
}

// Kafka's defaults, for brokers that do not tell.
const (
	transactionalIDExpirationDefault = 7 * 24 * time.Hour
	producerIDExpirationDefault      = 24 * time.Hour
)
