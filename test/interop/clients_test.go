package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
)

// client is one library in one language.
type client struct {
	name        string
	partitioner string // librdkafka's property; "" means the library's own
	reroutes    bool   // its partitioner is not Foldstream's
	command     func(t *testing.T) []string
}

func clients() []client {
	return []client{
		{name: "confluent-kafka", reroutes: true, command: pythonClient("confluent_client.py")},
		{name: "confluent-kafka-murmur2", partitioner: "murmur2_random", command: pythonClient("confluent_client.py")},
		{name: "aiokafka", command: pythonClient("aiokafka_client.py")},
		{name: "kafkajs", command: func(t *testing.T) []string {
			program, scripts := node(t, "clients/javascript")
			return []string{program, filepath.Join(scripts, "kafkajs_client.mjs")}
		}},
		{name: "java", command: func(t *testing.T) []string {
			program, classPath := java(t, "clients/java/pom.xml")
			return []string{program, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classPath, "clients/java/Client.java"}
		}},
	}
}

func pythonClient(script string) func(t *testing.T) []string {
	return func(t *testing.T) []string {
		return []string{python(t, "clients/python/requirements.txt"), filepath.Join("clients/python", script)}
	}
}

// result is what a client reports.
type result struct {
	Replies map[string]seen `json:"replies"` // by the step's name
	Events  []seen          `json:"events"`
}

// TestAnyLanguage is one stack, and all that outsiders do with it.
func TestAnyLanguage(t *testing.T) {
	w := newWorld(t, "")
	t.Run("clients", func(t *testing.T) { runClients(t, w) })
	t.Run("examples", func(t *testing.T) { runExamples(t, w) })
	t.Run("schemathesis", func(t *testing.T) { runSchemathesis(t, w) })
}

func runClients(t *testing.T, w *world) {
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			runClient(t, w, c)
		})
	}
}

func runClient(t *testing.T, w *world, c client) {
	p := newPlan(t, w, c)
	got := c.run(t, p)
	for _, s := range p.Steps {
		reply, answered := got.Replies[s.Name]
		if answered != s.Answered {
			t.Errorf("step %s: got an answer: %t, want %t", s.Name, answered, s.Answered)
		}
		if answered {
			checkReply(t, w, s, reply)
		}
	}
	checkReferences(t, got)

	reader := &reader{t: t, w: w}
	truth := reader.events(p.Prefix, p.Topics...)
	checkEvents(t, truth, partitionCounts(t, w, p.Topics))
	checkSame(t, got.Events, truth)
	checkStory(t, p, truth)
	if rerouted := slices.ContainsFunc(truth, func(e seen) bool { return e.Headers[event.HeaderOrigin] != "" }); rerouted != c.reroutes {
		t.Errorf("events of requests that were re-routed: got %t, want %t", rerouted, c.reroutes)
	}
}

// run hands the plan to the client and reads what it reports.
func (c client) run(t *testing.T, p *plan) result {
	t.Helper()
	command := c.command(t)
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), clientMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Env = bytes.NewReader(text), append(environment(), "PYTHONDONTWRITEBYTECODE=1")
	var got result
	if err := json.Unmarshal([]byte(output(t, cmd)), &got); err != nil {
		t.Fatalf("read what the client reports: %v", err)
	}
	return got
}

func checkReply(t *testing.T, w *world, s step, reply seen) {
	t.Helper()
	number := func(name string) int64 { n, _ := reply.Data[name].(float64); return int64(n) }
	text := func(name string) string { value, _ := reply.Data[name].(string); return value }
	got := want{
		outcome: text("outcome"), first: number("firstVersion"), last: number("lastVersion"),
		actual: number("actualVersion"), code: text("code"),
	}
	if got != s.want {
		t.Errorf("step %s: got %+v (%s %v), want %+v", s.Name, got, text("message"), reply.Data["errors"], s.want)
	}
	if stream := text("streamId"); stream != s.Key {
		t.Errorf("step %s: got the stream %q, want %q", s.Name, stream, s.Key)
	}
	if reply.Key != s.replyTo {
		t.Errorf("step %s: got the answer under the key %q, want %q", s.Name, reply.Key, s.replyTo)
	}
	if want := topics.Partition([]byte(s.replyTo), partitionCounts(t, w, []string{reply.Topic})[reply.Topic]); reply.Partition != want {
		t.Errorf("step %s: got the answer on partition %d, want %d", s.Name, reply.Partition, want)
	}
	request := s.Headers[event.HeaderID]
	for name, want := range map[string]string{
		event.HeaderType: "foldstream.Reply", event.HeaderCausationID: request, event.HeaderCorrelationID: request,
		event.HeaderAttempt: s.Headers[event.HeaderAttempt], event.HeaderID: replyID(request),
	} {
		if got := reply.Headers[name]; got != want {
			t.Errorf("step %s: got the answer's header %s %q, want %q", s.Name, name, got, want)
		}
	}
}

// replyID is the id of an answer as docs/wire-format.md derives it, written out anew.
func replyID(request string) string {
	space := uuid.MustParse("6f1d3c1e-5b0a-5c8e-9a53-0f7f6a1f2c11")
	return uuid.NewSHA1(space, []byte(request+"\x00reply")).String()
}

// checkReferences finds the event that each acceptance points to among those that the client read.
func checkReferences(t *testing.T, got result) {
	t.Helper()
	for name, reply := range got.Replies {
		if reply.Data["offset"].(float64) < 0 {
			continue
		}
		found := slices.ContainsFunc(got.Events, func(e seen) bool {
			return strings.HasSuffix(e.Topic, "."+reply.Data["category"].(string)+".events") && e.Key == reply.Data["streamId"] &&
				float64(e.Partition) == reply.Data["partition"] && float64(e.Offset) == reply.Data["offset"]
		})
		if !found {
			t.Errorf("step %s: the answer points to partition %v, offset %v, where no event of %v stands",
				name, reply.Data["partition"], reply.Data["offset"], reply.Data["streamId"])
		}
	}
}

// checkSame compares what a client read with what the Go client reads.
func checkSame(t *testing.T, got, want []seen) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("events: the client read %d, the log has %d", len(got), len(want))
	}
	byPlace := map[string]seen{}
	for _, e := range got {
		byPlace[e.place()] = e
	}
	for _, e := range want {
		if !reflect.DeepEqual(byPlace[e.place()], e) {
			t.Errorf("event at %s: the client read\n%+v, the log has\n%+v", e.place(), byPlace[e.place()], e)
		}
	}
}

// checkStory says what the plan must leave in the log.
func checkStory(t *testing.T, p *plan, events []seen) {
	t.Helper()
	streams := map[string][]string{}
	for _, e := range events {
		key := strings.TrimPrefix(e.Key, p.Prefix)
		streams[key] = append(streams[key], e.Headers[event.HeaderType])
		if e.Headers[carried] != p.Group {
			t.Errorf("event at %s: got the header %s %q, want the request's %q", e.place(), carried, e.Headers[carried], p.Group)
		}
		if key != "invoice-0" && strings.HasPrefix(key, "invoice-") && e.Headers[event.HeaderTime] != someTimeText {
			t.Errorf("event at %s: got the time %s, want %s", e.place(), e.Headers[event.HeaderTime], someTimeText)
		}
		if e.Headers[event.HeaderType] == "invoice.Issued" && (e.Data["customer"] != "Zoë" || e.Data["dueAt"] != float64(someTime)) {
			t.Errorf("event at %s: got %v, want the customer Zoë and dueAt %d", e.place(), e.Data, int64(someTime))
		}
	}
	want := map[string][]string{
		"invoice-0": {"invoice.Issued", "invoice.Paid", "invoice.Paid", "invoice.Paid"},
		"order-0":   {"order.Placed", "order.Cancelled"}, "order-2": {"order.Placed"},
	}
	for i := 1; i < invoices; i++ {
		want["invoice-"+string(rune('0'+i))] = []string{"invoice.Issued"}
	}
	if !reflect.DeepEqual(streams, want) {
		t.Errorf("types of the events by stream: got %v, want %v", streams, want)
	}
}

func partitionCounts(t *testing.T, w *world, names []string) map[string]int32 {
	t.Helper()
	listed, err := kadm.NewClient(w.kafka(t)).ListTopics(t.Context(), names...)
	if err != nil {
		t.Fatalf("list topics: %v", err)
	}
	counts := map[string]int32{}
	for _, name := range names {
		counts[name] = int32(len(listed[name].Partitions))
	}
	return counts
}
