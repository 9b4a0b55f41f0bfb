package web

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestClippedTextsAreShortUTF8(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                            "",
		"short":                       "short",
		"a\xffb":                      "a\uFFFDb",
		strings.Repeat("x", 64):       strings.Repeat("x", 64),
		strings.Repeat("x", 65):       strings.Repeat("x", 64) + "…",
		strings.Repeat("x", 63) + "ä": strings.Repeat("x", 63) + "…",
	} {
		if got := Clip(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestTextsAreJSONWhateverTheyHold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) + rapid.String().Draw(t, "text")
		encoded := AppendText(nil, text)
		var got string
		if err := json.Unmarshal(encoded, &got); err != nil || !utf8.Valid(encoded) {
			t.Fatalf("%q: got %s, which is no JSON: %v", text, encoded, err)
		}
		if want := string([]rune(text)); got != want { // each bad byte is U+FFFD
			t.Errorf("got %q, want %q", got, want)
		}
		if bytes := AppendText(nil, []byte(text)); string(bytes) != string(encoded) {
			t.Errorf("of bytes: got %s, want %s", bytes, encoded)
		}
	})
}
