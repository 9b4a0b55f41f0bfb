package devstack

import (
	"os"
	"os/exec"
	"syscall"
)

func setChildAttributes(cmd *exec.Cmd, deathSignal os.Signal) {
	attr := childAttributes(cmd)
	attr.Setpgid = true
	if sig, ok := deathSignal.(syscall.Signal); ok {
		attr.Pdeathsig = sig
	}
}
