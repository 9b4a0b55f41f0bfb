package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// batch is one record batch to send, as a producer of any behaviour could.
type batch struct {
	claim   event.Claim
	seq     int32
	values  []string
	stamp   time.Time
	corrupt bool // the checksum is false
}

// The record batch header, magic 2 (Kafka protocol, "Record Batch").
const (
	batchOverhead = 12 // offset and length, which the length does not count
	atChecksum    = 17
	atAttributes  = 21
	batchHeader   = 61

	stampedByBroker = 0x08 // attribute: LogAppendTime
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (b batch) encode() []byte {
	var records []byte
	for i, value := range b.values {
		records = appendRecord(records, int32(i), value)
	}
	rb := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(len(b.values) - 1),
		FirstTimestamp: b.stamp.UnixMilli(), MaxTimestamp: b.stamp.UnixMilli(),
		ProducerID: b.claim.ProducerID, ProducerEpoch: b.claim.Epoch, FirstSequence: b.seq,
		NumRecords: int32(len(b.values)), Records: records,
	}
	rb.Length = int32(batchHeader - batchOverhead + len(records))
	raw := rb.AppendTo(nil)
	sum := crc32.Checksum(raw[atAttributes:], castagnoli)
	if b.corrupt {
		sum++
	}
	binary.BigEndian.PutUint32(raw[atChecksum:], sum)
	return raw
}

func appendRecord(dst []byte, delta int32, value string) []byte {
	r := kmsg.NewRecord()
	r.OffsetDelta, r.Key, r.Value = delta, []byte("doctor"), []byte(value)
	r.Length = int32(len(r.AppendTo(nil)) - 1) // a length of 0 takes one byte
	return r.AppendTo(dst)
}

// stored is one batch as the log has it.
type stored struct {
	base    int64
	claim   event.Claim
	seq     int32
	records int32
	// stampedByBroker tells whose the stamp is.
	stampedByBroker bool
	stamp           time.Time
}

func (s stored) String() string {
	return fmt.Sprintf("producer %d epoch %d sequence %d at offset %d (%d records)", s.claim.ProducerID, s.claim.Epoch, s.seq, s.base, s.records)
}

// parse reads the batches of a fetch answer. The last one may be cut, and is left out then.
func parse(raw []byte) ([]stored, error) {
	var all []stored
	for len(raw) >= batchHeader {
		length := int(int32(binary.BigEndian.Uint32(raw[batchOverhead-4:]))) + batchOverhead
		if length < batchHeader {
			return all, fmt.Errorf("read back: a batch of %d bytes, the header alone has %d", length, batchHeader)
		}
		if length > len(raw) {
			break
		}
		var b kmsg.RecordBatch
		if err := b.ReadFrom(raw[:length]); err != nil {
			return all, fmt.Errorf("read back: %w", err)
		}
		all = append(all, stored{
			base: b.FirstOffset, claim: event.Claim{ProducerID: b.ProducerID, Epoch: b.ProducerEpoch}, seq: b.FirstSequence,
			records: b.NumRecords, stampedByBroker: b.Attributes&stampedByBroker != 0, stamp: time.UnixMilli(b.MaxTimestamp),
		})
		raw = raw[length:]
	}
	return all, nil
}

// again says whether a failed request is worth another try: the broker said so, or said nothing.
func again(err error) bool {
	var answer *kerr.Error
	return !errors.As(err, &answer) || kerr.IsRetriable(err)
}
