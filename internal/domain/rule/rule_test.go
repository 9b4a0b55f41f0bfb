package rule_test

import (
	"strings"
	"testing"

	"github.com/foldstream/foldstream/internal/domain/rule"
)

func TestChecks(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		got  *rule.Broken
		code string // "" for fine
	}{
		{"a name within its limit", rule.Name("name", "äö", 4), ""},
		{"a name beyond its limit, counted in bytes", rule.Name("name", "äö", 3), rule.CodeLimit},
		{"no name", rule.Name("name", "", 4), rule.CodeValue},
		{"a text may be empty", rule.Text("text", "", 4), ""},
		{"a text that is no UTF-8", rule.Text("text", "\xc3", 4), rule.CodeValue},
		{"a set", rule.Set("tags", []string{"a", "b"}, 2, 1), ""},
		{"no set", rule.Set("tags", nil, 2, 1), ""},
		{"a set with too many", rule.Set("tags", []string{"a", "b", "c"}, 2, 1), rule.CodeLimit},
		{"a set with one twice", rule.Set("tags", []string{"a", "a"}, 2, 1), rule.CodeValue},
		{"a set with an empty one", rule.Set("tags", []string{"a", ""}, 2, 1), rule.CodeValue},
		{"a map", rule.Map("config", map[string]string{"a": ""}), ""},
		{"a map with an empty key", rule.Map("config", map[string]string{"": "a"}), rule.CodeValue},
		{"a map with a value that is no UTF-8", rule.Map("config", map[string]string{"a": "\xff"}), rule.CodeValue},
		{"a map with a long value", rule.Map("config", map[string]string{"a": strings.Repeat("x", rule.MapValueBytesMax+1)}), rule.CodeLimit},
		{"the first of several", rule.First(nil, rule.Name("a", "", 1), rule.Name("b", "bb", 1)), rule.CodeValue},
		{"none of several", rule.First(nil, nil), ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			switch {
			case c.got == nil && c.code != "":
				t.Errorf("got fine, want %s", c.code)
			case c.got != nil && c.got.Code != c.code:
				t.Errorf("got %s (%s), want %q", c.got.Code, c.got.Message, c.code)
			}
		})
	}
}

func TestAMapHasOneAnswer(t *testing.T) {
	t.Parallel()
	m := map[string]string{"b": "\xff", "a": "\xff", "c": "\xff"}
	for range 50 {
		if got := rule.Map("config", m).Message; !strings.Contains(got, `"a"`) {
			t.Fatalf("got %q, want the least key named each time", got)
		}
	}
}
