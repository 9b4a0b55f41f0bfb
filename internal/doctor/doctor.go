package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Config of an examination. The zero value of a field means its default.
type Config struct {
	// Kafka connects the clients. Needed.
	Kafka []kgo.Opt
	// Layout is the project's: namespace, replication factor, the topics whose rights are looked at.
	Layout topics.Layout
	// Program is the binary's name in remedies; default "foldstream".
	Program string
	// Plan says how the project's topics differ from the broker's; nil leaves the step out.
	Plan func(context.Context) (topics.Plan, error)
	// Schemas returns how many schemas of the project are registered as they are in it, and what
	// is missing or differs, each in words; nil leaves the step out.
	Schemas func(context.Context) (registered int, faults []string, err error)
	// Postgres asks a server for its version; nil leaves the step out.
	Postgres func(context.Context) (string, error)
	// Fencing runs all steps on a scratch topic, too.
	Fencing bool
	// StepTimeout bounds one step; default 15 s. A step that meets it is unfit: no answer is one.
	StepTimeout time.Duration
	// CleanupTimeout bounds the deletion of the scratch topic, which goes on when the context has
	// ended; default 10 s.
	CleanupTimeout time.Duration
	Clock          func() time.Time // default time.Now
	Logger         *slog.Logger     // default slog.Default()
}

const (
	stepTimeoutDefault    = 15 * time.Second
	cleanupTimeoutDefault = 10 * time.Second
	// requestOverhead is what is waited for an answer beyond the time that a request gives the broker.
	requestOverhead = 2500 * time.Millisecond
	dialTimeout     = 3 * time.Second
	retryPause      = 50 * time.Millisecond
)

func (c Config) withDefaults() Config {
	if c.Program == "" {
		c.Program = "foldstream"
	}
	if c.StepTimeout == 0 {
		c.StepTimeout = stepTimeoutDefault
	}
	if c.CleanupTimeout == 0 {
		c.CleanupTimeout = cleanupTimeoutDefault
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// validate joins all faults of a configuration whose defaults are filled in.
func (c Config) validate() error {
	var faults []error
	if len(c.Kafka) == 0 {
		faults = append(faults, errors.New("Kafka is empty: want at least kgo.SeedBrokers"))
	}
	if err := c.Layout.Validate(); err != nil {
		faults = append(faults, err)
	}
	if c.StepTimeout < 0 || c.CleanupTimeout < 0 {
		faults = append(faults, fmt.Errorf("StepTimeout is %s and CleanupTimeout %s: want more than 0", c.StepTimeout, c.CleanupTimeout))
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("doctor configuration: %w", errors.Join(faults...))
}

// Run examines and returns what it found, also when it returns an error: a wrong configuration,
// or the end of ctx before the last step. A broker that is unfit or away is no error but a finding.
func Run(ctx context.Context, cfg Config) (Report, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return Report{Findings: []Finding{}}, err
	}
	client, err := kgo.NewClient(clientOpts(cfg)...)
	if err != nil {
		return Report{Findings: []Finding{}}, fmt.Errorf("make a Kafka client: %w", err)
	}
	defer client.Close()
	x := &exam{cfg: cfg, client: client, adm: kadm.NewClient(client), report: Report{Findings: []Finding{}}}
	err = x.run(ctx)
	return x.report, err
}

func clientOpts(cfg Config) []kgo.Opt {
	return append(append([]kgo.Opt{}, cfg.Kafka...),
		kgo.RequestTimeoutOverhead(requestOverhead), kgo.DialTimeout(dialTimeout), kgo.DisableClientMetrics())
}

// exam is one examination.
type exam struct {
	cfg    Config
	client *kgo.Client
	adm    *kadm.Client
	report Report

	brokerAway bool // no broker answers: nothing can be asked of one
	unplanned  bool // none of the project's topics is there yet
	scratch    scratch
}

// scenario is steps that build on each other.
type scenario []step

// step is one thing to find out.
type step struct {
	name, did, needs string
	// base: when this step does not end well, the later ones of its scenario have nothing to stand on.
	base bool
	run  func(context.Context) outcome
}

// outcome is a step's part of a finding.
type outcome struct {
	verdict        Verdict
	saw, means, do string
}

func (x *exam) run(ctx context.Context) error {
	for _, s := range x.quick() {
		if err := x.play(ctx, s); err != nil {
			return err
		}
	}
	if !x.cfg.Fencing || x.brokerAway {
		return nil
	}
	return x.fencing(ctx)
}

// play runs the steps of a scenario. It returns an error only when ctx ends.
func (x *exam) play(ctx context.Context, s scenario) error {
	missing := ""
	for _, st := range s {
		out := outcome{verdict: Skipped, saw: fmt.Sprintf("not done: it builds on %q", missing)}
		if missing == "" {
			out = x.try(ctx, st)
		}
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("broken off at step %q: %w", st.name, err)
		}
		x.add(st, out)
		if st.base && missing == "" && (out.verdict == Unfit || out.verdict == Denied || out.verdict == Skipped) {
			missing = st.name
		}
	}
	return nil
}

func (x *exam) try(ctx context.Context, st step) outcome {
	ctx, cancel := context.WithTimeout(ctx, x.cfg.StepTimeout)
	defer cancel()
	x.cfg.Logger.Debug("doctor", "step", st.name)
	return st.run(ctx)
}

func (x *exam) add(st step, out outcome) {
	x.report.Findings = append(x.report.Findings, Finding{
		Step: st.name, Did: st.did, Needs: st.needs,
		Saw: out.saw, Verdict: out.verdict, Means: out.means, Do: out.do,
	})
}

func fit(format string, args ...any) outcome {
	return outcome{verdict: Fit, saw: fmt.Sprintf(format, args...)}
}

func note(saw, means string) outcome { return outcome{verdict: Note, saw: saw, means: means} }

func skipped(why string) outcome { return outcome{verdict: Skipped, saw: why} }

func warning(saw, means, do string) outcome { return outcome{Warning, saw, means, do} }

func unfit(saw, means, do string) outcome { return outcome{Unfit, saw, means, do} }

// failed is a step that got no answer to judge: a right is missing, or something else is.
func failed(err error, means, do string) outcome {
	if isDenied(err) {
		return outcome{verdict: Denied, saw: err.Error(), means: "this principal may not do what the step needs, so it could not be found out", do: do}
	}
	return unfit("no usable answer: "+err.Error(), means, "look at the brokers' logs and at what stands between them and this machine; then repeat")
}

// isDenied says whether an error is a missing right, of Kafka or of Postgres.
func isDenied(err error) bool {
	for _, denied := range []error{
		kerr.SaslAuthenticationFailed, kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed,
		kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.SecurityDisabled,
	} {
		if errors.Is(err, denied) {
			return true
		}
	}
	var fromPostgres *pgconn.PgError
	return errors.As(err, &fromPostgres) && (strings.HasPrefix(fromPostgres.Code, "28") || fromPostgres.Code == "42501")
}

// pause waits a moment between two tries.
func pause(ctx context.Context) error {
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
