package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/ingest"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/schemas/avro"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// site is a namespace with topics and schemas, on which instances of ingest with their API run.
// Its categories are note (append), tally (decided, and takes appends) and mailer (external).
type site struct {
	t          testing.TB
	kafka      *testkit.Kafka
	ns         string
	partitions int32
	registry   *codec.StaticReader
}

const idNoted = 10

// siteRegistry has the schemas of a site.
func siteRegistry(t testing.TB) *codec.StaticReader {
	t.Helper()
	one := func(id int32, typ string, version int, kind event.Kind, text string) *codec.Registered {
		reg, err := codec.RegisterText(id, typ, version, kind, text)
		if err != nil {
			t.Fatal(err)
		}
		return reg
	}
	system := func(file string) string {
		text, err := avro.Files.ReadFile("foldstream/" + file + ".avsc")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	record := func(typ, kind, fields string) string {
		namespace, name, _ := strings.Cut(typ, ".")
		return `{"type":"record","namespace":"` + namespace + `","name":"` + name + `","fs.kind":"` + kind + `","fields":[` + fields + `]}`
	}
	const amount, nested = `{"name":"amount","type":"long"},{"name":"note","type":"string","default":""}`,
		`{"name":"text","type":"string"},{"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[{"name":"price","type":"long"}]}},"default":[]}`
	return codec.NewStaticReader(
		one(1, codec.TypeAppend, 2, event.KindSystem, system("Append.v2")),
		one(2, codec.TypeReply, 1, event.KindSystem, system("Reply.v1")),
		one(3, snapshot.TypeSnapshot, 1, event.KindSystem, system("Snapshot.v1")),
		one(4, snapshot.TypeCheckpoint, 1, event.KindSystem, system("Checkpoint.v1")),
		one(5, codec.TypeAppendBatch, 1, event.KindSystem, system("AppendBatch.v1")),
		one(idNoted, "note.Noted", 1, event.KindEvent, record("note.Noted", "event", nested)),
		one(11, "tally.Add", 1, event.KindCommand, record("tally.Add", "command", amount)),
		one(12, "tally.Added", 1, event.KindEvent, record("tally.Added", "event", amount)),
		one(13, "tally.State", 1, event.KindState, record("tally.State", "state", `{"name":"sum","type":"long"}`)),
	)
}

// tally sums; it rejects what is below zero, and does nothing for zero.
type tally struct {
	Sum int64 `avro:"sum"`
}

type (
	addTally struct {
		Amount int64  `avro:"amount"`
		Note   string `avro:"note"`
	}
	addedTally struct {
		Amount int64  `avro:"amount"`
		Note   string `avro:"note"`
	}
)

var tallies = decider.Spec[tally]{
	Category: "tally", StateVersion: 1,
	Types: decider.Types{decider.Command[addTally]("tally.Add", 1), decider.Event[addedTally]("tally.Added", 1)},
	Decide: func(_ tally, c decider.Message) (decider.Decision, error) {
		add := c.Data.(addTally)
		switch {
		case add.Amount < 0:
			return decider.Reject("negative", "a tally only grows")
		case add.Amount == 0:
			return decider.Emit()
		}
		return decider.Emit(addedTally(add))
	},
	Evolve: func(s tally, e decider.Message) tally { return tally{s.Sum + e.Data.(addedTally).Amount} },
}

func newSite(t testing.TB, k *testkit.Kafka, partitions int32) *site {
	t.Helper()
	s := &site{t: t, kafka: k, ns: testkit.Namespace(t), partitions: partitions, registry: siteRegistry(t)}
	layout := topics.Layout{Namespace: s.ns, ReplicationFactor: 1, DefaultPartitions: partitions, Categories: []topics.Category{
		{Name: "note", Mode: topics.ModeAppend}, {Name: "tally", Mode: topics.ModeDecider}, {Name: "mailer", Mode: topics.ModeExternal},
	}}
	adm := kadm.NewClient(k.Client(t))
	plan, err := topics.MakePlan(t.Context(), adm, layout.Specs())
	if err == nil {
		_, err = topics.Apply(t.Context(), adm, plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) opts() []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(s.kafka.Seeds()...)} }

func siteCategories() []Category {
	return []Category{{"note", topics.ModeAppend}, {"tally", topics.ModeDecider}, {"mailer", topics.ModeExternal}}
}

// instance is one process of ingest with its API.
type instance struct {
	site   *site
	url    string
	writer *ingest.Service
	server *service.HTTPServer
	api    *API
	stop   func() error // drains in the order of internal/app; may be called twice
}

// settings change what an instance is made of.
type settings struct {
	gateway func(*gateway.Config)
	api     func(*Config)
	http    func(*service.HTTPConfig)
}

// start runs an instance. It need not own anything yet.
func (s *site) start(change ...settings) *instance {
	s.t.Helper()
	i := &instance{site: s}
	definition := tallies.Definition()
	cdc := codec.New(s.registry, codec.Config{})
	var err error
	i.writer, err = ingest.New(s.t.Context(), ingest.Config{
		Namespace: s.ns, Kafka: s.opts(), Registry: s.registry, Logger: silent(), SessionTimeout: 3 * time.Second,
		Categories: []ingest.Category{
			{Name: "note", Mode: topics.ModeAppend}, {Name: "tally", Mode: topics.ModeDecider, Decider: &definition, AllowAppends: true}, {Name: "mailer", Mode: topics.ModeExternal},
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	gw := gateway.Config{Namespace: s.ns, Categories: []string{"note", "tally"}, Submit: i.writer.Submit, Kafka: s.opts(), Codec: cdc, Logger: silent()}
	cfg := Config{Namespace: s.ns, Categories: siteCategories(), Codec: cdc, Registry: s.registry, Logger: silent()}
	httpConfig := service.DefaultConfig().HTTP
	httpConfig.Addr = "127.0.0.1:0"
	for _, c := range change {
		if c.gateway != nil {
			c.gateway(&gw)
		}
		if c.api != nil {
			c.api(&cfg)
		}
		if c.http != nil {
			c.http(&httpConfig)
		}
	}
	way, err := gateway.New(s.t.Context(), gw)
	if err != nil {
		s.t.Fatal(err)
	}
	if cfg.Gateway == nil {
		cfg.Gateway = way
	}
	i.api, i.server = serveAPI(s.t, cfg, httpConfig)
	i.url = i.server.URL()
	i.run(way)
	return i
}

func serveAPI(t testing.TB, cfg Config, httpConfig service.HTTPConfig) (*API, *service.HTTPServer) {
	t.Helper()
	api, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server, err := service.NewHTTPServer(httpConfig, service.NewMetricsRegistry(), silent())
	if err != nil {
		t.Fatal(err)
	}
	server.Handle("/v1/", api)
	server.Handle("/openapi.json", api)
	server.OnShutdown(api.Drain)
	return api, server
}

// run serves, and makes stop, which drains as a process does: first the writer, then HTTP, last the
// gateway.
func (i *instance) run(way *gateway.Gateway) {
	writing, stopWriting := context.WithCancel(context.Background())
	serving, stopServing := context.WithCancel(context.Background())
	passing, stopPassing := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	go func() {
		err := i.writer.Run(writing)
		stopServing()
		ended <- err
	}()
	go func() {
		err := i.server.Run(serving)
		stopPassing()
		ended <- err
	}()
	go func() { ended <- way.Run(passing) }()
	var err error
	stopped := false
	i.stop = func() error {
		if !stopped {
			stopped = true
			stopWriting()
			err = errors.Join(<-ended, <-ended, <-ended)
		}
		return err
	}
	i.site.t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := i.stop(); err != nil {
			i.site.t.Errorf("stop an instance: %v", err)
		}
	})
}

// serving waits until the instances together own every partition of both categories.
func (s *site) serving(all ...*instance) *site {
	s.t.Helper()
	testkit.Await(s.t, "all partitions are served", time.Minute, func(ctx context.Context) bool {
		for _, i := range all {
			if i.writer.Ready() != nil {
				return false
			}
		}
		for _, category := range []string{"note", "tally"} {
			for p := range s.partitions {
				if !s.owned(ctx, category, s.streamOn(p, 0), all) {
					return false
				}
			}
		}
		return true
	})
	return s
}

// owned says whether one of the instances decides requests of a stream, by one that changes nothing.
func (s *site) owned(ctx context.Context, category, stream string, all []*instance) bool {
	for _, i := range all {
		_, err := i.writer.Submit(ctx, engine.Submission{Category: category, StreamID: stream, Request: event.Request{ID: "probe", Type: "x"}})
		if !errors.Is(err, engine.ErrNotOwner) {
			return true
		}
	}
	return false
}

// streamOn names the nth stream on a partition.
func (s *site) streamOn(partition int32, n int) string {
	for i := 0; ; i++ {
		id := "s" + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		if topics.Partition([]byte(id), s.partitions) != partition {
			continue
		}
		if n--; n < 0 {
			return id
		}
	}
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// answered is what a request got.
type answered struct {
	status int
	header http.Header
	text   string
	body   map[string]any // nil when it is no JSON object
}

func (a answered) code() string { return a.string("code") }

func (a answered) string(name string) string {
	text, _ := a.body[name].(string)
	return text
}

func (a answered) number(name string) int64 {
	n, is := a.body[name].(float64)
	if !is {
		return -99
	}
	return int64(n)
}

// faults lists the locations of a problem.
func (a answered) faults() []string {
	var all []string
	list, _ := a.body["errors"].([]any)
	for _, f := range list {
		location, _ := f.(map[string]any)["location"].(string)
		all = append(all, location)
	}
	return all
}

// call sends a request; headers are names and values in turn.
func call(t testing.TB, method, target, text string, headers ...string) answered {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if text != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	got, err := exchange(request)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func exchange(request *http.Request) (answered, error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answered{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return answered{}, err
	}
	a := answered{status: response.StatusCode, header: response.Header, text: string(text)}
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/") {
		_ = json.NewDecoder(bytes.NewReader(text)).Decode(&a.body)
	}
	return a, nil
}

// appendTo sends an append.
func (i *instance) appendTo(category, stream, text string, headers ...string) answered {
	i.site.t.Helper()
	return call(i.site.t, http.MethodPost, i.url+"/v1/streams/"+category+"/"+url.PathEscape(stream)+"/events", text, headers...)
}

// command sends a command.
func (i *instance) command(stream, text string, headers ...string) answered {
	i.site.t.Helper()
	return call(i.site.t, http.MethodPost, i.url+"/v1/commands/tally/"+url.PathEscape(stream), text, headers...)
}

// log reads all events of a category, by stream.
func (s *site) log(category string) map[string][]event.Recorded {
	s.t.Helper()
	topic := topics.Events(s.ns, category)
	client := s.kafka.Client(s.t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(s.t.Context(), topic)
	if err != nil {
		s.t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	all := map[string][]event.Recorded{}
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			s.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset >= left[r.Partition]-1 {
				delete(left, r.Partition)
			}
			if event.Control(r.Headers) != "" {
				return
			}
			e, err := event.ParseRecorded(category, r)
			if err != nil {
				s.t.Fatal(err)
			}
			all[e.Stream.ID] = append(all[e.Stream.ID], e)
		})
	}
	return all
}

// onBrokers runs a test on each broker.
func onBrokers(t *testing.T, test func(t *testing.T, k *testkit.Kafka)) {
	t.Helper()
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
}

// fakeGateway answers by a function.
type fakeGateway func(ctx context.Context, r gateway.Request) (engine.Outcome, error)

// Do implements Gateway.
func (f fakeGateway) Do(ctx context.Context, r gateway.Request) (engine.Outcome, error) {
	return f(ctx, r)
}

// loneConfig is that of an API without a broker: what passes its checks goes to a function.
func loneConfig(t testing.TB, do fakeGateway) Config {
	t.Helper()
	reg := siteRegistry(t)
	return Config{Namespace: "test", Categories: siteCategories(), Codec: codec.New(reg, codec.Config{}), Registry: reg, Gateway: do}
}

// lone is an API without a broker and without a server.
func lone(t testing.TB, do fakeGateway, change ...func(*Config)) *API {
	t.Helper()
	cfg := loneConfig(t, do)
	for _, c := range change {
		c(&cfg)
	}
	api, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// words joins values by spaces.
func words(values ...any) string { return strings.TrimSuffix(fmt.Sprintln(values...), "\n") }

// accepting accepts all.
func accepting(context.Context, gateway.Request) (engine.Outcome, error) {
	return engine.Outcome{Kind: engine.OutcomeAccepted, First: 1, Last: 1}, nil
}
