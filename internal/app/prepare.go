package app

import (
	"context"
	"fmt"

	"github.com/foldstream/foldstream/internal/projector"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Prepare makes a broker and a database ready for the program: topics, schemas and the views'
// tables. It is for local stacks, whose services would otherwise refuse to start; elsewhere an
// operator does it, by `topics apply` and `schema register`.
func (e *Environment) Prepare(ctx context.Context) error {
	plan, err := e.PlanTopics(ctx)
	if err != nil {
		return err
	}
	if _, err := e.ApplyTopics(ctx, plan); err != nil {
		return err
	}
	in, err := e.Registry()
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := e.RegisterSchemas(ctx, in); err != nil {
		return fmt.Errorf("register the project's schemas: %w", err)
	}
	pool, err := e.Config.Postgres.Pool(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	return e.migrate(ctx, pool)
}

// migrate brings the tables of the views and of the system views up to date.
func (e *Environment) migrate(ctx context.Context, pool *pgxpool.Pool) error {
	if err := projector.Migrate(ctx, pool, e.Project.Namespace, e.Program.Views); err != nil {
		return fmt.Errorf("bring the views' tables up to date: %w", err)
	}
	if len(e.indexed()) == 0 {
		return nil
	}
	if err := projector.MigrateSystemViews(ctx, pool, e.Project.Namespace); err != nil {
		return fmt.Errorf("bring the system views' tables up to date: %w", err)
	}
	return nil
}
