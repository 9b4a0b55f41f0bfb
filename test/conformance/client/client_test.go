package client

import (
	"testing"
)

// behaviour is one thing that a client does, whatever it speaks.
type behaviour struct {
	name string
	run  func(t *testing.T, w *world)
}

func TestClient(t *testing.T) {
	t.Parallel()
	behaviours := append(append(requests, reads...), following...)
	worlds(t, func(t *testing.T, w *world) {
		t.Run("group", func(t *testing.T) { // so that the world outlives its parallel tests
			for _, b := range behaviours {
				t.Run(b.name, func(t *testing.T) {
					t.Parallel()
					b.run(t, w)
				})
			}
		})
	})
}
