package real

import "syscall"

// childAttributes have the kernel end a child with this process, whatever ends it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
