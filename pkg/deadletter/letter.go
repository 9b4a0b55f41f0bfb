// Package deadletter is what every consumer does with a record that it cannot process: it tells
// the record's fate from the error (FateOf), and writes a letter with the record's original key,
// value and headers to its own dead-letter topic (Sink).
//
// A letter in the topic is only the bytes. It counts through the row, or the commit, that its
// consumer writes together with its own progress, so a letter may stand in the topic twice: both
// have the same dlq.id.
package deadletter

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Headers of a letter, after the record's own. Numbers are decimal ASCII, times RFC 3339 in UTC.
const (
	HeaderID          = "dlq.id"
	HeaderConsumer    = "dlq.consumer"
	HeaderTopic       = "dlq.topic"
	HeaderTopicID     = "dlq.topic-id"
	HeaderPartition   = "dlq.partition"
	HeaderOffset      = "dlq.offset"
	HeaderStage       = "dlq.stage"
	HeaderClass       = "dlq.class"
	HeaderMessage     = "dlq.message"
	HeaderAttempts    = "dlq.attempts"
	HeaderFirstAt     = "dlq.first-at"
	HeaderReason      = "dlq.reason"
	HeaderFingerprint = "dlq.fingerprint"
)

// Stage is where processing failed.
type Stage string

// The stages.
const (
	StageDecode Stage = "decode" // envelope, framing, schema, Avro
	StageUpcast Stage = "upcast" // an upcaster
	StageHandle Stage = "handle" // the team's own function
	StageSink   Stage = "sink"   // the database refused the result
)

// Reason is why the record became a letter.
type Reason string

// The reasons.
const (
	ReasonFailed  Reason = "failed"         // this record could not be processed
	ReasonBlocked Reason = "blocked-by-key" // an earlier record of its key is a letter
	ReasonVoid    Reason = "void"           // written by an owner of old (PROTOCOL W6); parks nothing
)

// MessageBytesMax bounds a letter's message.
const MessageBytesMax = 1024

// Letter is a record that a consumer could not process.
type Letter struct {
	ID          string // the same however often the letter is written
	Consumer    string // as in the topic's name: view.<name>.v<N>, ingest, …
	Record      *kgo.Record
	TopicID     [16]byte
	Stage       Stage
	Class       string // short, for grouping and for programs
	Message     string // for people; valid UTF-8 without NUL
	Attempts    int
	FirstAt     time.Time
	Reason      Reason
	Fingerprint string // the same for failures of the same kind
}

// New makes the letter of a record that failed with err; its stage and class are those of err's
// Fate. attempts counts the tries, this one included.
func New(consumer string, topicID [16]byte, rec *kgo.Record, err error, attempts int, now time.Time) Letter {
	fate := FateOf(err)
	l := letter(consumer, topicID, rec, attempts, now)
	l.Stage, l.Class, l.Reason = fate.Stage, fate.Class, ReasonFailed
	l.Message = CleanText(err.Error(), MessageBytesMax)
	return l.sealed()
}

// Blocked makes the letter of a record whose key is parked since the record at offset first.
func Blocked(consumer string, topicID [16]byte, rec *kgo.Record, first int64, now time.Time) Letter {
	l := letter(consumer, topicID, rec, 1, now)
	l.Stage, l.Class, l.Reason = StageHandle, string(ReasonBlocked), ReasonBlocked
	l.Message = fmt.Sprintf("an earlier record of this key is a letter: offset %d", first)
	return l.sealed()
}

// Void makes the letter of a record that an owner of old wrote (PROTOCOL W6).
func Void(consumer string, topicID [16]byte, rec *kgo.Record, current event.Claim, now time.Time) Letter {
	l := letter(consumer, topicID, rec, 1, now)
	l.Stage, l.Class, l.Reason = StageDecode, string(ReasonVoid), ReasonVoid
	l.Message = fmt.Sprintf("written under producer %d epoch %d, but the partition's last claim is of producer %d epoch %d",
		rec.ProducerID, rec.ProducerEpoch, current.ProducerID, current.Epoch)
	return l.sealed()
}

// letterNamespace is the UUID namespace of letter ids.
var letterNamespace = uuid.MustParse("0f2e9a0e-7f2c-5d56-8a55-6c0a3d7b1e77")

func letter(consumer string, topicID [16]byte, rec *kgo.Record, attempts int, now time.Time) Letter {
	place := fmt.Sprintf("%s\x00%x\x00%d\x00%d", consumer, topicID, rec.Partition, rec.Offset)
	return Letter{
		ID: uuid.NewSHA1(letterNamespace, []byte(place)).String(), Consumer: consumer, Record: rec,
		TopicID: topicID, Attempts: attempts, FirstAt: now.UTC(),
	}
}

var digits = regexp.MustCompile(`[0-9]+`)

// sealed adds the fingerprint: failures that differ in numbers only are of the same kind.
func (l Letter) sealed() Letter {
	kind := strings.Join([]string{l.Consumer, string(l.Stage), l.Class, digits.ReplaceAllString(l.Message, "#")}, "\x00")
	sum := sha256.Sum256([]byte(kind))
	l.Fingerprint = hex.EncodeToString(sum[:8])
	return l
}

// Headers returns the record's own headers followed by the letter's.
func (l Letter) Headers() []event.Header {
	out := make([]event.Header, 0, len(l.Record.Headers)+13)
	out = append(out, l.Record.Headers...)
	add := func(name, value string) { out = append(out, event.Header{Key: name, Value: []byte(value)}) }
	add(HeaderID, l.ID)
	add(HeaderConsumer, l.Consumer)
	add(HeaderTopic, l.Record.Topic)
	add(HeaderTopicID, event.FormatTopicID(l.TopicID))
	add(HeaderPartition, strconv.Itoa(int(l.Record.Partition)))
	add(HeaderOffset, strconv.FormatInt(l.Record.Offset, 10))
	add(HeaderStage, string(l.Stage))
	add(HeaderClass, l.Class)
	add(HeaderMessage, l.Message)
	add(HeaderAttempts, strconv.Itoa(l.Attempts))
	add(HeaderFirstAt, event.FormatTime(l.FirstAt))
	add(HeaderReason, string(l.Reason))
	add(HeaderFingerprint, l.Fingerprint)
	return out
}

// CleanText makes foreign text safe to store and show: valid UTF-8, no NUL, at most bytesMax.
func CleanText(s string, bytesMax int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\u2400")
	if len(s) <= bytesMax {
		return s
	}
	return strings.ToValidUTF8(s[:bytesMax], "") + "…"
}
