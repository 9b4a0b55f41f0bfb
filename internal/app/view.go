package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/spf13/cobra"
)

func viewCommand(g *Globals) *cobra.Command {
	v := &viewCommands{Globals: g}
	cmd := group("view", "Look at views, rebuild, compare and switch their versions, and control them",
		v.list(), v.rebuild(), v.verify(), v.switchOver(), v.rollback(), v.drop(),
		v.pause(), v.resume(), v.step(), v.skip(), v.position(), v.audit())
	cmd.PersistentFlags().StringVar(&v.actor, "actor", "", "who asks, for the audit topic; default: the system's user")
	return cmd
}

// viewCommands are the subcommands of view.
type viewCommands struct {
	*Globals
	actor string
}

// run opens an operator, works, and gives an error its exit code. It is not bounded in time: a
// signal ends it, and what is asked for can be asked for again.
func (v *viewCommands) run(work func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		env, err := v.Environment(cmd)
		if err != nil {
			return err
		}
		o, closeAll, err := env.operator(cmd.Context(), cmp.Or(v.actor, systemUser()), progressLines(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		defer closeAll()
		return operatorExit(work(cmd.Context(), cmd, o, args))
	}
}

func systemUser() string {
	u, err := user.Current()
	if err != nil || u.Username == "" {
		return "unknown"
	}
	return u.Username
}

// operator connects what a tool for views needs.
func (e *Environment) operator(ctx context.Context, actor string, progress func(projector.Progress)) (*projector.Operator, func(), error) {
	opts, err := e.Kafka()
	if err != nil {
		return nil, nil, err
	}
	in, err := e.Registry()
	if err != nil {
		return nil, nil, err
	}
	pool, err := e.Config.Postgres.Pool(ctx)
	if err != nil {
		in.Close()
		return nil, nil, err
	}
	closeAll := func() { pool.Close(); in.Close() }
	o, err := projector.NewOperator(projector.OperatorConfig{
		Config: projector.Config{
			Namespace: e.Project.Namespace, Views: e.Program.Views, EventCategories: e.eventCategories(),
			Kafka: opts, Pool: pool, Codec: codec.New(in, codec.Config{}), Logger: e.Logger,
		},
		Actor: actor, Progress: progress,
	})
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	return o, func() { o.Close(); closeAll() }, nil
}

// operatorExit gives the errors of an operator their exit codes.
func operatorExit(err error) error {
	for _, c := range []struct {
		code   int
		errors []error
	}{
		{service.ExitNotFound, []error{projector.ErrNoView, projector.ErrNotFolded, projector.ErrNothing, projector.ErrNoIndex}},
		{service.ExitConflict, []error{projector.ErrLive, projector.ErrBusy, projector.ErrRebuilding, projector.ErrBehind, projector.ErrDifferent, projector.ErrNotPaused, projector.ErrApplied}},
	} {
		for _, known := range c.errors {
			if errors.Is(err, known) {
				return &service.ExitError{Code: c.code, Err: err}
			}
		}
	}
	return err
}

// progressEvery is how often a line about long work is written.
const progressEvery = 5 * time.Second

// progressLines writes a line at each change of phase, and now and then between.
func progressLines(w io.Writer) func(projector.Progress) {
	var last projector.Progress
	var at time.Time
	return func(p projector.Progress) {
		if p.View == last.View && p.Phase == last.Phase && time.Since(at) < progressEvery && (p.Done < p.Total || p.Total == 0) {
			return
		}
		last, at = p, time.Now()
		line := fmt.Sprintf("%s: %s", p.View, p.Phase)
		switch {
		case p.Phase == projector.PhaseWait:
			line += fmt.Sprintf(", %d records to come", p.Total)
		case p.Total > 0:
			line += fmt.Sprintf(", %d of %d, %.0f/s", p.Done, p.Total, p.Rate)
		case p.Done > 0:
			line += fmt.Sprintf(", %d", p.Done)
		}
		if p.Left > 0 {
			line += fmt.Sprintf(", %s left", p.Left.Round(time.Second))
		}
		fmt.Fprintln(w, line)
	}
}

func (v *viewCommands) list() *cobra.Command {
	return &cobra.Command{
		Use: "list [name]", Short: "List the versions of views, how far they are and what is asked of them", Args: cobra.MaximumNArgs(1),
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			all, err := o.List(ctx, name)
			if err != nil {
				return err
			}
			t := Table{Columns: []string{"view", "version", "kind", "state", "behind", "parked", "letters"}}
			for _, s := range all {
				t.Rows = append(t.Rows, []string{s.Name, strconv.Itoa(s.Version), s.Kind, stateOf(s), number(s.Behind), number(s.Parked), number(s.Letters)})
			}
			return Print(cmd.OutOrStdout(), v.Format, notNil(all), t)
		}),
	}
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func stateOf(s projector.VersionStatus) string {
	var words []string
	for _, w := range []struct {
		holds bool
		text  string
	}{
		{s.Live, "live"}, {s.Dropped, "dropped"}, {s.Rebuilding, "rebuilding"}, {s.Paused, "paused"},
		{s.HeldBy != "" && !s.Rebuilding, "held"}, {!s.Known && !s.Dropped, "code not here"},
	} {
		if w.holds {
			words = append(words, w.text)
		}
	}
	if len(words) == 0 {
		return "beside"
	}
	return strings.Join(words, ", ")
}

func (v *viewCommands) rebuild() *cobra.Command {
	var r projector.RebuildRequest
	var streams []string
	var execute, yes bool
	cmd := &cobra.Command{
		Use: "rebuild NAME", Short: "Build a version of a view beside the live one", Args: cobra.ExactArgs(1),
		Long: "Build a version from the log, by bulk writes and with its indexes made at the end; the projectors keep\n" +
			"it up to date from there. Readers go on with the live version: compare both by `view verify`, then\n" +
			"`view switch`. A rebuild that was interrupted goes on where it was when it is asked for again.\n" +
			"--from-start clears what the version has, and is only shown, unless --execute is given.\n" +
			"--streams builds nothing: it folds these streams by the version's code and compares the result with\n" +
			"the live rows.",
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			r.Name = args[0]
			if len(streams) > 0 {
				return v.audited(ctx, cmd, o, projector.AuditRequest{Name: r.Name, By: r.Version, Streams: streams})
			}
			if r.FromStart {
				act, err := v.confirmation(cmd, execute, yes).ask("clear what the version has, and begin at the start of the log?")
				if err != nil || !act {
					fmt.Fprintln(cmd.ErrOrStderr(), "nothing was done: what the version has would be cleared; repeat with --execute")
					return err
				}
			}
			report, err := o.Rebuild(ctx, r)
			if err != nil {
				return err
			}
			return Print(cmd.OutOrStdout(), v.Format, report, Table{
				Columns: []string{"view", "version", "beside", "records", "took", "parked", "letters"},
				Rows:    [][]string{{report.Name, strconv.Itoa(report.Version), strconv.Itoa(report.Live), number(report.Records), took(report.Took), number(report.Parked), number(report.Letters)}},
			})
		}),
	}
	f := cmd.Flags()
	f.IntVar(&r.Version, "to-version", 0, "version to build; default: the highest of this program")
	f.IntVar(&r.Rate, "rate", 0, "records per second at most; 0: as many as there can be")
	f.BoolVar(&r.FromStart, "from-start", false, "clear what the version has, its letters too")
	f.StringSliceVar(&streams, "streams", nil, "only compare these streams, separated by commas")
	confirmFlags(cmd, &execute, &yes)
	return cmd
}

func confirmFlags(cmd *cobra.Command, execute, yes *bool) {
	cmd.Flags().BoolVar(execute, "execute", false, "act, and not only show")
	cmd.Flags().BoolVar(yes, "yes", false, "do not ask")
}

func took(d time.Duration) string { return d.Round(time.Millisecond).String() }

func (v *viewCommands) verify() *cobra.Command {
	var r projector.VerifyRequest
	cmd := &cobra.Command{
		Use: "verify NAME", Short: "Compare two versions of a view at one cut", Args: cobra.ExactArgs(1),
		Long: "Compare the live version, which goes on, with another one, which is folded up to exactly the same\n" +
			"place in the log: digests of the columns that both have, then, where they differ, row by row.\n" +
			"Ends with exit code 5 when the versions differ.",
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			r.Name = args[0]
			report, err := o.Verify(ctx, r)
			if err != nil {
				return err
			}
			if err := v.printReport(cmd, report); err != nil || report.Equal {
				return err
			}
			return service.Exitf(service.ExitConflict, "%s", report.Summary())
		}),
	}
	cmd.Flags().IntVar(&r.From, "from-version", 0, "the one that is right; default: the live one")
	cmd.Flags().IntVar(&r.To, "to-version", 0, "the one to check; default: the highest of this program")
	cmd.Flags().IntVar(&r.DifferencesMax, "differences", 0, "rows to list at most; default 100")
	return cmd
}

func (v *viewCommands) printReport(cmd *cobra.Command, r projector.Report) error {
	fmt.Fprintln(cmd.ErrOrStderr(), r.Summary())
	for _, p := range r.Parked {
		fmt.Fprintf(cmd.ErrOrStderr(), "left out: stream %s of %s[%d], parked in v%d since offset %d\n", p.Stream, p.Topic, p.Partition, p.Version, p.Offset)
	}
	return Print(cmd.OutOrStdout(), v.Format, r, rowDifferences(r.Differences))
}

func rowDifferences(differences []projector.Difference) Table {
	t := Table{Columns: []string{"key", "difference", "column", "from", "to"}}
	for _, d := range differences {
		if len(d.Columns) == 0 {
			t.Rows = append(t.Rows, []string{d.Key, d.Kind, "", "", ""})
		}
		for _, c := range d.Columns {
			t.Rows = append(t.Rows, []string{d.Key, d.Kind, c.Name, cell(c.From), cell(c.To)})
		}
	}
	return t
}

// cellBytesMax bounds a value in a table; -o json has all of it.
const cellBytesMax = 60

func cell(text *string) string {
	switch {
	case text == nil:
		return "null"
	case len(*text) > cellBytesMax:
		return strings.ToValidUTF8((*text)[:cellBytesMax], "") + "…"
	}
	return *text
}

func (v *viewCommands) switchOver() *cobra.Command {
	var r projector.SwitchRequest
	var execute, yes bool
	cmd := &cobra.Command{
		Use: "switch NAME", Short: "Let readers see another version of a view", Args: cobra.ExactArgs(1),
		Long: "Compare the version with the live one, as `view verify` does. With --execute, and when they are equal\n" +
			"or --accept-differences is given, readers see the version from then on, by one transaction. The old\n" +
			"version is folded on, for `view rollback`, until `view drop`.",
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			r.Name = args[0]
			act, err := v.confirmation(cmd, execute, yes).ask("let readers see the other version once it is verified?")
			if err != nil {
				return err
			}
			if !act {
				report, err := o.Verify(ctx, projector.VerifyRequest{Name: r.Name, To: r.To, DifferencesMax: r.DifferencesMax})
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing was switched: repeat with --execute")
				return v.printReport(cmd, report)
			}
			report, err := o.Switch(ctx, r)
			if err != nil {
				if errors.Is(err, projector.ErrDifferent) {
					err = errors.Join(err, v.printReport(cmd, report.Verified))
				}
				return err
			}
			return v.printSwitch(cmd, report)
		}),
	}
	cmd.Flags().IntVar(&r.To, "to-version", 0, "default: the highest of this program")
	cmd.Flags().BoolVar(&r.AcceptDifferences, "accept-differences", false, "switch although the versions differ")
	cmd.Flags().IntVar(&r.DifferencesMax, "differences", 0, "rows to list at most; default 100")
	confirmFlags(cmd, &execute, &yes)
	return cmd
}

func (v *viewCommands) printSwitch(cmd *cobra.Command, r projector.SwitchReport) error {
	return Print(cmd.OutOrStdout(), v.Format, r, Table{
		Columns: []string{"view", "from", "to", "took"},
		Rows:    [][]string{{r.Name, strconv.Itoa(r.From), strconv.Itoa(r.To), took(r.Took)}},
	})
}

func (v *viewCommands) rollback() *cobra.Command {
	var execute, yes bool
	cmd := &cobra.Command{
		Use: "rollback NAME", Short: "Let readers see the version again that was live before", Args: cobra.ExactArgs(1),
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			act, err := v.confirmation(cmd, execute, yes).ask("let readers see the version again that was live before?")
			if err != nil {
				return err
			}
			if !act {
				all, err := o.List(ctx, args[0])
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing was switched: repeat with --execute")
				return v.printVersions(cmd, all)
			}
			report, err := o.Rollback(ctx, args[0])
			if err != nil {
				return err
			}
			return v.printSwitch(cmd, report)
		}),
	}
	confirmFlags(cmd, &execute, &yes)
	return cmd
}

func (v *viewCommands) printVersions(cmd *cobra.Command, all []projector.VersionStatus) error {
	t := Table{Columns: []string{"view", "version", "state", "behind"}}
	for _, s := range all {
		t.Rows = append(t.Rows, []string{s.Name, strconv.Itoa(s.Version), stateOf(s), number(s.Behind)})
	}
	return Print(cmd.OutOrStdout(), v.Format, notNil(all), t)
}

// oneVersion parses a version that must be named.
func oneVersion(text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(text, "v"))
	if err != nil || n < 1 {
		return 0, service.Exitf(service.ExitUsage, "version %q: want a number from 1, such as 2 or v2", text)
	}
	return n, nil
}

func (v *viewCommands) drop() *cobra.Command {
	var execute, yes bool
	cmd := &cobra.Command{
		Use: "drop NAME VERSION", Short: "Remove a version of a view that is not live", Args: cobra.ExactArgs(2),
		Long: "Remove a version's tables, offsets and letters. Projectors leave it alone from then on, though they\n" +
			"have its code; `view rebuild` makes it again.",
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			version, err := oneVersion(args[1])
			if err != nil {
				return err
			}
			act, err := v.confirmation(cmd, execute, yes).ask(fmt.Sprintf("drop version %d of %s?", version, args[0]))
			if err != nil {
				return err
			}
			report, err := o.Drop(ctx, args[0], version, act)
			if err != nil {
				return err
			}
			if !act {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing was dropped: repeat with --execute")
			}
			return Print(cmd.OutOrStdout(), v.Format, report, Table{
				Columns: []string{"view", "version", "rows (about)", "letters"},
				Rows:    [][]string{{report.Name, strconv.Itoa(report.Version), number(report.Rows), number(report.Letters)}},
			})
		}),
	}
	confirmFlags(cmd, &execute, &yes)
	return cmd
}
