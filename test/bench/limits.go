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

// limit is the most that a value may be: the median of the runs, or, for what must never be, each.
type limit struct {
	most float64
	each bool
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
	Goal    *float64 `json:"goal,omitempty"`   // at most
	Judged  string   `json:"judged,omitempty"` // by median or by max
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
		reached := s.Median <= l.most
		s.Judged = "median"
		if l.each {
			reached, s.Judged = s.Max <= l.most, "max"
		}
		s.Goal, s.Reached = &l.most, &reached
	}
	return s
}
