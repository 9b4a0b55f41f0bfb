// Package e2e runs the whole program as its users do: `foldstream dev` stays up, `foldstream import`
// brings a real process log in, SQL and a plain Kafka client look at what became of it.
package e2e

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// receiptLog is a public process log (CoSeLoG, 2014) that lies beside the repository.
func receiptLog(t *testing.T) string {
	t.Helper()
	path := filepath.Join("..", "..", "..", "shared", "data", "receipt-phase.csv")
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("FOLDSTREAM_REQUIRE_ALL") != "" {
			t.Fatalf("the process log is missing: %v", err)
		}
		fmt.Fprintln(os.Stderr, "MISSING the process log receipt-phase.csv: its figures are not checked")
		t.SkipNow()
	}
	return path
}

// Figures of the log, read from it by other means.
const (
	receiptCases       = 1434
	receiptEvents      = 8577
	receiptActivities  = 27
	receiptDurationMs  = 467_263_915
	receiptDurationTol = 1000
	receiptRecords     = 11_445 // a start, a node for each row, an end, of each case
)

// stack is a running `foldstream dev`.
type stack struct {
	t       *testing.T
	program string
	dir     string
	process *testkit.Process
	at      devstack.Endpoints
}

func startStack(t *testing.T, kafka string) *stack {
	t.Helper()
	dir, err := os.MkdirTemp("", "foldstream-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // run by root, Postgres is nobody
		t.Fatal(err)
	}
	s := &stack{t: t, program: testkit.Build(t, "github.com/foldstream/foldstream/cmd/foldstream"), dir: filepath.Join(dir, "data")}
	s.process = testkit.StartProcess(t, func() *exec.Cmd {
		return exec.Command(s.program, "dev", "--data-dir", s.dir, "--kafka", kafka, "--log-level", "warn")
	})
	s.ready()
	return s
}

// ready waits until the services say so.
func (s *stack) ready() {
	s.t.Helper()
	testkit.Await(s.t, "the stack is ready", 90*time.Second, func(ctx context.Context) bool {
		var err error
		if s.at, err = devstack.ReadEndpoints(s.dir); err != nil {
			return false
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.at.HTTP["ingest"]+"/readyz", nil)
		if err != nil {
			return false
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// restart ends the stack in order and starts it on the same data.
func (s *stack) restart() {
	s.t.Helper()
	s.process.Stop()
	s.process.Start()
	s.ready()
}

func (s *stack) importLog(path string) map[string]int {
	s.t.Helper()
	cmd := exec.Command(s.program, "import", "process-log", path, "--data-dir", s.dir, "-o", "json")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("import: %v", err)
	}
	var result struct {
		Commands struct{ Outcomes map[string]int }
	}
	if err := json.Unmarshal(out, &result); err != nil {
		s.t.Fatalf("import prints no JSON: %v", err)
	}
	return result.Commands.Outcomes
}

func (s *stack) query(sql string) []any {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.at.DSN)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(s.t.Context(), sql)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	if !rows.Next() {
		s.t.Fatalf("%s: no row: %v", sql, rows.Err())
	}
	values, err := rows.Values()
	if err != nil {
		s.t.Fatal(err)
	}
	return values
}

var viewNames = []string{"workflow_list", "execution_history", "node_metrics", "metrics_hourly"}

// tables returns each view's rows as text, in order.
func (s *stack) tables() map[string]string {
	tables := map[string]string{}
	for _, v := range viewNames {
		tables[v] = fmt.Sprint(s.query(`select coalesce(string_agg(t::text, E'\n' order by t::text), '') from fs.` + v + ` t`)...)
	}
	return tables
}

// applied waits until every view has every event.
func (s *stack) applied() {
	s.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.at.Brokers...))
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	testkit.Await(s.t, "every view has every event", time.Minute, func(ctx context.Context) bool {
		for _, category := range []string{"workflow", "execution"} {
			topic := topics.Events("fs", category)
			ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
			if err != nil || ends.Error() != nil {
				return false
			}
			behind := 0
			ends.Each(func(o kadm.ListedOffset) {
				behind += int(s.query(fmt.Sprintf(`select count(*) from fs.offsets where topic = '%s' and partition = %d and next_offset < %d`, topic, o.Partition, o.Offset))[0].(int64))
			})
			if behind > 0 {
				return false
			}
		}
		return true
	})
}

// records reads a topic by a plain consumer and returns what has a value.
func (s *stack) records(topic string) []*kgo.Record {
	s.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.at.Brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(s.t.Context(), topic)
	if err != nil || ends.Error() != nil {
		s.t.Fatalf("end offsets: %v %v", err, ends.Error())
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	var records []*kgo.Record
	for left > 0 {
		fetches := client.PollFetches(s.t.Context())
		if err := fetches.Err(); err != nil {
			s.t.Fatal(err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			left--
			if rec.Value != nil {
				records = append(records, rec)
			}
		})
	}
	return records
}

func TestReceiptPhase(t *testing.T) {
	path := receiptLog(t)
	for _, kafka := range []string{devstack.KindEmbedded, devstack.KindJVM} {
		t.Run(kafka, func(t *testing.T) {
			s := startStack(t, kafka)
			commands := receiptRecords + 1 + receiptActivities // the workflow and its nodes
			if o := s.importLog(path); o["accepted"] != commands {
				t.Errorf("first import: got %v, want %d accepted", o, commands)
			}
			s.applied()
			checkViews(t, s)
			checkLog(t, s, path)
			before := s.tables()
			for _, when := range []string{"at once", "after a restart"} {
				if when != "at once" {
					s.restart()
				}
				if o := s.importLog(path); o["accepted"] != 0 || o["duplicate"] != commands {
					t.Errorf("import again, %s: got %v, want %d duplicates", when, o, commands)
				}
				s.applied()
				for view, rows := range s.tables() {
					if rows != before[view] {
						t.Errorf("import again, %s: view %s changed", when, view)
					}
				}
			}
		})
	}
}

func checkViews(t *testing.T, s *stack) {
	t.Helper()
	row := s.query(`select count(*), count(*) filter (where status = 'completed'), sum(nodes_executed)::bigint, avg(duration_ms)::float8 from fs.execution_history`)
	mean := row[3].(float64)
	if row[0] != int64(receiptCases) || row[1] != int64(receiptCases) || row[2] != int64(receiptEvents) {
		t.Errorf("execution_history: got %v executions, %v completed, %v nodes; want %d, %d, %d", row[0], row[1], row[2], receiptCases, receiptCases, receiptEvents)
	}
	if mean < receiptDurationMs-receiptDurationTol || mean > receiptDurationMs+receiptDurationTol {
		t.Errorf("mean of duration_ms: got %.0f, want %d ± %d", mean, receiptDurationMs, receiptDurationTol)
	}
	nodes := s.query(`select count(distinct node) from fs.node_metrics`)
	if nodes[0] != int64(receiptActivities) {
		t.Errorf("node_metrics: got %v nodes, want %d", nodes[0], receiptActivities)
	}
	fmt.Printf("e2e: %v executions, %v completed, %v nodes, %v different nodes, mean duration %.0f ms\n", row[0], row[1], row[2], nodes[0], mean)
}

// checkLog counts the execution events by a plain consumer, holds them to versions and partitions,
// and the nodes' order to the rows of the file.
func checkLog(t *testing.T, s *stack, path string) {
	t.Helper()
	records := s.records(topics.Events("fs", "execution"))
	if len(records) != receiptRecords {
		t.Errorf("execution records with a value: got %d, want %d", len(records), receiptRecords)
	}
	last := map[string]int{}
	for _, rec := range records {
		text, _ := event.HeaderValue(rec.Headers, event.HeaderSequence)
		version, err := strconv.Atoi(string(text))
		if err != nil || version != last[string(rec.Key)]+1 {
			t.Fatalf("stream %s: version %q after %d", rec.Key, text, last[string(rec.Key)])
		}
		last[string(rec.Key)] = version
		if want := topics.Partition(rec.Key, 12); rec.Partition != want {
			t.Fatalf("stream %s is on partition %d, want %d", rec.Key, rec.Partition, want)
		}
	}
	for id, rows := range rowsOfCases(t, path) {
		if got := last["receipt-phase:"+id]; got != rows+2 {
			t.Errorf("case %s: got %d events, want its %d rows, a start and an end", id, got, rows)
		}
	}
	fmt.Printf("e2e: %d execution records with a value, %d streams without a gap, each on its partition\n", len(records), len(last))
}

func rowsOfCases(t *testing.T, path string) map[string]int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := map[string]int{}
	in := csv.NewReader(f)
	for line := 0; ; line++ {
		fields, err := in.Read()
		if err == io.EOF {
			return rows
		}
		if err != nil {
			t.Fatal(err)
		}
		if line > 0 {
			rows[fields[0]]++
		}
	}
}
