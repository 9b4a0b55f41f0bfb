package decidertest

import (
	"strings"
	"testing"
	"time"
)

func TestRenderTellsWhatAvroTells(t *testing.T) {
	t.Parallel()
	type inner struct{ Texts []string }
	type value struct {
		Name    *string
		List    []inner
		Map     map[string]int
		At      time.Time
		private any
	}
	empty := ""
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	cases := []struct {
		name string
		a, b value
		same bool
	}{
		{"nil and an empty list are the same", value{List: nil}, value{List: []inner{}}, true},
		{"nil and an empty map are the same", value{Map: nil}, value{Map: map[string]int{}}, true},
		{"one instant in two zones is the same", value{At: at}, value{At: at.In(time.FixedZone("x", 3600))}, true},
		{"two instants differ", value{At: at}, value{At: at.Add(1)}, false},
		{"nil and a pointer to nothing differ", value{}, value{Name: &empty}, false},
		{"maps of two values differ", value{Map: map[string]int{"a": 1}}, value{Map: map[string]int{"a": 2}}, false},
		{"nested lists differ", value{List: []inner{{[]string{"a"}}}}, value{List: []inner{{[]string{"b"}}}}, false},
		{"a text is not what it looks like in quotes", value{List: []inner{{[]string{"a\nb"}}}}, value{List: []inner{{[]string{"a", "b"}}}}, false},
		{"private fields count", value{private: 1}, value{private: 2}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := render(c.a) == render(c.b); got != c.same {
				t.Errorf("got same %v, want %v\n%s%s", got, c.same, render(c.a), render(c.b))
			}
		})
	}
}

func TestRenderEndsOnAValueThatHoldsItself(t *testing.T) {
	t.Parallel()
	type loop struct{ Next *loop }
	l := &loop{}
	l.Next = l
	if got := render(l); !strings.Contains(got, "…") {
		t.Errorf("got %d bytes without an end mark, want …", len(got))
	}
}

func TestDiffShowsBothSides(t *testing.T) {
	t.Parallel()
	got := diff("a\nb\nc\n", "a\nc\nd\n")
	if want := "(- got, + want)\n  a\n- b\n  c\n+ d\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
