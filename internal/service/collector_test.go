package service

import (
	"context"
	"runtime/debug"
	"testing"
)

func TestRoomForGarbageIsMeasuredByWhatIsScanned(t *testing.T) {
	const mb = 1 << 20
	for name, test := range map[string]struct {
		live, scannable uint64
		want            int
	}{
		"nothing lives yet":            {0, 0, 100},
		"a small process":              {30 * mb, 10 * mb, 100},
		"streams at rest":              {500 * mb, 40 * mb, 12},
		"as many, but with work":       {640 * mb, 160 * mb, 25},
		"all of it is to be looked at": {800 * mb, 800 * mb, 100},
		"very many streams":            {8000 * mb, 100 * mb, 10},
	} {
		if got := collectorPercent(test.live, test.scannable); got != test.want {
			t.Errorf("%s: got %d %%, want %d %%", name, got, test.want)
		}
	}
}

func TestTheCollectorIsAsItWasAfterwards(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(77))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := TuneCollector(ctx); err != nil {
		t.Fatal(err)
	}
	if got := debug.SetGCPercent(100); got != 77 {
		t.Errorf("the percentage is %d afterwards, want 77 as before", got)
	}
}
