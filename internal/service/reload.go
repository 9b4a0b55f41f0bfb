package service

import (
	"log/slog"
	"os"
	"sync"
	"time"
)

// reloadInterval is how often files are looked at for a change, at most.
const reloadInterval = time.Second

// reloaded is a value made of files, made again when one of them changes. A change that cannot be
// read is logged, and the value before it stays. Safe for concurrent use.
type reloaded[T any] struct {
	paths  []string
	load   func() (T, error)
	logger *slog.Logger
	clock  func() time.Time

	mu     sync.Mutex
	value  T
	stamps []fileStamp
	nextAt time.Time
}

// fileStamp tells whether a file changed. Kubernetes swaps a link: the time behind it changes.
type fileStamp struct {
	modified time.Time
	bytes    int64
}

func newReloaded[T any](load func() (T, error), logger *slog.Logger, clock func() time.Time, paths ...string) (*reloaded[T], error) {
	r := &reloaded[T]{paths: paths, load: load, logger: logger, clock: clock}
	r.stamps = r.look()
	r.nextAt = clock().Add(reloadInterval)
	var err error
	r.value, err = load()
	return r, err
}

func (r *reloaded[T]) look() []fileStamp {
	stamps := make([]fileStamp, len(r.paths))
	for i, path := range r.paths {
		if info, err := os.Stat(path); err == nil {
			stamps[i] = fileStamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}

func (r *reloaded[T]) get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	if now.Before(r.nextAt) {
		return r.value
	}
	r.nextAt = now.Add(reloadInterval)
	stamps, changed := r.look(), false
	for i := range stamps {
		changed = changed || stamps[i] != r.stamps[i]
	}
	if !changed {
		return r.value
	}
	value, err := r.load()
	if err != nil {
		r.logger.Warn("files changed and cannot be read: what they held before stays in use", "files", r.paths, "err", err)
		return r.value
	}
	r.logger.Info("files changed and were read again", "files", r.paths)
	r.value, r.stamps = value, stamps
	return r.value
}
