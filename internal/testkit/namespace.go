package testkit

import (
	"math/rand/v2"
	"testing"
)

// Namespace is a random namespace, valid by the rule [a-z][a-z0-9]{0,14}.
func Namespace(t testing.TB) string {
	t.Helper()
	name := "t" + randomName(11)
	t.Logf("namespace %s", name)
	return name
}

func randomName(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	name := make([]byte, n)
	for i := range name {
		name[i] = alphabet[rand.IntN(len(alphabet))]
	}
	return string(name)
}
