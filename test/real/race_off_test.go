//go:build !race

package real

const slowdown = 1
