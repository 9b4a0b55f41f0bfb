package codec

import (
	"encoding/binary"
	"fmt"
)

// Framing is how a value names its writer schema.
type Framing uint8

const (
	// FramingConfluent: 0x00, the schema id as 4 bytes big-endian, the body.
	FramingConfluent Framing = iota + 1
	// FramingSingleObject: 0xC3 0x01, the fingerprint as 8 bytes little-endian, the body.
	FramingSingleObject
)

// Sizes of the two headers in bytes.
const (
	ConfluentHeaderBytes    = 5
	SingleObjectHeaderBytes = 10
)

// String returns the framing's name.
func (f Framing) String() string {
	switch f {
	case FramingConfluent:
		return "confluent"
	case FramingSingleObject:
		return "single-object"
	}
	return "none"
}

// Frame is a value taken apart. Body references the value's bytes.
type Frame struct {
	Framing     Framing
	ID          int32       // Confluent only
	Fingerprint Fingerprint // single-object only
	Body        []byte
}

// ParseFrame takes a value apart. Its errors wrap ErrFrame.
func ParseFrame(value []byte) (Frame, error) {
	switch {
	case value == nil:
		return Frame{}, fmt.Errorf("%w: the value is null", ErrFrame)
	case len(value) == 0:
		return Frame{}, fmt.Errorf("%w: the value is empty", ErrFrame)
	case value[0] == 0x00:
		return parseConfluent(value)
	case value[0] == 0xC3 && len(value) > 1 && value[1] == 0x01:
		return parseSingleObject(value)
	}
	return Frame{}, fmt.Errorf("%w: it begins with % x; want 00 and a 4-byte schema id, or c3 01 and an 8-byte fingerprint",
		ErrFrame, value[:min(2, len(value))])
}

func parseConfluent(value []byte) (Frame, error) {
	if len(value) < ConfluentHeaderBytes {
		return Frame{}, fmt.Errorf("%w: %d bytes, a Confluent header has %d", ErrFrame, len(value), ConfluentHeaderBytes)
	}
	id := int32(binary.BigEndian.Uint32(value[1:]))
	if id < 0 {
		return Frame{}, fmt.Errorf("%w: schema id %d is negative", ErrFrame, id)
	}
	return Frame{Framing: FramingConfluent, ID: id, Body: value[ConfluentHeaderBytes:]}, nil
}

func parseSingleObject(value []byte) (Frame, error) {
	if len(value) < SingleObjectHeaderBytes {
		return Frame{}, fmt.Errorf("%w: %d bytes, a single-object header has %d", ErrFrame, len(value), SingleObjectHeaderBytes)
	}
	fp := Fingerprint(binary.LittleEndian.Uint64(value[2:]))
	return Frame{Framing: FramingSingleObject, Fingerprint: fp, Body: value[SingleObjectHeaderBytes:]}, nil
}

// AppendConfluent appends the 5-byte Confluent header for a schema id.
func AppendConfluent(dst []byte, id int32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0x00), uint32(id))
}

// AppendSingleObject appends the 10-byte single-object header for a fingerprint.
func AppendSingleObject(dst []byte, fp Fingerprint) []byte {
	return binary.LittleEndian.AppendUint64(append(dst, 0xC3, 0x01), uint64(fp))
}
