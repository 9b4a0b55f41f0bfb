//go:build unix && !linux

package devstack

import (
	"os"
	"os/exec"
)

// setChildAttributes cannot tie the child's life to ours here: a SIGKILL of
// this program leaves its children behind, and the next start finds them by
// their lock or pid file.
func setChildAttributes(cmd *exec.Cmd, _ os.Signal) {
	childAttributes(cmd).Setpgid = true
}
