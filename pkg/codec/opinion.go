package codec

import (
	"bytes"
	"fmt"
	"reflect"

	"github.com/linkedin/goavro/v2"
)

// SecondOpinion asks an independent Avro implementation, linkedin/goavro, about a schema and
// bodies written with it. It fails where goavro does not take the schema, does not read a body
// to its end, or writes something that means another value. For tools and tests: it is slow,
// and bodies must have passed Check, since goavro itself is not safe on dishonest ones.
func SecondOpinion(s *Schema, bodies ...[]byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicked("goavro", r)
		}
	}()
	theirs, err := goavro.NewCodec(s.Text())
	if err != nil {
		return fmt.Errorf("goavro does not take the schema: %w", err)
	}
	for i, body := range bodies {
		if err := s.Check(body, Limits{}); err != nil {
			return fmt.Errorf("body %d: %w", i, err)
		}
		if err := secondOpinion(s, theirs, body); err != nil {
			return fmt.Errorf("body %d: %w", i, err)
		}
	}
	return nil
}

func secondOpinion(s *Schema, theirs *goavro.Codec, body []byte) error {
	value, rest, err := theirs.NativeFromBinary(body)
	if err != nil {
		return fmt.Errorf("goavro does not read it: %w", err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("goavro leaves %d bytes of it", len(rest))
	}
	again, err := theirs.BinaryFromNative(nil, value)
	if err != nil {
		return fmt.Errorf("goavro does not write what it read: %w", err)
	}
	if bytes.Equal(again, body) {
		return nil
	}
	// Maps come in any order and arrays in any blocks: compare what the bytes mean.
	var ours, fromTheirs any
	if err := decode(s.avro, body, &ours); err != nil {
		return err
	}
	if err := decode(s.avro, again, &fromTheirs); err != nil {
		return fmt.Errorf("goavro writes what does not decode: %w", err)
	}
	if !reflect.DeepEqual(ours, fromTheirs) {
		return fmt.Errorf("goavro reads another value: it writes % x", again[:min(len(again), 32)])
	}
	return nil
}
