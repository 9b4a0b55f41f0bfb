package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kerr"
)

// batches is what a batch is: whole, in place, stamped, and to one topic only.
type batches struct {
	x     *exam
	l     *lane
	claim event.Claim
	seq   int32
}

const (
	// stampAge is how old the stamp is that the broker ought to replace.
	stampAge = 10 * time.Minute
	// skewMax is how far a broker's clock may be from ours without a word.
	skewMax = time.Minute
	// hugeBytes is above every max.message.bytes that Foldstream sets for events, 1 MiB.
	hugeBytes = 3 << 19
)

func (x *exam) batches() scenario {
	b := &batches{x: x, l: x.scratch.lanes[laneBatches]}
	return scenario{
		{"batch of three", "one batch of three records", "stored, at offsets that follow each other", true, b.three},
		{"batch with a false checksum", "a batch of three records that is damaged", "CORRUPT_MESSAGE, and no record of it stored", false, b.damaged},
		{"batch too large", "a batch above max.message.bytes, then a small one under the same sequence", "MESSAGE_TOO_LARGE and nothing stored, then the small one is: a refused batch uses up no sequence", false, b.huge},
		{"stamps", fmt.Sprintf("a record stamped %s ago, on a topic with message.timestamp.type LogAppendTime", stampAge), "the broker's own stamp, its clock within " + skewMax.String() + " of this machine's", false, b.stamped},
		{"topic id", "look for the topic's id, then send a batch to an id that no topic has", "an id; the batch refused by UNKNOWN_TOPIC_ID", false, b.topicID},
	}
}

func (b *batches) three(ctx context.Context) outcome {
	const means = "the events of one command could not be stored together"
	var err error
	if b.claim, err = b.l.initProducer(ctx, nil); err != nil {
		return failed(err, means, b.x.grantScratch())
	}
	a, err := b.l.put(ctx, b.claim, 0, "one", "two", "three")
	if err != nil {
		return failed(err, means, b.x.grantScratch())
	}
	b.seq = 3
	return b.l.unchanged(ctx, fmt.Sprintf("stored from offset %d on", a.offset), means)
}

func (b *batches) damaged(ctx context.Context) outcome {
	const means = "what the network damages would be stored as an event"
	bad := batch{claim: b.claim, seq: b.seq, values: []string{"x", "y", "z"}, corrupt: true}
	if out, ok := b.l.refuses(ctx, bad, means, kerr.CorruptMessage, kerr.InvalidRecord); !ok {
		return out
	}
	return b.l.unchanged(ctx, "refused", means)
}

// sound sends a small batch, which must be taken.
func (b *batches) sound(ctx context.Context) (answer, error) {
	a, err := b.l.put(ctx, b.claim, b.seq, "sound")
	if err == nil {
		b.seq++
	}
	return a, err
}

func (b *batches) huge(ctx context.Context) outcome {
	const means = "a batch that is too large stops an owner, instead of one command of it"
	huge := batch{claim: b.claim, seq: b.seq, values: []string{strings.Repeat("x", hugeBytes)}}
	if out, ok := b.l.refuses(ctx, huge, means, kerr.MessageTooLarge, kerr.RecordListTooLarge); !ok {
		return out
	}
	if out := b.l.unchanged(ctx, "refused", means); out.verdict != Fit {
		return out
	}
	a, err := b.sound(ctx)
	if err != nil {
		return failed(err, "a refused batch uses up its sequence: the owner would lose its partition", b.x.grantScratch())
	}
	return fit("refused; then stored at offset %d", a.offset)
}

func (b *batches) stamped(ctx context.Context) outcome {
	now := b.x.cfg.Clock()
	old := batch{claim: b.claim, seq: b.seq, values: []string{"old"}, stamp: now.Add(-stampAge)}
	a, err := b.l.putBatch(ctx, old)
	if err != nil {
		return failed(err, "a record with a stamp of ten minutes ago is not taken", b.x.grantScratch())
	}
	b.seq++
	all, err := b.l.read(ctx, b.l.end)
	if err != nil {
		return failed(err, "what was stored cannot be read back", b.x.grantScratch())
	}
	for _, s := range all {
		if s.base == a.offset {
			return judgeStamp(s, now)
		}
	}
	return unfit(fmt.Sprintf("the batch acknowledged at offset %d is not in the log", a.offset), "acknowledged events get lost", notHere)
}

func judgeStamp(s stored, now time.Time) outcome {
	if !s.stampedByBroker || s.stamp.Before(now.Add(-stampAge+skewMax)) && s.stamp.After(now.Add(-stampAge-skewMax)) {
		return note("the writer's own stamp is kept", "this broker ignores LogAppendTime; the writer sends the wall clock for that case, so \"recorded at\" depends on the clocks of the ingest hosts")
	}
	skew := s.stamp.Sub(now).Round(time.Millisecond)
	if skew.Abs() > skewMax {
		return warning(fmt.Sprintf("stamped by the broker, %s from this machine's clock", skew),
			"time travel by recorded time is off by that much, and stamps of more than an hour ahead are refused on other topics",
			"set the clocks of the brokers and of this machine by the same time server")
	}
	return fit("stamped by the broker, %s from this machine's clock", skew)
}

// produceByID is the first version of a produce request that names topics by id.
const produceByID = 13

func (b *batches) topicID(ctx context.Context) outcome {
	const means = "a topic that was deleted and created again under the same name takes what was meant for the former one"
	if b.x.scratch.id == ([16]byte{}) {
		return unfit("the topic has no id", means, "use a broker with topic ids: Apache Kafka 2.8 or newer")
	}
	a, err := b.toNobody(ctx)
	id := fmt.Sprintf("the topic's id is %x; ", b.x.scratch.id)
	switch {
	case err == nil:
		return unfit(fmt.Sprintf("%sthe batch to another id was acknowledged at offset %d", id, a.offset), means, notHere)
	case errors.Is(err, kerr.UnknownTopicID) && a.version >= produceByID:
		return fit("%srefused by UNKNOWN_TOPIC_ID", id)
	case a.version > 0 && a.version < produceByID:
		return warning(fmt.Sprintf("%sbatches name the topic by its name (produce version %d)", id, a.version),
			means+", until the writer looks at the metadata again", "use Apache Kafka 4.1 or newer, or never recreate a topic under running services")
	}
	return failed(err, means, b.x.grantScratch())
}

// toNobody sends a batch to a topic that is not there, by id and by name.
func (b *batches) toNobody(ctx context.Context) (answer, error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	raw := batch{claim: b.claim, seq: b.seq, values: []string{"nobody"}, stamp: b.x.cfg.Clock()}.encode()
	for {
		a, err := b.l.attempt(ctx, b.x.scratch.name+"-nobody", id, raw)
		if err == nil || a.version > 0 && !errors.Is(err, kerr.NotLeaderForPartition) {
			return a, err
		}
		if stopped := pause(ctx); stopped != nil {
			return a, fmt.Errorf("%w (last: %w)", stopped, err)
		}
	}
}

// milliseconds reads a setting in words that people know.
func milliseconds(text string) (time.Duration, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > int64(1<<62/time.Millisecond) {
		return 0, false
	}
	return time.Duration(n) * time.Millisecond, true
}
