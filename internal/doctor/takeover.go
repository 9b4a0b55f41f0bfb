package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kerr"
)

// What a broken promise of fencing comes to, and the way out.
const (
	twoOwners  = "two owners of one partition could both write: versions would fork and acknowledged events contradict each other"
	notHere    = "do not run ingest on this broker; if it is Apache Kafka, look for a proxy in between, else ask its maker"
	storeTwice = "an append whose answer was lost would be stored twice when it is sent again"
)

// takeOver is a new owner B against the one before, A (PROTOCOL W1).
type takeOver struct {
	x       *exam
	l       *lane
	a, b    event.Claim
	aNext   int32
	claimed batch // B's claim
	claimAt int64
}

func (x *exam) takeOver() scenario {
	t := &takeOver{x: x, l: x.scratch.lanes[laneTakeOver]}
	return scenario{
		{"producer id", "InitProducerID for a transactional id, then two plain idempotent batches under it", "a producer id, and the batches stored at offsets 0 and 1", true, t.first},
		{"next epoch", "InitProducerID for the same transactional id again", "the same producer id, the epoch one higher", true, t.second},
		{"before the claim", "the former owner appends before the new one has", "taken or refused: all before the claim is read by the new owner", false, t.gap},
		{"claim", "the first batch of the new epoch, sequence 0", "stored at the end of the log", true, t.claim},
		{"old epoch", "the former owner appends after the claim", "INVALID_PRODUCER_EPOCH, and nothing stored", false, t.fenced},
		{"claim repeated", "the claim once more, the same bytes", "the first one's offset, and nothing stored", false, t.repeat},
		{"gap in the sequence", "a batch whose sequence leaves one out, then the one that was left out", "OUT_OF_ORDER_SEQUENCE_NUMBER and nothing stored, then the other is", false, t.outOfOrder},
	}
}

func (t *takeOver) first(ctx context.Context) outcome {
	const means = "owners cannot get an identity that can be fenced"
	var err error
	if t.a, err = t.l.initProducer(ctx, nil); err != nil {
		return failed(err, means, t.x.grantScratch())
	}
	for ; t.aNext < 2; t.aNext++ {
		if _, err := t.l.put(ctx, t.a, t.aNext, fmt.Sprintf("a%d", t.aNext)); err != nil {
			return failed(err, "idempotent batches under a transactional id, but outside of a transaction, are not taken", t.x.grantScratch())
		}
	}
	return fit("producer %d epoch %d; both stored, the log ends at %d", t.a.ProducerID, t.a.Epoch, t.l.end)
}

func (t *takeOver) second(ctx context.Context) outcome {
	var err error
	if t.b, err = t.l.initProducer(ctx, nil); err != nil {
		return failed(err, twoOwners, t.x.grantScratch())
	}
	saw := fmt.Sprintf("producer %d epoch %d after producer %d epoch %d", t.b.ProducerID, t.b.Epoch, t.a.ProducerID, t.a.Epoch)
	if t.b.ProducerID != t.a.ProducerID || t.b.Epoch != t.a.Epoch+1 {
		return unfit(saw, "a new owner does not get an epoch that fences the one before; "+twoOwners, notHere)
	}
	return fit("%s", saw)
}

func (t *takeOver) gap(ctx context.Context) outcome {
	_, err := t.l.put(ctx, t.a, t.aNext, "between")
	switch {
	case err == nil:
		t.aNext++
		return fit("taken: the leader learns of an epoch by its first batch")
	case isFenced(err):
		return note("refused already: "+err.Error(), "this broker keeps epochs with the producer id, not with the partition, so it fences a little earlier")
	}
	return failed(err, "the former owner meets an error that it does not know", t.x.grantScratch())
}

func (t *takeOver) claim(ctx context.Context) outcome {
	t.claimed = batch{claim: t.b, values: []string{"claim"}, stamp: t.x.cfg.Clock()}
	a, err := t.l.putBatch(ctx, t.claimed)
	if err != nil {
		return failed(err, "a new owner cannot take a partition over", t.x.grantScratch())
	}
	t.claimAt = a.offset
	return fit("stored at offset %d", a.offset)
}

func (t *takeOver) fenced(ctx context.Context) outcome {
	for _, seq := range []int32{t.aNext, 0} {
		if out, ok := t.l.refuses(ctx, batch{claim: t.a, seq: seq, values: []string{"void"}}, twoOwners, kerr.InvalidProducerEpoch, kerr.ProducerFenced); !ok {
			return out
		}
	}
	return t.l.unchanged(ctx, "refused under its next sequence and under sequence 0", twoOwners)
}

func (t *takeOver) repeat(ctx context.Context) outcome {
	a, err := t.l.send(ctx, t.claimed)
	switch {
	case err != nil:
		return failed(err, "a retry of what was stored is refused: after each lost answer the owner would lose its partition", t.x.grantScratch())
	case a.offset != t.claimAt:
		t.l.note(t.claimed, a)
		return unfit(fmt.Sprintf("stored again at offset %d, first at %d", a.offset, t.claimAt), storeTwice, notHere)
	}
	return t.l.unchanged(ctx, fmt.Sprintf("answered with offset %d, as at first", a.offset), storeTwice)
}

func (t *takeOver) outOfOrder(ctx context.Context) outcome {
	const means = "a batch that was lost on the way would go unnoticed, and the next one be stored in its place"
	if out, ok := t.l.refuses(ctx, batch{claim: t.b, seq: 2, values: []string{"b2"}}, means, kerr.OutOfOrderSequenceNumber); !ok {
		return out
	}
	if out := t.l.unchanged(ctx, "refused", means); out.verdict != Fit {
		return out
	}
	if _, err := t.l.put(ctx, t.b, 1, "b1"); err != nil {
		return failed(err, "the sequence does not go on after a refusal", t.x.grantScratch())
	}
	return fit("refused; then sequence 1 was stored, the log ends at %d", t.l.end)
}

func isFenced(err error) bool {
	return errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.ProducerFenced)
}

// refuses sends a batch that must be refused by one of the codes. Else ok is false and the outcome
// says so; means is what it comes to when the batch is taken.
func (l *lane) refuses(ctx context.Context, b batch, means string, codes ...*kerr.Error) (out outcome, ok bool) {
	if b.stamp.IsZero() {
		b.stamp = l.x.cfg.Clock()
	}
	a, err := l.send(ctx, b, codes...)
	if err == nil {
		l.note(b, a)
		return unfit(fmt.Sprintf("taken: producer %d epoch %d sequence %d is acknowledged at offset %d", b.claim.ProducerID, b.claim.Epoch, b.seq, a.offset), means, notHere), false
	}
	if isOneOf(err, codes) {
		return outcome{}, true
	}
	var answered *kerr.Error
	if !errors.As(err, &answered) || isDenied(err) {
		return failed(err, means, l.x.grantScratch()), false
	}
	return unfit("refused, but by "+answered.Message+" and not by "+codes[0].Message,
		"the writer reads another fate out of that code: an owner that was fenced could go on, or one that was not could give up", notHere), false
}

// unchanged holds the broker's end offset against what was acknowledged, after something that must
// not be stored.
func (l *lane) unchanged(ctx context.Context, saw, means string) outcome {
	end, err := l.logEnd(ctx)
	if err != nil {
		return failed(err, means, l.x.grantScratch())
	}
	if end != l.end {
		return unfit(fmt.Sprintf("%s; but the log ends at %d, and what was acknowledged at %d", saw, end, l.end), means, notHere)
	}
	return fit("%s; the log ends at %d", saw, end)
}
