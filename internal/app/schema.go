package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/foldstream/foldstream/internal/project"
	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/spf13/cobra"
)

func schemaCommand(g *Globals) *cobra.Command {
	return group("schema", "Check, register and list the project's schemas",
		schemaCheckCommand(g), schemaRegisterCommand(g), schemaListCommand(g))
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
