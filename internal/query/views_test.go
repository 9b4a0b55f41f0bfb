package query_test

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/query"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/projection"
)

// fill makes five things, a to e, and one that is deleted.
func (w *world) fill() {
	w.t.Helper()
	w.addThing("a", thing{Name: "alpha", Note: ptr("x"), Small: 1, Total: 10, Rank: ptr(int64(3)), Ratio: ptr(0.5), Open: true, Tags: []string{"red", "blue"}, At: t0})
	w.addThing("b", thing{Name: "beta", Small: 2, Total: 20, Rank: ptr(int64(1)), At: t0.Add(time.Hour), EndAt: ptr(t0.Add(2 * time.Hour))})
	w.addThing("c", thing{Name: "gamma_1", Note: ptr(""), Small: 3, Total: 30, Ratio: ptr(-1.5), Tags: []string{"red"}, At: t0.Add(2 * time.Hour)})
	w.addThing("d", thing{Name: "gamma%2", Small: 4, Total: 40, Rank: ptr(int64(2)), Open: true, At: t0.Add(3 * time.Hour), EndAt: ptr(t0.Add(4 * time.Hour))})
	w.addThing("e", thing{Name: "delta,x", Small: 5, Total: math.MaxInt64, Select: "from", Limit: 7, At: t0.Add(3 * time.Hour)})
	w.addThing("gone", thing{Name: "gone"})
	w.exec("update fs_things_v1.rows set fs_present = false where id = 'gone'")
}

func TestARowIsReadByItsKeyOnEveryPostgres(t *testing.T) {
	for _, server := range testkit.Postgreses(t) {
		t.Run(server.Name, func(t *testing.T) {
			w := newWorldOn(t, server)
			w.addThing("o/ 1", thing{
				Name: "q\"\\\n\x01ü", Note: ptr("x"), Small: -3, Total: math.MaxInt64, Rank: ptr(int64(7)), Ratio: ptr(1e300), Open: true,
				Tags: []string{"a", `"`, ""}, Doc: map[string]string{"k": "v"}, At: t0.Add(123456 * time.Microsecond), EndAt: ptr(time.Date(1969, 12, 31, 23, 59, 59, 5000, time.UTC)),
			})
			got := w.ok("/v1/views/things/" + url.PathEscape("o/ 1"))
			want := `{"id":"o/ 1","name":"q\"\\\u000a\u0001ü","note":"x","small":-3,"total":9223372036854775807,"rank":7,"ratio":1e+300,"open":true,` +
				`"tags":["a","\"",""],"doc":{"k": "v"},"at":"2026-03-01T09:00:00.123456Z","end_at":"1969-12-31T23:59:59.000005Z","select":"","limit":0,"version":1}` + "\n"
			if got.body != want {
				t.Errorf("got  %s want %s", got.body, want)
			}
			if got := got.header.Get("Content-Type"); got != "application/json" {
				t.Errorf("media type: got %q", got)
			}
			w.exec("update fs_things_v1.rows set note = null, rank = null, ratio = 'NaN', tags = '{}', end_at = 'infinity'")
			got = w.ok("/v1/views/things/" + url.PathEscape("o/ 1") + "?fields=note,rank,ratio,tags,end_at")
			if want := `{"id":"o/ 1","note":null,"rank":null,"ratio":"NaN","tags":[],"end_at":"infinity"}` + "\n"; got.body != want {
				t.Errorf("got  %s want %s", got.body, want)
			}
		})
	}
}

func TestRowsThatAreNotThere(t *testing.T) {
	w := newWorld(t)
	w.fill()
	w.refused("/v1/views/things/gone", http.StatusNotFound, "no-row", "things")
	w.refused("/v1/views/things/none", http.StatusNotFound, "no-row")
	w.refused("/v1/views/nothing/a", http.StatusNotFound, "unknown-view", "GET /v1/views")
	w.refused("/v1/views/nothing", http.StatusNotFound, "unknown-view")
	w.refused("/v1/views/views/a", http.StatusNotFound, "unknown-view")
	w.refused("/v1/views/node_metrics/a", http.StatusNotFound, "not-found", "workflow_id")
	w.refused("/v1/views/metrics_hourly/noon", http.StatusBadRequest, "parameter", "path.key", "RFC 3339")
	w.refused("/v1/views/things/a%00", http.StatusBadRequest, "parameter", "NUL")
	w.refused("/v1/views/things/"+strings.Repeat("x", 3000), http.StatusBadRequest, "parameter", "2048")
	w.refused("/v1/views/things/a?limit=1", http.StatusBadRequest, "parameter", "query.limit", "fields, wait, wait_ms")
	w.refused("/v1/views/things/a?fields=", http.StatusBadRequest, "parameter", "no column")
	w.refused("/v1/views/things/a%2F..", http.StatusNotFound, "no-row")
	w.refused("/v1/views/things/a/b", http.StatusNotFound, "not-found")
	got := w.do(http.MethodPost, "/v1/views/things")
	if got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != "GET" {
		t.Errorf("POST: got %d, Allow %q", got.status, got.header.Get("Allow"))
	}
	if got := w.do(http.MethodHead, "/v1/views/things/a"); got.status != http.StatusOK || got.body != "" {
		t.Errorf("HEAD: got %d %q", got.status, got.body)
	}
}

func TestAKeyOfAnotherTypeThanText(t *testing.T) {
	w := newWorld(t)
	w.exec("insert into fs_metrics_hourly_v1.rows (hour, started, completed, failed, cancelled, nodes) values ($1, 1, 2, 3, 4, 5)", t0)
	if got := w.ok("/v1/views/metrics_hourly/2026-03-01T10:00:00%2B01:00"); got.json["started"] != 1.0 || got.json["hour"] != "2026-03-01T09:00:00Z" {
		t.Errorf("got %s", got.body)
	}
}

func TestFiltersSelectRows(t *testing.T) {
	w := newWorld(t)
	w.fill()
	for query, want := range map[string]string{
		"":                             "a b c d e",
		"name=alpha":                   "a",
		"name.eq=alpha":                "a",
		"name.ne=alpha":                "b c d e",
		"note.ne=x":                    "b c d e", // null is not x
		"name.gt=beta":                 "c d e",
		"name.gte=beta":                "b c d e",
		"name.lt=beta":                 "a",
		"name.lte=beta":                "a b",
		"name.in=alpha,beta":           "a b",
		`name.in=delta\,x,beta`:        "b e",
		"name.prefix=gamma":            "c d",
		"name.prefix=gamma_":           "c",
		"name.prefix=":                 "a b c d e",
		"name.prefix=%F4%8F%BF%BF":     "",
		"name.like=gamma%25":           "c d",
		`name.like=gamma\%25%25`:       "d",
		"name.like=GAMMA%25":           "",
		"note.isnull=true":             "b d e",
		"note.isnull=false":            "a c",
		"note=":                        "c",
		"small=3":                      "c",
		"small=3000000":                "", // beyond smallint
		"total.gt=9223372036854775806": "e",
		"total.in=10,30":               "a c",
		"rank.lt=3":                    "b d",
		"ratio.lt=0":                   "c",
		"ratio=0.5":                    "a",
		"open=true":                    "a d",
		"open.ne=true":                 "b c e",
		"tags.has=red":                 "a c",
		"tags.has=blue":                "a",
		"at.gte=2026-03-01T11:00:00Z&at.lt=2026-03-01T12:00:00Z": "c",
		"at=2026-03-01T10:00:00%2B01:00":                         "a",
		"end_at.isnull=true&open=false":                          "c e",
		"select=from":                                            "e",
		"limit.eq=7":                                             "e",
		"limit=2":                                                "a b",
		"doc.isnull=true":                                        "",
		"id.in=b,e,gone":                                         "b e",
		"q=AMM":                                                  "c d",
		"q=a%252":                                                "d", // a% is no pattern
		"q=a_1":                                                  "c",
		"q=xx":                                                   "",
		"version=1":                                              "a b c d e",
	} {
		if got := w.ok("/v1/views/things?" + query).column("id"); got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

func TestFilterFaultsNameParameterTypeAndOperators(t *testing.T) {
	w := newWorld(t)
	for query, says := range map[string][]string{
		"nam=x":                                {"query.nam", "no such column", "id, name, note"},
		"small=x":                              {"query.small", `"x\" is no whole number`, "smallint", "eq, ne, lt, lte, gt, gte, in, isnull"},
		"small=%2B1":                           {"query.small"},
		"small=1.0":                            {"query.small"},
		"small.in=1,,2":                        {"query.small.in", "1 to 100 values"},
		"small.like=1":                         {"query.small.like", `has no operator \"like\"`, "eq, ne"},
		"small.":                               {"query.small."},
		"small.eq.x=1":                         {"query.small.eq.x"},
		"total=9223372036854775808":            {"64 bits"},
		"ratio=NaN":                            {"is no number"},
		"ratio=0x1p-2":                         {"is no number"},
		"open=yes":                             {"neither true nor false", "boolean"},
		"open.lt=true":                         {"no operator"},
		"at=yesterday":                         {"RFC 3339", "timestamptz"},
		"at=2026-03-01T10:00:00+01:00":         {"%2B"},
		"name=a%00b":                           {"NUL"},
		"name=%ff":                             {"UTF-8"},
		`name.like=a\`:                         {"escape"},
		"name.isnull=1":                        {"true or false"},
		"tags=red":                             {"no operator", "has, isnull"},
		"doc=x":                                {"no operator", "isnull"},
		"name=a&name=b":                        {"stands 2 times", ".in=a,b"},
		"name=a&name.eq=b":                     {"stands twice"},
		"limit=0":                              {"1 to 500"},
		"limit=501":                            {"1 to 500"},
		"limit=x":                              {"query.limit"},
		"sort=nam":                             {"query.sort", "no column", "id, name"},
		"sort=tags":                            {"no order"},
		"sort=name,-name":                      {"stands twice"},
		"sort=name,total,rank,ratio,at":        {"more than 4"},
		"sort=":                                {"no column"},
		"fields=id,x":                          {"query.fields", "no column"},
		"q=a":                                  {"2 to 200"},
		"name=" + strings.Repeat("x", 2049):    {"2048"},
		"name.in=" + strings.Repeat("x,", 100): {"more than 100"},
		"name=x&%zz=1":                         {"percent-encoded"},
		"wait_ms=-1":                           {"query.wait_ms", "0 to 25000"},
	} {
		w.refused("/v1/views/things?"+query, http.StatusBadRequest, "parameter", says...)
	}
	w.refused("/v1/views/trail?q=abc", http.StatusBadRequest, "parameter", "declares no column")
	got := w.refused("/v1/views/things?small=x&at=y&nope=1", http.StatusBadRequest, "parameter")
	if faults := got.json["errors"].([]any); len(faults) != 3 {
		t.Errorf("got %d faults, want all three: %s", len(faults), got.body)
	}
	var many []string
	for i := range 21 {
		many = append(many, []string{"id", "name", "note", "small", "total", "rank", "ratio", "at"}[i%8]+"."+[]string{"gt", "lt", "ne"}[i/8]+"=1")
	}
	w.refused("/v1/views/things?"+strings.Join(many, "&"), http.StatusBadRequest, "parameter", "2026")
	w.refused("/v1/views?x=1", http.StatusBadRequest, "parameter", "query.x")
}

func TestPagesGoThroughAllRowsInAnyOrder(t *testing.T) {
	w := newWorld(t)
	w.fill()
	w.exec("update fs_things_v1.rows set ratio = 'NaN' where id = 'b'")
	w.exec("update fs_things_v1.rows set ratio = '-Infinity', at = 'infinity' where id = 'd'")
	for sort, want := range map[string]string{
		"id":            "a b c d e",
		"-id":           "e d c b a",
		"name":          "a b e d c",
		"rank":          "b d a c e", // nulls last
		"-rank":         "e c a d b", // nulls first
		"-rank,id":      "c e a d b",
		"ratio":         "d c a b e",
		"-ratio":        "e b a c d",
		"open,-total":   "e c b d a",
		"-open,total":   "a d b c e",
		"-open,rank,id": "d a b c e",
		"note,-end_at":  "c a e d b",
		"-end_at,at":    "a c e d b",
		"at":            "a b c e d",
		"-at":           "d e c b a",
		"-select,limit": "e a b c d",
	} {
		for _, limit := range []int{1, 2, 5, 6} {
			var got []string
			cursor, pages := "", 0
			for {
				a := w.ok(fmt.Sprintf("/v1/views/things?fields=name&sort=%s&limit=%d%s", sort, limit, cursor))
				if rows := a.column("id"); rows != "" {
					got = append(got, rows)
				}
				pages++
				if a.next() == "" || pages > 6 {
					break
				}
				cursor = "&cursor=" + a.next()
			}
			if text := strings.Join(got, " "); text != want {
				t.Errorf("sort %s by %d: got %q, want %q", sort, limit, text, want)
			}
			if most := (5 + limit - 1) / limit; pages != most {
				t.Errorf("sort %s by %d: got %d pages, want %d", sort, limit, pages, most)
			}
		}
	}
}

func TestACursorIsOfOneList(t *testing.T) {
	w := newWorld(t)
	w.fill()
	cursor := w.ok("/v1/views/things?limit=1&sort=name&total.gt=5").next()
	w.ok("/v1/views/things?limit=2&sort=name&total.gt=5&fields=name&cursor=" + cursor)
	w.ok("/v1/views/things?sort=name,id&total.gt=5&cursor=" + cursor)
	for _, other := range []string{
		"/v1/views/things?sort=name&total.gt=6&cursor=", "/v1/views/things?sort=name&cursor=", "/v1/views/things?sort=-name&total.gt=5&cursor=",
		"/v1/views/things?sort=name&total.gte=5&cursor=", "/v1/views/trail?cursor=", "/v1/views/things?sort=name&total.gt=5&q=al&cursor=",
	} {
		w.refused(other+cursor, http.StatusBadRequest, "cursor", "begin again")
	}
	for _, bad := range []string{"", "x", "!!", cursor[:len(cursor)-2], cursor + "AA", strings.Repeat("A", 9000), "AAAAAAAAAAAAAAAA"} {
		w.refused("/v1/views/things?sort=name&total.gt=5&cursor="+bad, http.StatusBadRequest, "cursor")
	}
}

func TestAPageEndsBeforeTheLimitOfAnAnswer(t *testing.T) {
	w := newWorld(t, func(c *query.Config) { c.Limits.ResponseBytesMax = 16 << 10 })
	for i := range 9 {
		w.addThing(fmt.Sprint("r", i), thing{Name: strings.Repeat("x", 3000)})
	}
	got, pages := "", 0
	for cursor := ""; pages < 10; pages++ {
		a := w.ok("/v1/views/things?" + cursor)
		if len(a.body) > 16<<10 {
			t.Errorf("an answer has %d bytes", len(a.body))
		}
		got += a.column("id") + " "
		if a.next() == "" {
			break
		}
		cursor = "cursor=" + a.next()
	}
	if want := "r0 r1 r2 r3 r4 r5 r6 r7 r8 "; got != want || pages == 0 {
		t.Errorf("got %q in %d pages, want %q in some", got, pages+1, want)
	}
	w.exec("update fs_things_v1.rows set name = repeat('y', 20000) where id = 'r4'")
	w.refused("/v1/views/things/r4", http.StatusUnprocessableEntity, "row-too-large", "fields=")
	w.ok("/v1/views/things/r4?fields=total")
	w.refused("/v1/views/things?id.gte=r4", http.StatusUnprocessableEntity, "row-too-large")
	w.refused("/v1/views/things?fields=id&sort=-name&limit=1", http.StatusUnprocessableEntity, "cursor", "too long")
}

func TestViewsAreListed(t *testing.T) {
	w := newWorld(t)
	got := w.ok("/v1/views")
	var names []string
	for _, v := range got.json["views"].([]any) {
		names = append(names, fmt.Sprint(v.(map[string]any)["name"]))
	}
	if text, want := strings.Join(names, " "), "execution_history metrics_hourly node_metrics things trail workflow_list"; text != want {
		t.Errorf("got %q, want %q", text, want)
	}
	for _, text := range []string{
		`{"name":"rank","type":"integer","key":false,"nullable":true,"operators":["eq","ne","lt","lte","gt","gte","in","isnull"],"sortable":true,"search":false}`,
		`{"name":"name","type":"text","key":false,"nullable":false,"operators":["eq","ne","lt","lte","gt","gte","in","like","prefix","isnull"],"sortable":true,"search":true}`,
		`"name":"node_metrics","kind":"metric","version":1,"versions":[{"version":1,"live":true}],"categories":["execution"]`,
	} {
		if !strings.Contains(got.body, text) {
			t.Errorf("the list does not have %s: %s", text, got.body)
		}
	}
	w.exec("insert into fs.views (name, version, definition, live, dropped) values ('things', 2, '{}', false, false), ('things', 3, '{}', false, true)")
	w.exec("update fs.views set definition = '{}' where name = 'trail'")
	w.exec("update fs.views set definition = 'x' where name = 'metrics_hourly'")
	want := `"versions":[{"version":1,"live":true},{"version":2,"live":false}]`
	w.until("the other version is listed, the dropped one is not", func() bool { return strings.Contains(w.ok("/v1/views").body, want) })
	w.refused("/v1/views/trail", http.StatusNotFound, "unknown-view")
	w.refused("/v1/views/metrics_hourly", http.StatusNotFound, "unknown-view")
	w.ok("/v1/views/things")
}

func TestAViewThatIsNewIsServed(t *testing.T) {
	w := newWorld(t)
	w.refused("/v1/views/later", http.StatusNotFound, "unknown-view")
	later := things(1)
	later.Name = "later"
	if err := projector.Migrate(t.Context(), w.pool, namespace, []projection.View{later}); err != nil {
		t.Fatal(err)
	}
	w.until("the view is served", func() bool { return w.get("/v1/views/later").status == http.StatusOK })
}
