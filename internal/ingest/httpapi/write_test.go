package httpapi

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/foldstream/foldstream/internal/testkit"
)

const noted = `{"events":[{"type":"note.Noted","data":{"text":"hi"}}]}`

func TestEveryOutcomeHasItsStatus(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, k *testkit.Kafka) {
		s := newSite(t, k, 2)
		i := s.start()
		s.serving(i)
		stream := s.streamOn(0, 1)

		first := i.appendTo("note", stream, noted, "Idempotency-Key", "k1")
		equal(t, "accepted: status", first.status, http.StatusCreated)
		equal(t, "accepted: outcome", first.string("outcome"), "accepted")
		equal(t, "accepted: key", first.string("commandId"), "k1")
		equal(t, "accepted: versions", words(first.number("firstVersion"), first.number("lastVersion"), first.number("partition")), "1 1 0")

		again := i.appendTo("note", stream, noted, "Idempotency-Key", "k1")
		equal(t, "duplicate: status", again.status, http.StatusOK)
		equal(t, "duplicate: outcome", again.string("outcome"), "duplicate")
		equal(t, "duplicate: place", again.number("offset"), first.number("offset"))

		other := i.appendTo("note", stream, `{"events":[{"type":"note.Noted","data":{"text":"other"}}]}`, "Idempotency-Key", "k1")
		equal(t, "id reused", words(other.status, other.code(), other.string("outcome"), other.faults()), "400 id-reused invalid [header.Idempotency-Key]")

		conflict := i.appendTo("note", stream, `{"expectedVersion":5,"events":[{"type":"note.Noted","data":{"text":"hi"}}]}`)
		equal(t, "conflict", words(conflict.status, conflict.code(), conflict.string("outcome"), conflict.number("actualVersion")), "409 conflict conflict 1")
		if conflict.string("commandId") == "" {
			t.Error("conflict: the key that was made up is not told")
		}

		several := i.appendTo("note", stream, `{"expectedVersion":"1","events":[
			{"type":"note.Noted","data":{"text":"a"},"id":"e-1","time":"2026-01-02T03:04:05.000006Z","metadata":{"b":"2","a":"ä"}},
			{"type":"note.Noted","data":{"text":"b","lines":[{"price":7}]}}]}`, "Idempotency-Key", "k2", "ce-userid", "ada", "ce-correlationid", "conv", "traceparent", "00-1-2-01")
		equal(t, "several", words(several.status, several.number("firstVersion"), several.number("lastVersion")), "201 2 3")

		added := i.command(stream, `{"type":"tally.Add","data":{"amount":3},"expectedVersion":"none"}`)
		equal(t, "command", words(added.status, added.string("outcome"), added.number("lastVersion")), "201 accepted 1")
		rejected := i.command(stream, `{"type":"tally.Add","data":{"amount":-3}}`)
		equal(t, "rejected", words(rejected.status, rejected.code(), rejected.string("outcome")), "422 negative rejected")
		nothing := i.command(stream, `{"type":"tally.Add","data":{"amount":0}}`)
		equal(t, "nothing to do", words(nothing.status, nothing.string("outcome"), nothing.number("lastVersion"), nothing.number("offset")), "200 accepted 0 -1")

		events := s.log("note")[stream]
		if len(events) != 3 {
			t.Fatalf("log: got %d events, want 3", len(events))
		}
		equal(t, "a bare event's id is its key", events[0].ID, "k1")
		e := events[1]
		equal(t, "what the event carries", words(e.ID, e.UserID, e.CorrelationID, e.Traceparent, e.CommandID, e.Time.Format("2006-01-02T15:04:05.000000")), "e-1 ada conv 00-1-2-01 k2 2026-01-02T03:04:05.000006")
		equal(t, "its metadata", fmt.Sprintf("%s", e.Extra), "[{a ä} {b 2}]")
		equal(t, "its value", string(e.Value), "\x00\x00\x00\x00\x0a\x02a\x00")
	})
}

func TestABatchAnswersEachRequestByItself(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, k *testkit.Kafka) {
		s := newSite(t, k, 2)
		i := s.start()
		s.serving(i)
		got := call(t, http.MethodPost, i.url+"/v1/append", `{"requests":[
			{"category":"note","id":"a","commandId":"c1","events":[{"type":"note.Noted","data":{"text":"1"}}]},
			{"category":"note","id":"a","commandId":"c2","expectedVersion":1,"events":[{"type":"note.Noted","data":{"text":"2"}}]},
			{"category":"note","id":"a","expectedVersion":7,"events":[{"type":"note.Noted","data":{"text":"3"}}]},
			{"category":"note","id":"b","events":[{"type":"note.Noted","data":{"txt":"4"}}]},
			{"category":"nope","id":"b","events":[{"type":"note.Noted","data":{"text":"5"}}]},
			{"category":"tally","id":"b","events":[{"type":"tally.Added","data":{"amount":1}},{"type":"tally.Added","data":{"amount":2}}]},
			{"category":"note","id":"a","commandId":"c1","events":[{"type":"note.Noted","data":{"text":"1"}}]}
		]}`)
		equal(t, "status", got.status, http.StatusOK)
		results, _ := got.body["results"].([]any)
		var told []string
		for _, r := range results {
			one := answered{body: r.(map[string]any)}
			told = append(told, words(one.number("status"), one.string("outcome"), one.code(), one.faults()))
		}
		equal(t, "results", told, []string{
			"201 accepted  []", "201 accepted  []", "409 conflict conflict []",
			"400 invalid payload [body.requests[3].events[0].data.txt body.requests[3].events[0].data.text]",
			"404  unknown-category []", "201 accepted  []", "200 duplicate  []",
		})
		equal(t, "events of b", len(s.log("tally")["b"]), 2)
	})
}
