package harness

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// line is one line of a report: the run itself, or one piece of evidence.
type line struct {
	Run      *Run           `json:"run,omitempty"`
	Fault    *FaultRecord   `json:"fault,omitempty"`
	Sending  *Sending       `json:"sending,omitempty"`
	Command  *CommandRecord `json:"command,omitempty"`
	Event    *EventRecord   `json:"event,omitempty"`
	Letter   *LetterRecord  `json:"letter,omitempty"`
	Row      *RowRecord     `json:"row,omitempty"`
	Rebuilt  *RowRecord     `json:"rebuilt,omitempty"`
	Offset   *OffsetRecord  `json:"offset,omitempty"`
	Note     string         `json:"note,omitempty"`
	Violated *Violation     `json:"violation,omitempty"` // as found at the time; Check finds them again
}

// ReportName is the file of a run, within a folder of reports.
func ReportName(r *Run) string {
	name := r.Cell
	if r.Planted != "" {
		name += "-" + r.Planted
	}
	return fmt.Sprintf("%s-%d.jsonl.gz", name, r.Seed)
}

// WriteReport writes a run as compressed lines of JSON.
func WriteReport(dir string, r *Run, violations []Violation) (path string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path = filepath.Join(dir, ReportName(r))
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zip := gzip.NewWriter(f)
	buffer := bufio.NewWriterSize(zip, 1<<16)
	encoder := json.NewEncoder(buffer)
	put := func(l line) { err = errors.Join(err, encoder.Encode(l)) }
	put(line{Run: r})
	for i := range r.Faults {
		put(line{Fault: &r.Faults[i]})
	}
	for _, s := range r.Sendings {
		put(line{Sending: s})
	}
	for i := range r.Commands {
		put(line{Command: &r.Commands[i]})
	}
	for i := range r.Events {
		put(line{Event: &r.Events[i]})
	}
	for i := range r.Letters {
		put(line{Letter: &r.Letters[i]})
	}
	for i := range r.Rows {
		put(line{Row: &r.Rows[i]})
	}
	for i := range r.Rebuilt {
		put(line{Rebuilt: &r.Rebuilt[i]})
	}
	for i := range r.Offsets {
		put(line{Offset: &r.Offsets[i]})
	}
	for _, note := range r.Notes {
		put(line{Note: note})
	}
	for i := range violations {
		put(line{Violated: &violations[i]})
	}
	return path, errors.Join(err, buffer.Flush(), zip.Close())
}

// ReadReport reads a run back, with what was found at the time.
func ReadReport(path string) (*Run, []Violation, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		return nil, nil, fmt.Errorf("read report %s: %w", path, err)
	}
	decoder := json.NewDecoder(bufio.NewReader(zip))
	var r *Run
	var found []Violation
	for {
		var l line
		err := decoder.Decode(&l)
		switch {
		case errors.Is(err, io.EOF) && r != nil:
			return r, found, nil
		case err != nil:
			return nil, nil, fmt.Errorf("read report %s: %w", path, err)
		case l.Run != nil:
			r = l.Run
			continue
		case r == nil:
			return nil, nil, fmt.Errorf("read report %s: its first line is not the run", path)
		}
		r.take(l)
		if l.Violated != nil {
			found = append(found, *l.Violated)
		}
	}
}

func (r *Run) take(l line) {
	switch {
	case l.Fault != nil:
		r.Faults = append(r.Faults, *l.Fault)
	case l.Sending != nil:
		r.Sendings = append(r.Sendings, l.Sending)
	case l.Command != nil:
		r.Commands = append(r.Commands, *l.Command)
	case l.Event != nil:
		r.Events = append(r.Events, *l.Event)
	case l.Letter != nil:
		r.Letters = append(r.Letters, *l.Letter)
	case l.Row != nil:
		r.Rows = append(r.Rows, *l.Row)
	case l.Rebuilt != nil:
		r.Rebuilt = append(r.Rebuilt, *l.Rebuilt)
	case l.Offset != nil:
		r.Offsets = append(r.Offsets, *l.Offset)
	case l.Note != "":
		r.Notes = append(r.Notes, l.Note)
	}
}

// Figures are a run in numbers, for tables and for machines.
type Figures struct {
	Cell       string         `json:"cell"`
	Broker     string         `json:"broker"`
	Seed       int64          `json:"seed"`
	Planted    string         `json:"planted,omitempty"`
	Operations int            `json:"operations"` // requests
	Sendings   int            `json:"sendings"`
	Outcomes   map[string]int `json:"outcomes"` // final answers of sendings
	Unknown    int            `json:"unknown"`  // sendings without a final answer
	Events     int            `json:"events"`
	Void       int            `json:"void"`
	Claims     int            `json:"claims"`
	Faults     int            `json:"faults"`
	Hits       map[string]int `json:"hits"` // faults that had an effect, by kind
	ProgressMS int64          `json:"progress_ms"`
	CaughtMS   int64          `json:"caught_ms"`
	Seconds    float64        `json:"seconds"`
	Violations int            `json:"violations"`
	Broken     []string       `json:"broken,omitempty"` // the invariants that were violated
}

// NewFigures counts.
func NewFigures(r *Run, violations []Violation, took time.Duration) Figures {
	f := Figures{
		Cell: r.Cell, Broker: r.Broker, Seed: r.Seed, Planted: r.Planted, Sendings: len(r.Sendings), Outcomes: map[string]int{},
		Faults: len(r.Faults), Hits: map[string]int{}, ProgressMS: r.Progress.Milliseconds(), CaughtMS: r.Caught.Milliseconds(),
		Seconds: took.Seconds(), Violations: len(violations),
	}
	for _, v := range violations {
		if !slices.Contains(f.Broken, v.Invariant) {
			f.Broken = append(f.Broken, v.Invariant)
		}
	}
	ids := map[string]bool{}
	for _, s := range r.Sendings {
		ids[s.ID] = true
		if answer, definite := s.Definite(); definite {
			f.Outcomes[answer.Outcome]++
		} else {
			f.Unknown++
		}
	}
	f.Operations = len(ids)
	for _, e := range r.Events {
		switch {
		case e.Class == ClassEvent:
			f.Events++
		case e.Class == ClassVoid:
			f.Void++
		case e.Control == "claim":
			f.Claims++
		}
	}
	for _, fault := range r.Faults {
		if fault.Hit {
			f.Hits[fault.Kind]++
		}
	}
	return f
}

// HitsAll counts the faults that had an effect.
func (f Figures) HitsAll() int {
	n := 0
	for _, hits := range f.Hits {
		n += hits
	}
	return n
}

// PrintTable prints runs beside each other.
func PrintTable(out io.Writer, all []Figures) {
	fmt.Fprintf(out, "%-38s %-6s %8s %7s %7s %6s %6s %6s %6s %6s %6s %5s %9s %9s %s\n",
		"cell", "broker", "seed", "ops", "accept", "dupl", "confl", "reject", "inval", "unkn", "claims", "void", "faults", "caught", "violations")
	for _, f := range all {
		name := f.Cell
		if f.Planted != "" {
			name += "+" + f.Planted
		}
		fmt.Fprintf(out, "%-38s %-6s %8d %7d %7d %6d %6d %6d %6d %6d %6d %5d %9s %9s %d\n",
			name, f.Broker, f.Seed, f.Operations, f.Outcomes[Accepted], f.Outcomes[Duplicate], f.Outcomes[Conflict],
			f.Outcomes[Rejected], f.Outcomes[Invalid], f.Unknown, f.Claims, f.Void,
			fmt.Sprintf("%d/%d", f.HitsAll(), f.Faults), time.Duration(f.CaughtMS*1e6).Round(10*time.Millisecond), f.Violations)
	}
}

// HitsText lists the faults that hit, by kind.
func (f Figures) HitsText() string {
	var parts []string
	for _, kind := range sortedKeys(f.Hits) {
		parts = append(parts, fmt.Sprintf("%s %d", kind, f.Hits[kind]))
	}
	return strings.Join(slices.Clip(parts), ", ")
}
