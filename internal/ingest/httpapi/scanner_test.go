package httpapi

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestScannerReadsTextsAsEncodingJSONDoes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`""`, `"a"`, `"äöü"`, `"\u00e4\n\t\"\\\/\b\f\r"`, `"\ud83d\ude00x"`, `"tail\u0041"`, `"😀"`,
		`"\ud83d"`, `"\ude00\ud83d"`, `"\ud83dx"`, `"\x"`, `"\u12"`, `"`, `"a`, `"\`, "\"\x01\"", "\"a\\n\x01\"",
	} {
		s := scanner{b: []byte(text)}
		got := s.string()
		s.end()
		var want string
		err := json.Unmarshal([]byte(text), &want)
		// encoding/json turns half a surrogate pair into U+FFFD, which would be a silent change.
		lossy := err == nil && strings.ContainsRune(want, utf8.RuneError)
		switch {
		case lossy || err != nil:
			if s.err == nil {
				t.Errorf("%s: got %q, want a fault", text, got)
			}
		case s.err != nil || got != want:
			t.Errorf("%s: got %q and %v, want %q", text, got, s.err, want)
		}
	}
}

func TestScannerPassesOverValuesWhole(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", depthMax) + strings.Repeat("]", depthMax)
	for text, want := range map[string]string{
		`{"a":[1,{"b":"}]"}]} ,`: `{"a":[1,{"b":"}]"}]}`,
		`"a\"b",1`:               `"a\"b"`,
		`-1.5e+3]`:               `-1.5e+3`,
		`null}`:                  `null`,
		deep:                     deep,
	} {
		s := scanner{b: []byte(" " + text)}
		if got := string(s.raw()); got != want || s.err != nil {
			t.Errorf("%s: got %q and %v, want %q", text, got, s.err, want)
		}
	}
	for text, want := range map[string]string{
		`[1}`: "do not match", `{"a":[}`: "do not match", `[1`: "does not end", `["a`: "does not end", ``: "the end",
		`,`: "want a value", "[" + deep + "]": "more than 64 levels", `"a\"`: "does not end", `}`: "want a value",
	} {
		s := scanner{b: []byte(text)}
		if s.raw(); s.err == nil || !strings.Contains(s.err.Message, want) {
			t.Errorf("%s: got %v, want %q", text, s.err, want)
		}
	}
}
