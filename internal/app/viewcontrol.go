package app

import (
	"context"
	"fmt"
	"strconv"

	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/spf13/cobra"
)

func versionFlag(cmd *cobra.Command, version *int) {
	cmd.Flags().IntVar(version, "view-version", 0, "which version; default: the live one")
}

func (v *viewCommands) pause() *cobra.Command {
	var version int
	var reason string
	cmd := &cobra.Command{
		Use: "pause NAME", Short: "Keep a version of a view where it is", Args: cobra.ExactArgs(1),
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			if err := o.Pause(ctx, args[0], version, reason); err != nil {
				return err
			}
			return v.afterwards(ctx, cmd, o, args[0])
		}),
	}
	versionFlag(cmd, &version)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look at it")
	return cmd
}

func (v *viewCommands) resume() *cobra.Command {
	var version int
	cmd := &cobra.Command{
		Use: "resume NAME", Short: "Let a paused version of a view go on", Args: cobra.ExactArgs(1),
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			if err := o.Resume(ctx, args[0], version); err != nil {
				return err
			}
			return v.afterwards(ctx, cmd, o, args[0])
		}),
	}
	versionFlag(cmd, &version)
	return cmd
}

// afterwards shows what the view's versions are like now.
func (v *viewCommands) afterwards(ctx context.Context, cmd *cobra.Command, o *projector.Operator, name string) error {
	all, err := o.List(ctx, name)
	if err != nil {
		return err
	}
	return v.printVersions(cmd, all)
}

func (v *viewCommands) step() *cobra.Command {
	var version int
	var topic string
	var partition int32
	cmd := &cobra.Command{
		Use: "step NAME", Short: "Apply the next event of a paused view", Args: cobra.ExactArgs(1),
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			s, err := o.Step(ctx, args[0], version, topic, partition)
			if err != nil {
				return err
			}
			return Print(cmd.OutOrStdout(), v.Format, s, Table{
				Columns: []string{"topic", "partition", "offset", "type", "stream", "version", "outcome"},
				Rows:    [][]string{{s.Topic, strconv.Itoa(int(s.Partition)), number(s.Offset), s.Type, s.Stream, number(s.Version), s.Outcome}},
			})
		}),
	}
	versionFlag(cmd, &version)
	cmd.Flags().StringVar(&topic, "topic", "", "default: the first with an event waiting")
	cmd.Flags().Int32Var(&partition, "partition", -1, "default: the first with an event waiting")
	return cmd
}

func placeFlags(cmd *cobra.Command, p *projector.Place) {
	cmd.Flags().StringVar(&p.Topic, "topic", "", "default: the view's one source")
	cmd.Flags().Int32Var(&p.Partition, "partition", 0, "of the topic")
	cmd.Flags().Int64Var(&p.Offset, "offset", 0, "in the partition")
}

// placeGiven demands that a place was named: its defaults are one, too.
func placeGiven(cmd *cobra.Command) error {
	if !cmd.Flags().Changed("partition") || !cmd.Flags().Changed("offset") {
		return service.Exitf(service.ExitUsage, "name the event's place by --partition and --offset")
	}
	return nil
}

func (v *viewCommands) skip() *cobra.Command {
	var r projector.SkipRequest
	var execute, yes bool
	cmd := &cobra.Command{
		Use: "skip NAME", Short: "Leave one event out of a version of a view, on record", Args: cobra.ExactArgs(1),
		Long: "Leave one event out: a letter, whose stream then goes on, or one that is still to come. It stands in\n" +
			"the corrections topic, so that a rebuild of the version leaves it out as well.",
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			r.Name = args[0]
			if err := placeGiven(cmd); err != nil {
				return err
			}
			if r.Reason == "" {
				return service.Exitf(service.ExitUsage, "say why by --reason: it goes on record")
			}
			var err error
			r.Execute, err = v.confirmation(cmd, execute, yes).ask(fmt.Sprintf("leave the event at partition %d, offset %d out of %s?", r.Place.Partition, r.Place.Offset, r.Name))
			if err != nil {
				return err
			}
			s, err := o.Skip(ctx, r)
			if err != nil {
				return err
			}
			if !r.Execute {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing was skipped: repeat with --execute")
			}
			return Print(cmd.OutOrStdout(), v.Format, s, Table{
				Columns: []string{"consumer", "stream", "version", "letter", "resolved", "waiting"},
				Rows: [][]string{{
					s.Correction.Consumer, s.Correction.Stream, number(int64(s.Correction.Version)), strconv.FormatBool(s.Letter),
					strconv.Itoa(s.Applied), strconv.Itoa(s.Waiting),
				}},
			})
		}),
	}
	versionFlag(cmd, &r.Version)
	placeFlags(cmd, &r.Place)
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why, for the record; required")
	confirmFlags(cmd, &execute, &yes)
	return cmd
}

func (v *viewCommands) position() *cobra.Command {
	var version int
	var to projector.Place
	var execute, yes bool
	cmd := &cobra.Command{
		Use: "position NAME", Short: "Make a version of a view go on at another offset", Args: cobra.ExactArgs(1),
		Long: "Set where a version goes on in one partition. Backwards, nothing counts twice. Forwards, a stream with\n" +
			"events in between stops the partition at its next event: leave single events out by `view skip`.",
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			if err := placeGiven(cmd); err != nil {
				return err
			}
			act, err := v.confirmation(cmd, execute, yes).ask(fmt.Sprintf("set %s to offset %d of partition %d?", args[0], to.Offset, to.Partition))
			if err != nil {
				return err
			}
			s, err := o.SetPosition(ctx, args[0], version, to, act)
			if err != nil {
				return err
			}
			if !act {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing was set: repeat with --execute")
			}
			return Print(cmd.OutOrStdout(), v.Format, s, Table{
				Columns: []string{"topic", "partition", "before", "offset"},
				Rows:    [][]string{{s.Topic, strconv.Itoa(int(s.Partition)), number(s.Before), number(s.Offset)}},
			})
		}),
	}
	versionFlag(cmd, &version)
	placeFlags(cmd, &to)
	confirmFlags(cmd, &execute, &yes)
	return cmd
}

func (v *viewCommands) audit() *cobra.Command {
	var r projector.AuditRequest
	cmd := &cobra.Command{
		Use: "audit NAME", Short: "Fold streams of a view again and compare them with its rows", Args: cobra.ExactArgs(1),
		Long: "Fold a sample of streams, some, or all of them, from the index of events, and compare the result with\n" +
			"the version's rows at the same place in the log. Ends with exit code 5 when some differ.",
		RunE: v.run(func(ctx context.Context, cmd *cobra.Command, o *projector.Operator, args []string) error {
			r.Name = args[0]
			return v.audited(ctx, cmd, o, r)
		}),
	}
	versionFlag(cmd, &r.Version)
	cmd.Flags().BoolVar(&r.All, "all", false, "every stream")
	cmd.Flags().StringSliceVar(&r.Streams, "streams", nil, "these streams, separated by commas")
	cmd.Flags().IntVar(&r.Sample, "sample", 0, "how many streams by chance; default 100")
	cmd.Flags().IntVar(&r.DifferencesMax, "differences", 0, "rows to list at most; default 100")
	return cmd
}

func (v *viewCommands) audited(ctx context.Context, cmd *cobra.Command, o *projector.Operator, r projector.AuditRequest) error {
	report, err := o.Audit(ctx, r)
	if err != nil {
		return err
	}
	summary := fmt.Sprintf("%s: %d checked of v%d, folded by v%d, %d differ", report.Name, report.Checked, report.Version, report.By, report.Differing)
	fmt.Fprintln(cmd.ErrOrStderr(), summary)
	if err := Print(cmd.OutOrStdout(), v.Format, report, rowDifferences(report.Differences)); err != nil || report.Differing == 0 {
		return err
	}
	return service.Exitf(service.ExitConflict, "%s", summary)
}
