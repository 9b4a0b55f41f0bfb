package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// postgresMajorMin is the oldest server that Foldstream is tested with.
const postgresMajorMin = 15

const versionTimeout = 10 * time.Second

// PostgresSource says where server binaries may come from.
type PostgresSource int

const (
	// PostgresAny takes the machine's own, else the bundle.
	PostgresAny PostgresSource = iota
	// PostgresMachine takes what is installed, and fetches nothing.
	PostgresMachine
	// PostgresBundle takes the bundle, fetched when it is not in the cache.
	PostgresBundle
)

// String names the source in messages and folder names.
func (s PostgresSource) String() string {
	switch s {
	case PostgresMachine:
		return "machine"
	case PostgresBundle:
		return "bundle"
	default:
		return "any"
	}
}

// pgBinaries is a folder with the commands of a server.
type pgBinaries struct {
	dir    string
	major  int
	origin string // for messages
}

func (b pgBinaries) path(command string) string {
	if runtime.GOOS == "windows" {
		command += ".exe"
	}
	return filepath.Join(b.dir, command)
}

// findPostgres looks in this order: the folder named by the user, the
// machine's servers, the bundle in the cache, the bundle fetched by a package
// client. major, when not 0, is the version that the data needs.
func findPostgres(ctx context.Context, cfg PostgresConfig, major int) (pgBinaries, error) {
	if cfg.BinDir != "" {
		b, err := inspectBinaries(ctx, cfg.BinDir, "the given folder")
		if err != nil {
			return pgBinaries{}, fmt.Errorf("use the server binaries in %s: %w", cfg.BinDir, err)
		}
		return b, checkMajor(b, major)
	}
	var faults []error
	if cfg.Source != PostgresBundle {
		b, err := machinePostgres(ctx, major)
		if err == nil {
			return b, nil
		}
		faults = append(faults, err)
	}
	if cfg.Source != PostgresMachine {
		b, err := bundledPostgres(ctx, cfg)
		if err == nil {
			return b, checkMajor(b, major)
		}
		faults = append(faults, err)
	}
	return pgBinaries{}, errors.Join(faults...)
}

func checkMajor(b pgBinaries, major int) error {
	if major != 0 && b.major != major {
		return fmt.Errorf("%w: the data was made by Postgres %d, and %s has %d: "+
			"install version %d, or use another data directory", ErrUnavailable, major, b.origin, b.major, major)
	}
	return nil
}

// machinePostgres is the newest installed server that fits.
func machinePostgres(ctx context.Context, major int) (pgBinaries, error) {
	var best pgBinaries
	for _, dir := range machineDirs(ctx) {
		b, err := inspectBinaries(ctx, dir, "the machine")
		if err == nil && b.major > best.major && (major == 0 || b.major == major) {
			best = b
		}
	}
	if best.major != 0 {
		return best, nil
	}
	wanted := fmt.Sprintf("%d or newer", postgresMajorMin)
	if major != 0 {
		wanted = fmt.Sprintf("%d, which made the data,", major)
	}
	return pgBinaries{}, fmt.Errorf("%w: no Postgres server %s is installed", ErrUnavailable, wanted)
}

// machineDirs lists where packages put the server. The commands on the path
// may be links to a wrapper, so links are followed.
func machineDirs(ctx context.Context) []string {
	var dirs []string
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/lib/postgresql*/bin", "/usr/pgsql-*/bin", "/usr/libexec/postgresql*",
		"/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin", "/usr/local/pgsql/bin",
		"/Library/PostgreSQL/*/bin", "/Applications/Postgres.app/Contents/Versions/*/bin",
		`C:\Program Files\PostgreSQL\*\bin`,
	} {
		found, _ := filepath.Glob(pattern) // the patterns are well formed
		dirs = append(dirs, found...)
	}
	if command, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(command); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	return dirs
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// inspectBinaries makes sure that a folder holds a server that is new enough.
func inspectBinaries(ctx context.Context, dir, origin string) (pgBinaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return pgBinaries{}, err
	}
	b := pgBinaries{dir: dir, origin: origin}
	for _, command := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(b.path(command)); err != nil {
			return pgBinaries{}, fmt.Errorf("%w: the folder has no %s: %w", ErrUnavailable, command, err)
		}
	}
	if err := passableByNobody(dir); err != nil {
		return pgBinaries{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.path("postgres"), "--version")
	asServer(cmd)
	out, err := cmd.CombinedOutput()
	match := versionPattern.FindSubmatch(out)
	if err != nil || match == nil {
		return pgBinaries{}, fmt.Errorf("%w: %s --version does not work: %w: %s", ErrUnavailable, cmd.Path, errors.Join(err, errors.New("no version in its answer")),
			strings.TrimSpace(string(out)))
	}
	b.major, _ = strconv.Atoi(string(match[1])) // digits, by the pattern
	if b.major < postgresMajorMin {
		return pgBinaries{}, fmt.Errorf("%w: it is Postgres %d; %d or newer is needed", ErrUnavailable, b.major, postgresMajorMin)
	}
	return b, nil
}
