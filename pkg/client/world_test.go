package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/schemas/avro"
)

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }

type noted struct {
	Text string `avro:"text"`
}

var notedDef = codec.TypeDef{Name: "note.Noted", Version: 1, Kind: event.KindEvent, GoType: reflect.TypeFor[noted]()}

const notedSchema = `{"type": "record", "namespace": "note", "name": "Noted", "fs.kind": "event", "fields": [{"name": "text", "type": "string"}]}`

// Ids of the schemas of these tests.
const (
	idAppend = iota + 1
	idReply
	idBatch
	idNoted
)

func schemas(t testing.TB) *codec.StaticReader {
	t.Helper()
	var all []*codec.Registered
	for _, s := range []struct {
		id      int32
		typ     string
		version int
		file    string
	}{{idAppend, codec.TypeAppend, 2, "Append.v2"}, {idReply, codec.TypeReply, 1, "Reply.v1"}, {idBatch, codec.TypeAppendBatch, 1, "AppendBatch.v1"}} {
		text, err := fs.ReadFile(avro.Files, "foldstream/"+s.file+".avsc")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, register(t, s.id, s.typ, s.version, string(text)))
	}
	return codec.NewStaticReader(append(all, register(t, idNoted, "note.Noted", 1, notedSchema))...)
}

func register(t testing.TB, id int32, typ string, version int, text string) *codec.Registered {
	t.Helper()
	reg, err := codec.RegisterText(id, typ, version, "", text)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

var stream = event.StreamID{Category: "note", ID: "a/b ü"}

// taken is one request as a server got it.
type taken struct {
	method, path, query string
	header              http.Header
	body                string
}

// server answers by a function and remembers what it was asked.
type server struct {
	*httptest.Server
	mu   sync.Mutex
	seen []taken
}

func newServer(t *testing.T, answer func(n int, r taken) (status int, header map[string]string, body string)) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		one := taken{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header, string(body)}
		s.mu.Lock()
		s.seen = append(s.seen, one)
		n := len(s.seen)
		s.mu.Unlock()
		status, header, text := answer(n, one)
		for name, value := range header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) requests() []taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]taken{}, s.seen...)
}

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	if cfg.Registry == nil {
		cfg.Registry = schemas(t)
	}
	if cfg.Types == nil {
		cfg.Types = []codec.TypeDef{notedDef}
	}
	if cfg.Retry == (Retry{}) {
		cfg.Retry = Retry{Wait: time.Millisecond, WaitMax: 2 * time.Millisecond}
	}
	c, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func accepted(id string) string {
	return fmt.Sprintf(`{"status": 201, "outcome": "accepted", "commandId": %q, "firstVersion": 1, "lastVersion": 1, "partition": 2, "offset": 5}`, id)
}

func results(all ...string) string { return `{"results": [` + strings.Join(all, ",") + `]}` }

// decodeBatch reads an AppendBatch as the server would.
func decodeBatch(t *testing.T, value string) codec.AppendBatch {
	t.Helper()
	c := codec.New(schemas(t), codec.Config{})
	b, err := c.Bind(t.Context(), codec.AppendBatchDef())
	if err != nil {
		t.Fatal(err)
	}
	payload, err := c.Inspect(t.Context(), codec.TypeAppendBatch, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	batch, err := b.Decode(payload)
	if err != nil {
		t.Fatal(err)
	}
	return batch.(codec.AppendBatch)
}

func asMap(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return m
}

func typeOf(reg *codec.Registered, err error) (string, int32, error) {
	if err != nil {
		return "", 0, err
	}
	return reg.Type, reg.ID, nil
}

func isUnknownSchema(err error) bool { return errors.Is(err, codec.ErrUnknownSchema) }
