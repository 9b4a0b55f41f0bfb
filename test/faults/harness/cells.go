package harness

import (
	"math/rand/v2"
	"time"
)

// Cell is a stack and the faults that strike it.
type Cell struct {
	Name string
	What string // one line for people
	// Broker is jvm or kfake.
	Broker string
	// Proxied puts a proxy between the services and the broker.
	Proxied bool
	// Properties of the broker.
	Properties map[string]string
	Ingests    int
	Projectors int
	// Skews are the clocks of ingests, by their number; these ingests are own ones (see service).
	Skews []string
	Load  LoadConfig
	// Least is the shortest load in which the faults can be played; default: any.
	Least time.Duration
	// Apart has events and snapshots led by different nodes of an embedded broker.
	Apart bool
	// Stops says that the fault must not be survived in silence.
	Stops bool
	// Tracks draw the faults: each is a line of steps that do not overlap; tracks do.
	Tracks []func(r *rand.Rand, duration time.Duration) []Step
}

// Plan is the cell's schedule for a seed.
func (c Cell) Plan(seed int64, duration time.Duration) [][]Step {
	var tracks [][]Step
	for i, draw := range c.Tracks {
		tracks = append(tracks, draw(random(seed, purposeSchedule<<32|uint64(i)), duration))
	}
	return tracks
}

// every draws one kind of fault after the other.
func every(gapMin, gapMax, forMin, forMax time.Duration, kinds ...string) func(*rand.Rand, time.Duration) []Step {
	return everyValue(gapMin, gapMax, forMin, forMax, []string{""}, kinds...)
}

func everyValue(gapMin, gapMax, forMin, forMax time.Duration, values []string, kinds ...string) func(*rand.Rand, time.Duration) []Step {
	return func(r *rand.Rand, duration time.Duration) []Step {
		return spread(r, duration, gapMin, gapMax, func(r *rand.Rand) Step {
			return Step{Kind: kinds[r.IntN(len(kinds))], Target: r.IntN(1 << 16), For: between(r, forMin, forMax), Value: values[r.IntN(len(values))]}
		})
	}
}

// once strikes once, in the middle.
func once(kind, value string, forMin, forMax time.Duration) func(*rand.Rand, time.Duration) []Step {
	return func(r *rand.Rand, duration time.Duration) []Step {
		return []Step{{At: between(r, duration/3, duration/2), Kind: kind, Value: value, Target: r.IntN(1 << 16), For: between(r, forMin, forMax)}}
	}
}

const ms = time.Millisecond

// Cells lists all cells.
func Cells() []Cell {
	return []Cell{
		{
			Name: "kill-ingest", What: "owners are killed (SIGKILL) and started again",
			Broker: brokerJVM, Ingests: 2, Projectors: 1,
			Tracks: tracks(every(500*ms, 2000*ms, 10*ms, 1200*ms, faultKillIngest)),
		},
		{
			Name: "stop-ingest", What: "owners are stopped (SIGSTOP) past their session and go on (SIGCONT)",
			Broker: brokerJVM, Ingests: 2, Projectors: 1,
			Tracks: tracks(every(500*ms, 1500*ms, 1800*ms, 3500*ms, faultStopIngest)),
		},
		{
			Name: "kill-broker", What: "the broker is killed (SIGKILL) and started again",
			Broker: brokerJVM, Ingests: 2, Projectors: 1,
			Tracks: tracks(every(2000*ms, 4000*ms, 10*ms, 1000*ms, faultKillBroker)),
		},
		{
			Name: "connections", What: "connections to the broker are cut, reset, delayed, swallowed",
			Broker: brokerJVM, Proxied: true, Ingests: 2, Projectors: 1,
			Tracks: tracks(everyValue(300*ms, 1200*ms, 100*ms, 1500*ms, []string{"upstream", "downstream"}, faultCut, faultReset, faultDelay, faultSwallow)),
		},
		{
			Name: "inject", What: "the broker answers with errors, by API key",
			Broker: brokerFake, Ingests: 2,
			Tracks: tracks(everyValue(20*ms, 250*ms, 200*ms, 600*ms, sortedKeys(injections), faultInject)),
		},
		{
			Name: "drop", What: "produce requests are dropped, leaders move, owners are killed",
			Broker: brokerFake, Ingests: 2,
			Tracks: tracks(
				every(100*ms, 600*ms, 50*ms, 500*ms, faultDrop, faultMoveLeader),
				every(1000*ms, 2500*ms, 10*ms, 500*ms, faultKillIngest),
			),
		},
		{
			Name: "hold", What: "appends are held, their owner is killed, they are forgotten",
			Broker: brokerFake, Ingests: 2,
			Tracks: tracks(everyValue(300*ms, 1200*ms, 100*ms, 900*ms, []string{"events"}, faultHoldAndKill)),
		},
		{
			Name: "hold-snapshots", What: "appends are held behind a checkpoint, while snapshots go on; their owner is killed, they are forgotten",
			Broker: brokerFake, Ingests: 2,
			Least: 11 * time.Second, Apart: true,
			Tracks: tracks(func(r *rand.Rand, duration time.Duration) []Step {
				return spread(r, duration, 12*time.Second, 15*time.Second, func(r *rand.Rand) Step {
					return Step{Kind: faultHoldAndKill, Value: "events", Target: r.IntN(1 << 16), For: between(r, 700*ms, 1200*ms)}
				})
			}),
		},
		{
			Name: "hold-replies", What: "replies are held for longer than group offsets wait, their owner is killed, they are forgotten",
			Broker: brokerFake, Ingests: 2,
			Tracks: tracks(everyValue(300*ms, 1000*ms, 700*ms, 1200*ms, []string{"replies"}, faultHoldAndKill)),
		},
		{
			Name: "refuse", What: "batches are refused for good, after others were decided on them",
			Broker: brokerFake, Ingests: 2,
			Tracks: tracks(every(50*ms, 300*ms, 50*ms, 300*ms, faultRefuse)),
		},
		{
			Name: "reroute-twice", What: "a command is re-routed again by a successor, after it was answered",
			Broker: brokerFake, Ingests: 2,
			Tracks: tracks(every(1500*ms, 2500*ms, 10*ms, 20*ms, faultRerouteTwice)),
		},
		{
			Name: "steal", What: "an owner's renewal is overtaken by another's take-over",
			Broker: brokerFake, Ingests: 2, Properties: map[string]string{"transactional.id.expiration.ms": "6000"},
			Least:  10 * time.Second,
			Tracks: tracks(every(500*ms, 1500*ms, 300*ms, 600*ms, faultSteal)),
		},
		{
			Name: "zombie", What: "an owner's heartbeats are held until its partitions are somebody else's, while it goes on",
			Broker: brokerFake, Ingests: 2,
			Tracks: tracks(every(500*ms, 1000*ms, 2200*ms, 3000*ms, faultZombie)),
		},
		{
			Name: "forget-offsets", What: "the group's offsets are lost, so that all commands come again",
			Broker: brokerFake, Ingests: 2,
			Least:  10 * time.Second,
			Tracks: tracks(every(2000*ms, 4000*ms, 5500*ms, 6500*ms, faultForgetOffsets)),
		},
		{
			Name: "memory", What: "requests in memory beside requests by topic, while owners are killed",
			Broker: brokerFake, Ingests: 2, Skews: []string{"0s", "0s"}, Load: LoadConfig{Direct: 0.5},
			Tracks: tracks(every(500*ms, 1500*ms, 10*ms, 800*ms, faultKillIngest)),
		},
		{
			Name: "expiry", What: "producer states and transactional ids expire at the broker under owners that stop and go on, and under idle ones",
			Broker: brokerJVM, Ingests: 2,
			Properties: map[string]string{
				"transactional.id.expiration.ms": "3000", "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
				"producer.id.expiration.ms": "3000", "producer.id.expiration.check.interval.ms": "500",
			},
			Tracks: tracks(every(800*ms, 2000*ms, 3500*ms, 5000*ms, faultStopIngest, faultIdle)),
		},
		{
			Name: "rebalance", What: "instances join and leave, or die, every second",
			Broker: brokerJVM, Ingests: 1, Projectors: 1,
			Tracks: tracks(
				everyValue(10*ms, 200*ms, 1200*ms, 3000*ms, []string{"leave", "leave", "kill"}, faultJoin),
				everyValue(10*ms, 200*ms, 1200*ms, 3000*ms, []string{"leave"}, faultJoin),
			),
		},
		{
			Name: "foreign", What: "somebody else writes into the events topics",
			Broker: brokerJVM, Ingests: 2, Projectors: 1,
			Tracks: tracks(everyValue(200*ms, 900*ms, 1*ms, 2*ms, []string{"idempotent", "plain"}, faultForeign)),
		},
		{
			Name: "misroute", What: "a client with another partitioner, while owners are killed",
			Broker: brokerJVM, Ingests: 2, Projectors: 1, Load: LoadConfig{Misroute: 0.3},
			Tracks: tracks(every(500*ms, 2000*ms, 10*ms, 1200*ms, faultKillIngest)),
		},
		{
			Name: "clock", What: "hosts' clocks are an hour off in both directions, while owners are killed",
			Broker: brokerJVM, Ingests: 3, Projectors: 1, Skews: []string{"1h", "-1h", "0s"},
			Tracks: tracks(every(500*ms, 1500*ms, 10*ms, 800*ms, faultKillIngest)),
		},
		{
			Name: "projector", What: "projectors are killed and stopped, their database connections cut",
			Broker: brokerJVM, Ingests: 1, Projectors: 2,
			Tracks: tracks(every(300*ms, 1200*ms, 10*ms, 2500*ms, faultKillProjector, faultStopProjector, faultCutPostgres)),
		},
		{
			Name: "all", What: "owners, projectors and the broker are killed at the same time",
			Broker: brokerJVM, Ingests: 2, Projectors: 2,
			Tracks: tracks(
				every(800*ms, 2500*ms, 10*ms, 1200*ms, faultKillIngest),
				every(800*ms, 2500*ms, 10*ms, 1200*ms, faultKillProjector, faultCutPostgres),
				every(4000*ms, 8000*ms, 10*ms, 800*ms, faultKillBroker),
			),
		},
		{
			Name: "recreate-events", What: "an events topic is deleted and made anew: it must be told from the old one",
			Broker: brokerJVM, Ingests: 2, Stops: true,
			Tracks: tracks(once(faultRecreate, "events", 100*ms, 200*ms)),
		},
		{
			Name: "recreate-commands", What: "a commands topic is deleted and made anew: it must be told from the old one",
			Broker: brokerJVM, Ingests: 2, Stops: true,
			Tracks: tracks(once(faultRecreate, "commands", 100*ms, 200*ms)),
		},
		{
			Name: "truncate-commands", What: "commands are deleted that nobody has handled",
			Broker: brokerJVM, Ingests: 2, Stops: true,
			Tracks: tracks(once(faultTruncate, "", 500*ms, 1500*ms)),
		},
		{
			Name: "truncate-events", What: "events are deleted that no checkpoint covers",
			Broker: brokerJVM, Ingests: 2, Stops: true,
			Tracks: tracks(once(faultRetain, "", 1*ms, 2*ms)),
		},
	}
}

func tracks(all ...func(*rand.Rand, time.Duration) []Step) []func(*rand.Rand, time.Duration) []Step {
	return all
}

// FindCell returns a cell by name.
func FindCell(name string) (Cell, bool) {
	for _, c := range Cells() {
		if c.Name == name {
			return c, true
		}
	}
	return Cell{}, false
}
