package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func onTopics(t *testing.T, test func(t *testing.T, k *testkit.Kafka, ns string)) {
	t.Helper()
	t.Parallel()
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			ns := testkit.Namespace(t)
			createSchemasTopic(t, k, ns)
			test(t, k, ns)
		})
	}
}

// counted is a broker of the test's own that counts what a lookup costs.
func counted(t *testing.T, key kmsg.Key) (*testkit.Kafka, *kfake.Cluster, *atomic.Int64) {
	t.Helper()
	cluster := testkit.StartKfake(t)
	var requests atomic.Int64
	cluster.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		requests.Add(1)
		return nil, nil, false
	})
	return testkit.WrapKfake(cluster), cluster, &requests
}

func TestAMissingTopicNamesTheRemedy(t *testing.T) {
	t.Parallel()
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			ns := testkit.Namespace(t)
			r := openTopic(t, k, ns, nil)
			_, err := r.ByID(t.Context(), 1)
			var missing *topics.MissingError
			if !errors.As(err, &missing) || errors.Is(err, codec.ErrBadData) {
				t.Errorf("got %v, want a *topics.MissingError that is no fault of the data", err)
			}
			if _, err := r.Register(t.Context(), []Submission{submission("order", "Placed", 1, fieldID)}); !errors.As(err, &missing) {
				t.Errorf("register: got %v, want a *topics.MissingError", err)
			}
			// Once it is created, the same registry goes on.
			createSchemasTopic(t, k, ns)
			mustRegister(t, r, submission("order", "Placed", 1, fieldID))
		})
	}
}

func TestUnreadableRecordsAreSkippedAndCounted(t *testing.T) {
	onTopics(t, func(t *testing.T, k *testkit.Kafka, ns string) {
		placed := mustRegister(t, openTopic(t, k, ns, nil), submission("order", "Placed", 1, fieldID))[0]
		key, value, err := encodeRow(placed)
		if err != nil {
			t.Fatal(err)
		}
		forge := func(old, new string) []byte { return []byte(strings.Replace(string(value), old, new, 1)) }
		client := k.Client(t)
		bad := []*kgo.Record{
			{Key: []byte("order.Placed/2"), Value: []byte("no JSON")},
			{Key: []byte("order.Placed/2"), Value: nil},
			{Key: []byte("order.Placed/2"), Value: value},                                      // key and row disagree
			{Key: key, Value: forge(`"id":1`, `"id":7`)},                                       // a version has one id
			{Key: []byte("order.Placed/2"), Value: forge(`"version":1`, `"version":2`)},        // an id has one version
			{Key: []byte("order.Placed/0"), Value: forge(`"version":1`, `"version":0`)},        // versions count from 1
			{Key: []byte("order.Paid/1"), Value: forge(`order.Placed`, `order.Paid`)},          // not the schema's type
			{Key: key, Value: forge(placed.Schema.Fingerprint().String(), "0123456789abcdef")}, // not its fingerprint
			{Key: key, Value: forge(`"kind":"event"`, `"kind":"fact"`)},
		}
		for _, rec := range bad {
			rec.Topic = topics.Schemas(ns)
		}
		if err := client.ProduceSync(t.Context(), bad...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		r := openTopic(t, k, ns, nil)
		got, err := r.ByID(t.Context(), placed.ID)
		check(t, "ByID", got, err, placed)
		if got := r.Skipped(); got != int64(len(bad)) {
			t.Errorf("skipped %d records, want %d", got, len(bad))
		}
		if got := listed(t, r, "order"); len(got) != 1 {
			t.Errorf("got schemas %v, want Placed.v1 alone", got)
		}
		// The topic can still be written, and ids go on above what counts.
		if reg := mustRegister(t, r, submission("order", "Paid", 1, fieldID))[0]; reg.ID != placed.ID+1 {
			t.Errorf("got id %d, want %d", reg.ID, placed.ID+1)
		}
	})
}

func TestIDsAreCountedFromOneAcrossRegistrars(t *testing.T) {
	onTopics(t, func(t *testing.T, k *testkit.Kafka, ns string) {
		for i := range int32(3) {
			reg := mustRegister(t, openTopic(t, k, ns, nil), submission("order", fmt.Sprintf("E%d", i), 1, fieldID))[0]
			if reg.ID != i+1 {
				t.Errorf("registration %d: got id %d, want %d", i, reg.ID, i+1)
			}
		}
	})
}

// The topic is written under the claim protocol: a claim, alone, before each batch, and the
// registrar of before is fenced by it.
func TestW1RegistrarsClaimThePartition(t *testing.T) {
	onTopics(t, func(t *testing.T, k *testkit.Kafka, ns string) {
		r := openTopic(t, k, ns, nil)
		mustRegister(t, r, submission("order", "Placed", 1, fieldID))
		mustRegister(t, r, submission("order", "Placed", 1, fieldID)) // is there: no claim
		mustRegister(t, r, submission("order", "Paid", 1, fieldID), submission("order", "Sent", 1, fieldID))
		var got []string
		for _, rec := range readAll(t, k, topics.Schemas(ns), 5) {
			if event.Control(rec.Headers) == event.ControlClaim {
				got = append(got, fmt.Sprintf("claim of epoch %d", rec.ProducerEpoch))
				if len(rec.Key) == 0 || rec.Value == nil {
					t.Error("the claim has no key or no value: a compacted topic would refuse or drop it")
				}
				continue
			}
			got = append(got, fmt.Sprintf("%s of epoch %d", rec.Key, rec.ProducerEpoch))
		}
		want := []string{"claim of epoch 0", "order.Placed/1 of epoch 0", "claim of epoch 1", "order.Paid/1 of epoch 1", "order.Sent/1 of epoch 1"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func readAll(t *testing.T, k *testkit.Kafka, topic string, want int) []*kgo.Record {
	t.Helper()
	client := k.Client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < want {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v after %d records, want %d", topic, err, len(records), want)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// overtaken lets another registrar claim between this one's claim and its append.
type overtaken struct {
	appender.API
	once      *atomic.Bool
	meanwhile func()
}

func (o overtaken) Claim(ctx context.Context, p appender.Partition, info appender.ClaimInfo, last appender.LastClaim, held *event.Claim) (*appender.Writer, error) {
	w, err := o.API.Claim(ctx, p, info, last, held)
	if err == nil && o.once.CompareAndSwap(false, true) {
		o.meanwhile()
	}
	return w, err
}

func TestAFencedRegistrarStartsAgainAndFindsWhatTheOtherDid(t *testing.T) {
	onTopics(t, func(t *testing.T, k *testkit.Kafka, ns string) {
		slow, fast := openTopic(t, k, ns, nil), openTopic(t, k, ns, nil)
		var once atomic.Bool
		var theirs *codec.Registered
		own := slow.newAppender
		slow.newAppender = func() (appender.API, error) {
			api, err := own()
			return overtaken{API: api, once: &once, meanwhile: func() {
				theirs = mustRegister(t, fast, submission("order", "Placed", 1, fieldID))[0]
			}}, err
		}
		got := mustRegister(t, slow, submission("order", "Placed", 1, fieldID), submission("order", "Paid", 1, fieldID))
		if theirs == nil {
			t.Fatal("the other registrar did not come between")
		}
		if got[0].ID != theirs.ID || got[1].ID == theirs.ID {
			t.Errorf("got ids %d and %d, want %d for what the other registered and another for our own", got[0].ID, got[1].ID, theirs.ID)
		}
	})
}

// deaf lets another registrar be faster while this one's reader hears nothing until its claim is
// acknowledged: only reading up to the claim shows what the other did.
type deaf struct {
	appender.API
	tail      *tail
	meanwhile func()
}

func (d deaf) Claim(ctx context.Context, p appender.Partition, info appender.ClaimInfo, last appender.LastClaim, held *event.Claim) (*appender.Writer, error) {
	partition := map[string][]int32{p.Topic: {0}}
	d.tail.client.PauseFetchPartitions(partition)
	d.meanwhile()
	w, err := d.API.Claim(ctx, p, info, last, held)
	time.AfterFunc(50*time.Millisecond, func() { d.tail.client.ResumeFetchPartitions(partition) })
	return w, err
}

func TestARegistrarReadsUpToItsClaimBeforeItGivesIDs(t *testing.T) {
	onTopics(t, func(t *testing.T, k *testkit.Kafka, ns string) {
		slow, fast := openTopic(t, k, ns, nil), openTopic(t, k, ns, nil)
		var theirs *codec.Registered
		own := slow.newAppender
		slow.newAppender = func() (appender.API, error) {
			api, err := own()
			return deaf{API: api, tail: slow.tail, meanwhile: func() {
				theirs = mustRegister(t, fast, submission("order", "Placed", 1, fieldID))[0]
			}}, err
		}
		got := mustRegister(t, slow, submission("order", "Paid", 1, fieldID))[0]
		if got.ID != theirs.ID+1 {
			t.Errorf("got id %d after the other's %d, want the next", got.ID, theirs.ID)
		}
	})
}

// What the other registered may be what ours cannot follow: nothing of ours may then be stored.
func TestAFencedRegistrarChecksAgainstWhatTheOtherDid(t *testing.T) {
	onTopics(t, func(t *testing.T, k *testkit.Kafka, ns string) {
		slow, fast := openTopic(t, k, ns, nil), openTopic(t, k, ns, nil)
		var once atomic.Bool
		own := slow.newAppender
		slow.newAppender = func() (appender.API, error) {
			api, err := own()
			return overtaken{API: api, once: &once, meanwhile: func() {
				mustRegister(t, fast, submission("order", "Placed", 1, `{"name": "id", "type": "long"}`))
			}}, err
		}
		mustRefuse(t, slow, "registered with another text", submission("order", "Placed", 1, fieldID), submission("order", "Paid", 1, fieldID))
		if got := listed(t, slow, "order"); len(got) != 1 {
			t.Errorf("got %v, want the other's Placed.v1 alone", got)
		}
	})
}

func TestPoliciesOfCompatibility(t *testing.T) {
	t.Parallel()
	sum := func(typ string) string {
		return `{"name": "sum", "type": "` + typ + `", "default": ` + map[string]string{"string": `""`, "int": "0"}[typ] + `}`
	}
	for policy, want := range map[Compatibility]string{BackwardTransitive: "against nothing", Backward: "", None: ""} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			k := testkit.WrapKfake(testkit.StartKfake(t))
			createSchemasTopic(t, k, "fs")
			r := openTopic(t, k, "fs", func(c *TopicConfig) { c.Compatibility = policy })
			mustRegister(t, r, submission("order", "Placed", 1, fieldID, sum("string")), submission("order", "Placed", 2, fieldID))
			_, err := r.Register(t.Context(), []Submission{submission("order", "Placed", 3, fieldID, sum("int"))})
			if (err == nil) != (want == "") {
				t.Errorf("a version that reads the last but not the first: got %v", err)
			}
			_, err = r.Register(t.Context(), []Submission{submission("order", "Placed", 0, `{"name": "id", "type": "long"}`)})
			if (err == nil) != (policy == None) {
				t.Errorf("a version that reads none before: got %v", err)
			}
		})
	}
}

func TestKnownAndHopelessLookupsCostNoRequest(t *testing.T) {
	t.Parallel()
	k, _, requests := counted(t, kmsg.ListOffsets)
	createSchemasTopic(t, k, "fs")
	r := openTopic(t, k, "fs", nil)
	reg := mustRegister(t, r, submission("order", "Placed", 1, fieldID), submission("order", "Paid", 1, fieldID))[1]
	before := requests.Load()
	for range 100 {
		if _, err := r.ByID(t.Context(), reg.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Latest(t.Context(), reg.Type); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ByID(t.Context(), -1); !errors.Is(err, codec.ErrUnknownSchema) {
			t.Fatal(err)
		}
	}
	if got := requests.Load() - before; got != 0 {
		t.Errorf("300 lookups of what is known or impossible made %d requests, want none", got)
	}
}

func TestOneWrongIDOverAndOverIsOneRequest(t *testing.T) {
	t.Parallel()
	k, _, requests := counted(t, kmsg.ListOffsets)
	createSchemasTopic(t, k, "fs")
	clock := newClock()
	r := openTopic(t, k, "fs", func(c *TopicConfig) { c.Clock = clock.Now })
	mustRegister(t, r, submission("order", "Placed", 1, fieldID))
	before := requests.Load()
	for range 1000 {
		if _, err := r.ByID(t.Context(), 77777); !errors.Is(err, codec.ErrUnknownSchema) {
			t.Fatal(err)
		}
	}
	if got := requests.Load() - before; got != 1 {
		t.Errorf("1000 lookups of one unknown id made %d requests, want 1", got)
	}
	clock.advance(2 * time.Second)
	if _, err := r.ByID(t.Context(), 77777); !errors.Is(err, codec.ErrUnknownSchema) {
		t.Fatal(err)
	}
	if got := requests.Load() - before; got != 2 {
		t.Errorf("after the memory of it ended: got %d requests, want 2", got)
	}
}

func TestGarbageIDsCannotHammerTheBroker(t *testing.T) {
	t.Parallel()
	k, _, requests := counted(t, kmsg.ListOffsets)
	createSchemasTopic(t, k, "fs")
	clock := newClock()
	r := openTopic(t, k, "fs", func(c *TopicConfig) { c.Clock = clock.Now })
	mustRegister(t, r, submission("order", "Placed", 1, fieldID))
	before := requests.Load()
	for i := range int32(10_000) {
		if _, err := r.ByID(t.Context(), 1000+i); !errors.Is(err, codec.ErrUnknownSchema) {
			t.Fatal(err)
		}
	}
	if got := requests.Load() - before; got > refreshBurst {
		t.Errorf("10,000 garbage ids made %d requests, want at most %d", got, refreshBurst)
	}
	clock.advance(time.Second)
	if _, err := r.ByID(t.Context(), 50_000); !errors.Is(err, codec.ErrUnknownSchema) {
		t.Fatal(err)
	}
	if got := requests.Load() - before; got != refreshBurst+1 {
		t.Errorf("a second later: got %d requests, want %d", got, refreshBurst+1)
	}
}

func TestABrokerThatIsGoneIsNotAnUnknownSchema(t *testing.T) {
	t.Parallel()
	cluster := testkit.StartKfake(t)
	k := testkit.WrapKfake(cluster)
	createSchemasTopic(t, k, "fs")
	r := openTopic(t, k, "fs", func(c *TopicConfig) { c.RefreshTimeout = 300 * time.Millisecond })
	reg := mustRegister(t, r, submission("order", "Placed", 1, fieldID))[0]
	cluster.Close()
	got, err := r.ByID(t.Context(), reg.ID)
	check(t, "ByID of a known schema without a broker", got, err, reg)
	if _, err := r.ByID(t.Context(), 99); err == nil || errors.Is(err, codec.ErrBadData) {
		t.Errorf("ByID of an unknown schema without a broker: got %v, want an error that is no fault of the data", err)
	}
	if _, err := r.Register(t.Context(), []Submission{submission("order", "Placed", 1, fieldID)}); err == nil {
		// It is registered, but that must be shown by the broker.
		t.Error("registered without a broker")
	}
}

func TestARecreatedTopicIsNotReadOnInSilence(t *testing.T) {
	t.Parallel()
	cluster := testkit.StartKfake(t)
	k := testkit.WrapKfake(cluster)
	createSchemasTopic(t, k, "fs")
	r := openTopic(t, k, "fs", func(c *TopicConfig) { c.RefreshTimeout = 2 * time.Second })
	mustRegister(t, r, submission("order", "Placed", 1, fieldID))
	adm := kadm.NewClient(k.Client(t))
	if _, err := adm.DeleteTopics(t.Context(), topics.Schemas("fs")); err != nil {
		t.Fatal(err)
	}
	createSchemasTopic(t, k, "fs")
	if _, err := r.List(t.Context()); err == nil || !strings.Contains(err.Error(), "restart this service") {
		t.Errorf("got %v, want an error that asks for a restart", err)
	}
}

func TestCloseTwiceAndThenUse(t *testing.T) {
	t.Parallel()
	k := testkit.WrapKfake(testkit.StartKfake(t))
	createSchemasTopic(t, k, "fs")
	used, fresh := openTopic(t, k, "fs", nil), openTopic(t, k, "fs", nil)
	reg := mustRegister(t, used, submission("order", "Placed", 1, fieldID))[0]
	for _, r := range []*Topic{used, fresh} {
		r.Close()
		r.Close()
		if _, err := r.ByID(t.Context(), 99); err == nil || errors.Is(err, codec.ErrBadData) {
			t.Errorf("after Close: got %v, want an error that is no fault of the data", err)
		}
	}
	if _, err := used.ByID(t.Context(), reg.ID); err != nil {
		t.Errorf("a known schema after Close: %v", err)
	}
}

func TestTopicConfigNamesAllFaults(t *testing.T) {
	t.Parallel()
	_, err := NewTopic(TopicConfig{Namespace: "Not Good", Compatibility: "FORWARD", AbsentLife: -1})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"Not Good", "FORWARD", "Opts", "AbsentLife"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to name %s", err, want)
		}
	}
}
