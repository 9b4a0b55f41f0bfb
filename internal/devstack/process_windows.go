package devstack

import (
	"os"
	"os/exec"
	"syscall"
)

// Windows has one signal only; a stop there is a kill, which the servers'
// logs survive.
var (
	sigTerm  os.Signal = os.Kill
	sigFast  os.Signal = os.Kill
	sigPause os.Signal = syscall.Signal(0x13)
	sigCont  os.Signal = syscall.Signal(0x12)
)

const nobody = 0

func setChildAttributes(*exec.Cmd, os.Signal) {}

func runsAsRoot() bool { return false }

func dropRoot(*exec.Cmd) {}

func processAlive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	_ = p.Release()
	return true
}
