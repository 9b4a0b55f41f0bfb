package codec

import (
	"bytes"
	"testing"
)

func benchJSON(b *testing.B) (*Codec, Payload, []byte) {
	b.Helper()
	c, _, value := benchWorld(b)
	p, err := c.Inspect(b.Context(), "order.Placed", value)
	if err != nil {
		b.Fatal(err)
	}
	text, err := c.AppendJSON(nil, p)
	if err != nil {
		b.Fatal(err)
	}
	return c, p, text
}

func BenchmarkAppendJSON(b *testing.B) {
	c, p, text := benchJSON(b)
	var buf []byte
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = c.AppendJSON(buf[:0], p); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkEncodeJSON(b *testing.B, c *Codec, reg *Registered, text, want []byte) {
	b.Helper()
	var buf []byte
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = c.EncodeJSON(buf[:0], reg, text); err != nil {
			b.Fatal(err)
		}
	}
	if !bytes.Equal(buf, want) {
		b.Fatalf("got % x, want % x", buf, want)
	}
}

func BenchmarkEncodeJSON(b *testing.B) {
	c, p, text := benchJSON(b)
	benchmarkEncodeJSON(b, c, p.Registered, text, p.Body)
}

// BenchmarkEncodeJSONReordered: names sorted, white space, as many clients write.
func BenchmarkEncodeJSONReordered(b *testing.B) {
	c, p, _ := benchJSON(b)
	text := []byte(`{
  "at": "2023-11-14T22:13:20Z",
  "customer": "c-1027",
  "labels": {"channel": "web"},
  "lines": [
    {"count": 2, "sku": "sku-1", "weight": 1.5},
    {"count": 1, "sku": "sku-2", "weight": 0.25}
  ],
  "note": "leave at the door",
  "paid": true,
  "status": "open",
  "total": 129900
}`)
	benchmarkEncodeJSON(b, c, p.Registered, text, p.Body)
}
