package harness

import (
	"errors"
	"strings"
	"testing"
)

func TestALoudStopIsSeenByWhatIsStoppedNotByWhatIsNotThere(t *testing.T) {
	t.Parallel()
	const partitions = 6
	mustStop := map[string]int{"log": 4}
	counts := func(n int) map[string]int { return map[string]int{"log": n} }
	for name, row := range map[string]struct {
		looks []look
		want  string // a part of what is lacking; "" when nothing is
	}{
		"all have stopped":                      {[]look{{served: counts(2), stopped: counts(1)}, {stopped: counts(3)}}, ""},
		"instances that have only just started": {[]look{{}, {}}, "0 partitions of log are stopped, want 4"},
		"one is waiting":                        {[]look{{served: counts(2), stopped: counts(3)}}, "3 partitions of log are stopped, want 4"},
		"one is served":                         {[]look{{served: counts(3), stopped: counts(4)}}, "3 partitions of log are served, at most 2 may be"},
		"ready all the same":                    {[]look{{name: "ingest0", ready: true, stopped: counts(4)}}, "ingest0 has stopped partitions of log and calls itself ready"},
		"another instance is ready":             {[]look{{stopped: counts(4)}, {ready: true, served: counts(2)}}, ""},
		"one does not answer":                   {[]look{{stopped: counts(4)}, {name: "ingest1", fault: errors.New("refused")}}, "ingest1 does not answer: refused"},
		"another category":                      {[]look{{stopped: map[string]int{"account": 4}}}, "0 partitions of log are stopped"},
	} {
		got := strings.Join(notStopped(mustStop, partitions, row.looks), "; ")
		if (row.want == "") != (got == "") || !strings.Contains(got, row.want) {
			t.Errorf("%s: got %q, want %q", name, got, row.want)
		}
	}
}
