package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

const waitMax = 60 * time.Second

// TestShopRunsOnALocalStack is a team's whole day: a stack without services, the program's own
// topics and schemas, its services, commands in, answers and views out, a clean end.
func TestShopRunsOnALocalStack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start("foldstream", "dev", "--services", "none", "--ephemeral").await("endpoints.json")
	w.run("shop", "topics", "apply")
	w.run("shop", "schema", "register")
	shop := w.start("shop", "all", "--log-format", "json")
	w.awaitReady(shop.await(`"addr":"`))
	c := w.client()

	for _, ask := range []struct {
		id, order, want string
		data            any
	}{
		{"c-1", "o-1", "accepted", Place{Customer: "Ada", TotalCents: 300}},
		{"c-1", "o-1", "duplicate", Place{Customer: "Ada", TotalCents: 300}},
		{"c-2", "o-1", "rejected", Place{Customer: "Ada", TotalCents: 5}},
		{"c-3", "o-2", "accepted", Place{Customer: "Ada", TotalCents: 40}},
		{"c-4", "o-1", "accepted", Cancel{Reason: "late"}},
	} {
		if got := c.ask(ask.id, ask.order, ask.data); got.Outcome != ask.want {
			t.Errorf("command %s on %s: got %s (%s %s), want %s", ask.id, ask.order, got.Outcome, got.Code, got.Message, ask.want)
		}
	}

	w.awaitRows("select concat_ws(' ', order_id, customer, total_cents, status, version) from shop.orders order by 1",
		"o-1 Ada 300 cancelled 2", "o-2 Ada 40 open 1")
	w.awaitRows("select concat_ws(' ', customer, orders, total_cents) from shop.customers", "Ada 2 340")
}

// world is one stack and the programs on it.
type world struct {
	t         *testing.T
	bin, data string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, bin: t.TempDir(), data: t.TempDir()}
	for name, pkg := range map[string]string{"foldstream": "github.com/foldstream/foldstream/cmd/foldstream", "shop": "."} {
		out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(w.bin, name), pkg).CombinedOutput()
		if err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return w
}

func (w *world) command(program string, args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(w.bin, program), append(args, "--data-dir", w.data)...)
}

// run runs a tool to its end and returns what it prints.
func (w *world) run(program string, args ...string) []byte {
	w.t.Helper()
	cmd := w.command(program, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("%s %v: %v\n%s", program, args, err, stderr.String())
	}
	return out
}

// process is a program that stays up. When the test ends it gets SIGTERM, and must exit with 0.
type process struct {
	t     *testing.T
	name  string
	lines chan string

	mu  sync.Mutex
	log strings.Builder
}

func (w *world) start(program string, args ...string) *process {
	w.t.Helper()
	p := &process{t: w.t, name: program, lines: make(chan string, 1000)}
	cmd := w.command(program, args...)
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go p.follow(read)
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait(); write.Close() }()
	w.t.Cleanup(func() { p.stop(cmd, exited) })
	return p
}

func (p *process) stop(cmd *exec.Cmd, exited <-chan error) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-exited:
		if err != nil {
			p.t.Errorf("%s after SIGTERM: got %v, want exit code 0\n%s", p.name, err, p.output())
		}
	case <-time.After(waitMax):
		_ = cmd.Process.Kill()
		<-exited
		p.t.Errorf("%s did not end within %s after SIGTERM\n%s", p.name, waitMax, p.output())
	}
}

func (p *process) follow(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		p.mu.Lock()
		p.log.WriteString(lines.Text() + "\n")
		p.mu.Unlock()
		select {
		case p.lines <- lines.Text():
		default: // nobody waits any more
		}
	}
	close(p.lines)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// await returns the first line with this text in it.
func (p *process) await(text string) string {
	p.t.Helper()
	timeout := time.After(waitMax)
	for {
		select {
		case line, open := <-p.lines:
			if !open {
				p.t.Fatalf("%s ended before it printed %q:\n%s", p.name, text, p.output())
			}
			if strings.Contains(line, text) {
				return line
			}
		case <-timeout:
			p.t.Fatalf("%s did not print %q within %s:\n%s", p.name, text, waitMax, p.output())
		}
	}
}

func (w *world) awaitReady(line string) {
	w.t.Helper()
	var served struct{ Addr string }
	if err := json.Unmarshal([]byte(line), &served); err != nil {
		w.t.Fatal(err)
	}
	var last string
	w.until(func() bool {
		answer, err := http.Get("http://" + served.Addr + "/readyz")
		if err != nil {
			last = err.Error()
			return false
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		last = string(body)
		return answer.StatusCode == http.StatusOK
	}, func() string { return "ready; last answer: " + last })
}

func (w *world) awaitRows(query string, want ...string) {
	w.t.Helper()
	var rows []string
	w.until(func() bool {
		conn, err := pgx.Connect(w.t.Context(), w.endpoints().DSN)
		if err != nil {
			rows = []string{err.Error()}
			return false
		}
		defer conn.Close(w.t.Context())
		found, err := conn.Query(w.t.Context(), query)
		if err == nil {
			rows, err = pgx.CollectRows(found, pgx.RowTo[string])
		}
		if err != nil {
			rows = []string{err.Error()}
		}
		return fmt.Sprint(rows) == fmt.Sprint(want)
	}, func() string { return fmt.Sprintf("%s\n got %q\nwant %q", query, rows, want) })
}

// until asks again and again, with a pause, until the time is up.
func (w *world) until(done func() bool, what func() string) {
	w.t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(waitMax)
	for !done() {
		select {
		case <-ticker.C:
		case <-timeout:
			w.t.Fatalf("waited %s for: %s", waitMax, what())
		}
	}
}

type endpoints struct {
	Brokers []string
	DSN     string
}

func (w *world) endpoints() endpoints {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.data, "endpoints.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	var e endpoints
	if err := json.Unmarshal(text, &e); err != nil {
		w.t.Fatal(err)
	}
	return e
}

// client asks by plain Kafka records, as a client in any language would.
type client struct {
	t     *testing.T
	kafka *kgo.Client
	codec *codec.Codec
}

const replyPartition = 0

func (w *world) client() *client {
	w.t.Helper()
	kafka, err := kgo.NewClient(kgo.SeedBrokers(w.endpoints().Brokers...), kgo.ConsumePartitions(
		map[string]map[int32]kgo.Offset{topics.Replies("shop"): {replyPartition: kgo.NewOffset().AtStart()}}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(kafka.Close)
	return &client{t: w.t, kafka: kafka, codec: codec.New(w.registered(), codec.Config{})}
}

// registered is what `schema list` says, with the texts of the files.
func (w *world) registered() *codec.StaticReader {
	w.t.Helper()
	var listed []struct {
		Type, Kind  string
		Version, ID int
	}
	if err := json.Unmarshal(w.run("shop", "schema", "list", "-o", "json"), &listed); err != nil {
		w.t.Fatal(err)
	}
	var all []*codec.Registered
	for _, l := range listed {
		category, name, _ := strings.Cut(l.Type, ".")
		folder := "schemas"
		if category == "foldstream" {
			folder = "../../schemas/avro"
		}
		text, err := os.ReadFile(fmt.Sprintf("%s/%s/%s.v%d.avsc", folder, category, name, l.Version))
		if err != nil {
			w.t.Fatal(err)
		}
		r, err := codec.RegisterText(int32(l.ID), l.Type, l.Version, event.Kind(l.Kind), string(text))
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, r)
	}
	return codec.NewStaticReader(all...)
}

func (c *client) ask(id, order string, data any) codec.Reply {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), waitMax)
	defer cancel()
	def := orderTypes[0]
	if _, cancels := data.(Cancel); cancels {
		def = orderTypes[1]
	}
	binding, err := c.codec.Bind(ctx, def)
	if err != nil {
		c.t.Fatal(err)
	}
	value, err := binding.Append(nil, data)
	if err != nil {
		c.t.Fatal(err)
	}
	record := &kgo.Record{Topic: topics.Commands("shop", "order"), Key: []byte(order), Value: value, Headers: []kgo.RecordHeader{
		{Key: event.HeaderID, Value: []byte(id)},
		{Key: event.HeaderType, Value: []byte(def.Name)},
		{Key: event.HeaderReplyTo, Value: []byte(event.ReplyTo{Topic: topics.Replies("shop"), Partition: replyPartition}.String())},
	}}
	if err := c.kafka.ProduceSync(ctx, record).FirstErr(); err != nil {
		c.t.Fatalf("send command %s: %v", id, err)
	}
	return c.answer(ctx, id)
}

// answer returns the next reply, which is ours: nobody else asks.
func (c *client) answer(ctx context.Context, id string) codec.Reply {
	c.t.Helper()
	fetches := c.kafka.PollRecords(ctx, 1)
	if err := fetches.Err(); err != nil || fetches.NumRecords() != 1 {
		c.t.Fatalf("answer to %s: got %d records and %v, want one", id, fetches.NumRecords(), err)
	}
	payload, err := c.codec.Inspect(ctx, codec.TypeReply, fetches.Records()[0].Value)
	if err != nil {
		c.t.Fatal(err)
	}
	binding, err := c.codec.Bind(ctx, codec.ReplyDef())
	if err != nil {
		c.t.Fatal(err)
	}
	value, err := binding.Decode(payload)
	if err != nil {
		c.t.Fatal(err)
	}
	reply := value.(codec.Reply)
	if reply.RequestID != id {
		c.t.Fatalf("answer: got one to %s, want one to %s", reply.RequestID, id)
	}
	return reply
}
