package projector

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// recs collects records, single ones and slices of them.
func recs(parts ...any) []*kgo.Record {
	var out []*kgo.Record
	for _, p := range parts {
		switch p := p.(type) {
		case *kgo.Record:
			out = append(out, p)
		case []*kgo.Record:
			out = append(out, p...)
		}
	}
	return out
}

// waitFor polls a condition of another process until it holds.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("timed out: %s", what)
		}
	}
}
