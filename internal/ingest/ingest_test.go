package ingest

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

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

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

const (
	idAppend = iota + 1
	idReply
	idSnapshot
	idCheckpoint
	idNoted
)

func registry(t *testing.T) *codec.StaticReader {
	t.Helper()
	one := func(id int32, typ string, version int, kind event.Kind, text string) *codec.Registered {
		reg, err := codec.RegisterText(id, typ, version, kind, text)
		if err != nil {
			t.Fatal(err)
		}
		return reg
	}
	system := func(name string) string {
		text, err := avro.Files.ReadFile("foldstream/" + name + ".avsc")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	return codec.NewStaticReader(
		one(idAppend, codec.TypeAppend, 2, event.KindSystem, system("Append.v2")),
		one(idReply, codec.TypeReply, 1, event.KindSystem, system("Reply.v1")),
		one(idSnapshot, snapshot.TypeSnapshot, 1, event.KindSystem, system("Snapshot.v1")),
		one(idCheckpoint, snapshot.TypeCheckpoint, 1, event.KindSystem, system("Checkpoint.v1")),
		one(idNoted, "note.Noted", 1, event.KindEvent, `{"type":"record","namespace":"note","name":"Noted","fs.kind":"event","fields":[{"name":"text","type":"string"}]}`),
	)
}

// notes is a project with a category in append mode and one of somebody else's.
func notes() []Category {
	return []Category{{Name: "note", Mode: topics.ModeAppend}, {Name: "mailer", Mode: topics.ModeExternal}}
}

func config(t *testing.T, k *testkit.Kafka, namespace string) Config {
	t.Helper()
	return Config{
		Namespace: namespace, Categories: notes(), Kafka: []kgo.Opt{kgo.SeedBrokers(k.Seeds()...)},
		Registry: registry(t), Logger: slog.New(slog.DiscardHandler),
	}
}

func TestCategoriesOfAProjectBecomeTheEngines(t *testing.T) {
	def := &decider.Definition{Category: "order"}
	for name, c := range map[string]struct {
		categories []Category
		want       []string // names
		faults     []string
	}{
		"external ones have readers of their own": {categories: notes(), want: []string{"note"}},
		"a decider where there must be one":       {categories: []Category{{Name: "order", Mode: topics.ModeDecider, Decider: def}}, want: []string{"order"}},
		"a decider is missing, another too many": {
			categories: []Category{{Name: "order", Mode: topics.ModeDecider}, {Name: "note", Mode: topics.ModeAppend, Decider: def}},
			faults:     []string{"category order is in decider mode", "category note is in append mode"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Config{Categories: c.categories}.engineCategories()
			for _, fault := range c.faults {
				if err == nil || !strings.Contains(err.Error(), fault) {
					t.Errorf("error %v does not say %q", err, fault)
				}
			}
			if len(c.faults) > 0 {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, category := range got {
				names = append(names, category.Name)
			}
			if strings.Join(names, " ") != strings.Join(c.want, " ") {
				t.Errorf("categories: got %v, want %v", names, c.want)
			}
		})
	}
}

func TestSettingsOfACategoryReachTheEngine(t *testing.T) {
	def := &decider.Definition{Category: "order"}
	got, err := Config{Categories: []Category{{
		Name: "order", Mode: topics.ModeDecider, Decider: def, AllowAppends: true, DedupeIDs: 7, DedupeAge: time.Minute,
	}}}.engineCategories()
	if err != nil {
		t.Fatal(err)
	}
	if c := got[0]; c.Decider != def || !c.AllowAppends || c.DedupeIDsMax != 7 || c.DedupeAgeMax != time.Minute {
		t.Errorf("category: got %+v, want all that was set", c)
	}
}

func TestMissingTopicsAreNamed(t *testing.T) {
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			ns := testkit.Namespace(t)
			_, err := New(t.Context(), config(t, k, ns))
			var missing *topics.MissingError
			if !errors.As(err, &missing) || !strings.Contains(err.Error(), topics.Events(ns, "note")) {
				t.Errorf("New: got %v, want a MissingError that names %s", err, topics.Events(ns, "note"))
			}
		})
	}
}

func TestAServiceAppendsUntilItIsStopped(t *testing.T) {
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			ns := testkit.Namespace(t)
			client := k.Client(t, kgo.ConsumeTopics(topics.Events(ns, "note")), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			layout := topics.Layout{Namespace: ns, ReplicationFactor: 1, DefaultPartitions: 1, Categories: []topics.Category{
				{Name: "note", Mode: topics.ModeAppend}, {Name: "mailer", Mode: topics.ModeExternal},
			}}
			plan, err := topics.MakePlan(t.Context(), kadm.NewClient(client), layout.Specs())
			if err == nil {
				_, err = topics.Apply(t.Context(), kadm.NewClient(client), plan)
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err := New(t.Context(), config(t, k, ns))
			if err != nil {
				t.Fatal(err)
			}
			if s.Ready() == nil {
				t.Error("ready before it runs")
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()

			note := &kgo.Record{Topic: topics.Commands(ns, "note"), Key: []byte("n"), Value: []byte{0, 0, 0, 0, idNoted, 4, 'h', 'i'}, Headers: []event.Header{
				{Key: event.HeaderID, Value: []byte("request")}, {Key: event.HeaderType, Value: []byte("note.Noted")},
			}}
			if err := client.ProduceSync(t.Context(), note).FirstErr(); err != nil {
				t.Fatal(err)
			}
			wait, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			for found := false; !found; {
				fetches := client.PollFetches(wait)
				if err := fetches.Err0(); err != nil {
					t.Fatalf("waiting for the event: %v", err)
				}
				fetches.EachRecord(func(rec *kgo.Record) {
					found = found || (string(rec.Key) == "n" && event.Control(rec.Headers) == "" && string(rec.Value) == string(note.Value))
				})
			}
			if err := s.Ready(); err != nil {
				t.Errorf("Ready: %v", err)
			}
			stop()
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-wait.Done():
				t.Error("Run does not end")
			}
		})
	}
}
