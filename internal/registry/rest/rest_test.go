package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/twmb/franz-go/pkg/sr"
)

func quoted(text string) string {
	return strings.TrimSuffix(strings.TrimPrefix(body(text), `{"schema":`), "}")
}

func TestWhatIsRegisteredIsServed(t *testing.T) {
	t.Parallel()
	r := shop(t)
	placed1, placed2, paid := record("order.Placed", fieldID), record("order.Placed", fieldID, fieldAmount), mapped(fieldID)
	placed2JSON := fmt.Sprintf(`{"subject":"order.Placed","version":2,"id":3,"schema":%s}`, quoted(placed2))
	paidJSON := fmt.Sprintf(`{"subject":"com.acme.shop.OrderPaid","version":1,"id":1,"schema":%s}`, quoted(paid))
	for _, readOnly := range []bool{true, false} {
		server := serve(t, Config{Registry: r, ReadOnly: readOnly})
		mode := map[bool]string{true: `{"mode":"READONLY"}`, false: `{"mode":"READWRITE"}`}[readOnly]
		for _, c := range []struct{ method, path, body, want string }{
			{"GET", "/", "", `{}`},
			{"GET", "", "", `{}`},
			{"GET", "/contexts", "", `["."]`},
			{"GET", "/schemas/types", "", `["AVRO"]`},
			{"GET", "/subjects", "", `["com.acme.shop.OrderPaid","order.Placed"]`},
			{"GET", "/subjects/", "", `["com.acme.shop.OrderPaid","order.Placed"]`},
			{"GET", "/subjects?deleted=true&anything=else", "", `["com.acme.shop.OrderPaid","order.Placed"]`},
			{"GET", "/subjects?deleted_only=True", "", `[]`},
			{"GET", "/subjects?subjectPrefix=order.", "", `["order.Placed"]`},
			{"GET", "/subjects?subjectPrefix=:*:com", "", `["com.acme.shop.OrderPaid"]`},
			{"GET", "/subjects?offset=1&limit=5", "", `["order.Placed"]`},
			{"GET", "/subjects?offset=0&limit=-1", "", `["com.acme.shop.OrderPaid","order.Placed"]`},
			{"GET", "/subjects?offset=9", "", `[]`},
			{"GET", "/subjects/order.Placed/versions", "", `[1,2]`},
			{"GET", "/subjects/%6frder%2EPlaced/versions?limit=1", "", `[1]`},
			{"GET", "/subjects/order.Placed/versions/2", "", placed2JSON},
			{"GET", "/subjects/order.Placed/versions/latest?format=", "", placed2JSON},
			{"GET", "/subjects/order.Placed/versions/-1", "", placed2JSON},
			{"GET", "/subjects/order.Placed/versions/1/schema", "", placed1},
			{"GET", "/subjects/order.Placed/versions/1/referencedby", "", `[]`},
			{"GET", "/subjects/com.acme.shop.OrderPaid/versions/latest", "", paidJSON},
			{"GET", "/subjects/order.Paid/versions/1", "", paidJSON}, // its type, as a name
			{"GET", "/schemas/ids/3", "", `{"schema":` + quoted(placed2) + `}`},
			{"GET", "/schemas/ids/3?fetchMaxId=false&subject=order.Placed", "", `{"schema":` + quoted(placed2) + `}`},
			{"GET", "/schemas/ids/3/schema", "", placed2},
			{"GET", "/schemas/ids/3/subjects", "", `["order.Placed"]`},
			{"GET", "/schemas/ids/3/versions", "", `[{"subject":"order.Placed","version":2}]`},
			{"GET", "/schemas/ids/1/versions", "", `[{"subject":"com.acme.shop.OrderPaid","version":1}]`},
			{"POST", "/subjects/order.Placed?normalize=False&deleted=true", body(placed2), placed2JSON},
			{"POST", "/subjects/order.Placed", body(strings.ReplaceAll(placed2, ", ", ",\n")), placed2JSON},
			{"POST", "/subjects/order.Placed", `{"schemaType": "avro", "references": [], "metadata": null, "schema": ` + quoted(placed2) + `}`, placed2JSON},
			// As Java's generated classes say it.
			{"POST", "/subjects/order.Placed", body(strings.Replace(placed2, `"string"`, `{"type": "string", "avro.java.string": "String"}`, 1)), placed2JSON},
			{"POST", "/subjects/com.acme.shop.OrderPaid", body(paid), paidJSON},
			{"POST", "/subjects/order.Placed/versions", body(placed2), placed2JSON}, // there already
			{"POST", "/compatibility/subjects/order.Placed/versions/latest", body(placed1), `{"is_compatible":true}`},
			{"POST", "/compatibility/subjects/order.Placed/versions/2?verbose=false", body(record("order.Placed", `{"name": "id", "type": "long"}`)), `{"is_compatible":false}`},
			{"POST", "/compatibility/subjects/order.New/versions/latest", body(record("order.New", fieldID)), `{"is_compatible":true}`},
			{"POST", "/compatibility/subjects/order.New/versions", body(record("order.New", fieldID)), `{"is_compatible":true}`},
			{"GET", "/config", "", `{"compatibilityLevel":"BACKWARD_TRANSITIVE"}`},
			{"GET", "/config/order.Placed?defaultToGlobal=true", "", `{"compatibilityLevel":"BACKWARD_TRANSITIVE"}`},
			{"GET", "/mode", "", mode},
			{"GET", "/mode/order.Placed", "", mode},
		} {
			t.Run(fmt.Sprintf("read only %v %s %s", readOnly, c.method, c.path), func(t *testing.T) {
				got := ask(t, server, c.method, c.path, c.body)
				got.wantJSON(t, c.want)
				if media := got.header.Get("Content-Type"); media != mediaV1 {
					t.Errorf("got Content-Type %q, want %q", media, mediaV1)
				}
			})
		}
	}
}

func TestRefusalsHaveConfluentsCodesAndARemedy(t *testing.T) {
	t.Parallel()
	r := shop(t)
	placed := record("order.Placed", fieldID)
	breaking := record("order.Placed", `{"name": "id", "type": "long"}`)
	server := serve(t, Config{Registry: r})
	for _, c := range []struct {
		method, path, body string
		status, code       int
		message            string
	}{
		{"GET", "/subjects/order.None/versions", "", 404, 40401, "RecordNameStrategy"},
		{"GET", "/subjects/order.None/versions/latest", "", 404, 40401, "GET /subjects lists them"},
		{"GET", "/subjects/orders-value/versions/latest", "", 404, 40401, "set the serializer's subject name strategy to RecordNameStrategy"},
		{"GET", "/subjects/orders-key/versions", "", 404, 40401, "RecordNameStrategy"},
		{"POST", "/subjects/orders-value", body(placed), 404, 40401, "RecordNameStrategy"},
		{"GET", "/config/orders-value", "", 404, 40401, "RecordNameStrategy"},
		{"GET", "/mode/orders-value", "", 404, 40401, "RecordNameStrategy"},
		{"GET", "/subjects/order.Placed/versions/3", "", 404, 40402, "the latest of 'order.Placed' is 2"},
		{"GET", "/subjects/order.Placed/versions/0", "", 422, 42202, "want 1 to"},
		{"GET", "/subjects/order.Placed/versions/-2", "", 422, 42202, "want 1 to"},
		{"GET", "/subjects/order.Placed/versions/99999999999999999999", "", 422, 42202, "want 1 to"},
		{"GET", "/subjects/order.None/versions/x", "", 422, 42202, "want 1 to"},
		{"GET", "/schemas/ids/99", "", 404, 40403, "Schema 99 not found"},
		{"GET", "/schemas/ids/0", "", 404, 40403, "numbers from 1"},
		{"GET", "/schemas/ids/-1", "", 404, 40403, "numbers from 1"},
		{"GET", "/schemas/ids/4294967297/versions", "", 404, 40403, "numbers from 1"},
		{"GET", "/schemas/ids/%00/schema", "", 404, 40403, "numbers from 1"},
		{"POST", "/subjects/order.None", body(record("order.None", fieldID)), 404, 40401, "order.None"},
		{"POST", "/subjects/order.Placed", body(breaking), 404, 40403, "foldstream schema register"},
		{"POST", "/subjects/order.Placed", body(record("shop.Placed", fieldID)), 404, 40403, `its record is named "shop.Placed"`},
		{"POST", "/subjects/order.Placed", body("{"), 422, 42201, "does not parse"},
		{"POST", "/subjects/order.Placed", body(`"string"`), 422, 42201, "no record"},
		{"POST", "/subjects/order.Placed", `{"schema": ""}`, 422, 42201, `no "schema"`},
		{"POST", "/subjects/order.Placed", `{}`, 422, 42201, `no "schema"`},
		{"POST", "/subjects/order.Placed", `{"schema": {"type": "string"}}`, 400, 400, "does not parse"},
		{"POST", "/subjects/order.Placed", `{"schema": "x"} trailing`, 400, 400, "does not parse"},
		{"POST", "/subjects/order.Placed", `[]`, 400, 400, "no JSON object"},
		{"POST", "/subjects/order.Placed", ``, 400, 400, "no JSON object"},
		{"POST", "/subjects/order.Placed", `{"schemaType": "PROTOBUF", "schema": "x"}`, 422, 42201, "Avro schemas only"},
		{"POST", "/subjects/order.Placed", `{"schema": ` + quoted(placed) + `, "references": [{"name": "a", "subject": "b", "version": 1}]}`, 422, 42201, "write the types out"},
		{"POST", "/subjects/order.Placed", body(strings.Repeat(" ", codec.SchemaBytesMax) + placed), 422, 42209, "at most 524288"},
		{"POST", "/subjects/order.Placed", body(strings.Repeat(" ", bodyBytesMax)), 413, 413, "more than"},
		{"POST", "/subjects/orders-value/versions", body(placed), 422, 42208, "RecordNameStrategy"},
		{"POST", "/subjects/order.Other/versions", body(placed), 422, 42208, `record is named "order.Placed"`},
		{"POST", "/subjects/order.Placed/versions", body(breaking), 409, 409, "cannot read what version 1 wrote"},
		{"POST", "/subjects/order.Nobody/versions", body(strings.Replace(record("order.Nobody"), `"fs.kind": "event", `, "", 1)), 422, 42201, "set the schema's property fs.kind"},
		{"POST", "/subjects/order.Enum/versions", body(record("order.Enum", `{"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A"]}}`)), 422, 42201, "has no default"},
		{"POST", "/subjects/order.Placed/versions", `{"id": 7, "version": 3, "schema": ` + quoted(placed) + `}`, 422, 42205, "import mode"},
		{"POST", "/subjects/order.Placed/versions", `{"version": 9, "schema": ` + quoted(placed) + `}`, 422, 42201, "the next version is 3"},
		{"POST", "/subjects/order.Placed/versions", `{"ruleSet": {"domainRules": [{}]}, "schema": ` + quoted(placed) + `}`, 422, 42201, "ruleSet"},
		{"DELETE", "/subjects/order.Placed", "", 422, 42205, "never deleted"},
		{"DELETE", "/subjects/order.Placed/versions/1?permanent=true", "", 422, 42205, "never deleted"},
		{"POST", "/compatibility/subjects/order.Placed/versions/9", body(placed), 404, 40402, "Version 9"},
		{"POST", "/compatibility/subjects/order.None/versions/1", body(record("order.None")), 404, 40401, "order.None"},
		{"POST", "/compatibility/subjects/order.Placed/versions/0", body(placed), 422, 42202, "want 1"},
		{"POST", "/compatibility/subjects/orders-value/versions", body(placed), 422, 42208, "RecordNameStrategy"},
		{"POST", "/compatibility/subjects/order.Enum/versions", body(record("order.Enum", `{"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A"]}}`)), 422, 42201, "has no default"},
		{"PUT", "/config", `{"compatibility": "FULL"}`, 422, 42205, "foldstream.yaml"},
		{"PUT", "/config/order.Placed", `{"compatibility": "SOME"}`, 422, 42203, "valid values"},
		{"PUT", "/config", `{"compatibility": 1}`, 400, 400, "does not parse"},
		{"DELETE", "/config/order.Placed", "", 422, 42205, "nothing to delete"},
		{"PUT", "/mode", `{"mode": "IMPORT"}`, 422, 42205, "READWRITE"},
		{"PUT", "/mode", `{"mode": "SOME"}`, 422, 42204, "valid values"},
		{"GET", "/associations/resources/-/orders?resourceType=topic", "", 404, 404, "no such path"},
		{"GET", "/subjects/order.Placed/metadata", "", 404, 404, "no such path"},
		{"GET", "/subjects//versions", "", 404, 404, "no such path"},
		{"GET", "/subjects/../config", "", 404, 404, "no such path"},
		{"GET", "/schemas/guids/x", "", 404, 404, "no such path"},
		{"PATCH", "/subjects", "", 405, 405, "takes GET, HEAD"},
		{"POST", "/subjects", "{}", 405, 405, "takes GET, HEAD"},
		{"GET", "/subjects/order.Placed", "", 405, 405, "takes DELETE, POST"},
		{"DELETE", "/schemas/ids/1", "", 405, 405, "takes GET, HEAD"},
		{"GET", "/subjects?limit=%zz", "", 400, 400, "query"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			ask(t, server, c.method, c.path, c.body).wantFault(t, c.status, c.code, c.message)
		})
	}
	if regs, err := r.List(t.Context()); err != nil || len(regs) != 3 {
		t.Errorf("after the refusals: got %d registrations and error %v, want the 3 from before", len(regs), err)
	}
}

func TestAReadOnlyRegistryIsNotChanged(t *testing.T) {
	t.Parallel()
	r := shop(t)
	server := serve(t, Config{Registry: r, ReadOnly: true})
	for _, c := range []struct{ method, path, body, message string }{
		{"POST", "/subjects/order.New/versions", body(record("order.New", fieldID)), "foldstream schema register"},
		{"POST", "/subjects/order.Placed/versions", body(record("order.Placed", fieldID, fieldAmount, `{"name": "more", "type": "int", "default": 0}`)), "READONLY"},
		{"DELETE", "/subjects/order.Placed", "", "never deleted"},
		{"PUT", "/config", `{"compatibility": "BACKWARD_TRANSITIVE"}`, "not permitted"},
		{"PUT", "/mode", `{"mode": "READWRITE"}`, "not permitted"},
		{"DELETE", "/mode/order.Placed", "", "nothing to delete"},
	} {
		ask(t, server, c.method, c.path, c.body).wantFault(t, 422, 42205, c.message)
	}
	ask(t, server, "POST", "/subjects/orders-value/versions", body(record("order.Placed", fieldID))).wantFault(t, 422, 42208, "RecordNameStrategy")
	if regs, err := r.List(t.Context()); err != nil || len(regs) != 3 {
		t.Errorf("got %d registrations and error %v, want the 3 from before", len(regs), err)
	}
}

func TestSchemasAreRegisteredOverHTTP(t *testing.T) {
	t.Parallel()
	server := serve(t, Config{Registry: topicRegistry(t)})
	first := record("order.Placed", fieldID)
	ask(t, server, "POST", "/subjects/order.Placed/versions?normalize=false", body(first)).
		wantJSON(t, fmt.Sprintf(`{"subject":"order.Placed","version":1,"id":1,"schema":%s}`, quoted(first)))
	// The kind of a type that is there need not be said again. The type's name is a subject, too.
	next := strings.Replace(record("order.Placed", fieldID, fieldAmount), `"fs.kind": "event", `, "", 1)
	ask(t, server, "POST", "/subjects/order.Placed/versions", body(next)).
		wantJSON(t, fmt.Sprintf(`{"subject":"order.Placed","version":2,"id":2,"schema":%s}`, quoted(next)))
	foreign := mapped(fieldID)
	ask(t, server, "POST", "/subjects/order.Paid/versions", body(foreign)).
		wantJSON(t, fmt.Sprintf(`{"subject":"com.acme.shop.OrderPaid","version":1,"id":3,"schema":%s}`, quoted(foreign)))
	ask(t, server, "GET", "/subjects", "").wantJSON(t, `["com.acme.shop.OrderPaid","order.Placed"]`)
	ask(t, server, "PUT", "/config/order.Placed", `{"compatibility": "backward_transitive"}`).wantJSON(t, `{"compatibility":"BACKWARD_TRANSITIVE"}`)
	ask(t, server, "PUT", "/mode?force=true", `{"mode": "READWRITE"}`).wantJSON(t, `{"mode":"READWRITE"}`)
}

func TestCompatibilityFollowsThePolicyAndNamesThePlace(t *testing.T) {
	t.Parallel()
	// Version 2 has no field "sum", which version 1 had as a string.
	r := inMemory(t, record("order.Placed", `{"name": "sum", "type": "string"}`), record("order.Placed", fieldAmount))
	candidate := body(record("order.Placed", fieldAmount, `{"name": "sum", "type": "int", "default": 0}`))
	const fault = `{"is_compatible":false,"messages":["cannot read what version 1 wrote: order.Placed.sum: changes from string to int (keep the field as it is and add another one with a default)"]}`
	for policy, want := range map[registry.Compatibility][2]string{
		registry.BackwardTransitive: {fault, fault},
		registry.Backward:           {`{"is_compatible":true}`, fault},
		registry.None:               {`{"is_compatible":true}`, `{"is_compatible":true}`},
	} {
		server := serve(t, Config{Registry: r, Compatibility: string(policy)})
		ask(t, server, "POST", "/compatibility/subjects/order.Placed/versions?verbose=true", candidate).wantJSON(t, want[0])
		ask(t, server, "POST", "/compatibility/subjects/order.Placed/versions/1?verbose=True", candidate).wantJSON(t, want[1])
		ask(t, server, "GET", "/config", "").wantJSON(t, fmt.Sprintf(`{"compatibilityLevel":%q}`, policy))
	}
}

func TestMediaTypesAndHEAD(t *testing.T) {
	t.Parallel()
	server := serve(t, Config{Registry: inMemory(t, record("order.Placed", fieldID))})
	for accept, want := range map[string]string{
		"": mediaV1, "*/*": mediaV1, mediaJSON: mediaJSON, mediaDefault: mediaDefault,
		mediaV1 + ", " + mediaJSON: mediaV1, "text/html,*/*": mediaJSON, "image/png": mediaV1,
	} {
		if got := ask(t, server, "GET", "/subjects/x/versions", "", "Accept", accept).header.Get("Content-Type"); got != want {
			t.Errorf("Accept %q: got %q, want %q", accept, got, want)
		}
	}
	for content, want := range map[string]int{
		mediaV1: 200, mediaDefault: 200, mediaJSON + "; charset=utf-8": 200, "": 200, "application/octet-stream": 200,
		"application/x-www-form-urlencoded": 415, "text/plain": 415, ";": 415,
	} {
		got := ask(t, server, "POST", "/subjects/order.Placed", body(record("order.Placed", fieldID)), "Content-Type", content)
		if got.status != want {
			t.Errorf("Content-Type %q: got %d, want %d: %s", content, got.status, want, got.body)
		}
	}
	full, head := ask(t, server, "GET", "/schemas/ids/1", ""), ask(t, server, "HEAD", "/schemas/ids/1", "")
	if head.status != 200 || head.body != "" || head.header.Get("Content-Length") != full.header.Get("Content-Length") {
		t.Errorf("HEAD: got %d, %q and %v, want GET's headers without a body", head.status, head.body, head.header)
	}
	if allow := ask(t, server, "PUT", "/subjects/order.Placed", "{}").header.Get("Allow"); allow != "DELETE, POST" {
		t.Errorf("got Allow %q, want DELETE, POST", allow)
	}
}

func TestAStoreThatDoesNotAnswerIs503(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.err = errors.New("dial tcp 10.0.0.7:9092: refused")
	server := serve(t, Config{Registry: r})
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/subjects", ""},
		{"GET", "/schemas/ids/1", ""},
		{"GET", "/subjects/order.Placed/versions", ""},
		{"GET", "/subjects/order.Placed/versions/1", ""},
		{"POST", "/subjects/order.Placed", body(record("order.Placed"))},
		{"POST", "/compatibility/subjects/order.Placed/versions", body(record("order.Placed"))},
		{"POST", "/subjects/order.Placed/versions", body(strings.Replace(record("order.Placed"), `"fs.kind": "event", `, "", 1))},
	} {
		got := ask(t, server, c.method, c.path, c.body)
		got.wantFault(t, 503, 503, "try again")
		if got.header.Get("Retry-After") == "" || strings.Contains(got.body, "10.0.0.7") {
			t.Errorf("%s %s: got Retry-After %q and %s, want one, and no address", c.method, c.path, got.header.Get("Retry-After"), got.body)
		}
	}
}

// leaving is a registry whose client hangs up while it registers.
type leaving struct {
	*memory
	hangUp func()
	seen   error // of the registration's context afterwards
}

func (l *leaving) Register(ctx context.Context, _ []registry.Submission) ([]*codec.Registered, error) {
	l.hangUp()
	_, bounded := ctx.Deadline()
	if l.seen = ctx.Err(); bounded {
		l.seen = errors.Join(l.seen, errors.New("the request's time bounds it"))
	}
	return nil, errors.Join(l.seen, registry.ErrRefused)
}

func TestAClientThatHangsUpBreaksNoRegistrationOff(t *testing.T) {
	t.Parallel()
	ctx, hangUp := context.WithCancel(t.Context())
	r := &leaving{memory: inMemory(t), hangUp: hangUp}
	handler, err := New(Config{Registry: r})
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, "/subjects/order.Placed/versions", strings.NewReader(body(record("order.Placed", fieldID))))
	request.Header.Set("Content-Type", mediaV1)
	handler.ServeHTTP(httptest.NewRecorder(), request)
	if ctx.Err() == nil {
		t.Fatal("nothing was registered")
	}
	if r.seen != nil {
		t.Errorf("the registration's context: got %v, want one that goes on", r.seen)
	}
}

func TestUnknownSubjectsDoNotHammerTheStore(t *testing.T) {
	t.Parallel()
	r := inMemory(t, mapped(fieldID))
	server := serve(t, Config{Registry: r})
	const requests = 200
	start := time.Now()
	var group sync.WaitGroup
	for i := range requests {
		group.Go(func() {
			ask(t, server, "GET", fmt.Sprintf("/subjects/order.None%d/versions", i), "").wantFault(t, 404, 40401, "order.None")
		})
	}
	group.Wait()
	if got, most := r.lists.Load(), int64(time.Since(start)/listSpacing)+2; got > most {
		t.Errorf("%d requests made %d lists, want at most %d", requests, got, most)
	}
	before := r.lists.Load()
	for range 50 { // known by then
		if got := ask(t, server, "GET", "/subjects/com.acme.shop.OrderPaid/versions", ""); got.status != 200 {
			t.Fatalf("got %d: %s", got.status, got.body)
		}
	}
	if got := r.lists.Load(); got != before {
		t.Errorf("requests for a known name made %d lists", got-before)
	}
}

// A registrar elsewhere may be a moment ahead of who asks here.
func TestASchemaRegisteredElsewhereIsFoundAtOnce(t *testing.T) {
	t.Parallel()
	r := shop(t)
	server := serve(t, Config{Registry: r, ReadOnly: true})
	for i := range 5 {
		name := fmt.Sprintf("com.acme.shop.Fresh%d", i)
		ask(t, server, "GET", "/subjects/"+name+"/versions", "").wantFault(t, 404, 40401, name)
		store(t, r, fmt.Sprintf("order.Fresh%d", i), strings.Replace(record(name, fieldID), "{", fmt.Sprintf(`{"fs.type": "order.Fresh%d", `, i), 1))
		ask(t, server, "GET", "/subjects/"+name+"/versions", "").wantJSON(t, "[1]")
	}
}

// Mounted as ingest mounts it, and driven by another client than our own.
func TestFranzGosClientWorksBelowAPrefix(t *testing.T) {
	t.Parallel()
	handler, err := New(Config{Registry: shop(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.StripPrefix("/registry", handler))
	t.Cleanup(server.Close)
	client, err := sr.NewClient(sr.URLs(server.URL + "/registry"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	subjects, err := client.Subjects(ctx)
	must(err)
	if want := []string{"com.acme.shop.OrderPaid", "order.Placed"}; !slices.Equal(subjects, want) {
		t.Errorf("subjects: got %q, want %q", subjects, want)
	}
	all, err := client.Schemas(ctx, "order.Placed")
	must(err)
	if len(all) != 2 || all[1].ID != 3 || all[1].Type != sr.TypeAvro {
		t.Errorf("schemas: got %+v, want two, the second with id 3", all)
	}
	created, err := client.CreateSchema(ctx, "order.Shipped", sr.Schema{Schema: record("order.Shipped", fieldID)})
	must(err)
	if created.Version != 1 || created.ID != 4 {
		t.Errorf("created: got %+v, want version 1 with id 4", created)
	}
	found, err := client.LookupSchema(ctx, "order.Shipped", created.Schema)
	must(err)
	if found.ID != 4 {
		t.Errorf("looked up: got %+v, want id 4", found)
	}
	verdict, err := client.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), "order.Shipped", -1, sr.Schema{Schema: record("order.Shipped", `{"name": "id", "type": "int"}`)})
	must(err)
	if verdict.Is || len(verdict.Messages) != 1 {
		t.Errorf("compatibility: got %+v, want no, with one message", verdict)
	}
	if level := client.Compatibility(ctx, "order.Placed")[0]; level.Err != nil || level.Level != sr.CompatBackwardTransitive {
		t.Errorf("config: got %+v, want BACKWARD_TRANSITIVE", level)
	}
	if mode := client.Mode(ctx)[0]; mode.Err != nil || mode.Mode != sr.ModeReadWrite {
		t.Errorf("mode: got %+v, want READWRITE", mode)
	}
	types, err := client.SupportedTypes(ctx)
	must(err)
	if len(types) != 1 || types[0] != sr.TypeAvro {
		t.Errorf("types: got %v, want AVRO", types)
	}
	_, err = client.DeleteSubject(ctx, "order.Placed", sr.SoftDelete)
	var refused *sr.ResponseError
	if !errors.As(err, &refused) || refused.ErrorCode != sr.ErrOperationNotPermitted.Code {
		t.Errorf("delete: got %v, want operation not permitted", err)
	}
	_, err = client.SchemaByVersion(ctx, "orders-value", -1)
	if !errors.As(err, &refused) || refused.ErrorCode != sr.ErrSubjectNotFound.Code {
		t.Errorf("a topic's subject: got %v, want subject not found", err)
	}
}

func TestConfigNamesAllFaults(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Compatibility: "FULL", RequestTimeout: -1})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"Registry is nil", `"FULL"`, "RequestTimeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to name %s", err, want)
		}
	}
}

func TestHostileSchemasAreRefusedQuickly(t *testing.T) {
	t.Parallel()
	server := serve(t, Config{Registry: shop(t)})
	nested := func(open, end string, depth int) string {
		return record("order.Placed", `{"name": "a", "type": `+strings.Repeat(open, depth)+`"int"`+strings.Repeat(end, depth)+`}`)
	}
	var many []string
	for i := range 9_000 {
		many = append(many, fmt.Sprintf(`{"name": "f%d", "type": "int"}`, i))
	}
	for name, schema := range map[string]string{
		"deep arrays":           nested(`{"type":"array","items":`, "}", 9_000),
		"deeper arrays":         nested(`{"type":"array","items":`, "}", 18_000),
		"deep unions":           nested(`["null",`, "]", 4_000),
		"deep lists":            strings.Repeat("[", 500_000),
		"many fields":           record("order.Placed", many...),
		"a huge fixed":          record("order.Placed", `{"name": "a", "type": {"type": "fixed", "name": "F", "size": 2147483647}}`),
		"a negative fixed":      record("order.Placed", `{"name": "a", "type": {"type": "fixed", "name": "F", "size": -1}}`),
		"a name that is none":   strings.Replace(record("order.Placed", fieldID), "Placed", `Placed\u0000`, 1),
		"letters of elsewhere":  record("order.Bestellt\u00fc", fieldID),
		"bytes that are none":   strings.Replace(record("order.Placed", fieldID), "Placed", "Placed\xff", 1),
		"one that is in itself": record("order.Placed", `{"name": "a", "type": "order.Placed"}`),
	} {
		for _, path := range []string{"/subjects/order.Placed", "/subjects/order.Placed/versions", "/compatibility/subjects/order.Placed/versions"} {
			start := time.Now()
			got := ask(t, server, "POST", path, body(schema))
			if got.status >= 500 {
				t.Errorf("%s at %s: got %d: %.200s", name, path, got.status, got.body)
			}
			if strings.HasSuffix(path, "versions") && strings.HasPrefix(path, "/subjects") && got.status == 200 {
				t.Errorf("%s was registered", name)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("%s at %s took %s", name, path, took)
			}
			if len(got.body) > 8<<10 {
				t.Errorf("%s at %s: the answer has %d bytes", name, path, len(got.body))
			}
		}
	}
	deep := `{"x":` + strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_001)
	ask(t, server, "POST", "/subjects/order.Placed", deep).wantFault(t, 400, 400, "does not parse")
	for _, subject := range []string{"ö.Ü", "日本-value", "a/b", "..", "%", "x\x00y", "a b", strings.Repeat("a", 8_000), `"quoted"`, "<b>"} {
		got := ask(t, server, "GET", "/subjects/"+url.PathEscape(subject)+"/versions", "")
		got.wantFault(t, 404, 40401, "")
		if len(got.body) > 1024 {
			t.Errorf("subject %.20q: the answer has %d bytes", subject, len(got.body))
		}
	}
}

func FuzzEveryRequestIsAnsweredWithJSONAndNo5xx(f *testing.F) {
	placed := record("order.Placed", fieldID)
	for _, seed := range [][3]string{
		{"GET", "/subjects/order.Placed/versions/latest", ""},
		{"POST", "/subjects/order.Placed?normalize=true", body(placed)},
		{"POST", "/subjects/order.Placed/versions", body(placed)},
		{"POST", "/compatibility/subjects/order.Placed/versions/-1?verbose=true", body(placed)},
		{"GET", "/schemas/ids/1/versions", ""},
		{"PUT", "/config", `{"compatibility": "NONE"}`},
		{"PUT", "/mode/a%2Fb", `{"mode": "IMPORT"}`},
		{"DELETE", "/subjects/%ff", ""},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	r := inMemory(f, placed, mapped(fieldID))
	handlers := make([]http.Handler, 0, 2)
	for _, readOnly := range []bool{false, true} {
		h, err := New(Config{Registry: r, ReadOnly: readOnly, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			f.Fatal(err)
		}
		handlers = append(handlers, h)
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		target, err := url.Parse("http://registry" + path)
		if err != nil {
			return
		}
		for _, h := range handlers {
			request := httptest.NewRequest(http.MethodGet, "/", strings.NewReader(body))
			request.Method, request.URL = method, target
			recorder := httptest.NewRecorder()
			h.ServeHTTP(recorder, request)
			if recorder.Code >= 500 {
				t.Errorf("%s %q: got %d: %s", method, path, recorder.Code, recorder.Body)
			}
			if !strings.HasSuffix(recorder.Header().Get("Content-Type"), "json") || recorder.Body.Len() == 0 {
				t.Errorf("%s %q: got %q with %d bytes, want JSON", method, path, recorder.Header().Get("Content-Type"), recorder.Body.Len())
			}
		}
	})
}
