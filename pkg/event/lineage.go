package event

// Lineage tells void records from valid ones in one partition of an events topic (PROTOCOL W6).
//
// A record is void when its (producer id, epoch) is not that of the last claim before it:
//
//	owner A, epoch 4, appends
//	owner B claims with epoch 5           ← from here on only (pid, 5) counts
//	A's producer state has expired, so the broker takes A's batch again
//	A's batch stands after B's claim      ← void: every reader of ours skips it
//
// Keep-alives and fence batches are neither events nor void. A reader that starts in the
// middle takes the first pair that it sees, a keep-alive's too, or resumes with the claim stored
// beside its offset. A fence batch shows nobody's pair: it is written to end one.
// A Lineage belongs to one goroutine.
type Lineage struct {
	Claim Claim
	Known bool
}

// Claim is the (producer id, epoch) of the owner whose records count.
type Claim struct {
	ProducerID int64
	Epoch      int16
}

// Verdict says what a record of an events topic is.
type Verdict uint8

// The verdicts.
const (
	VerdictEvent   Verdict = iota // an event of the current owner
	VerdictControl                // a claim, a keep-alive or a fence batch
	VerdictVoid                   // written by an owner of old, or by somebody else
)

// Judge classifies the next record, in offset order, and follows claims.
func (l *Lineage) Judge(producerID int64, epoch int16, headers []Header) Verdict {
	pair := Claim{ProducerID: producerID, Epoch: epoch}
	switch Control(headers) {
	case ControlClaim:
		l.Claim, l.Known = pair, true
		return VerdictControl
	case ControlKeepalive:
		l.learn(pair)
		return VerdictControl
	case ControlFence:
		return VerdictControl
	}
	l.learn(pair)
	if pair != l.Claim {
		return VerdictVoid
	}
	return VerdictEvent
}

// learn takes the first pair that is seen.
func (l *Lineage) learn(pair Claim) {
	if !l.Known {
		l.Claim, l.Known = pair, true
	}
}
