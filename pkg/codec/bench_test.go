package codec

import (
	"context"
	"testing"
)

func benchWorld(b *testing.B) (*Codec, *Binding, []byte) {
	b.Helper()
	c := New(NewStaticReader(register(b, 7, "order.Placed", 1, orderPlacedV1)), Config{})
	binding, err := c.Bind(context.Background(), placedDef())
	if err != nil {
		b.Fatal(err)
	}
	value, err := binding.Append(nil, ordinary())
	if err != nil {
		b.Fatal(err)
	}
	return c, binding, value
}

func BenchmarkGuard(b *testing.B) {
	_, binding, value := benchWorld(b)
	s := binding.Registered().Schema
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Check(value[ConfluentHeaderBytes:], Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInspect(b *testing.B) {
	c, _, value := benchWorld(b)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Inspect(ctx, "order.Placed", value); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeStruct(b *testing.B) {
	c, binding, value := benchWorld(b)
	p, err := c.Inspect(context.Background(), "order.Placed", value)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := binding.Decode(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeMap(b *testing.B) {
	c, _, value := benchWorld(b)
	p, err := c.Inspect(context.Background(), "order.Placed", value)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.DecodeMap(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeStruct(b *testing.B) {
	_, binding, _ := benchWorld(b)
	var v any = ordinary()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = binding.Append(buf[:0], v); err != nil {
			b.Fatal(err)
		}
	}
}
