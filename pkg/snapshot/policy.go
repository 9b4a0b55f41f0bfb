package snapshot

import "time"

// Progress is what has come to a stream since its latest snapshot.
type Progress struct {
	Events   int           // events since then
	Dirty    time.Duration // since the first of them
	FoldTime time.Duration // what folding them took: what a restart would take again
}

// Policy says when a stream's latest snapshot is due. Policies are pure and may be shared.
type Policy interface{ Due(p Progress) bool }

// PolicyFunc is a function as a Policy.
type PolicyFunc func(Progress) bool

// Due implements Policy.
func (f PolicyFunc) Due(p Progress) bool { return f(p) }

// EveryEvents is due after n events.
func EveryEvents(n int) Policy { return PolicyFunc(func(p Progress) bool { return p.Events >= n }) }

// EveryInterval is due when a stream has been dirty for d.
func EveryInterval(d time.Duration) Policy {
	return PolicyFunc(func(p Progress) bool { return p.Events > 0 && p.Dirty >= d })
}

// LoadTimeAbove is due when a restart would fold for longer than d.
func LoadTimeAbove(d time.Duration) Policy {
	return PolicyFunc(func(p Progress) bool { return p.FoldTime > d })
}

// AnyOf is due when one of the policies is.
func AnyOf(policies ...Policy) Policy {
	return PolicyFunc(func(p Progress) bool {
		for _, policy := range policies {
			if policy.Due(p) {
				return true
			}
		}
		return false
	})
}

// AllOf is due when all of the policies are; without policies never.
func AllOf(policies ...Policy) Policy {
	return PolicyFunc(func(p Progress) bool {
		for _, policy := range policies {
			if !policy.Due(p) {
				return false
			}
		}
		return len(policies) > 0
	})
}

// Default is the policy of a category that sets none: every 100 events, every 5 s for dirty
// streams, or when the events since fold for more than 50 ms.
func Default() Policy { return Settings{}.Policy() }
