// Package dashboards holds what deploy/grafana and deploy/prometheus promise: Grafana's own schema
// takes each dashboard, every expression finds series on a running stack, and every alert fires
// when it should and only then.
package dashboards

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"go.yaml.in/yaml/v3"
)

const (
	dashboardFiles   = "../../deploy/grafana/dashboards/*.json"
	provisioningDir  = "../../deploy/grafana/provisioning"
	prometheusDir    = "../../deploy/prometheus"
	datasourceChosen = "${datasource}" // the variable, so that a dashboard fits any Grafana
	gridWidth        = 24
)

// panelTypes are those that our dashboards use. The SDK checks the options of no others, and
// linking all that it knows takes minutes.
var panelTypes = []variants.PanelcfgConfig{stat.VariantConfig(), timeseries.VariantConfig()}

// register tells the SDK, which keeps them in a global.
var register = sync.OnceFunc(func() {
	runtime := cog.NewRuntime()
	for _, p := range panelTypes {
		runtime.RegisterPanelcfgVariant(p)
	}
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
})

// load decodes every dashboard by Grafana's schema; an unknown field is an error.
func load(t *testing.T) map[string]dashboard.Dashboard {
	t.Helper()
	register()
	paths, err := filepath.Glob(dashboardFiles)
	if err != nil || len(paths) == 0 {
		t.Fatalf("list %s: got %d files, want at least one (%v)", dashboardFiles, len(paths), err)
	}
	all := map[string]dashboard.Dashboard{}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(path)] = decode(t, path, raw)
	}
	return all
}

// decode decodes twice: of what the SDK's strict decoder fills, the panels are missing, since it
// takes its own empty list of faults for a fault.
func decode(t *testing.T, path string, raw []byte) dashboard.Dashboard {
	t.Helper()
	var strict, d dashboard.Dashboard
	var faults cog.BuildErrors
	if err := strict.UnmarshalJSONStrict(raw); err != nil && !(errors.As(err, &faults) && len(faults) == 0) {
		t.Fatalf("decode %s: %v", path, err)
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatalf("decode %s: %v", path, err)
	}
	if err := d.Validate(); err != nil {
		t.Fatalf("validate %s: %v", path, err)
	}
	checkNothingIsLost(t, path, raw, d)
	return d
}

// checkNothingIsLost finds what the strict decoder passes over, such as an unknown field of a
// panel's field configuration: it is not there any more when the dashboard is encoded again.
func checkNothingIsLost(t *testing.T, path string, raw []byte, d dashboard.Dashboard) {
	t.Helper()
	again, err := json.Marshal(d)
	if err != nil {
		t.Fatalf("encode %s again: %v", path, err)
	}
	var want, got any
	if err := errors.Join(json.Unmarshal(raw, &want), json.Unmarshal(again, &got)); err != nil {
		t.Fatal(err)
	}
	for _, lost := range missingFrom(got, want, "") {
		t.Errorf("%s: Grafana's schema does not know %s", path, lost)
	}
}

// missingFrom lists the places of want that got has not. Empty values count for nothing: an
// encoder may leave them out.
func missingFrom(got, want any, at string) []string {
	var missing []string
	switch want := want.(type) {
	case map[string]any:
		got, _ := got.(map[string]any)
		for name, value := range want {
			missing = append(missing, missingFrom(got[name], value, at+"."+name)...)
		}
	case []any:
		got, _ := got.([]any)
		for i, value := range want {
			var other any
			if i < len(got) {
				other = got[i]
			}
			missing = append(missing, missingFrom(other, value, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case nil:
	default:
		if got == nil && want != "" && want != false {
			missing = append(missing, at)
		}
	}
	return missing
}

// panels lists those that show data, also those inside of folded rows.
func panels(d dashboard.Dashboard) []dashboard.Panel {
	var all []dashboard.Panel
	for _, p := range d.Panels {
		if p.Panel != nil {
			all = append(all, *p.Panel)
		}
		if p.RowPanel != nil {
			all = append(all, p.RowPanel.Panels...)
		}
	}
	return all
}

// expression is one query of a panel.
type expression struct {
	panel, text string
	instant     bool
}

func expressions(t *testing.T, d dashboard.Dashboard) []expression {
	t.Helper()
	var all []expression
	for _, p := range panels(d) {
		for _, target := range p.Targets {
			q, ok := target.(*prometheus.Dataquery)
			if !ok {
				t.Errorf("panel %q has a query of type %T, want one for Prometheus", deref(p.Title), target)
				continue
			}
			all = append(all, expression{panel: deref(p.Title), text: q.Expr, instant: q.Instant != nil && *q.Instant})
		}
	}
	return all
}

func TestDashboardsHoldToGrafanasSchemaAndHelpTheirReader(t *testing.T) {
	t.Parallel()
	uids := map[string]string{}
	for file, d := range load(t) {
		if uid := deref(d.Uid); uid == "" || uids[uid] != "" {
			t.Errorf("%s: got uid %q (taken by %q), want one of its own, so that links stay", file, uid, uids[uid])
		} else {
			uids[uid] = file
		}
		if d.Id != nil {
			t.Errorf("%s: got id %d, want none: Grafana gives it", file, *d.Id)
		}
		checkPanels(t, file, d)
		checkVariables(t, file, d)
		for _, a := range d.Annotations.List {
			checkDatasource(t, file+", annotation "+a.Name, a.Datasource)
		}
	}
}

func checkPanels(t *testing.T, file string, d dashboard.Dashboard) {
	t.Helper()
	shown := panels(d)
	if len(shown) == 0 {
		t.Errorf("%s: got no panel", file)
	}
	ids := map[uint32]string{}
	for i, p := range shown {
		title := deref(p.Title)
		where := file + ", panel " + title
		if title == "" || len(deref(p.Description)) < 20 {
			t.Errorf("%s: got description %q, want a title and what to do when it looks bad", where, deref(p.Description))
		}
		if !slices.ContainsFunc(panelTypes, func(known variants.PanelcfgConfig) bool { return known.Identifier == p.Type }) {
			t.Errorf("%s: its type %s is not in panelTypes, so that its options were not checked: add it", where, p.Type)
		}
		if p.Id == nil || ids[*p.Id] != "" {
			t.Errorf("%s: got no id of its own", where)
		} else {
			ids[*p.Id] = title
		}
		if p.FieldConfig == nil || deref(p.FieldConfig.Defaults.Unit) == "" {
			t.Errorf("%s: got no unit", where)
		}
		if len(p.Targets) == 0 {
			t.Errorf("%s: got no query", where)
		}
		checkDatasource(t, where, p.Datasource)
		for _, other := range shown[:i] {
			if overlap(p.GridPos, other.GridPos) {
				t.Errorf("%s: lies over panel %s", where, deref(other.Title))
			}
		}
		if p.GridPos == nil || p.GridPos.X+p.GridPos.W > gridWidth {
			t.Errorf("%s: got position %+v, want one within %d columns", where, p.GridPos, gridWidth)
		}
	}
}

func overlap(a, b *dashboard.GridPos) bool {
	if a == nil || b == nil {
		return false
	}
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}

func checkVariables(t *testing.T, file string, d dashboard.Dashboard) {
	t.Helper()
	has := map[string]bool{}
	for _, v := range d.Templating.List {
		has[v.Name] = true
		if v.Type == dashboard.VariableTypeQuery {
			checkDatasource(t, file+", variable "+v.Name, v.Datasource)
		}
	}
	for _, name := range []string{"datasource", "namespace", "instance"} {
		if !has[name] {
			t.Errorf("%s: got no variable %s", file, name)
		}
	}
}

func checkDatasource(t *testing.T, where string, ref *common.DataSourceRef) {
	t.Helper()
	if ref == nil || deref(ref.Type) != "prometheus" || deref(ref.Uid) != datasourceChosen {
		t.Errorf("%s: want the data source that the reader chose, of type prometheus and uid %s", where, datasourceChosen)
	}
}

// datasources and providers are the fields of Grafana's provisioning files that we use.
type datasources struct {
	APIVersion  int `yaml:"apiVersion"`
	Datasources []struct {
		Name, UID, Type, Access, URL string
		IsDefault                    bool `yaml:"isDefault"`
		JSONData                     struct {
			HTTPMethod   string `yaml:"httpMethod"`
			TimeInterval string `yaml:"timeInterval"`
		} `yaml:"jsonData"`
	}
}

type providers struct {
	APIVersion int `yaml:"apiVersion"`
	Providers  []struct {
		Name, Folder, Type    string
		FolderUID             string `yaml:"folderUid"`
		DisableDeletion       bool   `yaml:"disableDeletion"`
		AllowUIUpdates        bool   `yaml:"allowUiUpdates"`
		UpdateIntervalSeconds int    `yaml:"updateIntervalSeconds"`
		Options               struct {
			Path                      string
			FoldersFromFilesStructure bool `yaml:"foldersFromFilesStructure"`
		}
	}
}

func TestProvisioningIsReadable(t *testing.T) {
	t.Parallel()
	var sources datasources
	decodeYAML(t, filepath.Join(provisioningDir, "datasources", "prometheus.yml"), &sources)
	if len(sources.Datasources) != 1 || sources.APIVersion != 1 {
		t.Fatalf("got %d data sources in version %d of the format, want 1 in version 1", len(sources.Datasources), sources.APIVersion)
	}
	if s := sources.Datasources[0]; s.Type != "prometheus" || s.UID == "" || !strings.HasPrefix(s.URL, "${") || s.JSONData.TimeInterval != scrapeInterval(t) {
		t.Errorf("got data source %+v, want type prometheus, a fixed uid, a URL from the environment, and the scrape interval %s", s, scrapeInterval(t))
	}
	var dashboards providers
	decodeYAML(t, filepath.Join(provisioningDir, "dashboards", "foldstream.yml"), &dashboards)
	if len(dashboards.Providers) != 1 || dashboards.APIVersion != 1 {
		t.Fatalf("got %d providers in version %d of the format, want 1 in version 1", len(dashboards.Providers), dashboards.APIVersion)
	}
	if p := dashboards.Providers[0]; p.Type != "file" || !filepath.IsAbs(p.Options.Path) {
		t.Errorf("got provider %+v, want type file and an absolute path", p)
	}
}

func scrapeInterval(t *testing.T) string {
	t.Helper()
	var config struct {
		Global struct {
			ScrapeInterval string `yaml:"scrape_interval"`
		}
	}
	raw, err := os.ReadFile(filepath.Join(prometheusDir, "prometheus.yml"))
	if err == nil {
		err = yaml.Unmarshal(raw, &config)
	}
	if err != nil {
		t.Fatal(err)
	}
	return config.Global.ScrapeInterval
}

// decodeYAML fails on a field that into has not.
func decodeYAML(t *testing.T, path string, into any) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("decode %s: %v", path, err)
	}
}

func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}
