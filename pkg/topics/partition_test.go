package topics_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// TestPartitionAgreesWithJava reads the vectors that every client in another language is checked
// against; they were computed by Kafka's own Java client.
func TestPartitionAgreesWithJava(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../test/vectors/murmur2.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		PartitionCounts []int32
		Vectors         []struct {
			Text       *string
			KeyHex     string
			Murmur2    int32
			Partitions []int32
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) < 40 {
		t.Fatalf("got %d vectors, want 40 or more", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		key, err := hex.DecodeString(v.KeyHex)
		if err != nil {
			t.Fatal(err)
		}
		if v.Text != nil && *v.Text != string(key) {
			t.Errorf("key %s: text is %q, the bytes say %q", v.KeyHex, *v.Text, key)
		}
		if got := int32(topics.Murmur2(key)); got != v.Murmur2 {
			t.Errorf("Murmur2(%s) = %d, want %d", v.KeyHex, got, v.Murmur2)
		}
		for i, n := range file.PartitionCounts {
			if got := topics.Partition(key, n); got != v.Partitions[i] {
				t.Errorf("Partition(%s, %d) = %d, want %d", v.KeyHex, n, got, v.Partitions[i])
			}
		}
	}
}

// TestPartitionKnownValues holds the values of Kafka's own unit test, so that a vectors file
// that went wrong as a whole is noticed.
func TestPartitionKnownValues(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := int32(topics.Murmur2([]byte(key))); got != want {
			t.Errorf("Murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestPartitionAgreesWithFranz(t *testing.T) {
	t.Parallel()
	franz := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "key")
		n := rapid.Int32Range(1, 10_000).Draw(t, "partitions")
		got, want := topics.Partition(key, n), franz.Partition(&kgo.Record{Key: key}, int(n))
		if int(got) != want {
			t.Fatalf("Partition(%x, %d) = %d, franz-go says %d", key, n, got, want)
		}
	})
}
