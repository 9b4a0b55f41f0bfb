package dashboards

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"go.yaml.in/yaml/v3"
)

const (
	scrapeEvery    = "500ms"
	answerBytesMax = 64 << 20
	startMax       = 20 * time.Second
	requestMax     = 10 * time.Second
)

// require returns the path of a program of the Debian package prometheus. Without it the test is
// left out, loudly, and fails where all backends are required.
func require(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	line := fmt.Sprintf("MISSING %s: %v; Debian's package is prometheus", program, err)
	if os.Getenv(testkit.EnvRequireAll) == "1" {
		t.Fatalf("%s; %s is set", line, testkit.EnvRequireAll)
	}
	if file := os.Getenv(testkit.EnvMissingFile); file != "" {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := fmt.Fprintln(f, line); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(os.Stderr, line)
	t.Skip(line)
	return ""
}

// server is a Prometheus of our own, which ends with the test.
type server struct {
	t    *testing.T
	base string
}

var listening = regexp.MustCompile(`msg="Listening on" address=([0-9.:]+)`)

// startPrometheus runs a real Prometheus with the committed configuration and rules; only the
// targets and the intervals are the test's.
func startPrometheus(t *testing.T, namespace string, targets ...string) *server {
	t.Helper()
	program, dir := require(t, "prometheus"), t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	writeConfig(t, config, namespace, targets)
	process := testkit.StartProcess(t, func() *exec.Cmd {
		return exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
			"--web.listen-address=127.0.0.1:0", "--log.level=info")
	})
	s := &server{t: t}
	testkit.Await(t, "Prometheus listens", startMax, func(context.Context) bool {
		found := listening.FindStringSubmatch(process.Output())
		if found != nil {
			s.base = "http://" + found[1]
		}
		return found != nil
	})
	return s
}

func writeConfig(t *testing.T, path, namespace string, targets []string) {
	t.Helper()
	var config struct {
		Global        map[string]string
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName       string `yaml:"job_name"`
			StaticConfigs []struct {
				Targets []string
				Labels  map[string]string
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	decodeYAML(t, filepath.Join(prometheusDir, "prometheus.yml"), &config)
	if len(config.RuleFiles) != 1 || len(config.ScrapeConfigs) != 1 || len(config.ScrapeConfigs[0].StaticConfigs) != 1 {
		t.Fatalf("the example has another form than this test knows: %+v", config)
	}
	rules, err := filepath.Abs(filepath.Join(prometheusDir, config.RuleFiles[0]))
	if err != nil {
		t.Fatal(err)
	}
	config.RuleFiles[0] = rules
	config.Global = map[string]string{"scrape_interval": scrapeEvery, "evaluation_interval": scrapeEvery}
	group := &config.ScrapeConfigs[0].StaticConfigs[0]
	group.Targets, group.Labels["namespace"] = targets, namespace
	out, err := yaml.Marshal(config)
	if err == nil {
		err = os.WriteFile(path, out, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// get asks the HTTP API and decodes the data of its answer.
func (s *server) get(path string, values url.Values, into any) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), requestMax)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path+"?"+values.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, answerBytesMax)).Decode(&answer); err != nil {
		return fmt.Errorf("%s answered %s: %w", path, response.Status, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s answered %s: %s", path, response.Status, answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// result is a vector or a matrix.
type result struct {
	Result []struct {
		Metric map[string]string
		Value  sample
		Values []sample
	}
}

type sample [2]any // seconds, the value as text

func (v sample) number() float64 {
	text, _ := v[1].(string)
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return n
}

// numbers counts the samples that are numbers: a quantile of nothing is none.
func (r result) numbers() int {
	n := 0
	for _, s := range r.Result {
		for _, v := range append(s.Values, s.Value) {
			if !math.IsNaN(v.number()) {
				n++
			}
		}
	}
	return n
}

func (s *server) query(expr string) (result, error) {
	var r result
	err := s.get("/api/v1/query", url.Values{"query": {expr}}, &r)
	return r, err
}

// queryRange asks for one value a second since from. The last is of now: a panel ends there, too.
func (s *server) queryRange(expr string, from time.Time) (result, error) {
	var r result
	end := time.Now()
	start := end.Add(-time.Since(from).Round(time.Second))
	err := s.get("/api/v1/query_range", url.Values{"query": {expr}, "step": {"1"},
		"start": {start.Format(time.RFC3339Nano)}, "end": {end.Format(time.RFC3339Nano)}}, &r)
	return r, err
}

// holds says whether an expression with a comparison has a result.
func (s *server) holds(expr string) bool {
	r, err := s.query(expr)
	return err == nil && r.numbers() > 0
}

func (s *server) labelValues(label, match string) ([]string, error) {
	var values []string
	err := s.get("/api/v1/label/"+label+"/values", url.Values{"match[]": {match}}, &values)
	return values, err
}

// rule is an alert as Prometheus knows it.
type rule struct {
	Name, State, Health, LastError, Query string
	LastEvaluation                        time.Time
}

func (s *server) rules() ([]rule, error) {
	var data struct {
		Groups []struct{ Rules []rule }
	}
	if err := s.get("/api/v1/rules", url.Values{"type": {"alert"}}, &data); err != nil {
		return nil, err
	}
	var all []rule
	for _, g := range data.Groups {
		all = append(all, g.Rules...)
	}
	return all, nil
}
