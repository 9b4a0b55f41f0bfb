package doctor

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kerr"
)

// held is a living owner's renewal, that must never take a partition back (PROTOCOL W4).
type held struct {
	x        *exam
	l        *lane
	one, two event.Claim
}

func (x *exam) held() scenario {
	h := &held{x: x, l: x.scratch.lanes[laneHeld]}
	return scenario{
		{"two owners", "InitProducerID by two owners, one after the other", "two epochs of one producer id", true, h.begin},
		{"renewal of the superseded", "InitProducerID that carries the first owner's producer id and epoch", "PRODUCER_FENCED", false, h.superseded},
		{"renewal of the owner", "InitProducerID that carries the second owner's, twice, then a batch under the answer", "a higher epoch, the same both times, and the batch is stored", false, h.renewal},
	}
}

func (h *held) begin(ctx context.Context) outcome {
	for _, claim := range []*event.Claim{&h.one, &h.two} {
		var err error
		if *claim, err = h.l.initProducer(ctx, nil); err != nil {
			return failed(err, twoOwners, h.x.grantScratch())
		}
	}
	if h.one.ProducerID != h.two.ProducerID || h.two.Epoch <= h.one.Epoch {
		return unfit(fmt.Sprintf("%+v, then %+v", h.one, h.two), twoOwners, notHere)
	}
	return fit("producer %d, epochs %d and %d", h.one.ProducerID, h.one.Epoch, h.two.Epoch)
}

func (h *held) superseded(ctx context.Context) outcome {
	got, err := h.l.initProducer(ctx, &h.one)
	switch {
	case isFenced(err):
		return fit("%v", err)
	case err != nil:
		return failed(err, "an owner that was superseded is not told so", h.x.grantScratch())
	}
	// The broker has moved on; the owner of now goes on from there.
	h.two = got
	return warning(fmt.Sprintf("taken: producer %d epoch %d", got.ProducerID, got.Epoch),
		"an owner that was superseded can claim again by a renewal. The second guard holds: it compares its claim's offset with the expected one, and drops all state when they differ (see \"contiguous offsets\"). The partition changes hands needlessly, nothing is lost",
		"nothing on the embedded broker, which is for development; elsewhere use a broker that checks the epoch (Apache Kafka 2.5 or newer)")
}

func (h *held) renewal(ctx context.Context) outcome {
	const means = "an owner cannot renew its claim: it loses the partition each time that it must, every quarter of transactional.id.expiration.ms"
	first, err := h.l.initProducer(ctx, &h.two)
	if err != nil {
		return failed(err, means, h.x.grantScratch())
	}
	second, err := h.l.initProducer(ctx, &h.two)
	if err != nil {
		return failed(err, means, h.x.grantScratch())
	}
	if first.ProducerID != h.two.ProducerID || first.Epoch <= h.two.Epoch {
		return unfit(fmt.Sprintf("producer %d epoch %d for producer %d epoch %d", first.ProducerID, first.Epoch, h.two.ProducerID, h.two.Epoch), means, notHere)
	}
	if _, err := h.l.put(ctx, second, 0, "claim"); err != nil {
		return failed(err, means, h.x.grantScratch())
	}
	saw := fmt.Sprintf("producer %d epoch %d, again epoch %d; stored", second.ProducerID, first.Epoch, second.Epoch)
	if first != second {
		return note(saw, "a repeated renewal gets a further epoch here; the claim is written under the last one, so that is as good")
	}
	return fit("%s", saw)
}

// endOfEpochs is above every epoch that a coordinator gives out.
const endOfEpochs = math.MaxInt16

// ended is the end of a producer id that nobody may write under any more (PROTOCOL W2).
func (x *exam) ended() scenario {
	return scenario{{
		name:  "epoch 32767",
		did:   "a batch of somebody else under the producer's id with epoch 32767, then one of its own",
		needs: "the first stored, the second INVALID_PRODUCER_EPOCH, the first repeated stored once",
		run:   x.end,
	}}
}

func (x *exam) end(ctx context.Context) outcome {
	const means = "a producer id of old, of before its transactional id expired, cannot be ended; " + twoOwners
	l := x.scratch.lanes[laneEnded]
	claim, err := l.initProducer(ctx, nil)
	if err != nil {
		return failed(err, means, x.grantScratch())
	}
	if _, err := l.put(ctx, claim, 0, "claim"); err != nil {
		return failed(err, means, x.grantScratch())
	}
	fence := batch{claim: event.Claim{ProducerID: claim.ProducerID, Epoch: endOfEpochs}, values: []string{"fence"}, stamp: x.cfg.Clock()}
	at, err := l.putBatch(ctx, fence)
	if err != nil {
		return failed(err, means, x.grantScratch())
	}
	if out, ok := l.refuses(ctx, batch{claim: claim, seq: 1, values: []string{"void"}}, means, kerr.InvalidProducerEpoch, kerr.ProducerFenced); !ok {
		return out
	}
	repeated, err := l.send(ctx, fence)
	// Either code says that the id was ended before; the writer takes both for done.
	if err != nil && !errors.Is(err, kerr.OutOfOrderSequenceNumber) && !errors.Is(err, kerr.DuplicateSequenceNumber) {
		return failed(err, "a take-over that is tried again does not get past the fence", x.grantScratch())
	}
	if err == nil && repeated.offset != at.offset {
		l.note(fence, repeated)
		return unfit(fmt.Sprintf("stored again at offset %d, first at %d", repeated.offset, at.offset), storeTwice, notHere)
	}
	return l.unchanged(ctx, fmt.Sprintf("producer %d is ended by the batch at offset %d", claim.ProducerID, at.offset), means)
}
