package event

import (
	"errors"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// unpack makes headers of fuzz bytes: for each, a byte that picks a name, a byte of length, the
// value.
func unpack(data []byte) []Header {
	names := []string{
		HeaderID, HeaderType, HeaderSource, HeaderSpecVersion, HeaderTime, HeaderExpectedVersion, HeaderReplyTo, HeaderReplyKey,
		HeaderDedupeUntil, HeaderCompensates, HeaderAttempt, HeaderCorrelationID, HeaderOrigin, HeaderSequence, HeaderCommandOffset, HeaderControl, "x-other",
	}
	var hs []Header
	for len(data) >= 2 {
		name, n := names[int(data[0])%len(names)], min(int(data[1]), len(data)-2)
		hs = append(hs, Header{Key: name, Value: data[2 : 2+n]})
		data = data[2+n:]
	}
	return hs
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("\x00\x03c-1\x01\x03a.B"))
	f.Add([]byte("\x00\x03c-1\x01\x03a.B\x04\x142026-03-01T12:00:00Z\x05\x03any\x06\x03r/1"))
	f.Add([]byte("\x0c\x25000102030405060708090a0b0c0d0e0f/1/2"))
	f.Fuzz(func(t *testing.T, data []byte) {
		hs := unpack(data)
		got, err := ParseRequest(hs)
		var fault *HeaderError
		if err != nil && !errors.As(err, &fault) {
			t.Fatalf("error %v names no header", err)
		}
		if err == nil {
			checkRequest(t, got)
		}
		if len(got.Extra) > HeadersMax {
			t.Fatalf("%d extra headers", len(got.Extra))
		}
		if _, err := ParseRecorded("order", &kgo.Record{Key: []byte("k"), Value: []byte{0}, Headers: hs}); err == nil {
			if _, ok := HeaderValue(hs, HeaderSequence); !ok {
				t.Fatal("an event without a version was taken")
			}
		}
	})
}

// checkRequest holds what the rest of the program relies on.
func checkRequest(t *testing.T, r Request) {
	t.Helper()
	for name, text := range map[string]string{
		"id": r.ID, "type": r.Type, "source": r.Source, "attempt": r.Attempt, "correlation": r.CorrelationID, "compensates": r.Compensates,
	} {
		if !utf8.ValidString(text) || len(text) > HeaderValueBytesMax {
			t.Fatalf("%s %q is no text of ours", name, text)
		}
		for _, c := range text {
			if c == 0 {
				t.Fatalf("%s %q holds a NUL", name, text)
			}
		}
	}
	if r.ID == "" || r.Type == "" {
		t.Fatal("a request without id or type was taken")
	}
	for _, at := range []time.Time{r.Time, r.DedupeUntil} {
		if y := at.Year(); y < 1 || y > 9999 || at.Location() != time.UTC {
			t.Fatalf("time %s is out of range or not UTC", at)
		}
	}
	if r.Origin != nil {
		if again, err := ParseOrigin(r.Origin.String()); err != nil || again != *r.Origin {
			t.Fatalf("origin %s comes back as %s, %v", r.Origin, again, err)
		}
	}
	if r.ReplyTo.Topic != "" {
		if again, err := ParseReplyTo(r.ReplyTo.String()); err != nil || again != r.ReplyTo {
			t.Fatalf("reply-to %s comes back as %s, %v", r.ReplyTo, again, err)
		}
	}
}

func FuzzParseExpected(f *testing.F) {
	for _, text := range []string{"", "any", "none", "exists", "0", "7", "007", "-1", "999999999999999999", "1000000000000000000"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseExpected(text)
		if err != nil {
			return
		}
		again, err := ParseExpected(got.String())
		if err != nil || again != got {
			t.Fatalf("%q shows as %q, which reads as %v, %v", text, got, again, err)
		}
		if got.version < 0 {
			t.Fatalf("%q is version %d", text, got.version)
		}
	})
}

func FuzzParseOrigin(f *testing.F) {
	f.Add("000102030405060708090a0b0c0d0e0f/1/2")
	f.Add("//")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseOrigin(text)
		if err != nil {
			return
		}
		if again, err := ParseOrigin(got.String()); err != nil || again != got {
			t.Fatalf("%q shows as %q, which reads as %v, %v", text, got, again, err)
		}
		if got.Partition < 0 || got.Offset < 0 {
			t.Fatalf("%q has a negative partition or offset", text)
		}
	})
}
