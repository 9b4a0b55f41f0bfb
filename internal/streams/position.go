package streams

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
)

// Position is where a feed is in an events topic: of each partition the next offset, and the claim
// that counts there, so that the void rule (PROTOCOL W6) goes on exactly where it stopped.
type Position struct {
	TopicID    [16]byte
	Partitions []PartitionPosition // by number
}

// PartitionPosition is where a feed is in one partition.
type PartitionPosition struct {
	Next    int64
	Lineage event.Lineage
}

// ErrPosition: a text is no position, or one of another log, or of records that are gone.
var ErrPosition = errors.New("position")

// positionVersion is the first byte of a position's bytes:
//
//	1 byte    version
//	16 bytes  topic id
//	uvarint   partitions; for each:
//	  uvarint  next offset
//	  1 byte   1 when a claim is known, else 0
//	  varint   producer id  (when known)
//	  varint   epoch        (when known)
//	4 bytes   CRC-32C of all before, big-endian
//
// as text: base64url without padding. Readers must take it as opaque.
const positionVersion = 1

// positionTextMax bounds a text before it is looked at.
const positionTextMax = 64 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// String returns the position's text.
func (p Position) String() string { return string(p.AppendText(nil)) }

// AppendText appends the position's text.
func (p Position) AppendText(dst []byte) []byte {
	raw := make([]byte, 0, 24+12*len(p.Partitions))
	raw = append(raw, positionVersion)
	raw = append(raw, p.TopicID[:]...)
	raw = binary.AppendUvarint(raw, uint64(len(p.Partitions)))
	for _, part := range p.Partitions {
		raw = binary.AppendUvarint(raw, uint64(part.Next))
		if !part.Lineage.Known {
			raw = append(raw, 0)
			continue
		}
		raw = append(raw, 1)
		raw = binary.AppendVarint(raw, part.Lineage.Claim.ProducerID)
		raw = binary.AppendVarint(raw, int64(part.Lineage.Claim.Epoch))
	}
	raw = binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
	return base64.RawURLEncoding.AppendEncode(dst, raw)
}

// ParsePosition reads the text of Position.String, and only that: a position has one text.
// Its errors wrap ErrPosition.
func ParsePosition(text string) (Position, error) {
	fault := func(reason string) (Position, error) { return Position{}, fmt.Errorf("%w: %s", ErrPosition, reason) }
	if text == "" || len(text) > positionTextMax {
		return fault(fmt.Sprintf("the text has %d characters", len(text)))
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return fault("the text is not base64url without padding")
	}
	const fixedBytes, sumBytes = 1 + 16 + 1, 4
	if len(raw) < fixedBytes+sumBytes {
		return fault("the text is cut off")
	}
	body := raw[:len(raw)-sumBytes]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(raw[len(body):]) {
		return fault("the text was changed or cut off")
	}
	if body[0] != positionVersion {
		return fault(fmt.Sprintf("it is of version %d, this program knows %d", body[0], positionVersion))
	}
	r := positionReader{rest: body[1:]}
	p := Position{TopicID: [16]byte(r.take(16))}
	n := r.uvarint(uint64(topics.PartitionsMax))
	for range n {
		p.Partitions = append(p.Partitions, r.partition())
		if r.bad {
			break
		}
	}
	if r.bad || len(r.rest) > 0 || n == 0 || p.String() != text {
		return fault("it was not made by this program")
	}
	return p, nil
}

// positionReader takes bytes apart and notes what does not fit.
type positionReader struct {
	rest []byte
	bad  bool
}

func (r *positionReader) take(n int) []byte {
	if len(r.rest) < n {
		r.bad = true
		return make([]byte, n)
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *positionReader) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > most {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *positionReader) varint(least, most int64) int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 || v < least || v > most {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *positionReader) partition() PartitionPosition {
	const offsetMax, producerMax, epochMax = 1<<63 - 1, 1<<63 - 1, 1<<15 - 1
	p := PartitionPosition{Next: int64(r.uvarint(offsetMax))}
	switch r.take(1)[0] {
	case 0:
	case 1: // -1: a producer without an id
		p.Lineage.Known = true
		p.Lineage.Claim.ProducerID, p.Lineage.Claim.Epoch = r.varint(-1, producerMax), int16(r.varint(-1, epochMax))
	default:
		r.bad = true
	}
	return p
}

// clone returns a position that shares nothing.
func (p Position) clone() Position {
	return Position{TopicID: p.TopicID, Partitions: slices.Clone(p.Partitions)}
}
