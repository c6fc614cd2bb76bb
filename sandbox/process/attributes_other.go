//go:build unix && !linux

package process

import "syscall"

// attributes give the child a process group of its own. Only Linux has a
// parent-death signal: elsewhere a killed sandbox leaves its children behind.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
