package process

import "syscall"

// attributes give the child a process group of its own, so that Ctrl-C in a
// terminal reaches only us and we stop the children in order; should we be
// killed instead, the kernel kills them.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
