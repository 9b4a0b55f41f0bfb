package processlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/rule"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/event"
)

// The columns that every log has.
const (
	columnCase      = "case"
	columnActivity  = "activity"
	columnResource  = "resource"
	columnTimestamp = "timestamp"
)

// caseSpreadMax is how far from the first of its rows in the file a row of a case may be, so
// that no node's duration is beyond what an execution takes.
const caseSpreadMax = execution.DurationMsMax / 2

// parser reads a file's rows into the parts of a Log.
type parser struct {
	opts       Options
	workflowID string
	records    recordReader
	caseAt     int // place of the column in the header
	activityAt int
	timeAt     int
	attributes []string
	valueAt    []int // place of each attribute's column

	texts      interner
	caseNos    map[uint32]uint32 // text number to case number
	activities map[uint32]bool
	cases      []caseRun
	rows       []row
	values     []uint32
	badLines   int
}

// newParser reads the header.
func newParser(r io.Reader, opts Options) (*parser, error) {
	workflowID, err := WorkflowID(opts.Workflow)
	if err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(r, 64<<10)
	if mark, _ := in.Peek(3); bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		if _, err := in.Discard(3); err != nil {
			return nil, err
		}
	}
	p := &parser{
		opts: opts, workflowID: workflowID, records: recordReader{lines: lineReader{in: in, bytesMax: opts.LineBytesMax}},
		texts:   interner{numbers: map[string]uint32{}},
		caseNos: map[uint32]uint32{}, activities: map[uint32]bool{},
	}
	header, err := p.records.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, &LineError{Line: 1, Reason: "the file is empty; want a header with the columns " + wantedColumns}
	case err != nil:
		return nil, err
	case header.fault != "":
		return nil, &LineError{Line: header.line, Reason: header.fault}
	}
	if fault := p.header(header); fault != "" {
		return nil, &LineError{Line: header.line, Reason: fault}
	}
	return p, nil
}

const wantedColumns = columnCase + ", " + columnActivity + ", " + columnResource + ", " + columnTimestamp

// header finds the columns and returns what is wrong with them.
func (p *parser) header(header record) string {
	if !utf8.Valid(header.text) {
		return "the header is not UTF-8: save the file as UTF-8"
	}
	at := map[string]int{}
	for i, field := range header.fields {
		name := strings.TrimSpace(string(field))
		if known := strings.ToLower(name); slices.Contains([]string{columnCase, columnActivity, columnResource, columnTimestamp}, known) {
			name = known
		}
		if _, twice := at[name]; twice {
			return fmt.Sprintf("the header names column %.40q twice", name)
		}
		if b := rule.Name(fmt.Sprintf("the name of column %d", i+1), name, rule.MapKeyBytesMax); b != nil {
			return b.Message
		}
		if hasNUL(field) {
			return fmt.Sprintf("the name of column %d has a NUL", i+1)
		}
		at[name] = i
		if name != columnCase && name != columnActivity && name != columnTimestamp {
			p.attributes, p.valueAt = append(p.attributes, name), append(p.valueAt, i)
		}
	}
	for _, name := range []string{columnCase, columnActivity, columnResource, columnTimestamp} {
		if _, ok := at[name]; !ok {
			return fmt.Sprintf("the header has no column %q; want %s, separated by commas; it begins with %.80q", name, wantedColumns, header.text)
		}
	}
	if len(p.attributes) > rule.MapEntriesMax {
		return fmt.Sprintf("the header names %d columns beside case, activity and timestamp; at most %d are allowed", len(p.attributes), rule.MapEntriesMax)
	}
	p.caseAt, p.activityAt, p.timeAt = at[columnCase], at[columnActivity], at[columnTimestamp]
	p.records.columns = len(header.fields)
	return ""
}

// run reads the rows.
func (p *parser) run() error {
	for {
		rec, err := p.records.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after line %d: %w", p.records.line, err)
		}
		reason := rec.fault
		if reason == "" {
			if reason, err = p.row(rec); err != nil {
				return err
			}
		}
		if reason != "" {
			if err := p.bad(rec, reason); err != nil {
				return err
			}
		}
	}
}

func (p *parser) bad(rec record, reason string) error {
	if p.opts.BadLine == nil {
		return &LineError{Line: rec.line, Reason: reason}
	}
	p.badLines++
	return p.opts.BadLine(BadLine{Line: rec.line, Reason: reason, Text: string(rec.text), Cut: rec.cut})
}

// row takes one row, or returns what is wrong with it. The error is a limit of the whole file.
func (p *parser) row(rec record) (reason string, err error) {
	if reason := p.check(rec); reason != "" {
		return reason, nil
	}
	at, reason := parseTime(rec.fields[p.timeAt])
	if reason != "" {
		return "column timestamp: " + reason, nil
	}
	caseNo, known := p.knownCase(rec.fields[p.caseAt])
	if known {
		if reason := checkSpread(p.cases[caseNo].seen, at); reason != "" {
			return "column timestamp: " + reason, nil
		}
	}
	return "", p.add(rec, at)
}

// check looks at the fields one by one.
func (p *parser) check(rec record) string {
	if len(rec.fields) != p.records.columns {
		return fmt.Sprintf("has %d fields, the header has %d", len(rec.fields), p.records.columns)
	}
	if !utf8.Valid(rec.text) {
		return "is not UTF-8"
	}
	for i, field := range rec.fields {
		switch {
		case len(field) > p.opts.FieldBytesMax:
			return fmt.Sprintf("field %d has %d bytes, at most %d are allowed", i+1, len(field), p.opts.FieldBytesMax)
		case hasNUL(field):
			return fmt.Sprintf("field %d has a NUL, which no database column for text holds", i+1)
		}
	}
	if len(rec.fields[p.caseAt]) == 0 {
		return "column case is empty"
	}
	if err := event.ValidateID(executionID(p.workflowID, string(rec.fields[p.caseAt]))); err != nil {
		return "column case: with the workflow's id before it, the " + err.Error()
	}
	if b := rule.Name("column activity", string(rec.fields[p.activityAt]), workflow.NodeIDBytesMax); b != nil {
		return b.Message
	}
	return ""
}

func hasNUL(field []byte) bool { return bytes.IndexByte(field, 0) >= 0 }

// parseTime reads RFC 3339 as strictly as it is written, within what a header holds.
func parseTime(field []byte) (time.Time, string) {
	t, err := time.Parse(time.RFC3339, string(field))
	if err != nil || !strictTime(field) {
		return t, fmt.Sprintf("%.60q is no RFC 3339 time with a zone, such as 2010-10-02T07:20:39.266Z", field)
	}
	t = t.UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return t, fmt.Sprintf("%.60q is outside the years 1 to 9999", field)
	}
	return t, ""
}

// strictTime refuses what the standard library takes beyond RFC 3339: an hour of one digit, a
// comma before the fraction, a zone of 24 hours or 60 minutes and more. field parses otherwise.
func strictTime(field []byte) bool {
	const hourEnd = len("2006-01-02T15")
	if field[hourEnd] != ':' || bytes.IndexByte(field, ',') >= 0 {
		return false
	}
	if field[len(field)-1] == 'Z' {
		return true
	}
	zone := field[len(field)-len("00:00"):]
	return string(zone[:2]) < "24" && zone[3] < '6'
}

func checkSpread(first, at time.Time) string {
	spread := at.UnixMilli() - first.UnixMilli()
	if spread > caseSpreadMax || spread < -caseSpreadMax {
		return fmt.Sprintf("%s is more than 50 years from the case's first row, at %s", event.FormatTime(at), event.FormatTime(first))
	}
	return ""
}

func (p *parser) knownCase(id []byte) (uint32, bool) {
	number, ok := p.texts.numbers[string(id)]
	if !ok {
		return 0, false
	}
	caseNo, ok := p.caseNos[number]
	return caseNo, ok
}

// add keeps a good row.
func (p *parser) add(rec record, at time.Time) error {
	caseText := p.texts.number(rec.fields[p.caseAt])
	activity := p.texts.number(rec.fields[p.activityAt])
	for _, i := range p.valueAt {
		p.values = append(p.values, p.texts.number(rec.fields[i]))
	}
	caseNo, known := p.caseNos[caseText]
	if !known {
		caseNo = uint32(len(p.cases))
		p.caseNos[caseText] = caseNo
		p.cases = append(p.cases, caseRun{id: caseText, seen: at})
	}
	p.cases[caseNo].rows++
	p.activities[activity] = true
	p.rows = append(p.rows, row{at: at, place: uint32(len(p.rows)), caseNo: caseNo, activity: activity})
	return p.checkLimits(rec.line)
}

func (p *parser) checkLimits(line int) error {
	const split = "split the file, or raise the limit if the machine has the memory"
	switch {
	case len(p.rows) > p.opts.RowsMax:
		return &LimitError{Line: line, What: "rows", Limit: p.opts.RowsMax, Hint: split}
	case len(p.cases) > p.opts.CasesMax:
		return &LimitError{Line: line, What: "cases", Limit: p.opts.CasesMax, Hint: split}
	case len(p.activities) > p.opts.ActivitiesMax:
		return &LimitError{
			Line: line, What: "different activities", Limit: p.opts.ActivitiesMax,
			Hint: "each becomes a node of one workflow; check that the column is the activity and no free text",
		}
	case p.texts.bytes > p.opts.TextBytesMax:
		return &LimitError{Line: line, What: "bytes of distinct texts", Limit: p.opts.TextBytesMax, Hint: split}
	}
	return nil
}

// interner keeps each distinct text once and numbers it.
type interner struct {
	bytes   int
	numbers map[string]uint32
	list    []string
}

func (in *interner) number(text []byte) uint32 {
	if number, ok := in.numbers[string(text)]; ok {
		return number
	}
	number := uint32(len(in.list))
	owned := string(text)
	in.numbers[owned] = number
	in.list = append(in.list, owned)
	in.bytes += len(owned)
	return number
}
