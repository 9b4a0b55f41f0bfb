package devstack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// EnvCache names the environment variable that moves the cache of fetched
// server software away from the user's cache directory.
const EnvCache = "FOLDSTREAM_CACHE"

const lockPoll = 50 * time.Millisecond

// cacheDir is where fetched software is kept: override, else the variable,
// else the user's cache directory.
func cacheDir(override string) (string, error) {
	if override != "" {
		return filepath.Abs(override)
	}
	if dir := os.Getenv(EnvCache); dir != "" {
		return filepath.Abs(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache directory: %w (set %s to a folder)", err, EnvCache)
	}
	return filepath.Join(base, "foldstream"), nil
}

// postgresCacheDir differs from cacheDir for root only: Postgres then runs as
// nobody, who cannot look below root's home.
func postgresCacheDir(override string) (string, error) {
	if override == "" && os.Getenv(EnvCache) == "" && runsAsRoot() {
		return filepath.Join("/var/cache", "foldstream"), nil
	}
	return cacheDir(override)
}

// withFileLock runs fn while no other process on the machine holds path. It
// waits for the holder until ctx ends.
func withFileLock(ctx context.Context, path string, fn func() error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create the cache folder: %w", err)
	}
	lock := flock.New(path)
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return fmt.Errorf("wait for %s, held by another process: %w", path, err)
	}
	defer func() { _ = lock.Unlock() }()
	return fn()
}

// dirLock is the claim of one server on one data directory.
type dirLock struct{ lock *flock.Flock }

// lockDataDir creates dir and claims it for the server called what.
func lockDataDir(dir, what string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create the data directory of %s: %w", what, err)
	}
	lock := flock.New(filepath.Join(dir, "foldstream.lock"))
	held, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the data directory %s of %s: %w", dir, what, err)
	}
	if !held {
		return nil, fmt.Errorf("%w: %s already runs on %s; stop that one or choose another data directory",
			ErrInUse, what, dir)
	}
	return &dirLock{lock: lock}, nil
}

func (l *dirLock) release() { _ = l.lock.Unlock() }
