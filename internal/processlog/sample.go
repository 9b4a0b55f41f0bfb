package processlog

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/event"
)

// SampleWorkflow is the name of the sample's workflow.
const SampleWorkflow = "Order to cash"

// SampleCasesMax bounds the cases of a sample.
const SampleCasesMax = 1_000_000

// sampleBegin is the time of a sample's first case: a Monday morning.
var sampleBegin = time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC)

// sampleStep is one activity of the sample's workflow.
type sampleStep struct {
	activity    string
	role        string        // the resource is one of its people
	people      int           // of that role
	likely      float64       // how likely a case has it
	again       float64       // how likely it is done once more, each time
	typicalTime time.Duration // after the step before it
}

// sampleSteps is an order on its way from the customer's click to the money.
var sampleSteps = []sampleStep{
	{"Order received", "Shop", 1, 1, 0, 0},
	{"Credit check", "Finance", 3, 0.6, 0.08, 20 * time.Minute},
	{"Manager approval", "Management", 2, 0.15, 0, 5 * time.Hour},
	{"Order confirmed", "Sales", 5, 1, 0, 30 * time.Minute},
	{"Goods picked", "Warehouse", 8, 1, 0.1, 3 * time.Hour},
	{"Quality check", "Warehouse", 8, 0.3, 0.05, time.Hour},
	{"Goods shipped", "Carrier", 3, 1, 0, 4 * time.Hour},
	{"Invoice sent", "Finance", 3, 1, 0, 2 * time.Hour},
	{"Reminder sent", "Finance", 3, 0.2, 0.3, 14 * 24 * time.Hour},
	{"Payment received", "Bank", 1, 1, 0, 6 * 24 * time.Hour},
}

var sampleHeader = []string{columnCase, columnActivity, columnResource, "channel", columnTimestamp}

type sampleRow struct {
	at     time.Time
	fields []string
}

// Sample returns a CSV of a believable process, in time order: up to ten activities a case, of
// which some are left out, and some repeated. The same seed and number of cases (at most
// SampleCasesMax) give the same bytes.
func Sample(seed int64, cases int) []byte {
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	begin := sampleBegin
	var rows []sampleRow
	for i := range max(0, min(cases, SampleCasesMax)) {
		rows = append(rows, sampleCase(random, fmt.Sprintf("order-%05d", i+1), begin)...)
		begin = begin.Add(about(random, 25*time.Minute))
	}
	slices.SortStableFunc(rows, func(a, b sampleRow) int { return a.at.Compare(b.at) })
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	records := [][]string{sampleHeader}
	for _, r := range rows {
		records = append(records, r.fields)
	}
	if err := w.WriteAll(records); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return out.Bytes()
}

func sampleCase(random *rand.Rand, id string, at time.Time) []sampleRow {
	channel := []string{"web", "web", "phone", "partner"}[random.IntN(4)]
	var rows []sampleRow
	for _, step := range sampleSteps {
		if random.Float64() >= step.likely {
			continue
		}
		for again := true; again; again = random.Float64() < step.again {
			at = at.Add(about(random, step.typicalTime))
			resource := fmt.Sprintf("%s %d", step.role, 1+random.IntN(step.people))
			rows = append(rows, sampleRow{at, []string{id, step.activity, resource, channel, event.FormatTime(at)}})
		}
	}
	return rows
}

// about returns between a half and one and a half of a duration, in whole milliseconds.
func about(random *rand.Rand, typical time.Duration) time.Duration {
	return time.Duration((0.5 + random.Float64()) * float64(typical)).Truncate(time.Millisecond)
}

// Shares of a sample's cases, by their number, that go another way than to completion.
const (
	sampleFailEvery   = 9  // fails at its last step, which failed
	sampleCancelEvery = 13 // is cancelled in place of its last step
	sampleOpenEvery   = 7  // is still running: its last step is not there yet
	sampleRetryEvery  = 4  // a step failed once before it went well
	sampleRepeatEvery = 20 // a client sends a command twice: duplicate
	sampleLateEvery   = 25 // a client records a step after the end: rejected
	sampleStaleEvery  = 30 // a client expects an old version: conflict
)

// SampleCommands returns the sample as commands in the order to send them, made livelier than a
// process log is, so that a demonstration shows every status and outcome: connections between
// the nodes; executions that fail, are cancelled or go on running; nodes that fail and are tried
// again; and some commands that are duplicates, rejected or in conflict. The same seed and
// number of cases give the same commands.
func SampleCommands(seed int64, cases int) ([]Command, error) {
	if cases < 1 || cases > SampleCasesMax {
		return nil, fmt.Errorf("a sample of %d cases: want 1 to %d", cases, SampleCasesMax)
	}
	log, err := Read(bytes.NewReader(Sample(seed, cases)), Options{Workflow: SampleWorkflow})
	if err != nil {
		return nil, fmt.Errorf("read the sample back: %w", err)
	}
	s := sampler{log: log, numbers: map[string]int{}}
	for c := range log.Commands() {
		s.take(c)
	}
	return s.out, nil
}

// sampler rewrites a log's commands.
type sampler struct {
	log       *Log
	out       []Command
	numbers   map[string]int // of each execution, from 1
	connected bool
	lasts     map[string]int // rows of each execution that are still to come
}

func (s *sampler) take(c Command) {
	if c.Category == workflow.Category {
		s.out = append(s.out, c)
		return
	}
	if !s.connected {
		s.connected = true
		s.connect()
		s.lasts = s.rowsOfEach()
	}
	switch data := c.Data.(type) {
	case execution.StartExecution:
		s.numbers[c.StreamID] = len(s.numbers) + 1
		s.out = append(s.out, c)
		if s.every(c, sampleStaleEvery) {
			s.out = append(s.out, s.stale(c))
		}
	case execution.RecordNode:
		s.lasts[c.StreamID]--
		s.record(c, data, s.lasts[c.StreamID] == 0)
	case execution.CompleteExecution:
		s.end(c)
	}
}

func (s *sampler) rowsOfEach() map[string]int {
	rows := make(map[string]int, s.log.Cases)
	for _, run := range s.log.cases {
		rows[executionID(s.log.Workflow.ID, s.log.texts[run.id])] = int(run.rows)
	}
	return rows
}

func (s *sampler) every(c Command, n int) bool { return s.numbers[c.StreamID]%n == 0 }

// connect joins each activity to the next of the sample's order.
func (s *sampler) connect() {
	var before string
	for _, step := range sampleSteps {
		if !slices.Contains(s.log.Activities, step.activity) {
			continue
		}
		if before != "" {
			c := s.log.command(workflow.Category, s.log.Workflow.ID, s.log.FirstAt, workflow.ConnectNodes{From: before, To: step.activity})
			c.Type = "workflow.ConnectNodes"
			c.ID = commandID(c, 0, before, step.activity)
			s.out = append(s.out, c)
		}
		before = step.activity
	}
}

func (s *sampler) record(c Command, node execution.RecordNode, last bool) {
	switch {
	case last && (s.every(c, sampleCancelEvery) || s.every(c, sampleOpenEvery)):
		return
	case last && s.every(c, sampleFailEvery):
		node.Outcome = execution.OutcomeFailed
	case last && s.every(c, sampleRetryEvery):
		s.out = append(s.out, failedFirst(c, node))
	}
	c.Data = node
	c.ID = commandID(c, 0, c.ID, string(node.Outcome))
	s.out = append(s.out, c)
	if last && s.every(c, sampleRepeatEvery) {
		s.out = append(s.out, c)
	}
}

// failedFirst is the run of a node that failed just before the one that went well.
func failedFirst(c Command, node execution.RecordNode) Command {
	node.Outcome = execution.OutcomeFailed
	c.Data = node
	c.ID = commandID(c, 0, c.ID, "tried before")
	return c
}

// end lets a case end in its own way. Cancelled comes first, so that the shares may overlap.
func (s *sampler) end(c Command) {
	switch {
	case s.every(c, sampleCancelEvery):
		c.Type, c.Data = "execution.CancelExecution", execution.CancelExecution{Reason: "the customer withdrew the order"}
	case s.every(c, sampleOpenEvery):
		return
	case s.every(c, sampleFailEvery):
		c.Type, c.Data = "execution.FailExecution", execution.FailExecution{Reason: "the payment bounced"}
	}
	c.ID = commandID(c, 0)
	s.out = append(s.out, c)
	if s.every(c, sampleLateEvery) {
		late := c
		late.Type = "execution.RecordNode"
		late.Data = execution.RecordNode{Node: sampleSteps[0].activity, Outcome: execution.OutcomeSucceeded}
		late.ID = commandID(late, 0, "after the end")
		s.out = append(s.out, late)
	}
}

// stale is a command of a client that has not seen the start.
func (s *sampler) stale(start Command) Command {
	c := start
	c.Type, c.Expected = "execution.CancelExecution", event.ExpectExactly(7)
	c.Data = execution.CancelExecution{Reason: "sent by a client that had seen something else"}
	c.ID = commandID(c, 0, "stale")
	return c
}
