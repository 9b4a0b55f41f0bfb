package doctor

import "slices"

// Verdict says what a finding means for running Foldstream on this broker.
type Verdict string

// The verdicts. Only Unfit and Denied decide over a report.
const (
	Fit     Verdict = "fit"     // as needed
	Note    Verdict = "note"    // differs from Apache Kafka, and Foldstream does not mind
	Warning Verdict = "warning" // it runs, with less safety, or with something left to do
	Unfit   Verdict = "unfit"   // a promise that Foldstream rests on is broken
	Denied  Verdict = "denied"  // a right is missing, so that it could not be found out
	Skipped Verdict = "skipped" // not done; Saw says why
)

// Finding is what one step found out.
type Finding struct {
	Step    string  `json:"step"`
	Did     string  `json:"did"`   // what was done
	Needs   string  `json:"needs"` // what Foldstream needs for an answer
	Saw     string  `json:"saw"`   // what was answered
	Verdict Verdict `json:"verdict"`
	Means   string  `json:"means,omitempty"` // set where the answer is not as needed
	Do      string  `json:"do,omitempty"`
}

// Report is what all steps found out, in their order.
type Report struct {
	// Topic is the scratch topic's name; empty where none was asked for.
	Topic    string    `json:"scratch_topic,omitempty"`
	Findings []Finding `json:"findings"`
}

// Verdict of the whole: Unfit when one step is, else Denied when one was, else Fit.
func (r Report) Verdict() Verdict {
	for _, v := range []Verdict{Unfit, Denied} {
		if len(r.Named(v)) > 0 {
			return v
		}
	}
	return Fit
}

// Named are the steps that ended with a verdict.
func (r Report) Named(v Verdict) []string {
	var names []string
	for _, f := range r.Findings {
		if f.Verdict == v {
			names = append(names, f.Step)
		}
	}
	return names
}

// Find returns the finding of a step; false when it is not in the report.
func (r Report) Find(step string) (Finding, bool) {
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Step == step })
	if i < 0 {
		return Finding{}, false
	}
	return r.Findings[i], true
}
