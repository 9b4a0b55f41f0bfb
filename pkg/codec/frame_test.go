package codec

import (
	"bytes"
	"errors"
	"testing"
)

func TestFramesAreTakenApart(t *testing.T) {
	t.Parallel()
	confluent := append(AppendConfluent(nil, 0x01020304), "body"...)
	single := append(AppendSingleObject(nil, 0x0102030405060708), "body"...)
	if want := []byte{0, 1, 2, 3, 4}; !bytes.HasPrefix(confluent, want) {
		t.Errorf("Confluent header: got % x, want % x", confluent[:5], want)
	}
	if want := []byte{0xC3, 1, 8, 7, 6, 5, 4, 3, 2, 1}; !bytes.HasPrefix(single, want) {
		t.Errorf("single-object header: got % x, want % x", single[:10], want)
	}
	got, err := ParseFrame(confluent)
	if err != nil || got.Framing != FramingConfluent || got.ID != 0x01020304 || string(got.Body) != "body" {
		t.Errorf("Confluent: got %+v, %v", got, err)
	}
	got, err = ParseFrame(single)
	if err != nil || got.Framing != FramingSingleObject || got.Fingerprint != 0x0102030405060708 || string(got.Body) != "body" {
		t.Errorf("single-object: got %+v, %v", got, err)
	}
}

func TestUnframedValuesAreRefused(t *testing.T) {
	t.Parallel()
	for name, value := range map[string][]byte{
		"tombstone":               nil,
		"empty":                   {},
		"json":                    []byte(`{"a":1}`),
		"short Confluent header":  {0, 0, 0, 1},
		"negative schema id":      {0, 0xff, 0xff, 0xff, 0xff, 2},
		"first magic byte alone":  {0xC3},
		"wrong second magic byte": {0xC3, 2, 1, 2, 3, 4, 5, 6, 7, 8},
		"short fingerprint":       {0xC3, 1, 1, 2, 3, 4, 5, 6, 7},
	} {
		if _, err := ParseFrame(value); !errors.Is(err, ErrFrame) || !errors.Is(err, ErrBadData) {
			t.Errorf("%s: got %v, want an error that wraps ErrFrame and ErrBadData", name, err)
		}
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{0, 0, 0, 0, 7, 2})
	f.Add([]byte{0xC3, 1, 1, 2, 3, 4, 5, 6, 7, 8, 2})
	f.Fuzz(func(t *testing.T, value []byte) {
		frame, err := ParseFrame(value)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Fatalf("error %v does not wrap ErrFrame", err)
			}
			return
		}
		var again []byte
		switch frame.Framing {
		case FramingConfluent:
			again = AppendConfluent(nil, frame.ID)
		case FramingSingleObject:
			again = AppendSingleObject(nil, frame.Fingerprint)
		default:
			t.Fatalf("framing %d is none of the two", frame.Framing)
		}
		if again = append(again, frame.Body...); !bytes.Equal(again, value) {
			t.Fatalf("frame of % x writes % x", value, again)
		}
	})
}
