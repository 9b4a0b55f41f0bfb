package streams

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kadm"
	"pgregory.net/rapid"
)

const feedTimeout = 30 * time.Second

// follower collects what a feed gives.
type follower struct {
	t     testing.TB
	feed  *Feed
	after []Position // behind each event
	got   []event.Recorded
}

func (w *world) follow(s *Store, q FeedQuery) *follower {
	w.t.Helper()
	q.Category = category
	feed, err := s.Open(w.t.Context(), q)
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
	w.t.Cleanup(feed.Close)
	return &follower{t: w.t, feed: feed}
}

// take reads until it has n events more.
func (f *follower) take(n int) []event.Recorded {
	f.t.Helper()
	from, n := len(f.got), len(f.got)+n
	ctx, cancel := context.WithTimeout(f.t.Context(), feedTimeout)
	defer cancel()
	for len(f.got) < n {
		err := f.feed.Next(ctx, func(e event.Recorded) error {
			f.got, f.after = append(f.got, e), append(f.after, f.feed.Position().clone())
			return nil
		})
		if err != nil || ctx.Err() != nil {
			f.t.Fatalf("next: %v; have %d events, want %d", err, len(f.got), n)
		}
	}
	return f.got[from:]
}

// perStream sorts what was got by stream, as the order between partitions is open.
func perStream(events []event.Recorded) map[string][]string {
	out := map[string][]string{}
	for _, e := range events {
		out[e.Stream.ID] = append(out[e.Stream.ID], show(e))
	}
	return out
}

func (w *world) truths(ids ...string) map[string][]string {
	out := map[string][]string{}
	for _, id := range ids {
		for _, e := range w.truth(id) {
			out[id] = append(out[id], show(e))
		}
	}
	return out
}

func wantSame(t testing.TB, got, want map[string][]string) {
	t.Helper()
	for id, lines := range want {
		if !slices.Equal(got[id], lines) {
			t.Errorf("stream %s:\n got  %q\n want %q", id, got[id], lines)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d streams, want %d", len(got), len(want))
	}
}

func TestAFeedGivesEachValidEventOnce(t *testing.T) {
	onBrokers(t, func(w *world) {
		s := w.store()
		w.append("a", "b", "a", "c")
		w.voids("a")
		w.claim()
		all := w.follow(s, FeedQuery{Start: true})
		fresh := w.follow(s, FeedQuery{})
		all.take(4)
		w.append("a", "b", "c")
		w.voids("b")
		w.append("b")
		wantSame(t, perStream(append(all.got, all.take(4)...)[:8]), w.truths("a", "b", "c"))
		if got := perStream(fresh.take(4)); len(got["a"]) != 1 || len(got["b"]) != 2 || len(got["c"]) != 1 {
			t.Errorf("from the end: got %v, want what was appended after it was opened", got)
		}
	})
}

func TestAFeedGoesOnBehindEachPositionThatItGave(t *testing.T) {
	onBrokers(t, func(w *world) {
		s := w.store()
		w.append("a", "b", "a", "c", "a")
		w.voids("a")
		w.claim()
		w.append("a", "b")
		w.voids("c")
		w.append("c")
		first := w.follow(s, FeedQuery{Start: true})
		first.take(8)
		for i, at := range first.after {
			at, err := ParsePosition(at.String())
			if err != nil {
				t.Fatal(err)
			}
			if i == len(first.after)-1 {
				w.append("b")
				first.take(1)
			}
			rest := w.follow(s, FeedQuery{Position: &at})
			want := perStream(first.got[i+1:])
			wantSame(t, perStream(rest.take(len(first.got)-i-1)), want)
			rest.feed.Close()
		}
	})
}

// A void record right behind a position, whose claim only the position knows.
func TestAPositionCarriesTheClaim(t *testing.T) {
	onBrokers(t, func(w *world) {
		s := w.store()
		w.append("a")
		first := w.follow(s, FeedQuery{Start: true})
		first.take(1)
		w.voids("a")
		w.append("a")
		at := first.after[0]
		wantVersions(t, w.follow(s, FeedQuery{Position: &at}).take(1), 2)
	})
}

func TestAFeedFiltersByTypeAndItsPositionMovesAllTheSame(t *testing.T) {
	onBrokers(t, func(w *world) {
		s := w.store()
		w.grow("a", 11)
		f := w.follow(s, FeedQuery{Start: true, Types: []string{"order.*", "account.Re*d"}})
		wantVersions(t, f.take(2), 5, 10)
		ctx, cancel := context.WithTimeout(t.Context(), feedTimeout)
		defer cancel()
		p := w.partitionOf("a")
		end := w.log[p][len(w.log[p])-1].Offset + 1
		for f.feed.Position().Partitions[p].Next < end {
			if err := f.feed.Next(ctx, func(e event.Recorded) error { t.Errorf("got %s", e.Type); return nil }); err != nil || ctx.Err() != nil {
				t.Fatalf("the position does not move: %v", err)
			}
		}
	})
}

func TestAFeedBeginsAtATime(t *testing.T) {
	onBrokers(t, func(w *world) {
		s := w.store()
		w.grow("a", 6) // stamped t0 + version seconds
		f := w.follow(s, FeedQuery{Time: t0.Add(3*time.Second + time.Nanosecond)})
		wantVersions(t, f.take(3), 4, 5, 6)
		f = w.follow(s, FeedQuery{Time: t0.Add(3 * time.Second)})
		wantVersions(t, f.take(4), 3, 4, 5, 6)
	})
}

func TestPositionsOfAnotherLogAreRefused(t *testing.T) {
	onBrokers(t, func(w *world) {
		s := w.store()
		w.grow("a", 6)
		f := w.follow(s, FeedQuery{Start: true})
		f.take(6)
		good := f.after[2]
		for name, change := range map[string]func(p *Position){
			"another topic":         func(p *Position) { p.TopicID[0]++ },
			"fewer partitions":      func(p *Position) { p.Partitions = p.Partitions[:2] },
			"an offset to come":     func(p *Position) { p.Partitions[0].Next += 1000 },
			"records that are gone": func(p *Position) { p.Partitions[w.partitionOf("a")].Next = 1 },
		} {
			if name == "records that are gone" {
				offsets := kadm.Offsets{}
				offsets.AddOffset(w.topic(), w.partitionOf("a"), 3, -1)
				if _, err := kadm.NewClient(w.kafka.Client(t)).DeleteRecords(t.Context(), offsets); err != nil {
					t.Fatal(err)
				}
			}
			p := good.clone()
			change(&p)
			if _, err := s.Open(t.Context(), FeedQuery{Category: category, Position: &p}); !errors.Is(err, ErrPosition) {
				t.Errorf("%s: got %v, want %v", name, err, ErrPosition)
			}
		}
	})
}

func TestFeedsAreLimitedAndGiveTheirPlacesBack(t *testing.T) {
	onBrokers(t, func(w *world) {
		s := w.store(func(c *Config) { c.FeedsMax = 2 })
		one, two := w.follow(s, FeedQuery{}), w.follow(s, FeedQuery{})
		if _, err := s.Open(t.Context(), FeedQuery{Category: category}); !errors.Is(err, ErrTooManyFeeds) {
			t.Errorf("the third: got %v, want %v", err, ErrTooManyFeeds)
		}
		if _, err := s.Open(t.Context(), FeedQuery{Category: "order"}); !errors.Is(err, ErrNoCategory) {
			t.Errorf("another category: got %v, want %v", err, ErrNoCategory)
		}
		one.feed.Close()
		one.feed.Close()
		bad := one.feed.Position().clone()
		bad.TopicID[3]++
		for range 3 { // what fails takes no place
			if _, err := s.Open(t.Context(), FeedQuery{Category: category, Position: &bad}); !errors.Is(err, ErrPosition) {
				t.Fatal(err)
			}
		}
		w.follow(s, FeedQuery{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := two.feed.Next(ctx, func(event.Recorded) error { return nil }); err != nil {
			t.Errorf("a wait that ends: got %v, want nil", err)
		}
	})
}

func TestAFeedEndsWhenItsTopicIsMadeAnew(t *testing.T) {
	onBrokers(t, func(w *world) {
		s := w.store(func(c *Config) { c.LeaderAgeMax = 100 * time.Millisecond })
		w.append("a")
		f := w.follow(s, FeedQuery{Start: true})
		f.take(1)
		adm := kadm.NewClient(w.kafka.Client(t))
		if _, err := adm.DeleteTopic(t.Context(), w.topic()); err != nil {
			t.Fatal(err)
		}
		w.awaitGone(adm)
		w.makeTopic()
		w.append("a", "a")
		ctx, cancel := context.WithTimeout(t.Context(), feedTimeout)
		defer cancel()
		for {
			err := f.feed.Next(ctx, func(e event.Recorded) error { t.Errorf("got %s of the new topic", show(e)); return nil })
			if errors.Is(err, ErrUnavailable) {
				return
			}
			if err != nil || ctx.Err() != nil {
				t.Fatalf("got %v, want %v", err, ErrUnavailable)
			}
		}
	})
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"order.Placed", "order.Placed", true}, {"order.Placed", "order.Placed2", false}, {"order.*", "order.Placed", true},
		{"order.*", "order.", true}, {"order.*", "orders.Placed", false}, {"*", "", true}, {"*", "x", true}, {"*.Placed", "order.Placed", true},
		{"*.Placed", "order.Placed.x", false}, {"a*b*c", "abc", true}, {"a*b*c", "aXbYc", true}, {"a*b*c", "acb", false}, {"a*a", "a", false},
		{"a*a", "aa", true}, {"**", "x", true}, {"", "", true}, {"", "x", false}, {"a*bc*bc", "abc", false}, {"a*bc*bc", "abcbc", true},
	} {
		if got := matches(c.pattern, c.text); got != c.want {
			t.Errorf("%q on %q: got %v, want %v", c.pattern, c.text, got, c.want)
		}
	}
}

func anyPosition(t *rapid.T) Position {
	var p Position
	copy(p.TopicID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "topic"))
	for range rapid.IntRange(1, 100).Draw(t, "partitions") {
		part := PartitionPosition{Next: rapid.Int64Min(0).Draw(t, "next")}
		if rapid.Bool().Draw(t, "known") {
			part.Lineage = event.Lineage{Known: true, Claim: event.Claim{
				ProducerID: rapid.Int64Min(-1).Draw(t, "producer"), Epoch: rapid.Int16Min(-1).Draw(t, "epoch"),
			}}
		}
		p.Partitions = append(p.Partitions, part)
	}
	return p
}

func TestPositionsAreReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyPosition(t)
		got, err := ParsePosition(want.String())
		if err != nil || got.TopicID != want.TopicID || !slices.Equal(got.Partitions, want.Partitions) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		text := []byte(want.String())
		i := rapid.IntRange(0, len(text)-1).Draw(t, "changed")
		text[i] = rapid.SampledFrom([]byte("ABCxyz019-_")).Draw(t, "to")
		if string(text) == want.String() {
			return
		}
		if _, err := ParsePosition(string(text)); !errors.Is(err, ErrPosition) {
			t.Fatalf("with character %d changed: got %v, want %v", i, err, ErrPosition)
		}
	})
}

func TestPositionsThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	good := Position{Partitions: []PartitionPosition{{Next: 7}}}.String()
	for _, text := range []string{"", "x", "end", "0", good[:len(good)-1], good + "A", good + "=", " " + good, strings.Repeat("A", positionTextMax+4), strings.Repeat("A", 400)} {
		if _, err := ParsePosition(text); !errors.Is(err, ErrPosition) {
			t.Errorf("%.80q: got %v, want %v", text, err, ErrPosition)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	f.Add(Position{Partitions: []PartitionPosition{{Next: 7}}}.String())
	f.Add(Position{TopicID: [16]byte{1, 2}, Partitions: []PartitionPosition{{Next: 1 << 40, Lineage: event.Lineage{Known: true, Claim: event.Claim{ProducerID: 4000, Epoch: 12}}}, {}}}.String())
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePosition(text)
		if err != nil {
			if !errors.Is(err, ErrPosition) {
				t.Errorf("got %v, which does not wrap %v", err, ErrPosition)
			}
			return
		}
		if got := p.String(); got != text {
			t.Errorf("%q is read as %q", text, got)
		}
	})
}
