package main

import (
	"fmt"
	"slices"
	"sort"
)

// facts are the figures of an earlier measurement of the same loops on two shared cores (median
// per second by in-flight), so that a slow baseline is seen.
var facts = map[string]map[int]float64{
	"commands/bare":  {1: 1000, 16: 8800, 128: 44_000, 1024: 114_000},
	"appender/bare":  {1: 4600, 16: 17_500, 128: 103_000, 1024: 317_000},
	"projector/bare": {0: 125_000},
}

// goals are the least ratios of a system to its baseline.
var goals = map[string]map[int]float64{
	"commands":      {1: 0.8, 16: 0.8, 128: 0.8, 1024: 0.8},
	"appender":      {128: 1.2},
	"engine":        {engineInFlight: 0.7},
	"projector":     {0: 0.5},
	"hot":           {hotInFlight: 0.5},
	"http":          {httpInFlight: 0.5},
	"snapshot-cost": {snapshotCostInFlight: 0.9},
}

// enough are rates that reach a goal whatever the ratio is.
var enough = map[string]map[int]float64{
	"http": {httpInFlight: 25_000},
}

// pair names the two systems of a bench.
type pair struct{ system, baseline string }

var pairs = map[string]pair{
	"commands":      {"foldstream", "bare"},
	"appender":      {"foldstream", "bare"},
	"engine":        {"engine", "appender"},
	"projector":     {"foldstream", "bare"},
	"hot":           {"hot", "many"},
	"http":          {"http", "bare"},
	"flush":         {"foldstream", "postgres"},
	"snapshot-cost": {"on", "off"},
}

// summary compares the medians of one measurement.
type summary struct {
	Bench           string  `json:"bench"` // "summary"
	Of              string  `json:"of"`
	InFlight        int     `json:"in_flight,omitempty"`
	Runs            int     `json:"runs"`
	System          string  `json:"system"`
	PerS            float64 `json:"per_s"`
	Baseline        string  `json:"baseline"`
	BaselinePerS    float64 `json:"baseline_per_s"`
	Ratio           float64 `json:"ratio"` // the median of the runs' ratios
	RatioMin        float64 `json:"ratio_min"`
	RatioMax        float64 `json:"ratio_max"`
	P50Ms           float64 `json:"p50_ms,omitempty"`
	P99Ms           float64 `json:"p99_ms,omitempty"`
	BaselineP50Ms   float64 `json:"baseline_p50_ms,omitempty"`
	BaselineP99Ms   float64 `json:"baseline_p99_ms,omitempty"`
	Goal            float64 `json:"goal,omitempty"`       // at least
	GoalPerS        float64 `json:"goal_per_s,omitempty"` // or at least so many
	Reached         *bool   `json:"reached,omitempty"`
	BaselineEarlier float64 `json:"baseline_per_s_earlier,omitempty"`
}

type summaryKey struct {
	bench    string
	inFlight int
}

func (b *bench) summarise() error {
	groups := map[summaryKey]map[string][]result{}
	for _, r := range b.results {
		key := summaryKey{r.Bench, r.InFlight}
		if groups[key] == nil {
			groups[key] = map[string][]result{}
		}
		groups[key][r.System] = append(groups[key][r.System], r)
	}
	keys := make([]summaryKey, 0, len(groups))
	for key := range groups {
		keys = append(keys, key)
	}
	sort.Slice(keys, func(i, j int) bool {
		if keys[i].bench != keys[j].bench {
			return keys[i].bench < keys[j].bench
		}
		return keys[i].inFlight < keys[j].inFlight
	})
	for _, key := range keys {
		if len(groups[key]) < 2 {
			continue
		}
		s, err := summaryOf(key, groups[key])
		if err != nil {
			return err
		}
		if err := b.out.Encode(s); err != nil {
			return err
		}
	}
	return b.summariseLimits()
}

func summaryOf(key summaryKey, systems map[string][]result) (summary, error) {
	p := pairs[key.bench]
	ours, base := systems[p.system], systems[p.baseline]
	if len(ours) == 0 || len(ours) != len(base) {
		return summary{}, fmt.Errorf("%s at %d: %d runs of %s, %d of %s", key.bench, key.inFlight, len(ours), p.system, len(base), p.baseline)
	}
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i].PerS / base[i].PerS
	}
	s := summary{
		Bench: "summary", Of: key.bench, InFlight: key.inFlight, Runs: len(ours), System: p.system, Baseline: p.baseline,
		PerS: median(ours, func(r result) float64 { return r.PerS }), BaselinePerS: median(base, func(r result) float64 { return r.PerS }),
		Ratio: medianOf(ratios), RatioMin: slices.Min(ratios), RatioMax: slices.Max(ratios),
		P50Ms: median(ours, func(r result) float64 { return r.P50Ms }), P99Ms: median(ours, func(r result) float64 { return r.P99Ms }),
		BaselineP50Ms: median(base, func(r result) float64 { return r.P50Ms }), BaselineP99Ms: median(base, func(r result) float64 { return r.P99Ms }),
		BaselineEarlier: facts[key.bench+"/"+p.baseline][key.inFlight],
	}
	if goal, set := goals[key.bench][key.inFlight]; set {
		s.GoalPerS = enough[key.bench][key.inFlight]
		reached := s.Ratio >= goal || (s.GoalPerS > 0 && s.PerS >= s.GoalPerS)
		s.Goal, s.Reached = goal, &reached
	}
	return s, nil
}

func median(results []result, of func(result) float64) float64 {
	values := make([]float64, len(results))
	for i, r := range results {
		values[i] = of(r)
	}
	return medianOf(values)
}

func medianOf(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
