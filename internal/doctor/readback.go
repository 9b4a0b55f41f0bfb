package doctor

import (
	"context"
	"fmt"
	"strings"
)

// readBack holds what the broker said against what it has. A broker that lies is found here.
func (x *exam) readBack() scenario {
	return scenario{
		{
			name: "contiguous offsets", did: "compare the offset of each acknowledgement above with the end of the log before it",
			needs: "each batch stands where the one before ended: the guard against other writers rests on it",
			run:   func(context.Context) outcome { return x.contiguous() },
		},
		{
			name: "log", did: "read the scratch topic back, batch by batch",
			needs: "it holds every batch that was acknowledged, once, in order, and none that was refused",
			run:   x.compareLogs,
		},
	}
}

// raw are the lanes whose batches were sent by hand, so that each of them is known.
func (x *exam) raw() []*lane {
	return []*lane{x.scratch.lanes[laneTakeOver], x.scratch.lanes[laneHeld], x.scratch.lanes[laneEnded], x.scratch.lanes[laneBatches]}
}

func (x *exam) contiguous() outcome {
	var astray []string
	count := 0
	for _, l := range x.raw() {
		count += len(l.acked)
		for _, a := range l.astray {
			astray = append(astray, fmt.Sprintf("partition %d: %s", l.partition, a))
		}
	}
	switch {
	case len(astray) > 0:
		return unfit(strings.Join(astray, "; "), "an owner cannot tell its own log from one that somebody else writes to; "+twoOwners, notHere)
	case count == 0:
		return skipped("no batch was acknowledged")
	}
	return fit("%d of %d acknowledgements", count, count)
}

func (x *exam) compareLogs(ctx context.Context) outcome {
	const means = "what the broker answers is not what it does: acknowledged events get lost, or refused ones appear"
	var faults []string
	count := 0
	for _, l := range x.raw() {
		have, err := l.read(ctx, l.end)
		if err != nil {
			return failed(err, "what was stored cannot be read back", x.grantScratch())
		}
		count += len(have)
		for _, fault := range differences(l.acked, have) {
			faults = append(faults, fmt.Sprintf("partition %d: %s", l.partition, fault))
		}
	}
	if len(faults) > 0 {
		return unfit(strings.Join(faults, "; "), means, notHere)
	}
	return fit("%d batches, as acknowledged", count)
}

// differencesMax bounds how many are named: one fault moves everything behind it.
const differencesMax = 3

// differences says, batch by batch, how a log differs from what was acknowledged.
func differences(acked, have []stored) []string {
	var faults []string
	for i := range max(len(acked), len(have)) {
		switch {
		case i >= len(have):
			faults = append(faults, "acknowledged and not in the log: "+acked[i].String())
		case i >= len(acked):
			faults = append(faults, "in the log and never acknowledged: "+have[i].String())
		case !same(acked[i], have[i]):
			faults = append(faults, fmt.Sprintf("acknowledged: %s; the log has there: %s", acked[i], have[i]))
		}
		if len(faults) == differencesMax {
			break
		}
	}
	return faults
}

// same compares all but the stamps, which are the broker's.
func same(a, b stored) bool {
	return a.base == b.base && a.claim == b.claim && a.seq == b.seq && a.records == b.records
}
