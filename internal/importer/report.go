package importer

import (
	"fmt"

	"github.com/foldstream/foldstream/pkg/codec"
)

// The outcomes of a command.
const (
	OutcomeAccepted  = "accepted"
	OutcomeDuplicate = "duplicate"
	OutcomeConflict  = "conflict"
	OutcomeRejected  = "rejected"
	OutcomeInvalid   = "invalid"
	OutcomeUnknown   = "unknown"
)

// outcomesFinal in the order in which they are shown.
var outcomesFinal = []string{OutcomeAccepted, OutcomeDuplicate, OutcomeConflict, OutcomeRejected, OutcomeInvalid}

// failuresMax bounds the failures that a report names; all are counted.
const failuresMax = 20

// Report is what became of the commands.
type Report struct {
	Commands int `json:"commands"`
	// Outcomes counts final answers. A duplicate that was sent more than once is in
	// RepeatedDuplicates too: whether its first sending or an earlier run did it is not known.
	Outcomes           map[string]int `json:"outcomes"`
	RepeatedDuplicates int            `json:"repeated_duplicates"`
	SentAgain          int            `json:"sent_again"`
	Unanswered         int            `json:"unanswered"`
	Seconds            float64        `json:"seconds"`
	// Failures names the first 20 that were neither accepted nor duplicates.
	Failures []Failure `json:"failures"`
}

// Plus adds the figures of another run.
func (r Report) Plus(other Report) Report {
	sum := newReport()
	for _, one := range []Report{r, other} {
		for outcome, n := range one.Outcomes {
			sum.Outcomes[outcome] += n
		}
		sum.Commands += one.Commands
		sum.RepeatedDuplicates += one.RepeatedDuplicates
		sum.SentAgain += one.SentAgain
		sum.Unanswered += one.Unanswered
		sum.Seconds += one.Seconds
		sum.Failures = append(sum.Failures, one.Failures...)
	}
	return sum
}

// Failure is one command that was not accepted.
type Failure struct {
	CommandID string `json:"command_id"`
	Stream    string `json:"stream"`
	Outcome   string `json:"outcome"`
	Code      string `json:"code"`
	Message   string `json:"message"`
}

func newReport() Report {
	r := Report{Outcomes: map[string]int{}, Failures: []Failure{}}
	for _, o := range outcomesFinal {
		r.Outcomes[o] = 0
	}
	return r
}

// OutcomesInOrder returns the outcomes in the order in which they are shown.
func OutcomesInOrder() []string { return append([]string{}, outcomesFinal...) }

// Failed counts the answered commands that were neither accepted nor duplicates.
func (r Report) Failed() int {
	failed := 0
	for outcome, n := range r.Outcomes {
		if outcome != OutcomeAccepted && outcome != OutcomeDuplicate {
			failed += n
		}
	}
	return failed
}

func (r *Report) count(reply codec.Reply, attempts int) {
	r.Outcomes[reply.Outcome]++
	switch {
	case reply.Outcome == OutcomeDuplicate && attempts > 1:
		r.RepeatedDuplicates++
	case reply.Outcome == OutcomeAccepted, reply.Outcome == OutcomeDuplicate:
	case len(r.Failures) < failuresMax:
		r.Failures = append(r.Failures, failure(reply))
	}
}

func failure(reply codec.Reply) Failure {
	message := reply.Message
	if reply.Outcome == OutcomeConflict && message == "" {
		message = fmt.Sprintf("the stream is at version %d", reply.ActualVersion)
	}
	return Failure{
		CommandID: reply.RequestID, Stream: reply.Category + "/" + reply.StreamID,
		Outcome: reply.Outcome, Code: reply.Code, Message: message,
	}
}
