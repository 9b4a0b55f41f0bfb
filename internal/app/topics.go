package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/spf13/cobra"
)

// PlanTopics says what differs between the project's topics and the broker's.
func (e *Environment) PlanTopics(ctx context.Context) (topics.Plan, error) {
	adm, err := e.admin()
	if err != nil {
		return topics.Plan{}, err
	}
	defer adm.Close()
	return topics.MakePlan(ctx, adm, e.Layout().Specs())
}

// ApplyTopics carries a plan out.
func (e *Environment) ApplyTopics(ctx context.Context, plan topics.Plan) (topics.Applied, error) {
	adm, err := e.admin()
	if err != nil {
		return topics.Applied{}, err
	}
	defer adm.Close()
	return topics.Apply(ctx, adm, plan)
}

// checkTopics fails when a topic of the project is not on the broker.
func (e *Environment) checkTopics(ctx context.Context) error {
	adm, err := e.admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	var names []string
	for _, s := range e.Layout().Specs() {
		names = append(names, s.Name)
	}
	_, err = topics.IDs(ctx, adm, names...)
	var missing *topics.MissingError
	if errors.As(err, &missing) {
		return service.Exitf(service.ExitNotFound, "topics are not on the broker: %s: create them by %s",
			strings.Join(missing.Topics, ", "), e.Program.hint("topics apply"))
	}
	return err
}

func topicsCommand(g *Globals) *cobra.Command {
	return group("topics", "Compare and create the project's topics", topicsPlanCommand(g), topicsApplyCommand(g))
}

func topicsPlanCommand(g *Globals) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "plan", Short: "Show what differs on the broker", Args: cobra.NoArgs,
		RunE: tool(func(ctx context.Context, cmd *cobra.Command) error {
			env, err := g.Environment(cmd)
			if err != nil {
				return err
			}
			plan, err := env.PlanTopics(ctx)
			if err != nil {
				return err
			}
			return printPlan(cmd, g.Format, plan, all)
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "also the topics that are as they should be")
	return cmd
}

func topicsApplyCommand(g *Globals) *cobra.Command {
	var execute, yes bool
	cmd := &cobra.Command{
		Use: "apply", Short: "Create and correct topics on the broker", Args: cobra.NoArgs,
		Long: "Create missing topics and correct settings. A partition count is never changed.\n" +
			"A change that lets the broker delete records which it keeps now is only shown,\nunless --execute is given.",
		RunE: tool(func(ctx context.Context, cmd *cobra.Command) error {
			env, err := g.Environment(cmd)
			if err != nil {
				return err
			}
			return applyTopics(ctx, cmd, g.Format, env, g.confirmation(cmd, execute, yes))
		}),
	}
	cmd.Flags().BoolVar(&execute, "execute", false, "also make changes that delete records")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func applyTopics(ctx context.Context, cmd *cobra.Command, format Format, env *Environment, confirm confirmation) error {
	plan, err := env.PlanTopics(ctx)
	if err != nil {
		return err
	}
	if risks := deletions(plan); len(risks) > 0 {
		act, err := confirm.ask(fmt.Sprintf("%d changes let the broker delete records that it keeps now; make them?", len(risks)))
		if err != nil {
			return err
		}
		if !act {
			if err := printPlan(cmd, format, topics.Plan{Changes: risks}, true); err != nil {
				return err
			}
			return service.Exitf(service.ExitConflict, "nothing was changed: these changes let the broker delete records that it keeps now; repeat with --execute")
		}
	}
	applied, err := env.ApplyTopics(ctx, plan)
	if err != nil {
		return err
	}
	if len(applied.Created)+len(applied.Configured) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "all topics are as they should be")
	}
	applied.Created, applied.Configured = notNil(applied.Created), notNil(applied.Configured)
	return Print(cmd.OutOrStdout(), format, applied, appliedTable(applied))
}

// notNil makes an empty list print as one, and not as null.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func appliedTable(applied topics.Applied) Table {
	t := Table{Columns: []string{"topic", "done", "setting", "value"}}
	for _, name := range applied.Created {
		t.Rows = append(t.Rows, []string{name, "created", "", ""})
	}
	for _, c := range applied.Configured {
		t.Rows = append(t.Rows, []string{c.Topic, "set", c.Key, c.Want})
	}
	return t
}

func printPlan(cmd *cobra.Command, format Format, plan topics.Plan, all bool) error {
	shown := topics.Plan{Changes: []topics.Change{}}
	t := Table{Columns: []string{"topic", "change", "setting", "is", "should be"}}
	for _, c := range plan.Changes {
		if c.Kind == topics.KindNone && !all {
			continue
		}
		shown.Changes = append(shown.Changes, c)
		t.Rows = append(t.Rows, []string{c.Topic, string(c.Kind), c.Key, c.Have, c.Want})
	}
	if plan.Empty() {
		fmt.Fprintln(cmd.ErrOrStderr(), "all topics are as they should be")
	}
	return Print(cmd.OutOrStdout(), format, shown, t)
}

// deletions are the changes after which the broker may delete what it keeps now: a shorter
// retention, or another way of cleaning up.
func deletions(plan topics.Plan) []topics.Change {
	var some []topics.Change
	for _, c := range plan.Changes {
		if c.Kind == topics.KindSetConfig && mayDelete(c) {
			some = append(some, c)
		}
	}
	return some
}

func mayDelete(c topics.Change) bool {
	switch c.Key {
	case "cleanup.policy":
		return true
	case "retention.ms", "retention.bytes":
		return kept(c.Want) < kept(c.Have)
	}
	return false
}

// kept reads a retention; a negative one is without limit.
func kept(text string) uint64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 1 << 63
	}
	return uint64(n)
}
