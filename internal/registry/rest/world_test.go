package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }

const (
	fieldID     = `{"name": "id", "type": "string"}`
	fieldAmount = `{"name": "amount", "type": "long", "default": 0}`
)

func record(name string, fields ...string) string {
	return fmt.Sprintf(`{"type": "record", "name": %q, "fs.kind": "event", "fields": [%s]}`, name, strings.Join(fields, ", "))
}

// mapped is a record of somebody else's name.
func mapped(fields ...string) string {
	return strings.Replace(record("com.acme.shop.OrderPaid", fields...), "{", `{"fs.type": "order.Paid", `, 1)
}

// body of a request with a schema.
func body(schema string) string {
	text, _ := json.Marshal(map[string]string{"schema": schema})
	return string(text)
}

// topicRegistry is a registry over a topic of its own.
func topicRegistry(t *testing.T) *registry.Topic {
	t.Helper()
	k := testkit.Kafkas(t)[0]
	ns := testkit.Namespace(t)
	specs := slices.DeleteFunc(topics.Layout{Namespace: ns}.Specs(), func(s topics.Spec) bool { return s.Role != topics.RoleSchemas })
	adm := kadm.NewClient(k.Client(t))
	plan, err := topics.MakePlan(t.Context(), adm, specs)
	if err == nil {
		_, err = topics.Apply(t.Context(), adm, plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := registry.NewTopic(registry.TopicConfig{Opts: []kgo.Opt{kgo.SeedBrokers(k.Seeds()...)}, Namespace: ns, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// shop is a registry with order.Placed in two versions (ids 2 and 3) and the mapped order.Paid
// (id 1).
func shop(t *testing.T) *registry.Topic {
	t.Helper()
	r := topicRegistry(t)
	store(t, r, "order.Paid", mapped(fieldID))
	store(t, r, "order.Placed", record("order.Placed", fieldID))
	store(t, r, "order.Placed", record("order.Placed", fieldID, fieldAmount))
	return r
}

func store(t *testing.T, r registry.Registry, typ, text string) {
	t.Helper()
	if _, err := r.Register(t.Context(), []registry.Submission{{Type: typ, Kind: event.KindEvent, Text: text}}); err != nil {
		t.Fatal(err)
	}
}

func serve(t *testing.T, cfg Config) *httptest.Server {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	handler, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

func ask(t *testing.T, server *httptest.Server, method, path, body string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", mediaV1)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(text)}
}

// wantFault checks a refusal: its status, its code, and that its message says what is wanted.
func (a answer) wantFault(t *testing.T, status, code int, message string) {
	t.Helper()
	var got struct {
		Code    int    `json:"error_code"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatalf("status %d: the body is no JSON: %v: %s", a.status, err, a.body)
	}
	if a.status != status || got.Code != code || !strings.Contains(got.Message, message) {
		t.Errorf("got status %d, code %d, %q; want status %d, code %d, %q", a.status, got.Code, got.Message, status, code, message)
	}
}

// wantJSON checks a success.
func (a answer) wantJSON(t *testing.T, want string) {
	t.Helper()
	if a.status != http.StatusOK || a.body != want {
		t.Errorf("got status %d and %s; want 200 and %s", a.status, a.body, want)
	}
}

// memory is a registry of fixed content, which counts its lists, or fails.
type memory struct {
	regs  []*codec.Registered
	err   error
	lists atomic.Int64
}

func inMemory(tb testing.TB, texts ...string) *memory {
	tb.Helper()
	m := &memory{}
	count := map[string]int{}
	for i, text := range texts {
		schema, err := codec.Parse(text)
		if err != nil {
			tb.Fatal(err)
		}
		typ, kind := registry.Describe(schema, event.KindEvent)
		count[typ]++
		m.regs = append(m.regs, &codec.Registered{ID: int32(i + 1), Type: typ, Version: count[typ], Kind: kind, Schema: schema})
	}
	return m
}

func (m *memory) find(is func(*codec.Registered) bool) (*codec.Registered, error) {
	for _, reg := range slices.Backward(m.regs) {
		if is(reg) {
			return reg, nil
		}
	}
	return nil, errors.Join(m.err, codec.ErrUnknownSchema)
}

func (m *memory) ByID(_ context.Context, id int32) (*codec.Registered, error) {
	if m.err != nil {
		return nil, m.err
	}
	return m.find(func(r *codec.Registered) bool { return r.ID == id })
}

func (m *memory) ByFingerprint(_ context.Context, f codec.Fingerprint) (*codec.Registered, error) {
	return m.find(func(r *codec.Registered) bool { return r.Schema.Fingerprint() == f })
}

func (m *memory) Latest(_ context.Context, typ string) (*codec.Registered, error) {
	if m.err != nil {
		return nil, m.err
	}
	return m.find(func(r *codec.Registered) bool { return r.Type == typ })
}

func (m *memory) Version(_ context.Context, typ string, v int) (*codec.Registered, error) {
	if m.err != nil {
		return nil, m.err
	}
	return m.find(func(r *codec.Registered) bool { return r.Type == typ && r.Version == v })
}

func (m *memory) Register(context.Context, []registry.Submission) ([]*codec.Registered, error) {
	return nil, errors.Join(m.err, registry.ErrRefused)
}

func (m *memory) List(context.Context) ([]*codec.Registered, error) {
	m.lists.Add(1)
	return m.regs, m.err
}

func (m *memory) Close() {}
