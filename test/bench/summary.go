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

// goals are the least ratios of Foldstream to the bare loop.
var goals = map[string]map[int]float64{
	"commands":  {128: 0.7, 1024: 0.7},
	"appender":  {128: 1.2},
	"projector": {0: 0.5},
}

// summary compares the medians of one measurement.
type summary struct {
	Bench      string  `json:"bench"` // "summary"
	Of         string  `json:"of"`
	InFlight   int     `json:"in_flight,omitempty"`
	Foldstream float64 `json:"foldstream_per_s"`
	Bare       float64 `json:"bare_per_s"`
	Ratio      float64 `json:"ratio"`
	RatioMin   float64 `json:"ratio_min"`
	RatioMax   float64 `json:"ratio_max"`
	P50Ms      float64 `json:"foldstream_p50_ms,omitempty"`
	P99Ms      float64 `json:"foldstream_p99_ms,omitempty"`
	BareP50Ms  float64 `json:"bare_p50_ms,omitempty"`
	BareP99Ms  float64 `json:"bare_p99_ms,omitempty"`
	Goal       float64 `json:"goal,omitempty"`
	Reached    *bool   `json:"reached,omitempty"`
	BareFacts  float64 `json:"bare_per_s_earlier,omitempty"`
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
	return nil
}

func summaryOf(key summaryKey, systems map[string][]result) (summary, error) {
	ours, bare := systems["foldstream"], systems["bare"]
	if len(ours) == 0 || len(ours) != len(bare) {
		return summary{}, fmt.Errorf("%s at %d: %d runs of foldstream, %d of the bare loop", key.bench, key.inFlight, len(ours), len(bare))
	}
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i].PerS / bare[i].PerS
	}
	s := summary{
		Bench: "summary", Of: key.bench, InFlight: key.inFlight,
		Foldstream: median(ours, func(r result) float64 { return r.PerS }), Bare: median(bare, func(r result) float64 { return r.PerS }),
		Ratio: medianOf(ratios), RatioMin: slices.Min(ratios), RatioMax: slices.Max(ratios),
		P50Ms: median(ours, func(r result) float64 { return r.P50Ms }), P99Ms: median(ours, func(r result) float64 { return r.P99Ms }),
		BareP50Ms: median(bare, func(r result) float64 { return r.P50Ms }), BareP99Ms: median(bare, func(r result) float64 { return r.P99Ms }),
		BareFacts: facts[key.bench+"/bare"][key.inFlight],
	}
	if goal, set := goals[key.bench][key.inFlight]; set {
		reached := s.Ratio >= goal
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
