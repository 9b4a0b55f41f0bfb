package devstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	postgresStartTimeoutDefault = 60 * time.Second
	postgresStopGrace           = 30 * time.Second
	postgresPortAttempts        = 3
	postgresInitTimeout         = 2 * time.Minute
	// strayWait is how long a server of an earlier run may take to end, after
	// the program that started it was killed.
	strayWait = 10 * time.Second
)

// PostgresConfig describes a Postgres server for development: it listens on
// the loopback address only and trusts whoever connects there.
type PostgresConfig struct {
	// DataDir holds the database and the output of the server. It is
	// required, and is created when missing. When this program runs as root,
	// the server runs as nobody, and every parent of DataDir must let it pass.
	DataDir string
	// BinDir is a folder with the commands initdb and postgres, 15 or newer.
	// Default: what Source finds.
	BinDir string
	// Source says where to look when BinDir is empty.
	Source PostgresSource
	// CacheDir moves the cache of fetched software. Default: see [EnvCache].
	CacheDir string
	// Settings are server settings by name, which win over ours.
	Settings map[string]string
	// StartTimeout bounds the time to the first answered query, 60 s by
	// default. A fetch and the creation of the database are not counted.
	StartTimeout time.Duration
	// Logger hears of starts, stops and fetches. Default: silent.
	Logger *slog.Logger
}

func (c PostgresConfig) withDefaults() PostgresConfig {
	if c.StartTimeout == 0 {
		c.StartTimeout = postgresStartTimeoutDefault
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c PostgresConfig) validate() error {
	var faults []error
	if c.DataDir == "" {
		faults = append(faults, errors.New("DataDir is empty; name a folder for the database"))
	}
	if c.StartTimeout < 0 {
		faults = append(faults, fmt.Errorf("StartTimeout is %s; it must be positive", c.StartTimeout))
	}
	return errors.Join(faults...)
}

// Postgres is a running server.
type Postgres struct {
	cfg      PostgresConfig
	binaries pgBinaries
	lock     *dirLock

	mu      sync.Mutex // guards what follows; held during a start or a stop
	port    int
	proc    *Process
	stopped bool
}

// StartPostgres starts a server on cfg.DataDir and returns once it has
// answered a query. ctx bounds the start only. A directory that was used
// before keeps its data and, when it is free, its port; it needs server
// binaries of the version that made it. Errors wrap [ErrUnavailable] or
// [ErrInUse] where they apply.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start Postgres: %w", err)
	}
	p := &Postgres{cfg: cfg}
	if err := p.open(ctx); err != nil {
		return nil, fmt.Errorf("start Postgres on %s: %w", cfg.DataDir, err)
	}
	return p, nil
}

func (p *Postgres) open(ctx context.Context) (err error) {
	if p.cfg.DataDir, err = filepath.Abs(p.cfg.DataDir); err != nil {
		return err
	}
	if p.lock, err = lockDataDir(p.cfg.DataDir, "Postgres"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			p.lock.release()
		}
	}()
	if err := passableByNobody(p.cfg.DataDir); err != nil {
		return err
	}
	if p.binaries, err = findPostgres(ctx, p.cfg, dataVersion(p.clusterDir())); err != nil {
		return err
	}
	if err := p.endStray(ctx); err != nil {
		return err
	}
	if err := p.initialise(ctx); err != nil {
		return err
	}
	return p.start(ctx)
}

// DSN connects to the database postgres as its superuser.
func (p *Postgres) DSN() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dsn()
}

func (p *Postgres) dsn() string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", address(p.port))
}

// Major is the server's major version, such as 18.
func (p *Postgres) Major() int { return p.binaries.major }

// PID is the process id of the server.
func (p *Postgres) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proc.PID()
}

// Done is closed when the server ends, for whatever reason.
func (p *Postgres) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proc.done
}

// Stop ends the server cleanly: open transactions are rolled back and clients
// are disconnected. Stopping twice is harmless.
func (p *Postgres) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil
	}
	p.stopped = true
	defer p.lock.release()
	if err := p.proc.Stop(sigFast, postgresStopGrace); err != nil {
		return fmt.Errorf("stop Postgres on %s: %w", p.cfg.DataDir, err)
	}
	return nil
}

// Kill ends the server by SIGKILL and frees the data directory, as a crash
// would.
func (p *Postgres) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil
	}
	p.stopped = true
	defer p.lock.release()
	return p.proc.Kill()
}

// clusterDir is the database cluster itself. It belongs to the server's user;
// what lies beside it is ours.
func (p *Postgres) clusterDir() string { return filepath.Join(p.cfg.DataDir, "cluster") }

// dataVersion is the major version that made the cluster, 0 when there is none.
func dataVersion(cluster string) int {
	text, err := os.ReadFile(filepath.Join(cluster, "PG_VERSION"))
	if err != nil {
		return 0
	}
	major, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return major
}

// initialise makes a new cluster beside its place and moves it there when it
// is whole, so that a start that was killed half-way is not taken for one.
func (p *Postgres) initialise(ctx context.Context) error {
	if dataVersion(p.clusterDir()) != 0 {
		return nil
	}
	fresh := p.clusterDir() + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("clear a half-made database: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	if err := giveToNobody(fresh); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, postgresInitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.binaries.path("initdb"), "-D", fresh,
		"-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
	asServer(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("create the database by %s: %w: %s", cmd.Path, err, strings.TrimSpace(string(out)))
	}
	if err := os.Rename(fresh, p.clusterDir()); err != nil {
		return fmt.Errorf("put the new database in place: %w", err)
	}
	return nil
}

// asServer gives cmd the user, folder and environment of the server: the
// caller's locale, time zone and PG* variables must not leak in.
func asServer(cmd *exec.Cmd) {
	dropRoot(cmd)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=/"}
}

func giveToNobody(path string) error {
	if !runsAsRoot() {
		return nil
	}
	if err := os.Chown(path, nobody, nobody); err != nil {
		return fmt.Errorf("give %s to the server's user: %w", path, err)
	}
	return nil
}

// passableByNobody says which parent would keep the server from its data.
func passableByNobody(dir string) error {
	if !runsAsRoot() {
		return nil
	}
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return fmt.Errorf("look at %s: %w", at, err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("as root, the server runs as user %d, who cannot pass %s (mode %s); "+
				"use a folder outside it, or chmod o+x %s", nobody, at, info.Mode().Perm(), at)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// start tries the port of the last run, then free ones; see JVM.start.
func (p *Postgres) start(ctx context.Context) error {
	var faults []error
	for range postgresPortAttempts {
		port, err := p.choosePort()
		if err != nil {
			return err
		}
		err = p.startAfterOrphans(ctx, port)
		if err == nil {
			return writeJSON(p.portFile(), recordedPort{Port: port}, 0o644)
		}
		faults = append(faults, err)
		if ctx.Err() != nil || portIsFree(port) {
			break // not the port's fault
		}
	}
	return errors.Join(faults...)
}

// startAfterOrphans gives the workers of a killed server the moment that they
// need to see that it is gone. Until then Postgres refuses to start.
func (p *Postgres) startAfterOrphans(ctx context.Context, port int) error {
	deadline := time.Now().Add(strayWait)
	for {
		err := p.startOn(ctx, port)
		if err == nil || !strings.Contains(err.Error(), "pre-existing shared memory block") || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(lockPoll):
		}
	}
}

type recordedPort struct {
	Port int `json:"port"`
}

func (p *Postgres) portFile() string { return filepath.Join(p.cfg.DataDir, "port.json") }

func (p *Postgres) choosePort() (int, error) {
	var last recordedPort
	err := readJSON(p.portFile(), &last)
	if err == nil && portIsFree(last.Port) {
		return last.Port, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.cfg.Logger.Warn("the recorded port is unreadable; taking another", "error", err)
	}
	free, err := freePorts(1)
	if err != nil {
		return 0, err
	}
	return free[0], nil
}

func (p *Postgres) startOn(ctx context.Context, port int) error {
	cmd := exec.Command(p.binaries.path("postgres"), p.arguments(port)...)
	asServer(cmd)
	began := time.Now()
	proc, err := StartProcess(cmd, filepath.Join(p.cfg.DataDir, "postgres.log"), sigFast)
	if err != nil {
		return err
	}
	p.port, p.proc = port, proc
	if err := p.awaitReady(ctx); err != nil {
		return errors.Join(err, p.proc.Kill())
	}
	p.cfg.Logger.Info("Postgres is up", "address", address(port), "version", p.binaries.major,
		"from", p.binaries.origin, "pid", proc.PID(), "took", time.Since(began).Round(time.Millisecond))
	return nil
}

func (p *Postgres) arguments(port int) []string {
	settings := map[string]string{
		"listen_addresses":        loopback,
		"port":                    strconv.Itoa(port),
		"unix_socket_directories": "",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
	}
	maps.Copy(settings, p.cfg.Settings)
	args := []string{"-D", p.clusterDir()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// awaitReady asks until our server answers a query. Another server that took
// the port first names another data directory; ours then ends by itself.
func (p *Postgres) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StartTimeout)
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		select {
		case <-p.proc.done:
			return p.proc.failure()
		case <-ctx.Done():
			return fmt.Errorf("no answer within %s; the last lines of its output:\n%s: %w",
				p.cfg.StartTimeout, tailOf(p.proc.logPath), ctx.Err())
		case <-tick.C:
		}
		if dir, err := askDataDirectory(ctx, p.dsn()); err == nil && sameDir(dir, p.clusterDir()) {
			return nil
		}
	}
}

func askDataDirectory(ctx context.Context, dsn string) (dir string, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyRequestTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	return dir, conn.QueryRow(ctx, "SELECT current_setting('data_directory')").Scan(&dir)
}

func sameDir(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// endStray deals with the pid file of a run that did not end cleanly. We hold
// the lock of the data directory, so whoever the file names is no server that
// somebody relies on: it is gone, or is ending because the program that
// started it was killed, or the id belongs to an unrelated process by now.
func (p *Postgres) endStray(ctx context.Context) error {
	pidFile := filepath.Join(p.clusterDir(), "postmaster.pid")
	pid, err := readPID(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && processAlive(pid) && servesFrom(pid, p.clusterDir()) {
		p.cfg.Logger.Warn("a server of an earlier run is still there; ending it", "pid", pid)
		if err := endForeign(ctx, pid); err != nil {
			return err
		}
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the stale pid file: %w", err)
	}
	return nil
}

func readPID(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(strings.TrimSpace(first))
}

// servesFrom says whether the process was started on that cluster. Where the
// system does not tell, it is taken for one, which only costs a wait.
func servesFrom(pid int, cluster string) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return !isDir("/proc/self")
	}
	return strings.Contains(string(cmdline), cluster)
}

// endForeign stops a process that is not our child and waits for its end.
func endForeign(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, strayWait)
	defer cancel()
	if proc, err := os.FindProcess(pid); err == nil {
		_ = proc.Signal(sigFast)
		_ = proc.Release()
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for processAlive(pid) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: the server of an earlier run, process %d, does not end; end it by hand", ErrInUse, pid)
		case <-tick.C:
		}
	}
	return nil
}
