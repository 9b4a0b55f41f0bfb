package engine

import (
	"crypto/sha1" //nolint:gosec // UUID version 5 is SHA-1 (RFC 9562)
	"encoding/hex"
	"strconv"

	"github.com/foldstream/foldstream/pkg/event"
)

// The derived ids of event.DeriveID and event.ReplyID, made in the caller's memory: the owners make
// two for each command. TestDerivedIDsAreThoseOfTheWireFormat holds them to the originals.

// idNamespace is 6f1d3c1e-5b0a-5c8e-9a53-0f7f6a1f2c11.
var idNamespace = [16]byte{0x6f, 0x1d, 0x3c, 0x1e, 0x5b, 0x0a, 0x5c, 0x8e, 0x9a, 0x53, 0x0f, 0x7f, 0x6a, 0x1f, 0x2c, 0x11}

// eventID is event.DeriveID; scratch is reused and returned.
func eventID(scratch []byte, stream event.StreamID, commandID string, index int) (string, []byte) {
	b := scratch[:0]
	b = append(b, idNamespace[:]...)
	b = append(append(b, stream.Category...), 0)
	b = append(append(b, stream.ID...), 0)
	b = append(append(b, commandID...), 0)
	b = strconv.AppendInt(b, int64(index), 10)
	named := len(b)
	b = appendUUID(b, b)
	return string(b[named:]), b
}

// appendReplyID appends event.ReplyID.
func appendReplyID(dst []byte, requestID string) []byte {
	var room [128]byte
	b := append(room[:0], idNamespace[:]...)
	b = append(b, requestID...)
	b = append(b, "\x00reply"...)
	return appendUUID(dst, b)
}

// appendUUID appends the text of the version 5 UUID of named, a namespace and a name.
func appendUUID(dst, named []byte) []byte {
	sum := sha1.Sum(named) //nolint:gosec // see the import
	sum[6] = sum[6]&0x0f | 0x50
	sum[8] = sum[8]&0x3f | 0x80
	at := len(dst)
	dst = append(dst, "00000000-0000-0000-0000-000000000000"...)
	text := dst[at:]
	hex.Encode(text[0:8], sum[0:4])
	hex.Encode(text[9:13], sum[4:6])
	hex.Encode(text[14:18], sum[6:8])
	hex.Encode(text[19:23], sum[8:10])
	hex.Encode(text[24:36], sum[10:16])
	return dst
}
