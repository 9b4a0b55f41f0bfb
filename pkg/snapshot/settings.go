package snapshot

import "time"

// Settings are a category's, as a project's file says them. The zero value of a field means its
// default.
type Settings struct {
	EveryEvents   int           // the latest is due after so many events; default 100
	Every         time.Duration // or when the stream has been dirty for so long; default 5 s
	LoadTimeAbove time.Duration // or when a restart would fold for longer; default 50 ms
	HistoryEvery  int           // versions between two history slots; default 100
	HistoryAge    time.Duration // after which a history slot is removed; default 30 days
	Checkpoint    time.Duration // least time between two checkpoints of a partition; default 5 s
}

// WithDefaults fills in what is not set.
func (s Settings) WithDefaults() Settings {
	def(&s.EveryEvents, 100)
	def(&s.Every, 5*time.Second)
	def(&s.LoadTimeAbove, 50*time.Millisecond)
	def(&s.HistoryEvery, 100)
	def(&s.HistoryAge, 30*24*time.Hour)
	def(&s.Checkpoint, 5*time.Second)
	return s
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Policy returns what the settings come to.
func (s Settings) Policy() Policy {
	s = s.WithDefaults()
	return AnyOf(EveryEvents(s.EveryEvents), EveryInterval(s.Every), LoadTimeAbove(s.LoadTimeAbove))
}
