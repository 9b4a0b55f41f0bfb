package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

// envRegistry names the environment variable with the URL of a Confluent-compatible registry
// that the conformance suite shall run against too. The suite leaves its subjects there.
const envRegistry = "FOLDSTREAM_TEST_SCHEMA_REGISTRY"

// OverHTTP serves a registry by the package rest, which imports this one: the tests outside,
// which may import both, set it (TestMain).
var OverHTTP func(t *testing.T, r Registry) (url string)

// store is one place where schemas are kept; each call opens a registry over it.
type store func(t *testing.T) Registry

// onRegistries runs a test on every implementation and backend, each time with an empty store,
// or, where it is shared with others, with a category of its own.
func onRegistries(t *testing.T, test func(t *testing.T, open store, category string)) {
	t.Helper()
	t.Parallel()
	category := fmt.Sprintf("c%x", rand.Uint64())
	for _, k := range testkit.Kafkas(t) {
		t.Run("topic on "+k.Name, func(t *testing.T) {
			t.Parallel()
			test(t, topicStore(t, k), category)
		})
	}
	for _, k := range testkit.Kafkas(t) {
		t.Run("topic over HTTP on "+k.Name, func(t *testing.T) {
			t.Parallel()
			test(t, confluentStore(OverHTTP(t, topicStore(t, k)(t))), category)
		})
	}
	t.Run("confluent", func(t *testing.T) {
		t.Parallel()
		fake := srfake.New()
		t.Cleanup(fake.Close)
		test(t, confluentStore(fake.URL()), category)
	})
	if url := os.Getenv(envRegistry); url != "" {
		t.Run("confluent by environment", func(t *testing.T) {
			t.Parallel()
			test(t, confluentStore(url), category)
		})
	}
}

func topicStore(t *testing.T, k *testkit.Kafka) store {
	t.Helper()
	ns := testkit.Namespace(t)
	createSchemasTopic(t, k, ns)
	return func(t *testing.T) Registry { return openTopic(t, k, ns, nil) }
}

func createSchemasTopic(t *testing.T, k *testkit.Kafka, ns string) {
	t.Helper()
	specs := slices.DeleteFunc(topics.Layout{Namespace: ns}.Specs(), func(s topics.Spec) bool { return s.Role != topics.RoleSchemas })
	adm := kadm.NewClient(k.Client(t))
	plan, err := topics.MakePlan(t.Context(), adm, specs)
	if err == nil {
		_, err = topics.Apply(t.Context(), adm, plan)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func openTopic(t *testing.T, k *testkit.Kafka, ns string, change func(*TopicConfig)) *Topic {
	t.Helper()
	cfg := TopicConfig{Opts: []kgo.Opt{kgo.SeedBrokers(k.Seeds()...)}, Namespace: ns, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	r, err := NewTopic(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func confluentStore(url string) store {
	return func(t *testing.T) Registry { return openConfluent(t, url, nil) }
}

func openConfluent(t *testing.T, url string, change func(*ConfluentConfig)) *Confluent {
	t.Helper()
	patient := &http.Client{Timeout: time.Minute} // a registry over a broker on a busy machine
	cfg := ConfluentConfig{Opts: []sr.ClientOpt{sr.URLs(url), sr.HTTPClient(patient)}, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	r, err := NewConfluent(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// text of a record of a category; fields in JSON.
func text(category, name string, fields ...string) string {
	return fmt.Sprintf(`{"type": "record", "namespace": %q, "name": %q, "fs.kind": "event", "fields": [%s]}`, category, name, strings.Join(fields, ", "))
}

const (
	fieldID     = `{"name": "id", "type": "string"}`
	fieldAmount = `{"name": "amount", "type": "long", "default": 0}`
)

func submission(category, name string, version int, fields ...string) Submission {
	return Submission{Type: category + "." + name, Version: version, Kind: event.KindEvent, Text: text(category, name, fields...)}
}

func mustRegister(t *testing.T, r Registry, submissions ...Submission) []*codec.Registered {
	t.Helper()
	regs, err := r.Register(t.Context(), submissions)
	if err != nil {
		t.Fatal(err)
	}
	if len(regs) != len(submissions) {
		t.Fatalf("registered %d of %d submissions", len(regs), len(submissions))
	}
	return regs
}

func mustRefuse(t *testing.T, r Registry, want string, submissions ...Submission) error {
	t.Helper()
	regs, err := r.Register(t.Context(), submissions)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v and error %v, want an error with %q", regs, err, want)
	}
	if regs != nil {
		t.Errorf("got registrations %v beside the error", regs)
	}
	return err
}

// listed are the registrations of a category, as "Name.v1".
func listed(t *testing.T, r Registry, category string) []string {
	t.Helper()
	regs, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, reg := range regs {
		if name, ours := strings.CutPrefix(reg.Type, category+"."); ours {
			names = append(names, fmt.Sprintf("%s.v%d", name, reg.Version))
		}
	}
	return names
}

func wantUnknown(t *testing.T, what string, reg *codec.Registered, err error) {
	t.Helper()
	if !errors.Is(err, codec.ErrUnknownSchema) || reg != nil {
		t.Errorf("%s: got %v and error %v, want ErrUnknownSchema", what, reg, err)
	}
}

func TestRegisteredSchemasAreFoundInEveryWay(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		writer := open(t)
		placed := mustRegister(t, writer,
			submission(category, "Placed", 1, fieldID),
			submission(category, "Placed", 2, fieldID, fieldAmount),
			submission(category, "Cancelled", 1, fieldID))
		for _, r := range []Registry{writer, open(t)} {
			for i, want := range placed {
				ctx := t.Context()
				byID, err := r.ByID(ctx, want.ID)
				check(t, fmt.Sprintf("ByID(%d)", want.ID), byID, err, want)
				byFingerprint, err := r.ByFingerprint(ctx, want.Schema.Fingerprint())
				check(t, "ByFingerprint", byFingerprint, err, want)
				byVersion, err := r.Version(ctx, want.Type, want.Version)
				check(t, "Version", byVersion, err, want)
				if i != 0 { // Placed 2 and Cancelled 1 are the latest of theirs
					latest, err := r.Latest(ctx, want.Type)
					check(t, "Latest", latest, err, want)
				}
			}
			if got, want := listed(t, r, category), []string{"Cancelled.v1", "Placed.v1", "Placed.v2"}; !slices.Equal(got, want) {
				t.Errorf("List: got %v, want %v", got, want)
			}
		}
	})
}

func check(t *testing.T, what string, got *codec.Registered, err error, want *codec.Registered) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if got.ID != want.ID || got.Type != want.Type || got.Version != want.Version || got.Kind != want.Kind ||
		got.Schema.Fingerprint() != want.Schema.Fingerprint() {
		t.Errorf("%s: got %s v%d id %d %s, want %s v%d id %d %s", what, got.Type, got.Version, got.ID, got.Kind, want.Type, want.Version, want.ID, want.Kind)
	}
}

func TestUnknownSchemasAreBadData(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		r := open(t)
		mustRegister(t, r, submission(category, "Placed", 1, fieldID))
		ctx := t.Context()
		for _, id := range []int32{0, -1, 2_000_000_000} {
			reg, err := r.ByID(ctx, id)
			wantUnknown(t, fmt.Sprintf("ByID(%d)", id), reg, err)
			reg, err = r.ByID(ctx, id) // now from memory
			wantUnknown(t, fmt.Sprintf("ByID(%d) again", id), reg, err)
		}
		reg, err := r.ByFingerprint(ctx, 42)
		wantUnknown(t, "ByFingerprint", reg, err)
		reg, err = r.Latest(ctx, category+".Nothing")
		wantUnknown(t, "Latest", reg, err)
		reg, err = r.Latest(ctx, "no type at all / \x00")
		wantUnknown(t, "Latest of rubbish", reg, err)
		for _, version := range []int{-1, 0, 2, 1 << 30} {
			reg, err = r.Version(ctx, category+".Placed", version)
			wantUnknown(t, fmt.Sprintf("Version %d", version), reg, err)
		}
	})
}

func TestTheSameSchemaAgainIsNoNewOne(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		r := open(t)
		first := mustRegister(t, r, submission(category, "Placed", 1, fieldID))[0]
		asFile := submission(category, "Placed", 1, fieldID)
		spaced := asFile
		spaced.Text = strings.ReplaceAll(asFile.Text, ", ", " ,\n  ")
		documented := asFile
		documented.Text = strings.Replace(asFile.Text, `"fs.kind"`, `"doc": "An order was placed.", "fs.kind"`, 1)
		next := asFile
		next.Version = 0
		for what, s := range map[string]Submission{"the same": asFile, "other white space": spaced, "another doc": documented, "without a version": next} {
			again := mustRegister(t, open(t), s)[0]
			if again.ID != first.ID || again.Version != 1 {
				t.Errorf("%s: got version %d with id %d, want version 1 with id %d", what, again.Version, again.ID, first.ID)
			}
		}
		twice := mustRegister(t, r, submission(category, "Paid", 1, fieldID), submission(category, "Paid", 1, fieldID))
		if twice[0].ID != twice[1].ID {
			t.Errorf("the same schema twice in one registration: got ids %d and %d, want one", twice[0].ID, twice[1].ID)
		}
	})
}

// A Java team's record is named by its package; fs.type says which of our types it is.
func TestATypeMayHaveAForeignRecordName(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		foreign := func(version int, fields ...string) Submission {
			s := submission("com.acme."+category, "OrderPaid", version, fields...)
			s.Type = category + ".Paid"
			s.Text = strings.Replace(s.Text, "{", fmt.Sprintf(`{"fs.type": %q, `, s.Type), 1)
			return s
		}
		regs := mustRegister(t, open(t), foreign(1, fieldID), foreign(2, fieldID, fieldAmount))
		r := open(t)
		for _, want := range regs {
			byID, err := r.ByID(t.Context(), want.ID)
			check(t, "ByID", byID, err, want)
			byVersion, err := r.Version(t.Context(), category+".Paid", want.Version)
			check(t, "Version", byVersion, err, want)
		}
		latest, err := open(t).Latest(t.Context(), category+".Paid")
		check(t, "Latest", latest, err, regs[1])
		mustRefuse(t, r, "a record name has one type", func() Submission {
			s := foreign(1, fieldID)
			s.Text = strings.Replace(s.Text, s.Type, category+".Other", 1)
			s.Type = category + ".Other"
			return s
		}())
	})
}

func TestRefusalsAreToldFromInfrastructure(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		r := open(t)
		mustRegister(t, r, submission(category, "Placed", 1, fieldID))
		for what, s := range map[string]Submission{
			"unfit":        submission("Bad", "One", 1, fieldID),
			"a gap":        submission(category, "Placed", 7, fieldID),
			"incompatible": submission(category, "Placed", 2, `{"name": "id", "type": "long"}`),
		} {
			if _, err := r.Register(t.Context(), []Submission{s}); !errors.Is(err, ErrRefused) {
				t.Errorf("%s: got %v, want ErrRefused", what, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Register(ctx, []Submission{submission(category, "Paid", 1, fieldID)}); err == nil || errors.Is(err, ErrRefused) {
			t.Errorf("a context that ended: got %v, want an error that is no refusal", err)
		}
	})
}

func TestVersionsFollowEachOther(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		r := open(t)
		// The order in which files are given does not matter; answers come in the order asked.
		got := mustRegister(t, r, submission(category, "Placed", 2, fieldID, fieldAmount), submission(category, "Placed", 1, fieldID))
		if got[0].Version != 2 || got[1].Version != 1 || got[0].ID == got[1].ID {
			t.Errorf("got versions %d and %d with ids %d and %d, want 2 and 1 with two ids", got[0].Version, got[1].Version, got[0].ID, got[1].ID)
		}
		next := mustRegister(t, r, submission(category, "Placed", 0, fieldID, fieldAmount, `{"name": "note", "type": "string", "default": ""}`))[0]
		if next.Version != 3 {
			t.Errorf("without a version: got version %d, want 3", next.Version)
		}
		mustRefuse(t, r, "the next version is 4", submission(category, "Placed", 5, fieldID))
		mustRefuse(t, r, "put it into version 4", submission(category, "Placed", 1, fieldID, fieldAmount))
		mustRefuse(t, r, "the next version is 1", submission(category, "Paid", 2, fieldID))
	})
}

func TestAnIncompatibleSchemaFailsTheWholeRegistration(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		r := open(t)
		mustRegister(t, r, submission(category, "Placed", 1, fieldID))
		err := mustRefuse(t, r, "version 2 cannot read what version 1 wrote",
			submission(category, "Added", 1, fieldID),
			submission(category, "Placed", 2, `{"name": "id", "type": "long"}`))
		var incompatible *codec.CompatibilityError
		if !errors.As(err, &incompatible) || incompatible.Version != 2 || incompatible.Against != 1 || len(incompatible.Faults) == 0 {
			t.Errorf("got %#v, want a *CompatibilityError of version 2 against 1 with its faults", incompatible)
		}
		if got, want := listed(t, open(t), category), []string{"Placed.v1"}; !slices.Equal(got, want) {
			t.Errorf("after the refusal: got %v, want %v", got, want)
		}
	})
}

// Version 3 reads version 2, where the field is not there, but not version 1.
func TestCompatibilityIsWithAllVersionsByDefault(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		r := open(t)
		mustRegister(t, r, submission(category, "Placed", 1, fieldID, `{"name": "sum", "type": "string"}`), submission(category, "Placed", 2, fieldID))
		err := mustRefuse(t, r, "", submission(category, "Placed", 3, fieldID, `{"name": "sum", "type": "int", "default": 0}`))
		var incompatible *codec.CompatibilityError
		if !errors.As(err, &incompatible) || incompatible.Against != 1 {
			t.Errorf("got %v, want a *CompatibilityError against version 1", err)
		}
	})
}

func TestSubmissionsThatCannotStandAreRefused(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		r := open(t)
		mustRegister(t, r, submission(category, "Placed", 1, fieldID))
		good := submission(category, "Good", 1, fieldID)
		with := func(change func(*Submission)) Submission {
			s := submission(category, "Bad", 1, fieldID)
			change(&s)
			return s
		}
		for name, c := range map[string]struct {
			s    Submission
			want string
		}{
			"a topic's value subject": {with(func(s *Submission) { s.Type = "orders-value" }), "RecordNameStrategy"},
			"a topic's key subject":   {with(func(s *Submission) { s.Type = "orders-key" }), "RecordNameStrategy"},
			"no type":                 {with(func(s *Submission) { s.Type = "Bad" }), "want <category>.<Name>"},
			"another type's schema":   {with(func(s *Submission) { s.Type = category + ".Other" }), "says it is of type"},
			"no JSON":                 {with(func(s *Submission) { s.Text = "{" }), "does not parse"},
			"no record":               {with(func(s *Submission) { s.Text = `"string"` }), "no record"},
			"kinds that disagree":     {with(func(s *Submission) { s.Kind = event.KindCommand }), "must agree"},
			"no kind": {with(func(s *Submission) {
				s.Kind = ""
				s.Text = strings.Replace(s.Text, `"fs.kind": "event", `, "", 1)
			}), "set the schema's property fs.kind"},
			"a kind that is none": {with(func(s *Submission) { s.Kind = ""; s.Text = strings.Replace(s.Text, `"event"`, `"fact"`, 1) }), "fact"},
			"a kind that changes": {Submission{Type: category + ".Placed", Version: 2, Kind: event.KindCommand, Text: strings.Replace(
				text(category, "Placed", fieldID, fieldAmount), `"event"`, `"command"`, 1)}, "a type's kind never changes"},
			"an enum without default": {submission(category, "Bad", 1, `{"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A"]}}`), "not fit to be registered"},
			"a negative version":      {with(func(s *Submission) { s.Version = -1 }), "version -1"},
		} {
			t.Run(name, func(t *testing.T) { mustRefuse(t, r, c.want, good, c.s) })
		}
		if got, want := listed(t, open(t), category), []string{"Placed.v1"}; !slices.Equal(got, want) {
			t.Errorf("after the refusals: got %v, want %v", got, want)
		}
	})
}

func TestAllFaultsAreTold(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		err := mustRefuse(t, open(t), "", submission("Bad", "One", 1, fieldID), submission(category, "Two", -2, fieldID))
		for _, want := range []string{"Bad.One", "version -2"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("got %q, want it to name %s", err, want)
			}
		}
	})
}

// A reader that is at the end learns of a new schema the moment it is asked: the first command
// with it may follow its registration at once.
func TestANewSchemaIsFoundByAReaderThatWasReadyBefore(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		reader, writer := open(t), open(t)
		old := mustRegister(t, writer, submission(category, "Placed", 1, fieldID))[0]
		if _, err := reader.ByID(t.Context(), old.ID); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			fresh := mustRegister(t, writer, submission(category, fmt.Sprintf("Fresh%d", i), 1, fieldID))[0]
			got, err := reader.ByID(t.Context(), fresh.ID)
			check(t, "ByID just after the registration", got, err, fresh)
		}
	})
}

func TestRacingRegistrarsLoseNothing(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		const registrars = 4
		var group sync.WaitGroup
		results, errs := make([][]*codec.Registered, registrars), make([]error, registrars)
		for i := range registrars {
			r := open(t)
			group.Go(func() {
				results[i], errs[i] = r.Register(t.Context(), []Submission{
					submission(category, "Common", 1, fieldID),
					submission(category, fmt.Sprintf("Own%d", i), 1, fieldID),
				})
			})
		}
		group.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		ids := map[int32]string{}
		for i, regs := range results {
			if regs[0].ID != results[0][0].ID {
				t.Errorf("registrar %d: Common has id %d, another saw %d", i, regs[0].ID, results[0][0].ID)
			}
			for _, reg := range regs {
				if typ, taken := ids[reg.ID]; taken && typ != reg.Type {
					t.Errorf("id %d was given to %s and to %s", reg.ID, typ, reg.Type)
				}
				ids[reg.ID] = reg.Type
			}
		}
		if got, want := len(listed(t, open(t), category)), registrars+1; got != want {
			t.Errorf("got %d schemas, want %d", got, want)
		}
	})
}

func TestALookupEndsWithItsContext(t *testing.T) {
	onRegistries(t, func(t *testing.T, open store, category string) {
		r := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if reg, err := r.ByID(ctx, 1); !errors.Is(err, context.Canceled) || errors.Is(err, codec.ErrUnknownSchema) {
			t.Errorf("got %v and error %v, want the context's", reg, err)
		}
	})
}

// fixedClock stands still until it is moved.
type fixedClock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *fixedClock { return &fixedClock{now: time.Unix(1_700_000_000, 0)} }

func (c *fixedClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fixedClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
