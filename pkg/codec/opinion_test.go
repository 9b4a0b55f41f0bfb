package codec

import (
	"strings"
	"testing"
)

func TestSecondOpinionAgreesOnSoundBodies(t *testing.T) {
	t.Parallel()
	s := compile(t, orderPlacedV1)
	for variant := range s.variants() {
		if err := SecondOpinion(s, appendSample(nil, s.root, variant, sampleDepth)); err != nil {
			t.Errorf("variant %d: %v", variant, err)
		}
	}
	// Two blocks where goavro writes one: other bytes, the same value.
	if err := SecondOpinion(compile(t, `{"type":"array","items":"int"}`), varints(1, 5, -2, 2, 6, 7, 0)); err != nil {
		t.Errorf("blocks: %v", err)
	}
}

func TestSecondOpinionDissents(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		schema, want string
		body         []byte
	}{
		"a body that the guard refuses": {`"int"`, "refused by the guard", []byte{2, 2}},
		"a key that stands twice":       {`{"type":"map","values":"int"}`, "goavro does not read it", join(varints(2, 1), []byte("k"), varints(5, 1), []byte("k"), varints(6, 0))},
	} {
		err := SecondOpinion(compile(t, row.schema), row.body)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", name, err, row.want)
		}
	}
}
