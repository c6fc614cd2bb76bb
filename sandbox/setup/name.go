package setup

import (
	"fmt"
	"sync"
)

var (
	namesLock sync.Mutex
	names     = map[string]int{}
)

// UniqueName is the name, or with a number when a test is repeated: what an earlier one left stays in the cluster.
func UniqueName(name string) string {
	namesLock.Lock()
	defer namesLock.Unlock()
	if names[name]++; names[name] > 1 {
		return fmt.Sprintf("%s-%d", name, names[name])
	}
	return name
}
