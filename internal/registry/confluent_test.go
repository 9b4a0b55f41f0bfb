package registry

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

func fakeRegistry(t *testing.T) *srfake.Registry {
	t.Helper()
	fake := srfake.New()
	t.Cleanup(fake.Close)
	return fake
}

// plain is a schema as somebody else's tools register it, without properties of ours.
func plain(namespace, name string, fields ...string) sr.Schema {
	return sr.Schema{Schema: strings.Replace(text(namespace, name, fields...), `"fs.kind": "event", `, "", 1)}
}

func TestSchemasOfOthersToolsAreRead(t *testing.T) {
	t.Parallel()
	fake := fakeRegistry(t)
	fake.SeedSchema("order.Placed", 1, 7, plain("order", "Placed", fieldID))
	fake.SeedSchema("order.Place", 1, 8, plain("order", "Place", fieldID))
	r := openConfluent(t, fake.URL(), func(c *ConfluentConfig) {
		c.DefaultKind = func(typ string) event.Kind {
			if typ == "order.Place" {
				return event.KindCommand
			}
			return event.KindEvent
		}
	})
	for id, want := range map[int32]*codec.Registered{7: {Type: "order.Placed", Kind: event.KindEvent}, 8: {Type: "order.Place", Kind: event.KindCommand}} {
		got, err := r.ByID(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if got.Type != want.Type || got.Kind != want.Kind || got.Version != 1 {
			t.Errorf("id %d: got %s version %d of kind %s, want %s version 1 of kind %s", id, got.Type, got.Version, got.Kind, want.Type, want.Kind)
		}
	}
}

// A Java team's record is com.acme.OrderPlaced; fs.type says which of our types it is.
func TestARecordNameIsMappedToItsType(t *testing.T) {
	t.Parallel()
	fake := fakeRegistry(t)
	mapped := plain("com.acme", "OrderPlaced", fieldID)
	mapped.Schema = strings.Replace(mapped.Schema, `{`, `{"fs.type": "order.Placed", `, 1)
	fake.SeedSchema("com.acme.OrderPlaced", 1, 7, mapped)
	for what, ask := range map[string]func(r *Confluent) (*codec.Registered, error){
		"ByID":    func(r *Confluent) (*codec.Registered, error) { return r.ByID(t.Context(), 7) },
		"Latest":  func(r *Confluent) (*codec.Registered, error) { return r.Latest(t.Context(), "order.Placed") },
		"Version": func(r *Confluent) (*codec.Registered, error) { return r.Version(t.Context(), "order.Placed", 1) },
	} {
		got, err := ask(openConfluent(t, fake.URL(), nil))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if got.Type != "order.Placed" || got.ID != 7 {
			t.Errorf("%s: got %s with id %d, want order.Placed with id 7", what, got.Type, got.ID)
		}
	}
}

func TestSchemasThatAreNotForUsAreBadDataWithTheReason(t *testing.T) {
	t.Parallel()
	fake := fakeRegistry(t)
	referring := plain("order", "Referring", fieldID)
	fake.SeedSchema("order.Base", 1, 20, plain("order", "Base", fieldID))
	referring.References = []sr.SchemaReference{{Name: "order.Base", Subject: "order.Base", Version: 1}}
	for id, s := range map[int]struct {
		subject string
		schema  sr.Schema
	}{
		11: {"orders-value", plain("order", "Placed", fieldID)},
		12: {"order.Other", plain("order", "Placed", fieldID, fieldAmount)},
		13: {"order.Proto", sr.Schema{Schema: `syntax = "proto3"; message A {}`, Type: sr.TypeProtobuf}},
		14: {"order.Referring", referring},
		15: {"order.Broken", sr.Schema{Schema: `{"type": "record"}`}},
	} {
		fake.SeedSchema(s.subject, 1, id, s.schema)
	}
	for id, want := range map[int32]string{
		11: "RecordNameStrategy", 12: "RecordNameStrategy", 13: "not Avro", 14: "references", 15: "does not parse", 16: "16",
	} {
		_, err := openConfluent(t, fake.URL(), nil).ByID(t.Context(), id)
		if !errors.Is(err, codec.ErrUnknownSchema) || !strings.Contains(err.Error(), want) {
			t.Errorf("id %d: got %v, want ErrUnknownSchema with %q", id, err, want)
		}
	}
	regs, err := openConfluent(t, fake.URL(), nil).List(t.Context())
	if err != nil || len(regs) != 1 || regs[0].Type != "order.Base" {
		t.Errorf("List: got %v and error %v, want order.Base alone", regs, err)
	}
}

func TestTheKindIsWrittenIntoTheText(t *testing.T) {
	t.Parallel()
	fake := fakeRegistry(t)
	s := Submission{Type: "order.Place", Version: 1, Kind: event.KindCommand, Text: plain("order", "Place", fieldID).Schema}
	first := mustRegister(t, openConfluent(t, fake.URL(), nil), s)[0]
	got, err := openConfluent(t, fake.URL(), nil).ByID(t.Context(), first.ID)
	if err != nil || got.Kind != event.KindCommand {
		t.Fatalf("got %+v and error %v, want a command", got, err)
	}
	if again := mustRegister(t, openConfluent(t, fake.URL(), nil), s)[0]; again.ID != first.ID {
		t.Errorf("the same file again: got id %d, want %d", again.ID, first.ID)
	}
}

func TestARegistryThatDoesNotAnswerIsNotAnUnknownSchema(t *testing.T) {
	t.Parallel()
	fake := fakeRegistry(t)
	r := openConfluent(t, fake.URL(), func(c *ConfluentConfig) { c.RequestTimeout = 200 * time.Millisecond })
	known := mustRegister(t, r, submission("order", "Placed", 1, fieldID))[0]
	for what, status := range map[string]int{"failing": http.StatusInternalServerError, "refusing": http.StatusUnauthorized, "busy": http.StatusTooManyRequests} {
		fake.ClearInterceptors()
		fake.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(status)
			fmt.Fprint(w, `{"error_code": 1, "message": "no"}`)
			return true
		})
		if _, err := r.ByID(t.Context(), 99); err == nil || errors.Is(err, codec.ErrBadData) {
			t.Errorf("%s: got %v, want an error that is no fault of the data", what, err)
		}
		got, err := r.ByID(t.Context(), known.ID)
		check(t, "a known schema", got, err, known)
	}
	fake.Close()
	if _, err := r.Latest(t.Context(), "order.Paid"); err == nil || errors.Is(err, codec.ErrBadData) {
		t.Errorf("gone: got %v, want an error that is no fault of the data", err)
	}
}

func TestTheRegistrysOwnRefusalIsIncompatibility(t *testing.T) {
	t.Parallel()
	fake := fakeRegistry(t)
	r := openConfluent(t, fake.URL(), nil)
	fake.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPost {
			return false
		}
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"error_code": 409, "message": "Schema being registered is incompatible"}`)
		return true
	})
	err := mustRefuse(t, r, "the registry refuses it", submission("order", "Placed", 1, fieldID))
	var incompatible *codec.CompatibilityError
	if !errors.As(err, &incompatible) || !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want a *codec.CompatibilityError that wraps ErrRefused", err)
	}
}

// The kind is written into the text, which may make it one byte too long: the same text would be
// refused again.
func TestATextWithoutRoomForItsKindIsRefused(t *testing.T) {
	t.Parallel()
	r := openConfluent(t, fakeRegistry(t).URL(), nil)
	s := submission("order", "Placed", 1, fieldID)
	s.Text = strings.Replace(s.Text, `"fs.kind": "event", `, "", 1)
	s.Text += strings.Repeat(" ", codec.SchemaBytesMax-len(s.Text))
	if err := mustRefuse(t, r, "bytes", s); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want ErrRefused", err)
	}
}

func TestRegistriesWithoutTheVersionsOfAnIDAreAskedOtherwise(t *testing.T) {
	t.Parallel()
	fake := fakeRegistry(t)
	fake.SeedSchema("order.Placed", 1, 6, plain("order", "Placed", fieldID))
	fake.SeedSchema("order.Placed", 2, 7, plain("order", "Placed", fieldID, fieldAmount))
	fake.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasPrefix(req.URL.Path, "/schemas/ids/") || !strings.HasSuffix(req.URL.Path, "/versions") {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"error_code": 404, "message": "HTTP 404 Not Found"}`)
		return true
	})
	got, err := openConfluent(t, fake.URL(), nil).ByID(t.Context(), 7)
	if err != nil || got.Version != 2 || got.Type != "order.Placed" {
		t.Errorf("got %+v and error %v, want order.Placed version 2", got, err)
	}
}

func TestLatestIsBelievedForItsLifeAndUnknownForAMoment(t *testing.T) {
	t.Parallel()
	fake := fakeRegistry(t)
	var requests atomic.Int64
	fake.Intercept(func(http.ResponseWriter, *http.Request) bool { requests.Add(1); return false })
	clock := newClock()
	r := openConfluent(t, fake.URL(), func(c *ConfluentConfig) { c.Clock = clock.Now })
	writer := openConfluent(t, fake.URL(), nil)
	mustRegister(t, writer, submission("order", "Placed", 1, fieldID))
	latest := func() int {
		t.Helper()
		reg, err := r.Latest(t.Context(), "order.Placed")
		if err != nil {
			t.Fatal(err)
		}
		return reg.Version
	}
	if got := latest(); got != 1 {
		t.Fatalf("got version %d, want 1", got)
	}
	mustRegister(t, writer, submission("order", "Placed", 2, fieldID, fieldAmount))
	if got := latest(); got != 1 {
		t.Errorf("within its life: got version %d, want 1 from memory", got)
	}
	clock.advance(31 * time.Second)
	if got := latest(); got != 2 {
		t.Errorf("after its life: got version %d, want 2", got)
	}
	before := requests.Load()
	for range 100 {
		if _, err := r.ByID(t.Context(), 99); !errors.Is(err, codec.ErrUnknownSchema) {
			t.Fatal(err)
		}
	}
	if got := requests.Load() - before; got != 1 {
		t.Errorf("100 lookups of one unknown id made %d requests, want 1", got)
	}
}

func TestUnknownFingerprintsScanTheRegistryRarely(t *testing.T) {
	t.Parallel()
	fake := fakeRegistry(t)
	var scans atomic.Int64
	fake.Intercept(func(_ http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path == "/subjects" {
			scans.Add(1)
		}
		return false
	})
	clock := newClock()
	r := openConfluent(t, fake.URL(), func(c *ConfluentConfig) { c.Clock = clock.Now })
	for i := range codec.Fingerprint(500) {
		if _, err := r.ByFingerprint(t.Context(), i); !errors.Is(err, codec.ErrUnknownSchema) {
			t.Fatal(err)
		}
	}
	if got := scans.Load(); got != scanBurst {
		t.Errorf("500 unknown fingerprints scanned %d times, want %d", got, scanBurst)
	}
}

func TestConfluentConfigNamesAllFaults(t *testing.T) {
	t.Parallel()
	_, err := NewConfluent(ConfluentConfig{Compatibility: "FULL", LatestLife: -1})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"FULL", "Opts", "LatestLife"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to name %s", err, want)
		}
	}
}
