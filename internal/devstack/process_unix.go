//go:build unix

package devstack

import (
	"os"
	"os/exec"
	"syscall"
)

const (
	sigTerm  = syscall.SIGTERM
	sigFast  = syscall.SIGINT // Postgres: roll back, disconnect, stop
	sigPause = syscall.SIGSTOP
	sigCont  = syscall.SIGCONT
)

// nobody is who Postgres runs as when we are root: it refuses root itself.
const nobody = 65534

func childAttributes(cmd *exec.Cmd) *syscall.SysProcAttr {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	return cmd.SysProcAttr
}

func runsAsRoot() bool { return os.Geteuid() == 0 }

// dropRoot makes cmd run as nobody when we are root.
func dropRoot(cmd *exec.Cmd) {
	if runsAsRoot() {
		childAttributes(cmd).Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
}

// processAlive says whether a process with that id exists, whoever owns it.
func processAlive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || err == syscall.EPERM
}
