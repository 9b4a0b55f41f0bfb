package client

import (
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestAConfigurationIsCheckedAsAWhole(t *testing.T) {
	t.Parallel()
	kafka := []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")}
	for name, c := range map[string]struct {
		cfg  Config
		says []string
	}{
		"nothing":   {Config{}, []string{"namespace", "URL for HTTP, or Kafka"}},
		"a bad URL": {Config{URL: "localhost:8080"}, []string{"URL"}},
		"numbers": {Config{Namespace: "ns", Kafka: kafka, AnswerTimeout: time.Hour, InFlightMax: -1, BatchMax: 5000, QueueMax: -1, BatchWait: -1, Retry: Retry{Wait: time.Hour, WaitMax: time.Second}},
			[]string{"AnswerTimeout", "InFlightMax", "BatchMax", "QueueMax", "BatchWait", "Retry.Wait"}},
		"a type that stands twice": {Config{Namespace: "ns", Kafka: kafka, Registry: schemas(t), Types: []codec.TypeDef{notedDef, notedDef}}, []string{"note.Noted stands twice"}},
		"a type that is not registered": {Config{Namespace: "ns", Kafka: kafka, Registry: schemas(t), Types: []codec.TypeDef{{Name: "note.Other", Version: 1}}},
			[]string{"note.Other", "not registered"}},
	} {
		_, err := New(t.Context(), c.cfg)
		for _, want := range c.says {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want it to say %q", name, err, want)
			}
		}
	}
}

func TestPausesDoubleUpToTheirMostWithAFifthAtRandom(t *testing.T) {
	t.Parallel()
	r := Retry{}.withDefaults()
	if r.Attempts != 3 {
		t.Errorf("got %d attempts, want 3", r.Attempts)
	}
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 5: 16 * time.Second, 6: 30 * time.Second, 500: 30 * time.Second} {
		for range 50 {
			if got := r.pause(n); got < want || got > want+want/5 {
				t.Errorf("pause %d: got %s, want %s to a fifth more", n, got, want)
			}
		}
	}
	if got := (Retry{Attempts: -1}).withDefaults().Attempts; got != 0 {
		t.Errorf("got %d attempts of a negative number, want none", got)
	}
}
