package engine

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/foldstream/foldstream/pkg/codec"
)

// contentHash is fs-command-hash (PROTOCOL D4): SHA-256, cut to 16 bytes, over type, expected
// version, the writer schema's fingerprint and the payload; never over the framing id, which
// differs between registries. Texts are preceded by their length (4 bytes, big endian).
// scratch is reused; the grown slice is returned.
func contentHash(scratch []byte, typ, expected string, fingerprint codec.Fingerprint, payload []byte) ([16]byte, []byte) {
	b := scratch[:0]
	b = binary.BigEndian.AppendUint32(b, uint32(len(typ)))
	b = append(b, typ...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(expected)))
	b = append(b, expected...)
	b = binary.BigEndian.AppendUint64(b, uint64(fingerprint))
	b = append(b, payload...)
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16]), b
}
