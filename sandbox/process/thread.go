package process

import (
	"os/exec"
	"runtime"
	"sync"
)

type launch struct {
	cmd  *exec.Cmd
	done chan error
}

var launches = sync.OnceValue(func() chan<- launch {
	c := make(chan launch)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread lives as long as the process
		for l := range c {
			l.done <- l.cmd.Start()
		}
	}()
	return c
})

// startOnLastingThread starts cmd from one thread that never ends. The kernel
// sends the parent-death signal when the thread that forked ends, not when the
// process does, and Go ends idle threads as it likes.
func startOnLastingThread(cmd *exec.Cmd) error {
	l := launch{cmd: cmd, done: make(chan error, 1)}
	launches() <- l
	return <-l.done
}
