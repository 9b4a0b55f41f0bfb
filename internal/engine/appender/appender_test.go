package appender

import (
	"testing"

	"github.com/foldstream/foldstream/internal/testkit"
)

func TestSmoke(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		a := w.appender()
		one := w.claim(a)
		mustWrite(t, one, "a", 1)
		mustWrite(t, one, "b", 2)
		two := w.claim(w.appender())
		if two.ClaimOffset() != 3 {
			t.Fatal(two.ClaimOffset())
		}
		mustWrite(t, two, "c", 4)
		t.Log(write(t, one, "d"), one.Err())
		wantLog(t, w, "<claim>", "a", "b", "<claim>", "c")
	})
}
