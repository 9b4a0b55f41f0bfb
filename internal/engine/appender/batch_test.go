package appender

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

// Whatever is appended, another implementation of the format reads it back.
func TestBatchIsReadBackByKmsg(t *testing.T) {
	t.Parallel()
	blob := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 0, 300))
	header := rapid.Custom(func(t *rapid.T) event.Header {
		return event.Header{Key: rapid.StringN(0, 40, 200).Draw(t, "key"), Value: blob.Draw(t, "value")}
	})
	record := rapid.Custom(func(t *rapid.T) Record {
		return Record{
			Key: blob.Draw(t, "key"), Value: blob.Draw(t, "value"), Headers: rapid.SliceOfN(header, 0, 5).Draw(t, "headers"),
			Time: time.UnixMilli(rapid.Int64Range(1, 4e12).Draw(t, "time")),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.SliceOfN(record, 1, 4), 1, 8).Draw(t, "entries")
		claim := event.Claim{ProducerID: rapid.Int64Min(0).Draw(t, "pid"), Epoch: rapid.Int16Min(0).Draw(t, "epoch")}
		seq := rapid.Int32Min(0).Draw(t, "seq")
		b := new(batchPool).get()
		var all []Record
		for _, records := range entries {
			if _, fits := b.add(records, at77, 1<<20); !fits {
				t.Fatalf("%d records do not fit into 1 MiB", len(records))
			}
			all = append(all, records...)
		}
		b.seal(claim, seq, 5)
		checkBatch(t, b, claim, seq, all)
	})
}

func checkBatch(t *rapid.T, b *batch, claim event.Claim, seq int32, want []Record) {
	var got kmsg.RecordBatch
	if err := got.ReadFrom(b.buf); err != nil {
		t.Fatalf("kmsg does not read it: %v", err)
	}
	if !bytes.Equal(got.AppendTo(nil), b.buf) {
		t.Fatalf("kmsg writes the batch differently")
	}
	if crc := int32(crc32.Checksum(b.buf[21:], crc32.MakeTable(crc32.Castagnoli))); got.CRC != crc {
		t.Fatalf("CRC: got %d, want %d", got.CRC, crc)
	}
	head := kmsg.RecordBatch{
		Length: int32(len(b.buf) - 12), PartitionLeaderEpoch: -1, Magic: 2, CRC: got.CRC,
		LastOffsetDelta: int32(len(want) - 1), ProducerID: claim.ProducerID, ProducerEpoch: claim.Epoch,
		FirstSequence: seq, NumRecords: int32(len(want)), Records: got.Records,
		FirstTimestamp: want[0].Time.UnixMilli(),
	}
	for _, r := range want {
		head.MaxTimestamp = max(head.MaxTimestamp, r.Time.UnixMilli())
	}
	if !bytes.Equal(head.AppendTo(nil), b.buf) {
		t.Fatalf("header: got %+v, want %+v", got, head)
	}
	raw := got.Records
	for i, r := range want {
		length, width := binary.Varint(raw)
		var rec kmsg.Record
		if err := rec.ReadFrom(raw[:int(length)+width]); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		raw = raw[int(length)+width:]
		if rec.OffsetDelta != int32(i) || rec.TimestampDelta64 != r.Time.UnixMilli()-head.FirstTimestamp {
			t.Fatalf("record %d: got offset delta %d, time delta %d", i, rec.OffsetDelta, rec.TimestampDelta64)
		}
		if !sameBlob(rec.Key, r.Key) || !sameBlob(rec.Value, r.Value) || len(rec.Headers) != len(r.Headers) {
			t.Fatalf("record %d: got %+v, want %+v", i, rec, r)
		}
		for h := range r.Headers {
			if rec.Headers[h].Key != r.Headers[h].Key || !sameBlob(rec.Headers[h].Value, r.Headers[h].Value) {
				t.Fatalf("record %d header %d: got %+v, want %+v", i, h, rec.Headers[h], r.Headers[h])
			}
		}
	}
	if len(raw) != 0 {
		t.Fatalf("%d bytes behind the last record", len(raw))
	}
}

// sameBlob tells null from empty.
func sameBlob(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func TestEntryThatDoesNotFitLeavesTheBatchAsItWas(t *testing.T) {
	t.Parallel()
	small := []Record{{Value: []byte("small"), Time: time.UnixMilli(1000)}}
	large := []Record{{Value: []byte("x"), Time: time.UnixMilli(9000)}, {Value: make([]byte, 500), Time: time.UnixMilli(100)}}
	one, two := new(batchPool).get(), new(batchPool).get()
	for _, b := range []*batch{one, two} {
		if _, fits := b.add(small, at77, 200); !fits {
			t.Fatal("the small entry does not fit")
		}
	}
	if _, fits := two.add(large, at77, 200); fits {
		t.Fatal("an entry of 500 bytes fits into 200")
	}
	for _, b := range []*batch{one, two} {
		if _, fits := b.add(small, at77, 200); !fits {
			t.Fatal("the second small entry does not fit")
		}
		b.seal(event.Claim{ProducerID: 1, Epoch: 2}, 3, 4)
	}
	if !bytes.Equal(one.buf, two.buf) {
		t.Errorf("the batch after a refused entry: got %x, want %x", two.buf, one.buf)
	}
}

func TestSequenceWrapsToZeroAfterMaxInt32(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ seq, n, want int32 }{
		{0, 1, 1},
		{math.MaxInt32 - 1, 1, math.MaxInt32},
		{math.MaxInt32, 1, 0},
		{math.MaxInt32 - 2, 5, 2},
	} {
		if got := nextSequence(c.seq, c.n); got != c.want {
			t.Errorf("after %d records from %d: got %d, want %d", c.n, c.seq, got, c.want)
		}
	}
}

func TestVarintBytesIsTheEncodedLength(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64().Draw(t, "n")
		if got, want := varintBytes(n), len(binary.AppendVarint(nil, n)); got != want {
			t.Fatalf("varintBytes(%d): got %d, want %d", n, got, want)
		}
	})
}

// at77 is a clock that stands at 77 ms.
func at77() time.Time { return time.UnixMilli(77) }
