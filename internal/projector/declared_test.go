package projector

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/foldstream/foldstream"
	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/project"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/projection/declared"
)

// declaredText is a view's file at the repository's root.
func declaredText(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "views", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func compileDeclared(t testing.TB, text string) projection.View {
	t.Helper()
	p, err := project.Load(foldstream.Project, "")
	if err != nil {
		t.Fatal(err)
	}
	v, err := declared.Compile("view.yaml", []byte(text), p.ViewTypes())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDeclaredViewsFollowTheLogAsTheirGoVersionsDo(t *testing.T) {
	inGo := []projection.View{views.WorkflowList(), views.NodeMetrics()}
	inYAML := []projection.View{
		compileDeclared(t, declaredText(t, "workflow_list.v1.yaml")), compileDeclared(t, declaredText(t, "node_metrics.v1.yaml")),
	}
	everywhere(t, inYAML, func(w *world) {
		random := rand.New(rand.NewPCG(3, 4))
		w.views = views.All() // records are written from Go types
		first := w.business(random, 60)
		second := w.business(random, 60)
		w.views = inYAML
		w.write(first...)
		p := w.run(func(c *Config) { c.BatchRecordsMax = 20; c.RowCacheRowsMax = 5 })
		w.caughtUp()
		w.write(second...)
		w.caughtUp()
		p.stop()
		for i, v := range inYAML {
			want, err := projection.Fold(inGo[i], w.log...)
			if err != nil {
				w.t.Fatal(err)
			}
			got, err := ReadTable(w.t.Context(), w.pool, w.ns, v)
			if err != nil {
				w.t.Fatal(err)
			}
			if len(want.Rows) == 0 {
				w.t.Errorf("view %s has no rows to compare", v.Name)
			}
			if diff := projection.Diff(want, got); len(diff) > 0 {
				w.t.Errorf("view %s differs from its Go version in %d places:\n%s", v.Name, len(diff), strings.Join(diff[:min(len(diff), 5)], "\n"))
			}
		}
	})
}

func TestAnExpressionMayNotChangeUnderOneVersion(t *testing.T) {
	text := declaredText(t, "node_metrics.v1.yaml")
	everywhere(t, []projection.View{compileDeclared(t, text)}, func(w *world) {
		again := func(text string) error {
			return Migrate(w.t.Context(), w.pool, w.ns, []projection.View{compileDeclared(w.t, text)})
		}
		if err := again("# a comment is none\n" + text); err != nil {
			w.t.Errorf("the same definition: %v", err)
		}
		changed := strings.Replace(text, "== 'failed'", "!= 'succeeded'", 1)
		if err := again(changed); !errors.Is(err, ErrDefinitionChanged) {
			w.t.Errorf("another expression: got error %v, want ErrDefinitionChanged", err)
		}
		if err := again(strings.Replace(changed, "version: 1", "version: 2", 1)); err != nil {
			w.t.Errorf("another expression under version 2: %v", err)
		}
	})
}
