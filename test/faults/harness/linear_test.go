package harness

import (
	"math/rand/v2"
	"testing"

	"github.com/anishathalye/porcupine"
)

// Both verdicts agree on any history, legal or not.
func TestAnswersThatOnlyReadCanBeTakenOut(t *testing.T) {
	t.Parallel()
	legal, folded := 0, 0
	for seed := range uint64(20_000) {
		history := randomHistory(rand.New(rand.NewPCG(seed, 1)))
		want := porcupine.CheckOperations(registerModel, history)
		reduced, impossible := withoutReads(history)
		got := impossible == "" && porcupine.CheckOperations(registerModel, reduced)
		if got != want {
			t.Fatalf("seed %d: got legal %v (%s), want %v: %+v", seed, got, impossible, want, history)
		}
		if want {
			legal++
		}
		folded += len(history) - len(reduced)
	}
	if legal < 2_000 || legal > 18_000 || folded < 10_000 {
		t.Errorf("%d of 20,000 histories were legal, %d answers were taken out: the test proves little", legal, folded)
	}
}

// randomHistory has versions made one after the other, at times that overlap, and answers that
// speak of them, some of which are false.
func randomHistory(r *rand.Rand) []porcupine.Operation {
	var history []porcupine.Operation
	add := func(at, width int64, o operation) {
		history = append(history, porcupine.Operation{
			ClientId: len(history), Input: o, Call: at - 1 - r.Int64N(width), Return: at + 1 + r.Int64N(width),
		})
	}
	version, clock := int64(0), int64(0)
	ends := []int64{0}
	for range 1 + r.IntN(4) {
		first, last := version+1, version+1+r.Int64N(2)
		clock += 10
		add(clock, 12, operation{outcome: Accepted, expected: "any", first: first, last: last})
		version = last
		ends = append(ends, last)
	}
	for range r.IntN(6) {
		at, of := r.Int64N(clock+20), ends[r.IntN(len(ends))]
		switch r.IntN(3) {
		case 0:
			add(at, 15, operation{outcome: Conflict, expected: "99", actual: of})
		case 1:
			add(at, 15, operation{outcome: Conflict, expected: "none", actual: of + r.Int64N(2)})
		default:
			if of > 0 {
				add(at, 15, operation{outcome: Duplicate, expected: "any", first: of, last: of, only: r.IntN(2) == 0})
			}
		}
	}
	return history
}
