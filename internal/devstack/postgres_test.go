package devstack

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func startPostgres(t *testing.T, cfg PostgresConfig) *Postgres {
	t.Helper()
	p, err := StartPostgres(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { stopped(t, p) })
	return p
}

func stopped(t *testing.T, s server) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// query runs one statement and returns the one text that it yields.
func query(t *testing.T, dsn, statement string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(t.Context())
	var text string
	if err := conn.QueryRow(t.Context(), statement).Scan(&text); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return text
}

func TestPostgresOfEverySourceKeepsItsDataAndAddress(t *testing.T) {
	for _, source := range []PostgresSource{PostgresMachine, PostgresBundle} {
		t.Run(source.String(), func(t *testing.T) {
			t.Parallel()
			cfg := PostgresConfig{DataDir: openDir(t), Source: source}
			first := startPostgres(t, cfg)
			query(t, first.DSN(), "SELECT 'x' FROM (SELECT set_config('x.y', 'z', false)) s")
			query(t, first.DSN(), "WITH t AS (SELECT lo_create(4711)) SELECT 'made' FROM t")
			stopped(t, first)

			second := startPostgres(t, cfg)
			if got := query(t, second.DSN(), "SELECT count(*)::text FROM pg_largeobject_metadata"); got != "1" {
				t.Errorf("objects after a restart: got %s, want 1", got)
			}
			if second.DSN() != first.DSN() {
				t.Errorf("address after a restart: got %s, want %s", second.DSN(), first.DSN())
			}
		})
	}
}

func TestPostgresStartsAgainAfterAKill(t *testing.T) {
	t.Parallel()
	cfg := PostgresConfig{DataDir: openDir(t)}
	for range 3 {
		p := startPostgres(t, cfg)
		if got := query(t, p.DSN(), "SELECT 'alive'"); got != "alive" {
			t.Errorf("got %q, want alive", got)
		}
		if err := p.Kill(); err != nil {
			t.Fatalf("kill: %v", err)
		}
	}
}

func TestPostgresIgnoresAPidFileThatNamesAnUnrelatedProcess(t *testing.T) {
	t.Parallel()
	cfg := PostgresConfig{DataDir: openDir(t)}
	p := startPostgres(t, cfg)
	stopped(t, p)
	stale := strconv.Itoa(os.Getpid()) + "\n" + p.clusterDir() + "\n"
	if err := os.WriteFile(filepath.Join(p.clusterDir(), "postmaster.pid"), []byte(stale), 0o644); err != nil {
		t.Fatalf("write a stale pid file: %v", err)
	}
	startPostgres(t, cfg)
}

func TestPostgresRefusesADataDirectoryInUse(t *testing.T) {
	t.Parallel()
	cfg := PostgresConfig{DataDir: openDir(t)}
	startPostgres(t, cfg)
	_, err := StartPostgres(t.Context(), cfg)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), cfg.DataDir) {
		t.Errorf("second start: got %v, want ErrInUse that names %s", err, cfg.DataDir)
	}
}

func TestPostgresRefusesDataOfAnotherVersion(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	cluster := filepath.Join(dir, "cluster")
	if err := os.Mkdir(cluster, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cluster, "PG_VERSION"), []byte("9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := StartPostgres(t.Context(), PostgresConfig{DataDir: dir, Source: PostgresMachine})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "made the data") {
		t.Errorf("got %v, want ErrUnavailable that says which version made the data", err)
	}
}

func TestPostgresConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := StartPostgres(t.Context(), PostgresConfig{StartTimeout: -1})
	for _, want := range []string{"DataDir", "StartTimeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that names %s", err, want)
		}
	}
}

func TestPostgresWithoutAnySourceNamesTheThreeWays(t *testing.T) {
	t.Setenv(EnvPostgresBundle, "")
	t.Setenv("PATH", t.TempDir())
	_, err := StartPostgres(t.Context(), PostgresConfig{DataDir: openDir(t), Source: PostgresBundle, CacheDir: t.TempDir()})
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	for _, way := range []string{"install a Postgres server", "mvn, npm or pip", "DSN"} {
		if !strings.Contains(err.Error(), way) {
			t.Errorf("the error does not name %q: %v", way, err)
		}
	}
}

func TestPostgresRunsFromAnOfflineBundle(t *testing.T) {
	b, err := bundledPostgres(t.Context(), PostgresConfig{}.withDefaults())
	if err != nil {
		t.Fatalf("get the bundle: %v", err)
	}
	t.Setenv(EnvPostgresBundle, filepath.Dir(b.dir))
	t.Setenv("PATH", t.TempDir()) // no client could fetch another
	p := startPostgres(t, PostgresConfig{DataDir: openDir(t), Source: PostgresBundle, CacheDir: t.TempDir()})
	if p.Major() != 18 {
		t.Errorf("version: got %d, want 18", p.Major())
	}
}
