package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/foldstream/foldstream/internal/project"
	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/spf13/cobra"
)

func schemaCommand(g *Globals) *cobra.Command {
	return group("schema", "Check, register, list and compare the project's schemas",
		schemaCheckCommand(g), schemaRegisterCommand(g), schemaListCommand(g), schemaDiffCommand(g))
}

func schemaCheckCommand(g *Globals) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Check the project's schemas; without a broker", Args: cobra.NoArgs,
		Long: "Parse and lint every schema, hold each version against the earlier ones, and ask a second,\n" +
			"independent Avro implementation. Needs no broker.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			env, err := g.Environment(cmd)
			if err != nil {
				return err
			}
			if err := CheckSchemas(env.Project); err != nil {
				return service.Exitf(service.ExitConflict, "%w", err)
			}
			return printSchemas(cmd, g.Format, checkedSchemas(env.Project))
		},
	}
}

// CheckSchemas holds each version of a type against the earlier ones that it must be able to
// read, and asks the second implementation. It joins all faults; lint is done at loading.
func CheckSchemas(p *project.Project) error {
	var faults []error
	for i, s := range p.Schemas {
		if err := codec.SecondOpinion(s.Schema); err != nil {
			faults = append(faults, fmt.Errorf("%s: the second Avro implementation refuses it: %w", s.Path, err))
		}
		for _, earlier := range mustRead(p, i) {
			for _, f := range codec.CheckCompatible(s.Schema, earlier.Schema) {
				faults = append(faults, fmt.Errorf("%s: cannot read what version %d wrote: %s", s.Path, earlier.Version, f))
			}
		}
	}
	return errors.Join(faults...)
}

// mustRead are the earlier versions of a type that the i-th schema must be able to read.
func mustRead(p *project.Project, i int) []project.SchemaFile {
	var earlier []project.SchemaFile
	for _, s := range p.Schemas[:i] {
		if s.Type == p.Schemas[i].Type {
			earlier = append(earlier, s)
		}
	}
	switch {
	case p.Compatibility == project.CompatibilityNone:
		return nil
	case p.Compatibility == project.CompatibilityBackward && len(earlier) > 1:
		return earlier[len(earlier)-1:]
	}
	return earlier
}

func schemaRegisterCommand(g *Globals) *cobra.Command {
	return &cobra.Command{
		Use: "register", Short: "Register the project's schemas", Args: cobra.NoArgs,
		Long: "Register every schema that is not there yet: all, or, when one does not fit, none.",
		RunE: tool(func(ctx context.Context, cmd *cobra.Command) error {
			env, in, err := g.registry(cmd)
			if err != nil {
				return err
			}
			defer in.Close()
			registered, err := env.RegisterSchemas(ctx, in)
			if err != nil {
				return err
			}
			return printSchemas(cmd, g.Format, listed(registered))
		}),
	}
}

func schemaListCommand(g *Globals) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List what is registered", Args: cobra.NoArgs,
		RunE: tool(func(ctx context.Context, cmd *cobra.Command) error {
			_, in, err := g.registry(cmd)
			if err != nil {
				return err
			}
			defer in.Close()
			registered, err := in.List(ctx)
			if err != nil {
				return err
			}
			return printSchemas(cmd, g.Format, listed(registered))
		}),
	}
}

func schemaDiffCommand(g *Globals) *cobra.Command {
	return &cobra.Command{
		Use: "diff [type]", Short: "Compare the project's schemas with what is registered", Args: cobra.MaximumNArgs(1),
		Long: "Show what the project has and the registry has not, what differs, and what is registered but not\n" +
			"in the project: field by field, with compatibility in both directions. Ends with exit code 5 when\n" +
			"something could not be registered. Changes nothing.",
		RunE: tool(func(ctx context.Context, cmd *cobra.Command) error {
			env, in, err := g.registry(cmd)
			if err != nil {
				return err
			}
			defer in.Close()
			registered, err := in.List(ctx)
			if err != nil {
				return err
			}
			return diffSchemas(cmd, g.Format, env.Project, registered, cmd.Flags().Arg(0))
		}),
	}
}

// diffSchemas prints the differences of one type, or of all where typ is empty.
func diffSchemas(cmd *cobra.Command, format Format, p *project.Project, registered []*codec.Registered, typ string) error {
	here := submissions(p.Schemas)
	if typ != "" {
		here = slices.DeleteFunc(here, func(s registry.Submission) bool { return s.Type != typ })
		registered = slices.DeleteFunc(slices.Clone(registered), func(r *codec.Registered) bool { return r.Type != typ })
		if len(here)+len(registered) == 0 {
			return service.Exitf(service.ExitNotFound, "type %q is neither in the project nor registered: `schema list` shows what is", typ)
		}
	}
	differences, err := registry.Compare(here, registered, registry.Compatibility(p.Compatibility))
	if err != nil {
		return err
	}
	if len(differences) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "the registry has what the project has")
	}
	if err := Print(cmd.OutOrStdout(), format, differences, differencesTable(differences)); err != nil {
		return err
	}
	return conflicts(differences)
}

// conflicts joins what could not be registered.
func conflicts(differences []registry.Difference) error {
	var faults []error
	for _, d := range differences {
		if d.Conflict != "" {
			faults = append(faults, fmt.Errorf("%s: %s", d.Type, d.Conflict))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return service.Exitf(service.ExitConflict, "%w", err)
	}
	return nil
}

func differencesTable(differences []registry.Difference) Table {
	t := Table{Columns: []string{"type", "version", "state", "path", "change"}}
	for _, d := range differences {
		add := func(path, what string) {
			t.Rows = append(t.Rows, []string{d.Type, strconv.Itoa(d.Version), string(d.State), path, what})
		}
		if what := wholeDifference(d); what != "" {
			add("", what)
		}
		for _, c := range d.Changes {
			add(c.Path, c.String())
		}
		for _, f := range d.Backward {
			add(f.Path, fmt.Sprintf("cannot read version %d: %s", f.Version, f.Message))
		}
		for _, f := range d.Forward {
			add(f.Path, fmt.Sprintf("cannot be read by version %d: %s", f.Version, f.Message))
		}
	}
	return t
}

// wholeDifference is what a version without a list of changes says.
func wholeDifference(d registry.Difference) string {
	switch {
	case d.State == registry.StateMissing:
		return "registered, not in the project"
	case d.Against == 0:
		return "the first version"
	case len(d.Changes) == 0:
		return fmt.Sprintf("means the same as version %d", d.Against)
	}
	return ""
}

func (g *Globals) registry(cmd *cobra.Command) (*Environment, registry.Registry, error) {
	env, err := g.Environment(cmd)
	if err != nil {
		return nil, nil, err
	}
	in, err := env.Registry()
	return env, in, err
}

// schemaRow is one schema as the commands print it.
type schemaRow struct {
	Type        string `json:"type"`
	Version     int    `json:"version"`
	Kind        string `json:"kind"`
	ID          int32  `json:"id,omitempty"`
	Fingerprint string `json:"fingerprint"`
	Path        string `json:"path,omitempty"`
}

func listed(registered []*codec.Registered) []schemaRow {
	rows := make([]schemaRow, 0, len(registered))
	for _, r := range registered {
		rows = append(rows, schemaRow{
			Type: r.Type, Version: r.Version, Kind: string(r.Kind), ID: r.ID, Fingerprint: fingerprint(r.Schema),
		})
	}
	return rows
}

func checkedSchemas(p *project.Project) []schemaRow {
	rows := make([]schemaRow, 0, len(p.Schemas))
	for _, s := range p.Schemas {
		rows = append(rows, schemaRow{
			Type: s.Type, Version: s.Version, Kind: string(s.Kind), Fingerprint: fingerprint(s.Schema), Path: s.Path,
		})
	}
	return rows
}

func fingerprint(s *codec.Schema) string { return fmt.Sprintf("%016x", uint64(s.Fingerprint())) }

func printSchemas(cmd *cobra.Command, format Format, rows []schemaRow) error {
	t := Table{Columns: []string{"type", "version", "kind", "id", "fingerprint"}}
	for _, r := range rows {
		id := ""
		if r.ID > 0 {
			id = strconv.Itoa(int(r.ID))
		}
		t.Rows = append(t.Rows, []string{r.Type, strconv.Itoa(r.Version), r.Kind, id, r.Fingerprint})
	}
	return Print(cmd.OutOrStdout(), format, rows, t)
}
