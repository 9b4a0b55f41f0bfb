package dashboards

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const rulesTests = "testdata/rules_test.yml"

func TestPromtoolTakesConfigurationAndRules(t *testing.T) {
	t.Parallel()
	promtool := require(t, "promtool")
	for _, args := range [][]string{
		{"check", "config", filepath.Join(prometheusDir, "prometheus.yml")},
		{"check", "rules", filepath.Join(prometheusDir, "rules.yml")},
		{"test", "rules", rulesTests},
	} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func TestEachAlertIsShownToFireAndTellsWhatToDo(t *testing.T) {
	t.Parallel()
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	decodeYAML(t, filepath.Join(prometheusDir, "rules.yml"), &file)
	tests, err := os.ReadFile(rulesTests)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, group := range file.Groups {
		for _, r := range group.Rules {
			seen++
			if !strings.Contains(string(tests), `{alertname="`+r.Alert+`"`) {
				t.Errorf("alert %s: no test in %s has it fire", r.Alert, rulesTests)
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("alert %s: got severity %q, want critical or warning", r.Alert, s)
			}
			if r.Annotations["summary"] == "" || len(r.Annotations["description"]) < 60 {
				t.Errorf("alert %s: want a summary, and a description that says what to do", r.Alert)
			}
		}
	}
	if seen == 0 {
		t.Error("got no alert")
	}
}
