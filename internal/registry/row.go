package registry

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// row is one value of the schemas topic.
type row struct {
	Subject     string     `json:"subject"`
	Version     int        `json:"version"`
	ID          int32      `json:"id"`
	Kind        event.Kind `json:"kind"`
	Schema      string     `json:"schema"`
	Fingerprint string     `json:"fingerprint"` // CRC-64-AVRO, 16 hex digits
}

func rowKey(typ string, version int) string { return typ + "/" + strconv.Itoa(version) }

func encodeRow(reg *codec.Registered) (key, value []byte, err error) {
	value, err = json.Marshal(row{
		Subject: reg.Type, Version: reg.Version, ID: reg.ID, Kind: reg.Kind,
		Schema: reg.Schema.Text(), Fingerprint: reg.Schema.Fingerprint().String(),
	})
	return []byte(rowKey(reg.Type, reg.Version)), value, err
}

// decodeRow trusts nothing: the topic may have been written by something else.
func decodeRow(key, value []byte) (*codec.Registered, error) {
	if len(value) == 0 {
		return nil, fmt.Errorf("the value is empty")
	}
	var r row
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("the value is no row: %w", err)
	}
	if want := rowKey(r.Subject, r.Version); string(key) != want {
		return nil, fmt.Errorf("the key is %q, the row says %q", clip(string(key)), clip(want))
	}
	if r.ID < 1 || r.Version < 1 {
		return nil, fmt.Errorf("id %d and version %d: want both from 1 on", r.ID, r.Version)
	}
	if err := checkType(r.Subject); err != nil {
		return nil, err
	}
	if err := checkKind(r.Kind); err != nil {
		return nil, err
	}
	schema, err := codec.Parse(r.Schema)
	if err != nil {
		return nil, err
	}
	if got := schema.Fingerprint().String(); got != r.Fingerprint {
		return nil, fmt.Errorf("the schema's fingerprint is %s, the row says %q", got, clip(r.Fingerprint))
	}
	if typ, _ := Describe(schema, ""); typ != r.Subject || !schema.IsRecord() {
		return nil, fmt.Errorf("the schema is of type %q, the row says %q", clip(typ), clip(r.Subject))
	}
	return &codec.Registered{ID: r.ID, Type: r.Subject, Version: r.Version, Kind: r.Kind, Schema: schema}, nil
}
