package dashboards

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

const (
	scrapedMax = 20 * time.Second
	seenMax    = 30 * time.Second

	// Grafana's own variables, as a short look at a new stack has them.
	rateInterval = "30s"
	interval     = "1s"
	lookRange    = "1m"
)

// alertsExpected are those that the commands sent set off.
var alertsExpected = []string{"FoldstreamCommandLetters"}

// TestEveryExpressionFindsSeries runs the whole: a stack, a real Prometheus that scrapes it with
// the committed configuration, commands that meet every outcome, then each query of each panel.
func TestEveryExpressionFindsSeries(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs Postgres and Prometheus")
	}
	t.Parallel()
	require(t, "prometheus")
	w := newWorld(t)
	began := time.Now()
	s := startPrometheus(t, w.env.Project.Namespace, w.addresses...)
	// A rate begins at the second scrape, so there must be two before anything happens.
	testkit.Await(t, "each service was scraped twice", scrapedMax, func(context.Context) bool {
		return s.holds(fmt.Sprintf(`count(count_over_time(up{job="foldstream"}[1m]) >= 2) == %d`, len(w.addresses))) &&
			s.holds(fmt.Sprintf(`sum(up{job="foldstream"}) == %d`, len(w.addresses)))
	})
	w.send()
	awaitOutcomes(t, s)

	for file, d := range load(t) {
		t.Run(file, func(t *testing.T) { checkDashboard(t, s, d, began) })
	}
	t.Run("alerts", func(t *testing.T) { checkAlerts(t, s) })
}

// awaitOutcomes returns when a scrape has seen every outcome, and the views behind nothing.
func awaitOutcomes(t *testing.T, s *server) {
	t.Helper()
	for _, outcome := range []string{"accepted", "duplicate", "conflict", "rejected", "invalid"} {
		testkit.Await(t, "a command is "+outcome, seenMax, func(context.Context) bool {
			return s.holds(fmt.Sprintf(`sum(foldstream_ingest_commands_total{outcome=%q}) > 0`, outcome))
		})
	}
	// So short a run takes no history slot, which is all that the view of snapshots keeps.
	testkit.Await(t, "every view has applied events and is behind nothing", seenMax, func(context.Context) bool {
		return s.holds(`min(sum by (view) (foldstream_projector_events_applied_total{view!="snapshots.v1"})) > 0`) &&
			s.holds(`sum(foldstream_projector_lag_records) == 0`)
	})
}

func checkDashboard(t *testing.T, s *server, d dashboard.Dashboard, began time.Time) {
	t.Helper()
	all, one := values(t, s, d)
	for look, variables := range map[string]map[string]string{"everything": all, "one category and one view": one} {
		for _, e := range expressions(t, d) {
			expr := substitute(e.text, variables)
			if strings.Contains(expr, "$") {
				t.Errorf("panel %q: a variable is left in %s", e.panel, expr)
				continue
			}
			found, err := s.queryRange(expr, began)
			if e.instant {
				found, err = s.query(expr)
			}
			if err != nil {
				t.Errorf("panel %q: %v\n%s", e.panel, err, expr)
			} else if found.numbers() == 0 {
				t.Errorf("panel %q shows nothing for %s: got %d series without a number\n%s", e.panel, look, len(found.Result), expr)
			}
		}
	}
	for _, a := range d.Annotations.List {
		if _, err := s.queryRange(substitute(deref(a.Expr), all), began); err != nil {
			t.Errorf("annotation %q: %v", a.Name, err)
		}
	}
}

var labelValues = regexp.MustCompile(`^label_values\(([^{,]+(?:\{.*\})?),\s*(\w+)\)$`)

// values asks for each variable's options, as Grafana does, and returns the variables with all
// chosen and with one category and one view chosen.
func values(t *testing.T, s *server, d dashboard.Dashboard) (all, one map[string]string) {
	t.Helper()
	all = map[string]string{"__rate_interval": rateInterval, "__interval": interval, "__range": lookRange}
	one = map[string]string{"__rate_interval": rateInterval, "__interval": interval, "__range": lookRange}
	for _, v := range d.Templating.List {
		if v.Type != dashboard.VariableTypeQuery {
			continue
		}
		query := deref(v.Definition)
		if v.Query == nil || v.Query.Map["query"] != query {
			t.Errorf("variable %s: its query and its definition differ", v.Name)
		}
		parts := labelValues.FindStringSubmatch(substitute(query, all))
		if parts == nil {
			t.Fatalf("variable %s: got %q, want label_values(metric, label)", v.Name, query)
		}
		options, err := s.labelValues(parts[2], parts[1])
		if err != nil || len(options) == 0 {
			t.Fatalf("variable %s: got %d options, want some: %s (%v)", v.Name, len(options), query, err)
		}
		all[v.Name] = everyOption(v, options)
		one[v.Name] = all[v.Name]
		if v.Name == "category" || v.Name == "view" {
			one[v.Name] = escape(options[0])
		}
	}
	return all, one
}

func everyOption(v dashboard.VariableModel, options []string) string {
	if v.AllValue != nil {
		return *v.AllValue
	}
	var escaped []string
	for _, o := range options {
		escaped = append(escaped, escape(o))
	}
	return "(" + strings.Join(escaped, "|") + ")"
}

// escape does as Grafana does for a regular expression inside of a quoted text.
func escape(option string) string {
	return strings.ReplaceAll(regexp.QuoteMeta(option), `\`, `\\`)
}

// substitute puts the longest names in first: one may begin with another.
func substitute(expr string, variables map[string]string) string {
	var names []string
	for name := range variables {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, name := range names {
		pairs = append(pairs, "${"+name+"}", variables[name], "$"+name, variables[name])
	}
	return strings.NewReplacer(pairs...).Replace(expr)
}

var ourMetric = regexp.MustCompile(`\bfoldstream_[a-z_]+`)

// checkAlerts holds the rules to the metrics that there are: a misspelt one never fires.
func checkAlerts(t *testing.T, s *server) {
	t.Helper()
	var rules []rule
	testkit.Await(t, "every alert was evaluated, and those expected fire", seenMax, func(context.Context) bool {
		var err error
		if rules, err = s.rules(); err != nil || len(rules) == 0 {
			return false
		}
		for _, r := range rules {
			if r.LastEvaluation.IsZero() || slices.Contains(alertsExpected, r.Name) && r.State != "firing" {
				return false
			}
		}
		return true
	})
	for _, r := range rules {
		if r.Health != "ok" || r.LastError != "" {
			t.Errorf("alert %s: got health %s, want ok: %s", r.Name, r.Health, r.LastError)
		}
		if r.State == "firing" && !slices.Contains(alertsExpected, r.Name) {
			t.Errorf("alert %s fires on a healthy stack", r.Name)
		}
		for _, metric := range ourMetric.FindAllString(r.Query, -1) {
			if !s.holds("count(" + metric + ") > 0") {
				t.Errorf("alert %s: there is no metric %s", r.Name, metric)
			}
		}
	}
}
