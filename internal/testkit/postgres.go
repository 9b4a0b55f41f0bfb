package testkit

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/foldstream/foldstream/internal/devstack"
)

// EnvPostgres names the environment variable with the DSN of a Postgres that
// somebody else runs. Its user must be allowed to create databases.
const EnvPostgres = "FOLDSTREAM_TEST_POSTGRES"

// statementTimeout leaves room for a machine that runs many tests at once.
const statementTimeout = time.Minute

// Postgres is a server for tests.
type Postgres struct {
	Name string // "postgres18", "postgres15", …, or External

	dsn string
}

// Postgreses lists every server that the machine has: version 18 of the
// bundle, the one that is installed, and the one named by [EnvPostgres].
func Postgreses(t testing.TB) []*Postgres {
	t.Helper()
	var all []*Postgres
	for _, source := range []devstack.PostgresSource{devstack.PostgresBundle, devstack.PostgresMachine} {
		if p := shared.postgres(t, source); p != nil && !(len(all) > 0 && all[0].Name == p.Name) {
			all = append(all, p)
		}
		if testing.Short() && len(all) > 0 {
			return all
		}
	}
	if dsn := os.Getenv(EnvPostgres); dsn != "" {
		all = append(all, &Postgres{Name: External, dsn: dsn})
	}
	if len(all) == 0 {
		t.Fatalf("this machine has no Postgres for the tests; set %s, or: %s", EnvPostgres, shared.reasons())
	}
	return all
}

// NewDatabase creates an empty database and returns its DSN. The database is
// dropped when the test ends, with whatever is still connected.
func (p *Postgres) NewDatabase(t testing.TB) string {
	t.Helper()
	name := "t_" + randomName(14)
	if err := p.exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatalf("create a database on %s: %v", p.Name, err)
	}
	t.Cleanup(func() {
		if err := p.exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop a database of %s: %v", p.Name, err)
		}
	})
	dsn, err := withDatabase(p.dsn, name)
	if err != nil {
		t.Fatalf("make the DSN of a test database: %v", err)
	}
	return dsn
}

func (p *Postgres) exec(ctx context.Context, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.dsn)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

// withDatabase replaces the database in either form of a DSN.
func withDatabase(dsn, name string) (string, error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return fmt.Sprintf("%s dbname=%s", dsn, name), nil // of two, the last counts
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return "", errors.New("the DSN is not a URL") // its text may hold a password
	}
	u.Path = "/" + name
	return u.String(), nil
}
