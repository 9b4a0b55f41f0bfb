package main

import "slices"

// measured is one measurement of a time, a size or a count that is held against a limit.
type measured struct {
	Bench string  `json:"bench"`
	What  string  `json:"what"`
	Unit  string  `json:"unit"`
	Run   int     `json:"run"`
	Value float64 `json:"value"`
}

// limit is the most or the least that a value may be: the median of the runs, or, for what must
// never be, each.
type limit struct {
	most  float64
	least float64 // where it is set, most has no meaning
	each  bool
}

// sessionSeconds is the engine's default session time-out: so long the group waits for the dead.
const sessionSeconds = 6

var limits = map[string]limit{
	"restart/serving":                     {most: 15},
	"restart/resident memory":             {most: 700},
	"failover/first accepted command":     {most: sessionSeconds + 1},
	"failover/commands without an answer": {most: 0, each: true},
	"handover/longest pause":              {most: 0.5},
	"handover/unknown outcomes":           {most: 0, each: true},
	"handover/commands without an answer": {most: 0, each: true},

	"http/p50 of one client over that of a bare produce": {most: 2.5},
	"http-batch/events/s as JSON, 100 streams a request": {least: 60_000},
	"http-batch/events/s as JSON, one stream a request":  {least: 60_000},
	"load/10,000 events":                {most: 40},
	"load/state at version 9,950, cold": {most: 10},
}

// limitSummary holds the runs of one measurement against its limit.
type limitSummary struct {
	Bench   string   `json:"bench"` // "summary"
	Of      string   `json:"of"`
	What    string   `json:"what"`
	Unit    string   `json:"unit"`
	Runs    int      `json:"runs"`
	Median  float64  `json:"median"`
	Min     float64  `json:"min"`
	Max     float64  `json:"max"`
	Goal    *float64 `json:"goal,omitempty"`
	GoalIs  string   `json:"goal_is,omitempty"` // at most, at least
	Judged  string   `json:"judged,omitempty"`  // by median or by max
	Reached *bool    `json:"reached,omitempty"`
}

func (b *bench) measure(bench, what, unit string, run int, value float64) {
	m := measured{bench, what, unit, run, value}
	b.measured = append(b.measured, m)
	_ = b.out.Encode(m)
}

// summariseLimits keeps the order in which the measurements were first made.
func (b *bench) summariseLimits() error {
	var order []string
	groups := map[string][]measured{}
	for _, m := range b.measured {
		key := m.Bench + "/" + m.What
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], m)
	}
	for _, key := range order {
		if err := b.out.Encode(limitSummaryOf(key, groups[key])); err != nil {
			return err
		}
	}
	return nil
}

func limitSummaryOf(key string, runs []measured) limitSummary {
	values := make([]float64, len(runs))
	for i, m := range runs {
		values[i] = m.Value
	}
	s := limitSummary{
		Bench: "summary", Of: runs[0].Bench, What: runs[0].What, Unit: runs[0].Unit, Runs: len(runs),
		Median: medianOf(values), Min: slices.Min(values), Max: slices.Max(values),
	}
	if l, set := limits[key]; set {
		goal, reached := l.most, s.Median <= l.most
		s.Judged, s.GoalIs = "median", "at most"
		switch {
		case l.least > 0:
			goal, reached, s.GoalIs = l.least, s.Median >= l.least, "at least"
		case l.each:
			reached, s.Judged = s.Max <= l.most, "max"
		}
		s.Goal, s.Reached = &goal, &reached
	}
	return s
}
