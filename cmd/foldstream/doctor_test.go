package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/doctor"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.yaml.in/yaml/v3"
)

// examined is the report as a program reads it.
type examined struct {
	Verdict  string `json:"verdict" yaml:"verdict"`
	Topic    string `json:"scratch_topic" yaml:"scratch_topic"`
	Findings []struct {
		Step    string `json:"step" yaml:"step"`
		Verdict string `json:"verdict" yaml:"verdict"`
	} `json:"findings" yaml:"findings"`
}

func withoutPostgres(t *testing.T) {
	t.Helper()
	t.Setenv("PGHOST", "")
	t.Setenv("PGSERVICE", "")
}

func doctorOn(ctx context.Context, t *testing.T, k *testkit.Kafka, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return call(ctx, append([]string{"doctor", "--brokers", strings.Join(k.Seeds(), ","), "--namespace", testkit.Namespace(t)}, args...)...)
}

func TestDoctorTellsEveryFormatTheSame(t *testing.T) {
	withoutPostgres(t)
	for _, k := range testkit.Kafkas(t) {
		for format, read := range map[string]func([]byte, any) error{"json": json.Unmarshal, "yaml": yaml.Unmarshal} {
			code, stdout, stderr := doctorOn(t.Context(), t, k, "--fencing", "-o", format)
			var got examined
			if err := read([]byte(stdout), &got); err != nil || code != 0 || got.Verdict != "fit" {
				t.Fatalf("%s, %s: got exit code %d, verdict %q, %v\n%s\n%s", k.Name, format, code, got.Verdict, err, stderr, stdout)
			}
			steps := map[string]string{}
			for _, f := range got.Findings {
				steps[f.Step] = f.Verdict
			}
			for step, verdict := range map[string]string{"old epoch": "fit", "log": "fit", "topics": "warning", "schemas": "skipped", "postgres": "skipped", "clean up": "fit"} {
				if steps[step] != verdict {
					t.Errorf("%s, %s, step %q: got %q, want %q", k.Name, format, step, steps[step], verdict)
				}
			}
			if got.Topic == "" {
				t.Errorf("%s, %s: the scratch topic is not named", k.Name, format)
			}
		}
	}
}

func TestDoctorWithoutFencingOnlyLooks(t *testing.T) {
	withoutPostgres(t)
	cluster := testkit.StartKfake(t)
	for _, key := range []kmsg.Key{kmsg.CreateTopics, kmsg.Produce, kmsg.InitProducerID, kmsg.DeleteTopics} {
		cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			t.Errorf("got a request %s, want none", key.Name())
			return nil, nil, false
		})
	}
	code, stdout, stderr := doctorOn(t.Context(), t, testkit.WrapKfake(cluster))
	if code != 0 || !strings.Contains(stdout, "brokers") || strings.Contains(stdout, "old epoch") {
		t.Errorf("got exit code %d\n%s\n%s", code, stdout, stderr)
	}
}

// TestDoctorOfAStackThatIsUp has topics, schemas and Postgres to look at.
func TestDoctorOfAStackThatIsUp(t *testing.T) {
	t.Parallel()
	dataDir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	dev := make(chan int, 1)
	go func() {
		code, _, _ := call(ctx, "dev", "--ephemeral", "--services", "none", "--data-dir", dataDir, "--log-level", "warn")
		dev <- code
	}()
	defer func() { cancel(); <-dev }()
	testkit.Await(t, "a doctor that finds the stack whole", time.Minute, func(ctx context.Context) bool {
		code, stdout, _ := call(ctx, "doctor", "--data-dir", dataDir, "-o", "json")
		var got examined
		if json.Unmarshal([]byte(stdout), &got) != nil || code != 0 {
			return false
		}
		for _, f := range got.Findings {
			if f.Verdict != "fit" {
				t.Errorf("step %q: got %s, want fit\n%s", f.Step, f.Verdict, stdout)
			}
		}
		return len(got.Findings) == 5
	})
}

func TestDoctorEndsByWhatItFound(t *testing.T) {
	withoutPostgres(t)
	for _, c := range []struct {
		name string
		lie  func(*kfake.Cluster)
		args []string
		code int
		want []string // on stdout
		says string   // on stderr
	}{
		{"unfit", answers(kmsg.Heartbeat, 0), []string{"--fencing"}, service.ExitFailure, []string{"heartbeat: unfit", "  means  ", "  do     "}, "unfit, see heartbeat"},
		{"denied", answers(kmsg.InitProducerID, kerr.TransactionalIDAuthorizationFailed.Code), []string{"--fencing"}, service.ExitDenied, []string{"producer id: denied", "grant this principal"}, "rights are missing, see producer id"},
		{"deadline", answers(kmsg.InitProducerID, kerr.ConcurrentTransactions.Code), []string{"--fencing", "--deadline", "700ms"}, service.ExitFailure, []string{"scratch topic", "deleted"}, "--deadline 700ms is over"},
		{"usage", nil, []string{"--deadline", "0s"}, service.ExitUsage, nil, "--deadline 0s: want more than 0"},
	} {
		cluster := testkit.StartKfake(t)
		if c.lie != nil {
			c.lie(cluster)
		}
		code, stdout, stderr := doctorOn(t.Context(), t, testkit.WrapKfake(cluster), c.args...)
		if code != c.code || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: got exit code %d and %q, want %d and %q", c.name, code, stderr, c.code, c.says)
		}
		for _, part := range c.want {
			if !strings.Contains(stdout, part) {
				t.Errorf("%s: got\n%s\nwant %q in it", c.name, stdout, part)
			}
		}
	}
}

// answers makes a broker answer one kind of request by a code.
func answers(key kmsg.Key, code int16) func(*kfake.Cluster) {
	return func(cluster *kfake.Cluster) {
		cluster.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
			cluster.KeepControl()
			resp := req.ResponseKind()
			switch resp := resp.(type) {
			case *kmsg.InitProducerIDResponse:
				resp.ErrorCode = code
			case *kmsg.HeartbeatResponse:
				resp.ErrorCode = code
			}
			return resp, nil, true
		})
	}
}

func TestDoctorIsInterrupted(t *testing.T) {
	t.Parallel()
	report := doctor.Report{Findings: []doctor.Finding{{Step: "log", Verdict: doctor.Unfit}}}
	for _, c := range []struct {
		err  error
		want int
	}{
		{fmt.Errorf("broken off: %w", service.ErrInterrupted), service.ExitInterrupted},
		{fmt.Errorf("broken off: %w", context.DeadlineExceeded), service.ExitFailure},
		{nil, service.ExitFailure},
	} {
		if got := service.ExitCode(doctorFailure(report, c.err)); got != c.want {
			t.Errorf("%v: got exit code %d, want %d", c.err, got, c.want)
		}
	}
}
