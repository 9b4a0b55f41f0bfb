package processlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/internal/processlog"
	"github.com/foldstream/foldstream/pkg/event"
)

const header = "case,activity,resource,timestamp\n"

func read(t *testing.T, text string) *processlog.Log {
	t.Helper()
	log, err := processlog.Read(strings.NewReader(text), processlog.Options{Workflow: "Test"})
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return log
}

// brief shows a command in one line.
func brief(c processlog.Command) string {
	text := fmt.Sprintf("%s %s %s", c.Time.Format("15:04:05.000"), c.StreamID, strings.SplitN(c.Type, ".", 2)[1])
	switch data := c.Data.(type) {
	case workflow.AddNode:
		text += " " + data.NodeID
	case execution.RecordNode:
		text += fmt.Sprintf(" %s %d %v", data.Node, data.DurationMs, data.Attributes)
	}
	return text
}

func briefs(log *processlog.Log) []string {
	var out []string
	for c := range log.Commands() {
		out = append(out, brief(c))
	}
	return out
}

func TestALogBecomesCommands(t *testing.T) {
	t.Parallel()
	log := read(t, "case,activity,resource,cost,timestamp\n"+
		"c1,Enter,Ann,5,2020-01-01T10:00:00Z\n"+
		"c2,Enter,,,2020-01-01T10:00:01.250Z\n"+
		"c1,Check,Bob,7,2020-01-01T12:00:02.5+02:00\n"+
		"c2,Pay,Ann,,2020-01-01T10:00:03Z\n"+
		"c1,Check,Bob,7,2020-01-01T10:00:04Z\n")
	want := []string{
		"10:00:00.000 test CreateWorkflow",
		"10:00:00.000 test AddNode Enter",
		"10:00:00.000 test AddNode Check",
		"10:00:00.000 test AddNode Pay",
		"10:00:00.000 test:c1 StartExecution",
		"10:00:00.000 test:c1 RecordNode Enter 0 map[cost:5 resource:Ann]",
		"10:00:01.250 test:c2 StartExecution",
		"10:00:01.250 test:c2 RecordNode Enter 0 map[]",
		"10:00:02.500 test:c1 RecordNode Check 2500 map[cost:7 resource:Bob]",
		"10:00:03.000 test:c2 RecordNode Pay 1750 map[resource:Ann]",
		"10:00:03.000 test:c2 CompleteExecution",
		"10:00:04.000 test:c1 RecordNode Check 1500 map[cost:7 resource:Bob]",
		"10:00:04.000 test:c1 CompleteExecution",
	}
	if got := briefs(log); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := log.CommandCount(); got != len(want) {
		t.Errorf("CommandCount: got %d, want %d", got, len(want))
	}
	if log.Cases != 2 || log.Rows != 5 || log.Workflow != (processlog.Workflow{ID: "test", Name: "Test"}) || len(log.Activities) != 3 {
		t.Errorf("got %+v", log)
	}
	if got, want := log.Stats(), (processlog.Stats{Variants: 2, DurationMsMean: (4000 + 1750) / 2.0}); got != want {
		t.Errorf("Stats: got %+v, want %+v", got, want)
	}
}

func TestRowsAreSortedByTime(t *testing.T) {
	t.Parallel()
	log := read(t, header+
		"c1,Third,r,2020-01-01T10:00:02Z\n"+
		"c1,First,r,2020-01-01T10:00:00Z\n"+
		"c2,Other,r,2020-01-01T10:00:01Z\n"+
		"c1,Second in the file,r,2020-01-01T10:00:02Z\n")
	want := []string{"First", "Other", "Third", "Second in the file"}
	var got []string
	for c := range log.Commands() {
		if node, ok := c.Data.(execution.RecordNode); ok {
			got = append(got, node.Node)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFormsOfTheSameFile(t *testing.T) {
	t.Parallel()
	plain := header + "c1,Enter,Ann,2020-01-01T10:00:00Z\nc1,Check,Bob,2020-01-01T10:00:01Z\n"
	want := slices.Collect(read(t, plain).Commands())
	forms := map[string]string{
		"with a byte order mark":    "\ufeff" + plain,
		"with CRLF":                 strings.ReplaceAll(plain, "\n", "\r\n"),
		"without the last line end": strings.TrimSuffix(plain, "\n"),
		"with empty lines":          strings.ReplaceAll(plain, "\n", "\n\n"),
		"with quotes":               strings.ReplaceAll(plain, "Enter", `"Enter"`),
		"with letters in capitals":  strings.Replace(plain, "case,activity", "Case, ACTIVITY ", 1),
		"with columns in another order": "timestamp,resource,activity,case\n" +
			"2020-01-01T10:00:00Z,Ann,Enter,c1\n2020-01-01T10:00:01Z,Bob,Check,c1\n",
		"in another zone": strings.ReplaceAll(plain, "T10:00:00Z", "T11:30:00+01:30"),
	}
	for name, text := range forms {
		t.Run(name, func(t *testing.T) {
			if got := slices.Collect(read(t, text).Commands()); !reflect.DeepEqual(got, want) {
				t.Errorf("got %v\nwant %v", got, want)
			}
		})
	}
}

func TestQuotedFields(t *testing.T) {
	t.Parallel()
	log := read(t, header+
		"c1,\"Check, again\",\"Ann \"\"the boss\"\"\",2020-01-01T10:00:00Z\n"+
		"c1,\"Two\r\nlines\",\"\",2020-01-01T10:00:01Z\n"+
		"c1,Plain,r,2020-01-01T10:00:02Z\n")
	if want := []string{"Check, again", "Two\nlines", "Plain"}; !slices.Equal(log.Activities, want) {
		t.Errorf("got %q, want %q", log.Activities, want)
	}
	for c := range log.Commands() {
		if node, ok := c.Data.(execution.RecordNode); ok && node.Node == "Check, again" && node.Attributes["resource"] != `Ann "the boss"` {
			t.Errorf("got resource %q", node.Attributes["resource"])
		}
	}
}

func TestBadHeaders(t *testing.T) {
	t.Parallel()
	long := "case,activity,resource,timestamp"
	for i := range 50 {
		long += fmt.Sprintf(",x%d", i)
	}
	cases := []struct{ name, text, want string }{
		{"no file", "", "line 1: the file is empty"},
		{"only empty lines", "\n\r\n\n", "the file is empty"},
		{"a missing column", "case,activity,timestamp\n", `no column "resource"`},
		{"semicolons", "case;activity;resource;timestamp\n", "separated by commas"},
		{"a column twice", "case,activity,resource,timestamp,Case\n", `"case" twice`},
		{"an attribute twice", "case,activity,resource,timestamp,x,x\n", `"x" twice`},
		{"a column without a name", "case,activity,resource,timestamp,\n", "the name of column 5 is empty"},
		{"a column with a long name", header[:len(header)-1] + "," + strings.Repeat("x", 129) + "\n", "129 bytes"},
		{"a column with a NUL", header[:len(header)-1] + ",a\x00\n", "NUL"},
		{"too many columns", long + "\n", "51 columns"},
		{"no UTF-8", "case,activity,resource,timestamp,\xe4\n", "not UTF-8"},
		{"UTF-16", "\xff\xfec\x00a\x00s\x00e\x00\n", "not UTF-8"},
		{"an open quote", "case,\"activity,resource,timestamp\nc,a,r,t\n", "not closed"},
		{"no rows", header, "without a usable row"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			opts := processlog.Options{Workflow: "w", BadLine: func(processlog.BadLine) error { return nil }}
			_, err := processlog.Read(strings.NewReader(c.text), opts)
			var line *processlog.LineError
			if !errors.As(err, &line) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a line error with %q", err, c.want)
			}
		})
	}
}

// A bad line stands between two good ones: it is named by its number, and the neighbours go on.
func TestBadLines(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("x", n) }
	cases := []struct{ name, line, want string }{
		{"too few fields", "c1,a,r", "has 3 fields, the header has 4"},
		{"too many fields", "c1,a,r,2020-01-01T10:00:00Z,x", "has 5 fields, the header has 4"},
		{"no case", ",a,r,2020-01-01T10:00:00Z", "column case is empty"},
		{"no activity", "c1,,r,2020-01-01T10:00:00Z", "column activity is empty"},
		{"a case with a control character", "c\t1,a,r,2020-01-01T10:00:00Z", "control characters"},
		{"a long case", long(254) + ",a,r,2020-01-01T10:00:00Z", "longer than 255 bytes"},
		{"a long activity", "c1," + long(129) + ",r,2020-01-01T10:00:00Z", "column activity has 129 bytes, at most 128"},
		{"a long field", "c1,a," + long(4097) + ",2020-01-01T10:00:00Z", "field 3 has 4097 bytes, at most 4096"},
		{"a long line", "c1,a,r,2020-01-01T10:00:00Z" + long(300<<10), "longer than 262144 bytes"},
		{"no UTF-8", "c1,a,\xff,2020-01-01T10:00:00Z", "is not UTF-8"},
		{"a NUL", "c1,a,r\x00,2020-01-01T10:00:00Z", "field 3 has a NUL"},
		{"a quote inside", `c1,a "b",r,2020-01-01T10:00:00Z`, "field 2 has a quote inside"},
		{"text after a quote", `c1,"a"b,r,2020-01-01T10:00:00Z`, "field 2 has text after its closing quote"},
		{"an open quote", `c1,"a,r,2020-01-01T10:00:00Z`, "not closed"},
		{"no time", "c1,a,r,", "column timestamp: \"\" is no RFC 3339 time"},
		{"a time without a zone", "c1,a,r,2020-01-01T10:00:00", "no RFC 3339 time with a zone"},
		{"a time with a space", "c1,a,r,2020-01-01 10:00:00Z", "no RFC 3339 time"},
		{"a day that is none", "c1,a,r,2021-02-29T10:00:00Z", "no RFC 3339 time"},
		{"an hour of one digit", "c1,a,r,2020-01-01T1:00:00Z", "no RFC 3339 time"},
		{"a fraction after a comma", "c1,a,r,\"2020-01-01T10:00:00,5Z\"", "no RFC 3339 time"},
		{"a zone of 24 hours", "c1,a,r,2020-01-01T10:00:00+24:00", "no RFC 3339 time"},
		{"a zone of 60 minutes", "c1,a,r,2020-01-01T10:00:00+01:60", "no RFC 3339 time"},
		{"the year 0", "c1,a,r,0000-01-01T10:00:00Z", "outside the years 1 to 9999"},
		{"a year that a zone takes to 10000", "c1,a,r,9999-12-31T23:59:59-01:00", "outside the years 1 to 9999"},
		{"a case over a century", "before,a,r,2120-01-01T10:00:00Z", "more than 50 years"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			text := header + "before,a,r,2020-01-01T10:00:00Z\n" + c.line + "\nafter,a,r,2020-01-01T10:00:01Z\n"
			_, err := processlog.Read(strings.NewReader(text), processlog.Options{Workflow: "w"})
			var line *processlog.LineError
			if !errors.As(err, &line) || line.Line != 3 || !strings.Contains(line.Reason, c.want) {
				t.Fatalf("got %v, want line 3 with %q", err, c.want)
			}
			var bad []processlog.BadLine
			log, err := processlog.Read(strings.NewReader(text), processlog.Options{Workflow: "w", BadLine: func(b processlog.BadLine) error {
				bad = append(bad, b)
				return nil
			}})
			if err != nil {
				t.Fatalf("skipping bad lines: %v", err)
			}
			if len(bad) != 1 || bad[0].Line != 3 || !strings.HasPrefix(c.line, bad[0].Text) || bad[0].Cut != (bad[0].Text != c.line) {
				t.Errorf("got bad lines %.300v, want line 3 with its text", bad)
			}
			if log.Rows != 2 || log.Cases != 2 || log.BadLines != 1 {
				t.Errorf("got %d rows, %d cases, %d bad lines, want the two neighbours and one bad line", log.Rows, log.Cases, log.BadLines)
			}
		})
	}
}

// A quote that is never closed spoils its own line, whatever follows it.
func TestAnOpenQuoteSpoilsOneLine(t *testing.T) {
	t.Parallel()
	good := func(i int) string { return fmt.Sprintf("c%d,a,\"r \"\"x\"\"\",2020-01-01T10:00:00Z\n", i) }
	var text strings.Builder
	text.WriteString(header)
	for i := range 300 {
		if i%3 == 0 {
			text.WriteString("c,\"open,r,2020-01-01T10:00:00Z\n")
		}
		text.WriteString(good(i))
	}
	var lines []int
	log, err := processlog.Read(strings.NewReader(text.String()), processlog.Options{Workflow: "w", BadLine: func(b processlog.BadLine) error {
		lines = append(lines, b.Line)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if log.Rows != 300 || len(lines) != 100 || lines[0] != 2 || lines[1] != 6 {
		t.Errorf("got %d rows and bad lines %v, want 300 rows and every fourth line from 2 bad", log.Rows, lines)
	}
}

func TestALimitEndsReading(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString(header)
	for i := range 10 {
		fmt.Fprintf(&text, "case %d,activity %d,r,2020-01-01T10:00:00Z\n", i, i)
	}
	cases := []struct {
		what string
		opts processlog.Options
		line int
	}{
		{"rows", processlog.Options{RowsMax: 9}, 11},
		{"cases", processlog.Options{CasesMax: 4}, 6},
		{"different activities", processlog.Options{ActivitiesMax: 3}, 5},
		{"bytes of distinct texts", processlog.Options{TextBytesMax: 40}, 4},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			c.opts.Workflow = "w"
			c.opts.BadLine = func(processlog.BadLine) error { return nil }
			_, err := processlog.Read(strings.NewReader(text.String()), c.opts)
			var limit *processlog.LimitError
			if !errors.As(err, &limit) || limit.What != c.what || limit.Line != c.line {
				t.Errorf("got %v, want more than the limit of %s in line %d", err, c.what, c.line)
			}
		})
	}
}

func TestErrorsOfOthersComeThrough(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is gone")
	in := io.MultiReader(strings.NewReader(header+"c1,a,r,2020-01-01T10:00:00Z\n"), iotest.ErrReader(broken))
	if _, err := processlog.Read(in, processlog.Options{Workflow: "w"}); !errors.Is(err, broken) || !strings.Contains(err.Error(), "after line 2") {
		t.Errorf("got %v, want the reader's error and where it came", err)
	}
	full := errors.New("cannot write the bad lines")
	opts := processlog.Options{Workflow: "w", BadLine: func(processlog.BadLine) error { return full }}
	if _, err := processlog.Read(strings.NewReader(header+"bad\n"), opts); !errors.Is(err, full) {
		t.Errorf("got %v, want the callback's error", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	_, err := processlog.Read(strings.NewReader(header), processlog.Options{RowsMax: -1, ActivitiesMax: 501, FieldBytesMax: 5000})
	for _, want := range []string{"workflow name is empty", "RowsMax is -1", "ActivitiesMax is 501", "FieldBytesMax is 5000"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestWorkflowID(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, want string }{
		{"receipt-phase", "receipt-phase"},
		{"Receipt phase (2014).final", "receipt-phase-2014-final"},
		{"--a::b__", "a-b"},
		{"Größe", "größe"},
		{strings.Repeat("ab ", 100), strings.Repeat("ab-", 34)[:100]},
	}
	for _, c := range cases {
		if got, err := processlog.WorkflowID(c.name); err != nil || got != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	if _, err := processlog.WorkflowID("…"); err == nil {
		t.Error("a name without letters: got no error")
	}
}

func TestIDsAreThoseOfTheContent(t *testing.T) {
	t.Parallel()
	text := header + "c1,a,r,2020-01-01T10:00:00Z\nc1,a,r,2020-01-01T10:00:00Z\nc2,a,r,2020-01-01T10:00:00Z\n"
	ids := func(text string) []string {
		var ids []string
		for c := range read(t, text).Commands() {
			ids = append(ids, c.ID)
		}
		return ids
	}
	first := ids(text)
	if again := ids(text); !slices.Equal(first, again) {
		t.Errorf("the same file again: got %v, want %v", again, first)
	}
	distinct := slices.Clone(first)
	slices.Sort(distinct)
	if got := len(slices.Compact(distinct)); got != len(first) {
		t.Errorf("got %d different ids of %d commands", got, len(first))
	}
	other := ids(strings.Replace(text, "c1,a,r", "c1,a,s", 1))
	changed := 0
	for i := range first {
		if first[i] != other[i] {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("one attribute changed: got %d other ids, want 1", changed)
	}
}

func TestCommandsStopWhenTold(t *testing.T) {
	t.Parallel()
	log := read(t, header+"c1,a,r,2020-01-01T10:00:00Z\nc2,b,r,2020-01-01T10:00:01Z\n")
	for n := 1; n <= log.CommandCount(); n++ {
		got := 0
		for range log.Commands() {
			if got++; got == n {
				break
			}
		}
		if got != n {
			t.Errorf("got %d commands, want %d", got, n)
		}
	}
}

func TestASecondImportChangesNothing(t *testing.T) {
	t.Parallel()
	log, err := processlog.Read(bytes.NewReader(processlog.Sample(3, 50)), processlog.Options{Workflow: "w"})
	if err != nil {
		t.Fatal(err)
	}
	importTwice(t, log)
}

// importTwice sends a log's commands three times: all are accepted, then all are duplicates,
// then, their ids forgotten, none is accepted.
func importTwice(t *testing.T, log *processlog.Log) {
	t.Helper()
	w := newWorld(t)
	send := func() map[string]int {
		clear(w.outcomes)
		for c := range log.Commands() {
			w.send(c)
		}
		return maps.Clone(w.outcomes)
	}
	if got, want := send(), map[string]int{"accepted": log.CommandCount()}; !maps.Equal(got, want) {
		t.Errorf("first: got %v, want %v", got, want)
	}
	if got, want := w.statuses(), map[execution.Status]int{execution.StatusCompleted: log.Cases}; !maps.Equal(got, want) {
		t.Errorf("statuses: got %v, want %v", got, want)
	}
	if got, want := send(), map[string]int{"duplicate": log.CommandCount()}; !maps.Equal(got, want) {
		t.Errorf("again: got %v, want %v", got, want)
	}
	w.forget = true
	if got := send(); got["accepted"] != 0 {
		t.Errorf("again, with the ids forgotten: got %v, want none accepted", got)
	}
}

// The published figures of the receipt phase. The file is not part of the repository.
func TestReceiptPhase(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "..", "shared", "data", "receipt-phase.csv")
	file, err := os.Open(path)
	if err != nil {
		missing(t, fmt.Sprintf("the log receipt-phase.csv: %v", err))
		return
	}
	defer file.Close()
	log, err := processlog.Read(file, processlog.Options{Workflow: "receipt-phase"})
	if err != nil {
		t.Fatal(err)
	}
	if log.Cases != 1434 || log.Rows != 8577 || len(log.Activities) != 27 || log.BadLines != 0 {
		t.Errorf("got %d cases, %d rows, %d activities, %d bad lines, want 1434, 8577, 27, 0", log.Cases, log.Rows, len(log.Activities), log.BadLines)
	}
	stats := log.Stats()
	if stats.Variants != 116 || math.Abs(stats.DurationMsMean-467_263_915) > 1000 {
		t.Errorf("got %+v, want 116 variants and a mean of 467,263,915 ms ± 1,000", stats)
	}
	importTwice(t, log)
	events := 0
	for c := range log.Commands() {
		if c.Category == execution.Category {
			events++
		}
	}
	if events != 11445 {
		t.Errorf("got %d commands to executions, want 11,445", events)
	}
}

// missing fails where everything is required, else says loudly that a test was left out.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("FOLDSTREAM_REQUIRE_ALL") != "" {
		t.Fatalf("MISSING %s", what)
	}
	t.Logf("MISSING %s: this test was left out", what)
	path := os.Getenv("FOLDSTREAM_MISSING_FILE")
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fmt.Fprintln(file, what)
}

func TestSampleIsDeterministicAndBelievable(t *testing.T) {
	t.Parallel()
	one := processlog.Sample(1, 200)
	if !bytes.Equal(one, processlog.Sample(1, 200)) {
		t.Error("the same seed gave two samples")
	}
	if bytes.Equal(one, processlog.Sample(2, 200)) {
		t.Error("two seeds gave the same sample")
	}
	log, err := processlog.Read(bytes.NewReader(one), processlog.Options{Workflow: "w"})
	if err != nil {
		t.Fatal(err)
	}
	if stats := log.Stats(); log.Cases != 200 || len(log.Activities) != 10 || stats.Variants < 10 || stats.Variants > 150 {
		t.Errorf("got %d cases, %d activities, %d variants, want 200, 10, and some variants", log.Cases, len(log.Activities), stats.Variants)
	}
}

func TestSampleCommandsShowEverything(t *testing.T) {
	t.Parallel()
	commands, err := processlog.SampleCommands(1, 100)
	if err != nil {
		t.Fatal(err)
	}
	again, err := processlog.SampleCommands(1, 100)
	if err != nil || !reflect.DeepEqual(commands, again) {
		t.Errorf("the same seed gave other commands (%v)", err)
	}
	w := newWorld(t)
	for _, c := range commands {
		w.send(c)
	}
	statuses := w.statuses()
	for _, status := range []execution.Status{execution.StatusRunning, execution.StatusCompleted, execution.StatusFailed, execution.StatusCancelled} {
		if statuses[status] == 0 {
			t.Errorf("got %v, want some %s", statuses, status)
		}
	}
	outcomes := []string{"accepted", "conflict", "duplicate", execution.CodeEnded}
	if got := slices.Sorted(maps.Keys(w.outcomes)); !slices.Equal(got, outcomes) {
		t.Errorf("got outcomes %v, want exactly %v", w.outcomes, outcomes)
	}
	failures, connections := 0, 0
	for _, s := range w.streams {
		switch state := s.state.(type) {
		case execution.State:
			failures += int(state.NodesFailed)
		case workflow.State:
			connections += len(state.Connections)
		}
	}
	if failures == 0 || connections != 9 {
		t.Errorf("got %d failed nodes and %d connections, want some and 9", failures, connections)
	}
	for id, s := range w.streams {
		if s.version == 0 {
			t.Errorf("%s has no events", id)
		}
	}
}

func TestSampleCommandsAreBounded(t *testing.T) {
	t.Parallel()
	for _, cases := range []int{-1, 0, processlog.SampleCasesMax + 1} {
		if _, err := processlog.SampleCommands(1, cases); err == nil {
			t.Errorf("%d cases: got no error", cases)
		}
	}
	if _, err := processlog.SampleCommands(1, 1); err != nil {
		t.Errorf("1 case: %v", err)
	}
}

// FuzzRead reads anything: no panic, every line accounted for, and what was read becomes
// commands whose streams are in order and whose ids are their own.
func FuzzRead(f *testing.F) {
	f.Add([]byte(header + "c1,a,r,2020-01-01T10:00:00Z\nc1,b,r,2020-01-01T09:00:00Z\n"))
	f.Add([]byte("\ufeffcase,activity,resource,timestamp,x\r\n\"c\"\"1\",\"a\nb\",,2020-01-01T10:00:00+01:00,\"\"\r\n"))
	f.Add([]byte(header + "c1,\"a,r,2020-01-01T10:00:00Z\nbad\n\xff\n"))
	f.Add(processlog.Sample(1, 2))
	f.Fuzz(func(t *testing.T, data []byte) {
		bad := 0
		opts := processlog.Options{Workflow: "w", LineBytesMax: 200, FieldBytesMax: 50, BadLine: func(processlog.BadLine) error {
			bad++
			return nil
		}}
		log, err := processlog.Read(bytes.NewReader(data), opts)
		if err != nil {
			return
		}
		if lines := bytes.Count(data, []byte("\n")) + 1; log.Rows+bad >= lines+1 || log.BadLines != bad {
			t.Errorf("got %d rows and %d bad lines of %d lines", log.Rows, bad, lines)
		}
		checkCommands(t, log)
	})
}

func checkCommands(t *testing.T, log *processlog.Log) {
	t.Helper()
	w := newWorld(t)
	count := 0
	last := map[string]time.Time{}
	for c := range log.Commands() {
		count++
		if c.Time.Before(last[c.Category]) {
			t.Errorf("%s at %s comes after %s", c.Type, event.FormatTime(c.Time), event.FormatTime(last[c.Category]))
		}
		last[c.Category] = c.Time
		w.send(c)
	}
	if count != log.CommandCount() || w.outcomes["accepted"] != count {
		t.Errorf("got %d commands with outcomes %v, want %d, all accepted", count, w.outcomes, log.CommandCount())
	}
}
