package appender

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

// Record is one record to append. A nil key, value or header value is null. All of it is encoded
// at once; nothing is kept of the slices after Append returns.
type Record struct {
	Key     []byte
	Value   []byte
	Headers []event.Header
	// Time is the wall clock; zero means now. Business time has no place here: the broker ages what
	// it knows of the writer by these stamps (PROTOCOL W3), and refuses stamps of the future.
	Time time.Time
}

// Result is the fate of one entry, told once, in append order for a writer.
type Result struct {
	// Offset of the entry's first record, when Err is nil; else -1.
	Offset int64
	// Err is nil (acknowledged at the expected offset), or wraps ErrRefused (certainly not
	// stored), or is a *FateError around ErrFenced, ErrLost or ErrClosed, which tells what is known.
	Err error
}

// What an entry or a writer can end with. After any but ErrRefused the writer is dead: it takes
// nothing more and the caller recovers from the log. After ErrRefused it lives, but refuses
// everything until Writer.Resume.
var (
	// ErrRefused: the broker refused the batch for good; it is certainly not in the log.
	ErrRefused = errors.New("batch refused by the broker, not stored")
	// ErrTooLarge: the entry alone exceeds the batch limit; refused before it got a sequence.
	ErrTooLarge = fmt.Errorf("%w: entry is larger than the topic's max.message.bytes", ErrRefused)
	// ErrFenced: another owner has claimed. An entry that had been sent is unknown; one that was
	// still waiting is certainly not stored (NotSent tells).
	ErrFenced = errors.New("fenced: another owner has claimed this partition")
	// ErrLost: contiguity is broken, the producer state is gone, the topic was recreated or the
	// batch is older than a retry may be. What was sent is unknown.
	ErrLost = errors.New("ownership cannot be proven any more")
	// ErrClosed: closed while the entry was waiting or under way.
	ErrClosed = errors.New("appender closed")
)

// FateError carries what is known of one entry of a dead writer.
type FateError struct {
	Cause   error // wraps ErrFenced, ErrLost or ErrClosed
	NotSent bool  // true: never left this process, so certainly not stored
}

func (e *FateError) Error() string {
	if e.NotSent {
		return e.Cause.Error() + " (not sent)"
	}
	return e.Cause.Error() + " (outcome unknown)"
}

func (e *FateError) Unwrap() error { return e.Cause }

// Partition is what a writer writes to.
type Partition struct {
	Topic           string
	TopicID         [16]byte
	Partition       int32
	TransactionalID string
}

// Observer is told of what goes on, from the sender goroutines; it must not block.
type Observer interface {
	BatchAcked(p Partition, records, bytes int, took time.Duration)
	BatchRetried(p Partition, reason string)
}

// ClaimInfo is written into the claim record (PROTOCOL W1).
type ClaimInfo struct {
	Group           string
	Instance        string
	CommandsTopicID [16]byte
	LastEventID     string
	Compacted       bool // on a compacted topic the claim has a key of its own and a value
}

// LastClaim is the claim that the log's tail shows, for PROTOCOL W2. Known false: no claim seen.
type LastClaim struct {
	Claim event.Claim
	Known bool
}

// API is what the engine uses of an Appender; *Appender implements it.
type API interface {
	// Claim takes the partition over: InitProducerID on the transactional id, fencing of any other
	// producer that last or DescribeProducers shows (W2), then the claim batch alone (W1), retried
	// until acknowledged. It does not read the log. held nil means a new owner. held set means a
	// living owner's re-claim (W3, W4): InitProducerID carries held, a superseded one gets ErrFenced.
	// The writer's first entry will stand at Writer.ClaimOffset()+1. It goes on until ctx ends, which
	// is the only bound of its retries. Safe for many partitions at once.
	Claim(ctx context.Context, p Partition, info ClaimInfo, last LastClaim, held *event.Claim) (*Writer, error)
	// Close stops the senders; what is under way ends with ErrClosed.
	Close()
}
