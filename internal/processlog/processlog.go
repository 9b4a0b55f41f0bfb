// Package processlog turns a process-mining log, a CSV file of (case, activity, resource,
// timestamp), into commands on the reference project: one workflow with a node per activity, and
// an execution of it per case.
//
//	log, err := processlog.Read(file, processlog.Options{Workflow: "receipt-phase"})
//	for command := range log.Commands() { … }
//
// Read streams the file once and keeps the rows in memory, since where a case ends is known only
// at the end of the file: 40 bytes a row, 4 more for each column beside case, activity and
// timestamp, and each distinct text once. The limits in Options bound it. Everything is deterministic: the same file gives the
// same commands with the same ids, so that a second import is recognised as one.
//
// A Log does not change; Commands may be called many times, from many goroutines.
package processlog

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/rule"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/event"
)

// Options of Read. The zero value of a field means its default.
type Options struct {
	// Workflow is the workflow's name, 1 to 255 bytes; its id is made from it (WorkflowID).
	// Required.
	Workflow string
	// BadLine is told of each bad line, which is then left out; an error from it ends Read with
	// that error. Nil: the first bad line ends Read with a *LineError.
	BadLine func(BadLine) error
	// RowsMax bounds the rows; default 10 million.
	RowsMax int
	// CasesMax bounds the cases; default 1 million.
	CasesMax int
	// ActivitiesMax bounds the different activities; default and most: what a workflow takes (500).
	ActivitiesMax int
	// LineBytesMax bounds one line, and one row whose quoted fields go over several; default 256 KiB.
	LineBytesMax int
	// FieldBytesMax bounds one field; default and most: what an attribute takes (4 KiB).
	FieldBytesMax int
	// TextBytesMax bounds all distinct texts together; default 256 MiB.
	TextBytesMax int
}

func (o Options) withDefaults() Options {
	defaults := []struct {
		field *int
		value int
	}{
		{&o.RowsMax, 10_000_000},
		{&o.CasesMax, 1_000_000},
		{&o.ActivitiesMax, workflow.NodesMax},
		{&o.LineBytesMax, 256 << 10},
		{&o.FieldBytesMax, rule.MapValueBytesMax},
		{&o.TextBytesMax, 256 << 20},
	}
	for _, d := range defaults {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return o
}

func (o Options) validate() error {
	var faults []error
	if b := rule.Name("workflow name", o.Workflow, workflow.NameBytesMax); b != nil {
		faults = append(faults, errors.New(b.Message))
	} else if _, err := WorkflowID(o.Workflow); err != nil {
		faults = append(faults, err)
	}
	atMost := func(name string, value, most int) {
		if value < 1 || value > most {
			faults = append(faults, fmt.Errorf("%s is %d: want 1 to %d", name, value, most))
		}
	}
	atMost("RowsMax", o.RowsMax, 1<<31-1)
	atMost("CasesMax", o.CasesMax, 1<<31-1)
	atMost("ActivitiesMax", o.ActivitiesMax, workflow.NodesMax)
	atMost("LineBytesMax", o.LineBytesMax, 1<<30)
	atMost("FieldBytesMax", o.FieldBytesMax, rule.MapValueBytesMax)
	atMost("TextBytesMax", o.TextBytesMax, 1<<40)
	return errors.Join(faults...)
}

// BadLine is a row that could not be used.
type BadLine struct {
	Line   int    // number of its first line in the file, from 1
	Reason string // what is wrong, with the column's name
	Text   string // the row as in the file, without its last line end
	Cut    bool   // Text is only the beginning, since the line is longer than LineBytesMax
}

// LineError says what is wrong in which line of the file.
type LineError struct {
	Line   int
	Reason string
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

// LimitError says that the file as a whole is larger than a limit of Options; it ends Read also
// where bad lines are skipped.
type LimitError struct {
	Line  int // where the limit was passed
	What  string
	Limit int
	Hint  string
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("line %d: more than %d %s: %s", e.Line, e.Limit, e.What, e.Hint)
}

// Workflow names what the log's cases are executions of.
type Workflow struct {
	ID   string
	Name string
}

// Log is a process log as read.
type Log struct {
	Workflow   Workflow
	Activities []string // in the order of their first time
	Cases      int
	Rows       int
	BadLines   int
	FirstAt    time.Time // time of the earliest row
	LastAt     time.Time // time of the latest row

	attributes []string  // names of the attributes, in the order of the row's values
	cases      []caseRun // by case number
	rows       []row     // in time order; equal times as in the file
	values     []uint32  // len(attributes) text numbers per row, in file order
	texts      []string
}

// row is one usable row of the file.
type row struct {
	at       time.Time
	place    uint32 // among the usable rows of the file, from 0: where its values stand
	caseNo   uint32
	activity uint32
}

// caseRun is what is known of one case.
type caseRun struct {
	id   uint32 // text number
	rows uint32
	seen time.Time // time of the row that stands first in the file
}

// Read reads a log. The header must name the columns case, activity, resource and timestamp, in
// any order and case of letters; further columns are kept as attributes of the nodes. A byte
// order mark, CRLF, quoted fields and empty lines are understood. Timestamps are RFC 3339 with a
// zone. The file need not be sorted by time.
//
// It fails with a *LineError on the header or, without Options.BadLine, on the first bad line;
// with a *LimitError when the file is too large; with the reader's own error.
func Read(r io.Reader, opts Options) (*Log, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("process log: %w", err)
	}
	p, err := newParser(r, opts)
	if err != nil {
		return nil, err
	}
	if err := p.run(); err != nil {
		return nil, err
	}
	return p.finish()
}

// CommandCount returns how many commands Commands yields.
func (l *Log) CommandCount() int { return 1 + len(l.Activities) + 2*l.Cases + l.Rows }

// Stats are figures over a log's cases.
type Stats struct {
	Variants       int     // different sequences of activities
	DurationMsMean float64 // mean over the cases of last minus first time, in milliseconds
}

// Stats computes the log's figures.
func (l *Log) Stats() Stats {
	traces := make([][]byte, l.Cases)
	first := make([]time.Time, l.Cases)
	last := make([]time.Time, l.Cases)
	for _, r := range l.rows {
		if len(traces[r.caseNo]) == 0 {
			first[r.caseNo] = r.at
		}
		last[r.caseNo] = r.at
		traces[r.caseNo] = append(traces[r.caseNo], byte(r.activity>>24), byte(r.activity>>16), byte(r.activity>>8), byte(r.activity))
	}
	variants := map[string]struct{}{}
	var sum float64
	for i, trace := range traces {
		variants[string(trace)] = struct{}{}
		sum += float64(last[i].UnixMilli() - first[i].UnixMilli())
	}
	return Stats{Variants: len(variants), DurationMsMean: sum / float64(max(l.Cases, 1))}
}

// Command is a request to one stream of the reference project, ready to be sent.
type Command struct {
	Category      string
	StreamID      string
	Type          string // ce_type
	ID            string // ce_id: a UUIDv5 of the content
	Time          time.Time
	Expected      event.Expected
	Data          any // a command struct of package workflow or execution, by value
	CorrelationID string
}

// Commands yields the workflow's commands, then those of all cases, interleaved in time order:
// a case's StartExecution just before its first RecordNode, its CompleteExecution just after its
// last. Sent in this order, every stream's commands are in order.
func (l *Log) Commands() iter.Seq[Command] {
	return func(yield func(Command) bool) {
		if !l.workflowCommands(yield) {
			return
		}
		runs := make([]caseState, l.Cases)
		for _, r := range l.rows {
			if !l.rowCommands(r, &runs[r.caseNo], yield) {
				return
			}
		}
	}
}

// caseState is how far Commands is in one case.
type caseState struct {
	done uint32
	last time.Time
}

func (l *Log) workflowCommands(yield func(Command) bool) bool {
	create := l.command(workflow.Category, l.Workflow.ID, l.FirstAt, workflow.CreateWorkflow{Name: l.Workflow.Name, Tags: []string{"process-log"}})
	create.Type, create.Expected = "workflow.CreateWorkflow", event.ExpectedNone
	create.ID = commandID(create, 0, l.Workflow.Name)
	if !yield(create) {
		return false
	}
	for i, activity := range l.Activities {
		add := l.command(workflow.Category, l.Workflow.ID, l.FirstAt, workflow.AddNode{NodeID: activity, Kind: "task", Name: activity})
		add.Type = "workflow.AddNode"
		add.ID = commandID(add, i+1, activity)
		if !yield(add) {
			return false
		}
	}
	return true
}

func (l *Log) rowCommands(r row, run *caseState, yield func(Command) bool) bool {
	if run.done == 0 {
		run.last = r.at
		if !yield(l.start(r)) {
			return false
		}
	}
	if !yield(l.record(r, *run)) {
		return false
	}
	run.done++
	run.last = r.at
	return run.done < l.cases[r.caseNo].rows || yield(l.complete(r, *run))
}

func (l *Log) start(r row) Command {
	c := l.command(execution.Category, l.executionID(r), r.at, execution.StartExecution{WorkflowID: l.Workflow.ID})
	c.Type, c.Expected = "execution.StartExecution", event.ExpectedNone
	c.ID = commandID(c, 0)
	return c
}

func (l *Log) record(r row, run caseState) Command {
	node := execution.RecordNode{
		Node: l.texts[r.activity], Outcome: execution.OutcomeSucceeded,
		DurationMs: r.at.UnixMilli() - run.last.UnixMilli(), Attributes: l.attributesOf(r),
	}
	c := l.command(execution.Category, l.executionID(r), r.at, node)
	c.Type = "execution.RecordNode"
	content := make([]string, 0, 1+2*len(l.attributes))
	content = append(content, node.Node)
	for _, name := range l.attributes {
		content = append(content, name, node.Attributes[name])
	}
	c.ID = commandID(c, int(run.done)+1, content...)
	return c
}

func (l *Log) complete(r row, run caseState) Command {
	c := l.command(execution.Category, l.executionID(r), r.at, execution.CompleteExecution{})
	c.Type = "execution.CompleteExecution"
	c.ID = commandID(c, int(run.done)+1)
	return c
}

func (l *Log) command(category, streamID string, at time.Time, data any) Command {
	return Command{Category: category, StreamID: streamID, Time: at, Data: data, CorrelationID: streamID}
}

func (l *Log) executionID(r row) string {
	return executionID(l.Workflow.ID, l.texts[l.cases[r.caseNo].id])
}

// attributesOf leaves out what is empty.
func (l *Log) attributesOf(r row) map[string]string {
	attributes := make(map[string]string, len(l.attributes))
	first := int(r.place) * len(l.attributes)
	for i, number := range l.values[first : first+len(l.attributes)] {
		if text := l.texts[number]; text != "" {
			attributes[l.attributes[i]] = text
		}
	}
	return attributes
}

// finish puts the rows in time order and counts.
func (p *parser) finish() (*Log, error) {
	if len(p.rows) == 0 {
		return nil, &LineError{Line: p.records.line, Reason: fmt.Sprintf("the file ends without a usable row (%d bad ones)", p.badLines)}
	}
	byTime := func(a, b row) int { return a.at.Compare(b.at) }
	if !slices.IsSortedFunc(p.rows, byTime) {
		slices.SortStableFunc(p.rows, byTime)
	}
	l := &Log{
		Workflow: Workflow{ID: p.workflowID, Name: p.opts.Workflow}, Cases: len(p.cases), Rows: len(p.rows), BadLines: p.badLines,
		FirstAt: p.rows[0].at, LastAt: p.rows[len(p.rows)-1].at,
		attributes: p.attributes, cases: p.cases, rows: p.rows, values: p.values, texts: p.texts.list,
	}
	seen := map[uint32]bool{}
	for _, r := range l.rows {
		if !seen[r.activity] {
			seen[r.activity] = true
			l.Activities = append(l.Activities, l.texts[r.activity])
		}
	}
	return l, nil
}
