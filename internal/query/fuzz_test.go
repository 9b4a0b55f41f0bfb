package query

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/foldstream/foldstream/pkg/projection"
	"pgregory.net/rapid"
)

// fuzzView has a column of every type.
func fuzzView(t testing.TB) *view {
	t.Helper()
	d := definition{Kind: projection.KindEntity, Categories: []string{"thing"}, Key: []projection.Column{{Name: "id", Type: "text"}}}
	for _, c := range []string{"name text", "note text?", "small smallint", "total bigint", "rank integer?", "ratio double precision?", "open boolean", "tags text[]", "doc jsonb", "at timestamptz", "end_at timestamptz?", "raw bytea", "price numeric"} {
		name, typ, _ := strings.Cut(c, " ")
		bare, nullable := strings.CutSuffix(typ, "?")
		d.Columns = append(d.Columns, projection.Column{Name: name, Type: bare, Nullable: nullable})
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	a := &API{cfg: Config{Namespace: "fs", Search: map[string]string{"things": "name"}}}
	v, err := a.viewOf("things", 1, string(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// words are all that a statement may be made of, beside the view's own names and parameters.
var words = strings.Fields(`select from where and or order by desc limit in is not null distinct ilike like array false
	text bigint boolean double precision timestamptz = < > <= >= @> ( ) [ ] , fs_present`)

var tokens = regexp.MustCompile(`"[^"]*"(\."[^"]*")?|\$[0-9]+::|::|[a-z_]+|<=|>=|@>|[=<>()\[\],]|\s+|.`)

// checkStatement holds the text of a statement against what it may be made of.
func checkStatement(t interface{ Fatalf(string, ...any) }, v *view, q *statement) {
	text := q.text.String()
	var names []string
	for i := range v.columns {
		names = append(names, v.columns[i].quoted)
	}
	places := 0
	for _, token := range tokens.FindAllString(text, -1) {
		switch {
		case strings.TrimSpace(token) == "" || token == "::" || slices.Contains(words, token) || slices.Contains(names, token) || token == v.table:
		case strings.HasPrefix(token, "$"):
			places++
		default:
			t.Fatalf("the statement has %q, which is neither ours nor of the view: %s", token, text)
		}
	}
	if places < len(q.args) {
		t.Fatalf("%d values for %d places: %s", len(q.args), places, text)
	}
}

func FuzzSelection(f *testing.F) {
	for _, seed := range []string{
		"status=completed&started_at.gte=2026-03-01T00:00:00Z", "name.in=a,b\\,c&sort=-total,name&limit=3", "q=abc&fields=name,doc",
		"name=%27%3B+drop+table+x%3B--", "total.gt=1;sort=id", "sort=-note&cursor=AAAAAAAAAABbIngiLCJ5Il0", "doc.isnull=true&tags.has=x",
		`name.like=a\`, "name.prefix=%F4%8F%BF%BF", "price=1", "raw.isnull=false", "id%22+or+1=1", "sort=id%22", "open=true&open.ne=false",
	} {
		f.Add(seed)
	}
	v := fuzzView(f)
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := paramsOf(raw)
		if err != nil {
			checkProblem(t, err)
			return
		}
		s, err := selectionOf(v, p)
		if err != nil {
			checkProblem(t, err)
			return
		}
		checkStatement(t, v, s.list())
		if s.limit < 1 || s.limit > limitMax || len(s.filters) > filtersMax {
			t.Fatalf("limit %d, %d filters", s.limit, len(s.filters))
		}
	})
}

// checkProblem wants an error to be the client's, and its text to be sendable.
func checkProblem(t *testing.T, err error) {
	t.Helper()
	p, is := err.(*Problem) //nolint:errorlint // nothing wraps it here
	if !is || p.Status != 400 || len(p.Errors) == 0 {
		t.Fatalf("got %v, want a 400 with faults", err)
	}
	for _, fault := range p.Errors {
		if !utf8.ValidString(fault.Location) || len(fault.Location) > 100 || len(fault.Message) > 2000 {
			t.Fatalf("a fault repeats too much: %q", fault)
		}
	}
}

func FuzzCursor(f *testing.F) {
	for _, seed := range []string{"", "AAAAAAAAAAA", "AAAAAAAAAABbIngiXQ", "====", "W10"} {
		f.Add(seed, "-total")
	}
	v := fuzzView(f)
	f.Fuzz(func(t *testing.T, cursor, sort string) {
		p := &params{values: url.Values{paramSort: {sort}, paramCursor: {cursor}}}
		s, err := selectionOf(v, p)
		if err != nil {
			checkProblem(t, err)
			return
		}
		checkStatement(t, v, s.list())
	})
}

func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"thing/a@1", "4@5", "thing:4@5", "@", "/@1", ":@1", "thing/a@b@2"} {
		f.Add(seed)
	}
	v := fuzzView(f)
	f.Fuzz(func(t *testing.T, text string) {
		target, err := parseTarget(text, v)
		if err == nil && (target.category != "thing" || target.wanted < 0 || target.partition < 0 || len(target.stream) > 255) {
			t.Fatalf("%q: got %+v", text, target)
		}
	})
}

func FuzzEncoding(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 'x'}, uint32(1009))
	f.Add([]byte{1, '{', '}'}, uint32(3802))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1}, uint32(1184))
	f.Add([]byte{0x7f, 0xf8, 0, 0, 0, 0, 0, 0}, uint32(701))
	f.Fuzz(func(t *testing.T, raw []byte, oid uint32) {
		const jsonb = 3802 // whose text Postgres has checked
		add := appenderOf(oid)
		if add == nil || !utf8.Valid(raw) {
			return
		}
		if out, err := add(nil, raw); err == nil && oid != jsonb && !json.Valid(out) {
			t.Fatalf("oid %d: %q became %q, which is no JSON", oid, raw, out)
		}
	})
}

func TestCursorsComeBackAsTheyWere(t *testing.T) {
	v := fuzzView(t)
	rapid.Check(t, func(t *rapid.T) {
		sort := rapid.SampledFrom([]string{"name", "-name,total", "note,-rank", "at,-ratio,open", "-end_at"}).Draw(t, "sort")
		s, err := selectionOf(v, &params{values: url.Values{paramSort: {sort}}})
		if err != nil {
			t.Fatal(err)
		}
		var texts []*string
		for _, term := range s.sort {
			var text string
			switch term.column.kind {
			case kindText:
				text = rapid.StringN(0, 50, 200).Filter(func(s string) bool { return checkText(s) == nil }).Draw(t, "text")
			case kindFloat:
				text = string(appendNumber(nil, rapid.Float64().Draw(t, "float")))
			case kindBool:
				text = "true"
			default:
				text = rapid.SampledFrom([]string{"0", "-1", "9223372036854775807", "-9223372036854775808", "12345"}).Draw(t, "integer")
			}
			texts = append(texts, &text)
		}
		if rapid.Bool().Draw(t, "null") {
			texts[0] = nil
		}
		cursor, err := s.cursor(texts)
		if err != nil {
			t.Fatal(err)
		}
		parts, err := s.parseCursor(cursor)
		if err != nil {
			t.Fatalf("%s: %v", cursor, err)
		}
		s.after = parts
		checkStatement(t, v, s.list())
		if parts[0].null != (texts[0] == nil) {
			t.Fatalf("null: got %v for %v", parts[0].null, texts[0])
		}
		for i, term := range s.sort {
			if term.column.kind == kindText && texts[i] != nil && parts[i].value != *texts[i] {
				t.Fatalf("got %q, want %q", parts[i].value, *texts[i])
			}
		}
	})
}

func TestAPrefixEndsBehindAllThatBeginWithIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.StringN(0, 5, 20).Filter(utf8.ValidString).Draw(t, "prefix")
		rest := rapid.StringN(0, 5, 20).Filter(utf8.ValidString).Draw(t, "rest")
		end := afterPrefix(prefix)
		if end == "" {
			if strings.Trim(prefix, "\U0010FFFF") != "" {
				t.Fatalf("%q: nothing is behind it", prefix)
			}
			return
		}
		if !utf8.ValidString(end) || prefix+rest >= end {
			t.Fatalf("%q is not before %q, the end of prefix %q", prefix+rest, end, prefix)
		}
		if other := rapid.StringN(0, 6, 20).Filter(utf8.ValidString).Draw(t, "other"); other >= prefix && other < end && !strings.HasPrefix(other, prefix) {
			t.Fatalf("%q is within %q and %q, but does not begin with the former", other, prefix, end)
		}
	})
}
