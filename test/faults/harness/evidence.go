package harness

import "time"

// Run is all that is known of one run of a cell. It is written by the runner and read by Check.
type Run struct {
	Cell      string        `json:"cell"`
	Seed      int64         `json:"seed"`
	Planted   string        `json:"planted,omitempty"` // the bug that the services have
	Namespace string        `json:"namespace"`
	Broker    string        `json:"broker"`
	Duration  time.Duration `json:"duration_ns"` // of the load
	Started   time.Time     `json:"started"`

	// Stops says that the cell's fault demands a loud stop: what was asked behind it may stay
	// without an answer, and nothing need heal.
	Stops bool `json:"stops,omitempty"`
	// Silent says in words what was missing of the loud stop; empty where it came.
	Silent []string `json:"silent,omitempty"`
	// Views says that views were kept.
	Views bool `json:"views,omitempty"`
	// Partitions of each category.
	Partitions int32 `json:"partitions"`
	// Healed and Ended are when the last fault ended and when the load did, since Started.
	Healed time.Duration `json:"healed_ns"`
	Ended  time.Duration `json:"ended_ns"`
	// Progress is how long after Healed the first request of afterwards was answered; Caught how
	// long until nothing was owed. -1: never.
	Progress time.Duration `json:"progress_ns"`
	Caught   time.Duration `json:"caught_ns"`
	// Owed says what was still owed when the time was over.
	Owed string `json:"owed,omitempty"`

	Faults   []FaultRecord   `json:"-"`
	Sendings []*Sending      `json:"-"`
	Commands []CommandRecord `json:"-"`
	Events   []EventRecord   `json:"-"`
	Letters  []LetterRecord  `json:"-"`
	Rows     []RowRecord     `json:"-"` // of the live views
	Rebuilt  []RowRecord     `json:"-"` // of views built from zero afterwards
	Offsets  []OffsetRecord  `json:"-"` // of the views, in the order of their reading
	Notes    []string        `json:"-"` // violations that only the runner could see
}

// Kind of a request.
type Kind string

// The kinds.
const (
	KindWrite  Kind = "write"  // one bare event to a log
	KindAppend Kind = "append" // several events to a log, as one
	KindMove   Kind = "move"   // a command to an account
	KindPoison Kind = "poison" // a request whose value cannot be read
)

// Sending is one record that a client put, or tried to put, on a commands topic. Several sendings
// may carry one request (ID), each with an attempt of its own.
type Sending struct {
	ID        string        `json:"id"`
	Attempt   int           `json:"attempt"`
	Client    int           `json:"client"`
	Kind      Kind          `json:"kind"`
	Category  string        `json:"category"`
	Stream    string        `json:"stream"`
	Expected  string        `json:"expected"`
	Amount    int64         `json:"amount"`
	Count     int           `json:"count"`     // events wanted
	Partition int32         `json:"partition"` // that it was sent to
	Called    time.Duration `json:"called_ns"`
	Stored    bool          `json:"stored"` // the broker acknowledged it
	Offset    int64         `json:"offset"` // where, -1 when that is not known
	Fault     string        `json:"fault,omitempty"`
	// Direct is the instance that was asked in memory, so that there is no command record.
	Direct string `json:"direct,omitempty"`
	// Refused says that the broker was told to refuse its batch for good.
	Refused bool    `json:"refused,omitempty"`
	Replies []Reply `json:"replies,omitempty"`
}

// Reply is one answer to a sending.
type Reply struct {
	At      time.Duration `json:"at_ns"`
	Outcome string        `json:"outcome"`
	First   int64         `json:"first,omitempty"`
	Last    int64         `json:"last,omitempty"`
	Actual  int64         `json:"actual,omitempty"`
	Offset  int64         `json:"offset,omitempty"`
	Code    string        `json:"code,omitempty"`
}

// Outcomes, as on the wire.
const (
	Accepted  = "accepted"
	Duplicate = "duplicate"
	Conflict  = "conflict"
	Rejected  = "rejected"
	Invalid   = "invalid"
	Unknown   = "unknown"
)

// Definite returns the first answer that is final, and whether there is one.
func (s *Sending) Definite() (Reply, bool) {
	for _, r := range s.Replies {
		if r.Outcome != Unknown {
			return r, true
		}
	}
	return Reply{}, false
}

// Stands says whether an answer tells of events that are in the log.
func (r Reply) Stands() bool { return r.Outcome == Accepted || r.Outcome == Duplicate }

// CommandRecord is one record of a commands topic.
type CommandRecord struct {
	Category  string `json:"category"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	ID        string `json:"id"`
	Attempt   int    `json:"attempt"`
	Rerouted  bool   `json:"rerouted,omitempty"`
}

// What a record of an events topic is.
const (
	ClassEvent   = "event"
	ClassVoid    = "void"
	ClassControl = "control"
	ClassAlien   = "alien" // counts by its claim, and is no event of ours
)

// EventRecord is one record of an events topic. Class is what a reader of ours has to take it for.
type EventRecord struct {
	Category      string `json:"category"`
	Partition     int32  `json:"partition"`
	Offset        int64  `json:"offset"`
	Class         string `json:"class"`
	Control       string `json:"control,omitempty"`
	Instance      string `json:"instance,omitempty"` // of a claim
	ProducerID    int64  `json:"pid"`
	Epoch         int16  `json:"epoch"`
	Stream        string `json:"stream,omitempty"`
	Version       int64  `json:"version,omitempty"`
	EventID       string `json:"event_id,omitempty"`
	CommandID     string `json:"command_id,omitempty"`
	CommandOffset int64  `json:"command_offset"`
	Op            string `json:"op,omitempty"`
	Amount        int64  `json:"amount,omitempty"`
	Balance       int64  `json:"balance,omitempty"`
	Fault         string `json:"fault,omitempty"`
}

// LetterRecord is one record of ingest's dead-letter topic.
type LetterRecord struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	CommandID string `json:"command_id"`
	Value     []byte `json:"value"`
}

// RowRecord is one row of a view, or one row of the views' own tables, as text.
type RowRecord struct {
	View string   `json:"view"`
	Key  string   `json:"key"`
	Cols []string `json:"cols"`
}

// OffsetRecord is one reading of a view's offset row.
type OffsetRecord struct {
	At        time.Duration `json:"at_ns"`
	Consumer  string        `json:"consumer"`
	Topic     string        `json:"topic"`
	Partition int32         `json:"partition"`
	Epoch     int64         `json:"epoch"`
	Next      int64         `json:"next"`
}

// FaultRecord is one step of the schedule and what became of it.
type FaultRecord struct {
	Step
	Began time.Duration `json:"began_ns"`
	Ended time.Duration `json:"ended_ns"`
	Hit   bool          `json:"hit"` // it had an effect that was seen
	Note  string        `json:"note,omitempty"`
}

// Violation is one breach of an invariant.
type Violation struct {
	Invariant string `json:"invariant"`
	Text      string `json:"text"`
}

func (v Violation) String() string { return v.Invariant + ": " + v.Text }
