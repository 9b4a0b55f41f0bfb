//go:build race

package real

// slowdown is how much less load the tests make, where the embedded broker runs under the race
// detector.
const slowdown = 6
