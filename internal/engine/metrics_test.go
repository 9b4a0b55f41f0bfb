package engine

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

func TestRetryReasonsAreBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{kerr.NotLeaderForPartition.Error(), "NOT_LEADER_FOR_PARTITION"},
		{kerr.UnknownServerError.Error(), "UNKNOWN_SERVER_ERROR"},
		{"read tcp 127.0.0.1:40112->127.0.0.1:9092: i/o timeout", retryNoAnswer},
		{"EOF", retryNoAnswer},
		{"the broker's answer left the partition out", retryNoAnswer},
		{"", retryNoAnswer},
	} {
		if got := retryReason(c.text); got != c.want {
			t.Errorf("the reason of %q: got %q, want %q", c.text, got, c.want)
		}
	}
}
