package engine

import (
	"testing"

	"github.com/foldstream/foldstream/pkg/event"
	"pgregory.net/rapid"
)

func TestDerivedIDsAreThoseOfTheWireFormat(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		stream := event.StreamID{Category: rapid.String().Draw(t, "category"), ID: rapid.String().Draw(t, "stream")}
		request, index := rapid.String().Draw(t, "request"), rapid.IntRange(0, 1_000).Draw(t, "index")
		scratch := []byte(rapid.String().Draw(t, "scratch"))
		got, scratch := eventID(scratch, stream, request, index)
		if want := event.DeriveID(stream, request, index); got != want {
			t.Fatalf("event %d of %q on %s: got %s, want %s", index, request, stream, got, want)
		}
		again, _ := eventID(scratch, stream, request, index)
		if again != got {
			t.Fatalf("with used memory: got %s, want %s", again, got)
		}
		if got, want := string(appendReplyID([]byte("x"), request)), "x"+event.ReplyID(request); got != want {
			t.Fatalf("reply to %q: got %s, want %s", request, got, want)
		}
	})
}
