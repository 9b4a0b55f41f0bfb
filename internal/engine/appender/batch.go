package appender

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"math/bits"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

// batch is one record batch while it gathers, waits, is under way and is retried. Its records are
// encoded as they come; the 61 bytes of the header are filled in by seal, once, just before it is
// sent for the first time. After seal not a byte changes: a retry must be the same bytes.
type batch struct {
	buf     []byte // room for the header, then the records
	entries []entry
	records int32 // in buf
	proofs  int   // entries that ask for a proof and are not refused

	timeFirst int64 // milliseconds; deltas are from here
	timeMax   int64

	sealed    bool
	listing   bool  // nothing to store: prove by ListOffsets
	seq       int32 // sequence of the first record
	expected  int64 // base offset that the broker must return; -1 when any will do
	firstSent time.Time
	attempts  int
	// uncertain: some attempt may have been stored. From then on no answer but an
	// acknowledgement settles the batch.
	uncertain bool
	// tainted: a request that holds buf ended without an answer, so the client may still read it.
	tainted bool
}

// entry is one Append or Prove: exactly one of done and prove is set, or neither.
type entry struct {
	done  func(Result)
	prove func(error)
	first int32 // index of its first record in the batch
	bytes int
	err   error // decided before it was sent
}

func (e *entry) tell(offset int64, err error) {
	switch {
	case e.done != nil && err != nil:
		e.done(Result{Offset: -1, Err: err})
	case e.done != nil:
		e.done(Result{Offset: offset})
	case e.prove != nil:
		e.prove(err)
	}
}

// The record batch header, magic 2 (Kafka protocol, "Record Batch").
const (
	atLength       = 8
	atLeaderEpoch  = 12
	atMagic        = 16
	atCRC          = 17
	atAttributes   = 21
	atLastDelta    = 23
	atTimeFirst    = 27
	atTimeMax      = 35
	atProducerID   = 43
	atEpoch        = 51
	atSequence     = 53
	atRecords      = 57
	headerBytes    = 61
	bufBytesFirst  = 16 << 10
	bufBytesPooled = 1 << 20
	entriesPooled  = 1 << 13
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (b *batch) reset() {
	clear(b.entries)
	*b = batch{buf: b.buf[:headerBytes], entries: b.entries[:0]}
}

// add encodes the records as one entry and returns its size. When the batch would exceed bytesMax
// it is left as it was and fits is false.
func (b *batch) add(records []Record, now func() time.Time, bytesMax int) (bytes int, fits bool) {
	before, timeFirst, timeMax := len(b.buf), b.timeFirst, b.timeMax
	for i := range records {
		b.addRecord(&records[i], b.records+int32(i), now)
		if len(b.buf) > bytesMax {
			b.buf, b.timeFirst, b.timeMax = b.buf[:before], timeFirst, timeMax
			return 0, false
		}
	}
	b.records += int32(len(records))
	return len(b.buf) - before, true
}

func (b *batch) addRecord(r *Record, delta int32, now func() time.Time) {
	at := r.Time
	if at.IsZero() {
		at = now()
	}
	stamp := at.UnixMilli()
	if delta == 0 {
		b.timeFirst, b.timeMax = stamp, stamp
	}
	b.timeMax = max(b.timeMax, stamp)
	b.buf = appendRecord(b.buf, r, delta, stamp-b.timeFirst)
}

// seal fills in the header. The partition leader epoch is the broker's to set.
func (b *batch) seal(claim event.Claim, seq int32, expected int64) {
	h := b.buf
	be := binary.BigEndian
	be.PutUint64(h, 0)
	be.PutUint32(h[atLength:], uint32(len(h)-atLeaderEpoch))
	be.PutUint32(h[atLeaderEpoch:], math.MaxUint32)
	h[atMagic] = 2
	be.PutUint16(h[atAttributes:], 0)
	be.PutUint32(h[atLastDelta:], uint32(b.records-1))
	be.PutUint64(h[atTimeFirst:], uint64(b.timeFirst))
	be.PutUint64(h[atTimeMax:], uint64(b.timeMax))
	be.PutUint64(h[atProducerID:], uint64(claim.ProducerID))
	be.PutUint16(h[atEpoch:], uint16(claim.Epoch))
	be.PutUint32(h[atSequence:], uint32(seq))
	be.PutUint32(h[atRecords:], uint32(b.records))
	be.PutUint32(h[atCRC:], crc32.Checksum(h[atAttributes:], castagnoli))
	b.seq, b.expected, b.sealed = seq, expected, true
}

// nextSequence is the sequence after n records from seq: it wraps to 0 after 2147483647.
func nextSequence(seq, n int32) int32 {
	return int32((int64(seq) + int64(n)) & math.MaxInt32)
}

// appendRecord encodes one record. A nil key, value or header value is null.
func appendRecord(dst []byte, r *Record, delta int32, timeDelta int64) []byte {
	size := 1 + varintBytes(timeDelta) + varintBytes(int64(delta)) +
		blobBytes(r.Key) + blobBytes(r.Value) + varintBytes(int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		size += varintBytes(int64(len(h.Key))) + len(h.Key) + blobBytes(h.Value)
	}
	dst = binary.AppendVarint(dst, int64(size))
	dst = append(dst, 0) // attributes: none are defined
	dst = binary.AppendVarint(dst, timeDelta)
	dst = binary.AppendVarint(dst, int64(delta))
	dst = appendBlob(dst, r.Key)
	dst = appendBlob(dst, r.Value)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBlob(dst, h.Value)
	}
	return dst
}

func appendBlob(dst, blob []byte) []byte {
	if blob == nil {
		return append(dst, 1) // -1
	}
	dst = binary.AppendVarint(dst, int64(len(blob)))
	return append(dst, blob...)
}

func blobBytes(blob []byte) int {
	if blob == nil {
		return 1
	}
	return varintBytes(int64(len(blob))) + len(blob)
}

// varintBytes is the length of binary.AppendVarint's output: seven bits a byte, zigzag.
func varintBytes(n int64) int {
	zigzag := uint64(n)<<1 ^ uint64(n>>63)
	return (bits.Len64(zigzag|1) + 6) / 7
}
